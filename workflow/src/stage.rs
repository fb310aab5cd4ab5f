//! `ctx.stage` and `ctx.task`: one LLM stage, recorded.

use agentwire_agent::{
    FailureClass, Limits, SessionRef, StageError, StageOutcome, StageSpec, run_stage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::failure::{Code, Disposition, Failure};
use crate::hash::durable_hash;
use crate::key::{Kind, session_id};
use crate::output::{MaxOutput, Output};
use crate::ports::McpScope;
use crate::record::Record;
use crate::run::{Entry, Slot};

/// What a stage may use and how it answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StageOptions {
    /// Models in the order they are asked; empty: the runner's own.
    pub models: Vec<String>,
    /// System prompt; `None`: the runner's own.
    pub system: Option<String>,
    /// Names of the tools that may be used; `None`: all the runner has.
    pub tools: Option<Vec<String>>,
    /// JSON schema of the answer; `None`: text.
    pub schema: Option<Value>,
    /// Limits; `None`: the runner's own.
    pub limits: Option<Limits>,
    /// MCP tools that may be used; `None`: no such list.
    pub mcp_allow: Option<Vec<String>>,
    /// MCP tools that may not be used; `None`: no such list.
    pub mcp_deny: Option<Vec<String>>,
    /// Where the answer goes. Not in the fingerprint: it does not change what is asked.
    pub output: Output,
    /// How much of an answer in text is given and recorded; `None`: all of it.
    pub max_output: Option<MaxOutput>,
}

impl StageOptions {
    fn spec(&self, prompt: &str) -> StageSpec {
        let mut spec = StageSpec::new(prompt);
        spec.models.clone_from(&self.models);
        spec.system.clone_from(&self.system);
        spec.tools.clone_from(&self.tools);
        spec.schema.clone_from(&self.schema);
        spec.limits.clone_from(&self.limits);
        spec
    }

    /// The fingerprint of what the key does not say.
    fn print(&self, prompt: &str) -> String {
        durable_hash(&json!({
            "prompt": prompt,
            "models": self.models,
            "system": self.system,
            "tools": self.tools,
            "schema": self.schema,
        }))
    }

    /// The run's models, where the stage would be made by them.
    fn models_of_run<'a>(&self, ctx: &'a Ctx) -> &'a [String] {
        if self.models.is_empty() { ctx.pass.engine.parts.runner.models() } else { &[] }
    }
}

/// What a stage said.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The answer: text, or the value that fits the schema.
    pub value: Value,
    /// Whether it comes from a record.
    pub replayed: bool,
    /// Its session, where it has one.
    pub session: Option<SessionRef>,
    /// What it took: model, attempts, tokens, turns, time. As recorded.
    pub took: Value,
}

impl Said {
    /// The answer as text; that of a schema as JSON.
    pub fn text(&self) -> String {
        match &self.value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }
}

/// What is kept beside a stage's answer.
#[derive(Serialize, Deserialize, Default)]
struct Detail {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<SessionRef>,
    #[serde(default)]
    took: Value,
    /// The run's models, for a stage that names none. Not a part of the fingerprint: whoever only
    /// replays has no models to compare.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
}

impl Detail {
    fn of(record: &Record) -> Self {
        let detail = record.detail.clone().unwrap_or(Value::Null);
        serde_json::from_value(detail).unwrap_or_default()
    }
}

/// A stage that is being prepared. Its key was fixed when it was called.
#[derive(Debug)]
#[must_use = "a stage does nothing until `prompt`"]
pub struct StageCall {
    ctx: Ctx,
    slot: Slot,
    options: StageOptions,
}

impl Ctx {
    /// One LLM stage of this name. Calls of one name are told apart by their order.
    pub fn stage(&self, name: &str) -> StageCall {
        let slot = self.reserve(name, |ordinals| ordinals.stage(name));
        StageCall { ctx: self.clone(), slot, options: StageOptions::default() }
    }
}

impl StageCall {
    /// Sets everything the stage may use.
    pub fn options(mut self, options: StageOptions) -> Self {
        self.options = options;
        self
    }

    /// Asks for an answer that fits this JSON schema.
    pub fn schema(mut self, schema: Value) -> Self {
        self.options.schema = Some(schema);
        self
    }

