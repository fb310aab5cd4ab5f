//! [`run_stage`]: one task for a workflow engine. Everything in and out is serde.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::limits::{LimitKind, Limits};
use crate::model::Boxed;
use crate::outcome::{Outcome, Stop};

/// What one stage is to do.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct StageSpec {
    /// The task.
    pub prompt: String,
    /// System prompt; `None`: the runner's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Models in the order they are asked: the next one when a provider fails in a way that may
    /// pass. Empty: the runner's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Names of the tools that may be used, of those the runner has. `None`: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// JSON schema of the result; `None`: text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// What the stage may use; `None`: the runner's own limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

impl StageSpec {
    /// A stage that answers `prompt` in text.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..Self::default() }
    }

    /// Sets the models, in the order they are asked.
    #[must_use]
    pub fn models<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.models = models.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the system prompt.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(text.into());
        self
    }

    /// Sets the names of the tools that may be used.
    #[must_use]
    pub fn tools<T: Into<String>>(mut self, tools: impl IntoIterator<Item = T>) -> Self {
        self.tools = Some(tools.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the JSON schema of the result.
    #[must_use]
    pub fn schema(mut self, schema: Value) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Sets what the stage may use.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }
}

impl std::fmt::Debug for StageSpec {
    /// Sizes instead of prompts.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StageSpec")
            .field("prompt_len", &self.prompt.len())
            .field("models", &self.models)
            .field("tools", &self.tools)
            .field("schema", &self.schema.is_some())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Where the session of a stage is: enough to open it again in another process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionRef {
    /// Id of the session: a UUID.
    pub id: String,
    /// Id of the conversation at the service. It follows from the session's id, so it is known
    /// before the first request.
    pub conversation_id: String,
    /// The log file; `None` for a session that lives in memory only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

impl SessionRef {
    /// The reference of a session with this id, which must not be blank. Its conversation's id is
    /// derived from it.
    pub fn new(id: impl Into<String>, path: Option<PathBuf>) -> Self {
        let id = id.into();
        let conversation_id = agentwire::conversation::id::of_session(&id).unwrap_or_default();
        Self { id, conversation_id, path }
    }
}

/// What came of a stage.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StageOutcome {
    /// The session, to go on from.
    pub session: SessionRef,
    /// The result that fits [`StageSpec::schema`]; `None` without a schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// How it ended and what it took; the answer as text is in it.
    pub outcome: Outcome,
}

impl StageOutcome {
    /// What a session gave.
    pub fn new(session: SessionRef, value: Option<Value>, outcome: Outcome) -> Self {
        Self { session, value, outcome }
    }

    /// The answer as text.
    pub fn text(&self) -> &str {
        &self.outcome.text
    }
}

impl std::fmt::Debug for StageOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StageOutcome")
            .field("session", &self.session)
            .field("value", &self.value.is_some())
            .field("outcome", &self.outcome)
            .finish()
    }
}

/// Why a stage has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "error", rename_all = "snake_case")]
#[non_exhaustive]
pub enum StageError {
    /// It was cancelled. The session can be continued.
    #[error("the task was cancelled")]
    Cancelled,
    /// It used up a limit. The session can be continued.
    #[error("the task crossed its limit of {}", limit.as_str())]
    Limit {
        /// Which one.
        limit: LimitKind,
    },
    /// No model could answer; `failure.class` says whether to wait, to ask a person or to give up.
    #[error("no model answered: {failure}")]
    Model {
        /// Why the last one could not.
        failure: Failure,
    },
    /// The answer did not fit the schema, and corrections did not help.
    #[error("the answer does not fit the schema: {message}")]
    Output {
        /// What is wrong with the last answer, without its content.
        message: String,
    },
    /// The session could not be opened, read or written.
    #[error("the session cannot be used: {message}")]
    Session {
        /// What happened.
        message: String,
    },
    /// The session that was to be continued is not there. Another attempt may begin a new one.
    #[error("the session cannot be continued: {message}")]
    SessionMissing {
        /// Which one.
        message: String,
    },
    /// Another process has the session open. Another attempt may find it free.
    #[error("the session cannot be continued now: {message}")]
    SessionInUse {
        /// Which one.
        message: String,
    },
    /// The specification asks for something that cannot be: a tool that is not there, a schema
    /// that is none.
    #[error("the task cannot be run as specified: {message}")]
    Spec {
        /// What is wrong with it.
        message: String,
    },
}