    /// Sets the models in the order they are asked.
    pub fn models<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.options.models = models.into_iter().map(Into::into).collect();
        self
    }

    /// Runs the stage to its end, unless its answer is recorded. A stage whose process died in the
    /// middle opens its conversation again and goes on.
    ///
    /// # Errors
    /// [`Error::Stage`] with the class of the failure; a run that is called off; a store that
    /// fails; [`Error::Diverged`].
    pub async fn prompt(self, prompt: &str) -> Result<Said> {
        let Self { ctx, slot, options } = self;
        said(&ctx, &slot, &options, prompt, |value| value).await
    }
}

/// Runs the stage in `slot`; `file` makes the recorded value of the answer.
pub(crate) async fn said(
    ctx: &Ctx,
    slot: &Slot,
    options: &StageOptions,
    prompt: &str,
    file: impl FnOnce(Value) -> Value,
) -> Result<Said> {
    let print = options.print(prompt);
    let replace = match ctx.enter_with(slot, &print, options.models_of_run(ctx))? {
        Entry::Replay(record) => return Ok(from_record(&record, true)),
        Entry::Live { replace } => replace,
    };
    let permit = ctx.slot_of_limiter().await;
    let began = ctx.step_started(slot);
    let made = match permit {
        Ok(_permit) => make(ctx, slot, options, prompt, &print, replace, file).await,
        Err(stopped) => Err(stopped),
    };
    ctx.step_ended(slot, began, &made);
    made.map(|record| from_record(&record, false))
}

fn from_record(record: &Record, replayed: bool) -> Said {
    let Detail { session, took, .. } = Detail::of(record);
    Said { value: record.value.clone().unwrap_or(Value::Null), replayed, session, took }
}

async fn make(
    ctx: &Ctx,
    slot: &Slot,
    options: &StageOptions,
    prompt: &str,
    print: &str,
    replace: bool,
    file: impl FnOnce(Value) -> Value,
) -> Result<Record> {
    ctx.gate()?;
    let scope = McpHold::of(ctx, slot, options);
    let mut spec = options.spec(prompt);
    if let Some(scope) = &scope {
        spec.tools = scope.port.tools(&scope.stage, spec.tools);
    }
    let models = options.models_of_run(ctx);
    let outcome = converse(ctx, slot, &spec, models, print, replace).await?;
    let answer = match &outcome.value {
        Some(value) => value.clone(),
        None => Value::from(outcome.text()),
    };
    let answer = crate::output::given(ctx, &slot.name, options, answer).await?;
    let mut record = slot.record(print, Some(file(answer)), ctx.now());
    let took = serde_json::to_value(&outcome.outcome).map(|mut took| {
        // The answer is the record's value already.
        if let Some(fields) = took.as_object_mut() {
            fields.remove("text");
        }
        took
    });
    let session = Some(outcome.session);
    let took = took.unwrap_or(Value::Null);
    let detail = Detail { session, took, models: models.to_vec() };
    record.detail = serde_json::to_value(detail).ok();
    ctx.record(record, replace).await
}

/// Talks to the model. The session is on record before the first byte is sent.
async fn converse(
    ctx: &Ctx,
    slot: &Slot,
    spec: &StageSpec,
    models: &[String],
    print: &str,
    replace: bool,
) -> Result<StageOutcome> {
    let prior = prior_session(ctx, slot, print, replace);
    match talk(ctx, slot, spec, models, print, prior.as_ref()).await? {
        Ok(outcome) => return Ok(outcome),
        Err(StageError::SessionMissing { .. }) if prior.is_some() => {}
        Err(error) => return Err(stage_error(slot, &error)),
    }
    // Whoever removed it wants no more of it, and without it the run could never go on.
    let (kind, key, name) = (slot.key.kind, slot.key.key.clone(), slot.name.clone());
    ctx.tell(&Event::SessionLost { kind, key, name });
    let begun = talk(ctx, slot, spec, models, print, None).await?;
    begun.map_err(|error| stage_error(slot, &error))
}

fn stage_error(slot: &Slot, error: &StageError) -> Error {
    let failure = match error {
        StageError::SessionInUse { .. } => Failure::new(Code::SessionInUse, error.to_string()),
        _ => failure_of(error),
    };
    Error::Stage { name: slot.name.clone(), failure }
}