impl StageError {
    /// Whether another attempt may succeed without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Model { failure } if failure.is_retryable())
    }

    /// The error of a task that did not complete; `None` for one that did.
    pub fn of(stop: &Stop) -> Option<Self> {
        match stop {
            Stop::Completed => None,
            Stop::Cancelled => Some(Self::Cancelled),
            Stop::Limit { limit } => Some(Self::Limit { limit: *limit }),
            Stop::Failed { failure } => Some(Self::Model { failure: failure.clone() }),
        }
    }
}

/// Opens sessions in which stages run. Implemented by [`Agent`](crate::Agent); object-safe, so
/// that an engine can be tested with one of its own.
pub trait StageRunner: Send + Sync {
    /// Opens a new session, or `prior` again. Sends nothing.
    ///
    /// # Errors
    /// [`StageError::Session`] and [`StageError::Spec`]; with `prior` also
    /// [`StageError::SessionMissing`] and [`StageError::SessionInUse`].
    fn open<'a>(
        &'a self,
        spec: &'a StageSpec,
        prior: Option<&'a SessionRef>,
    ) -> Boxed<'a, Result<Box<dyn StageSession>, StageError>>;

    /// The models that are asked where a stage names none, in their order; empty: it is not known.
    fn models(&self) -> &[String] {
        &[]
    }
}

/// One open session of a stage.
pub trait StageSession: Send {
    /// Where it is. Known before anything is sent, and the same until the end.
    fn session_ref(&self) -> &SessionRef;

    /// Runs the task of the stage to its end. A session that was opened again goes on where it
    /// stopped: tools whose results are in its log are not run again, and a task that had its
    /// answer already gives that without asking a model.
    ///
    /// Cancelling `cancel` ends it soon, with [`StageError::Cancelled`], and leaves the session so
    /// that it can be continued.
    ///
    /// # Errors
    /// Any [`StageError`].
    fn prompt<'a>(
        &'a mut self,
        cancel: &'a CancellationToken,
    ) -> Boxed<'a, Result<StageOutcome, StageError>>;
}

/// Runs one LLM stage to its end. Everything in and out is serde, so the call fits unchanged into
/// a step of a workflow engine, an activity, or a plain task.
///
/// `prior` is the reference of an earlier attempt: its session is opened again and continued.
/// `on_session` is called once, before the first byte is sent, so that the reference is on record
/// when anything can have happened; to stop there, cancel `cancel`.
///
/// ```
/// use agentwire_agent::model::Scripted;
/// use agentwire_agent::stage::{StageSpec, run_stage};
/// use agentwire_agent::{Agent, CancellationToken};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let runner = Agent::builder(Scripted::answers(["Paris"])).model("m").build().unwrap();
/// let spec = StageSpec::new("What is the capital of France?");
/// let mut seen = None;
/// let mut on_session = |session: &_| seen = Some(Clone::clone(session));
/// let cancel = CancellationToken::new();
/// let done = run_stage(&runner, &spec, None, &mut on_session, &cancel).await.unwrap();
/// assert_eq!(done.text(), "Paris");
/// assert_eq!(seen, Some(done.session));
/// # }
/// ```
///
/// # Errors
/// Any [`StageError`]; after [`StageError::Cancelled`], [`StageError::Limit`] and a retryable
/// [`StageError::Model`] the session can be continued with the reference that was reported.
pub async fn run_stage(
    runner: &dyn StageRunner,
    spec: &StageSpec,
    prior: Option<&SessionRef>,
    on_session: &mut (dyn FnMut(&SessionRef) + Send),
    cancel: &CancellationToken,
) -> Result<StageOutcome, StageError> {
    if cancel.is_cancelled() {
        return Err(StageError::Cancelled);
    }
    let mut session = runner.open(spec, prior).await?;
    on_session(session.session_ref());
    if cancel.is_cancelled() {
        return Err(StageError::Cancelled);
    }
    session.prompt(cancel).await
}