/// One attempt in this session, or in a new one. The outer error is the run's, the inner the
/// stage's.
async fn talk(
    ctx: &Ctx,
    slot: &Slot,
    spec: &StageSpec,
    models: &[String],
    print: &str,
    prior: Option<&SessionRef>,
) -> Result<std::result::Result<StageOutcome, StageError>> {
    let cancel = ctx.token.child_token();
    let mut unrecorded = None;
    let mut on_session = |session: &SessionRef| {
        if prior == Some(session) {
            return;
        }
        if let Err(error) = ctx.record_now(session_record(ctx, slot, print, models, session)) {
            unrecorded = Some(error);
            cancel.cancel();
        }
    };
    let runner = &*ctx.pass.engine.parts.runner;
    let ran = tokio::select! {
        biased;
        ran = run_stage(runner, spec, prior, &mut on_session, &cancel) => Some(ran),
        // A runner that does not heed the call to stop is left to itself after a while.
        () = async {
            ctx.token.cancelled().await;
            ctx.pass.engine.parts.clock.sleep(ctx.pass.engine.parts.grace).await;
        } => None,
    };
    if let Some(error) = unrecorded {
        return Err(error);
    }
    match ran {
        Some(Ok(outcome)) => Ok(Ok(outcome)),
        _ if ctx.gate().is_err() => Err(ctx.why()),
        Some(Err(error)) => Ok(Err(error)),
        None => Err(ctx.why()),
    }
}

/// The session to go on with: one was recorded for the same prompt, and no answer.
fn prior_session(ctx: &Ctx, slot: &Slot, print: &str, replace: bool) -> Option<SessionRef> {
    if replace {
        return None;
    }
    let run = ctx.pass.run();
    let record = run.session(slot)?;
    // A conversation about something else is not continued.
    (record.print == print).then(|| Detail::of(record).session).flatten()
}

fn session_record(
    ctx: &Ctx,
    slot: &Slot,
    print: &str,
    models: &[String],
    session: &SessionRef,
) -> Record {
    let path = session.path.as_ref().map(|path| path.display().to_string());
    // The base ends where the hash of the session begins.
    let id = session_id("", Some(&session.id), path.as_deref());
    let hash = id.rsplit(':').next().unwrap_or_default();
    let mut record = slot.record(print, None, ctx.now());
    record.kind = Kind::Session;
    record.key = format!("{}:{hash}", slot.session_base());
    let session = Some(session.clone());
    let detail = Detail { session, took: Value::Null, models: models.to_vec() };
    record.detail = serde_json::to_value(detail).ok();
    record
}

/// The class of a stage's failure. The transport's kinds are the evidence.
fn failure_of(error: &StageError) -> Failure {
    let StageError::Model { failure } = error else {
        let code = match error {
            StageError::Cancelled => Code::Cancelled,
            _ => Code::Unknown,
        };
        return Failure::new(code, error.to_string());
    };
    let code = match failure.kind.as_str() {
        "unauthenticated" => Code::LoginRequired,
        "permission_denied" => Code::ForbiddenConfig,
        "plan_limit" => Code::QuotaLimited,
        "rate_limited" => Code::RateLimited,
        "overloaded" | "network" | "interrupted" => Code::ProviderUnavailable,
        "model_not_available" => Code::UnknownModel,
        "cancelled" => Code::Cancelled,
        _ => Code::Unknown,
    };
    // Waiting does not help: what can be waited for is never fatal, but where asking again could do
    // something twice. Somebody has to look, then the run is resumed.
    let waits = code.disposition() == Disposition::ActiveBlocked;
    let code = if waits && failure.class == FailureClass::Fatal { Code::Unknown } else { code };
    Failure { retry_after_ms: failure.retry_after_ms, ..Failure::new(code, &failure.message) }
}

/// Holds a stage's MCP scope; dropping it gives the scope back, however the stage ended.
struct McpHold<'a> {
    ctx: &'a Ctx,
    port: &'a dyn McpScope,
    stage: String,
}

impl<'a> McpHold<'a> {
    fn of(ctx: &'a Ctx, slot: &Slot, options: &StageOptions) -> Option<Self> {
        let port = ctx.pass.engine.parts.mcp.as_deref()?;
        if options.mcp_allow.is_none() && options.mcp_deny.is_none() {
            return None;
        }
        let stage = slot.key.key.clone();
        if ctx.pass.engine.parts.mcp_counts.enter(&stage) {
            port.set(&stage, options.mcp_allow.as_deref(), options.mcp_deny.as_deref());
        }
        Some(Self { ctx, port, stage })
    }
}

impl Drop for McpHold<'_> {
    fn drop(&mut self) {
        if self.ctx.pass.engine.parts.mcp_counts.leave(&self.stage) {
            self.port.clear(&self.stage);
        }
    }
}
