//! What can go wrong, whose fault it is, and what to do.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::key::Kind;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run, or a step of it, did not give a result.
///
/// No variant holds a prompt, an answer, a tool's arguments or a secret; what a tool's own function
/// or the author's code puts into its message is theirs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The definition cannot be used.
    #[error("the workflow's definition is wrong: {0}")]
    Definition(String),
    /// The inputs do not fit the definition; each line names one of them. Nothing was stored.
    #[error("the inputs do not fit:\n{}", .0.join("\n"))]
    Inputs(Vec<String>),
    /// The outputs are not what the definition declares.
    #[error("the outputs do not fit: {0}")]
    Outputs(String),
    /// A recorded step is not the step the code asks for now.
    #[error("{0}")]
    Diverged(Box<Divergence>),
    /// Replaying without calling anything came to a step that has no record.
    #[error("nothing is recorded for the {} {key}; it would run now", .kind.as_str())]
    NotRecorded {
        /// What kind of step.
        kind: Kind,
        /// Its key.
        key: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stage failed.
    #[error("stage {name}: {}", .failure.message)]
    Stage {
        /// The stage's name.
        name: String,
        /// Why.
        failure: Failure,
    },
    /// A tool failed.
    #[error("tool {name} failed after {attempts} attempts: {message}")]
    Tool {
        /// The tool's name.
        name: String,
        /// How often it was called.
        attempts: u32,
        /// What its last error said.
        message: String,
    },
    /// A question was not answered.
    #[error("{0}")]
    Question(QuestionError),
    /// A child run ended without its outputs.
    #[error("child workflow {workflow} ended {status}: {}", .failure.message)]
    Child {
        /// The child's name.
        workflow: String,
        /// How it ended.
        status: String,
        /// Why.
        failure: Failure,
    },
    /// Steps of a parallel group failed.
    #[error("{failed} of {total} parallel steps failed; the first: {first}")]
    Parallel {
        /// How many failed.
        failed: usize,
        /// Of how many.
        total: usize,
        /// The first failure in step order.
        first: Box<Self>,
        /// All of them together.
        failure: Failure,
    },
    /// The run was cancelled.
    #[error("cancelled: {0}")]
    Cancelled(String),
    /// The run was asked to pause.
    #[error("the run was paused; resume it under its id")]
    Paused,
    /// The run has chosen its end. Author code passes it on and cannot change it.
    #[error("the run exits")]
    Exit,
    /// A child was started too deep.
    #[error("workflows may be nested {0} deep, not deeper")]
    Depth(u32),
    /// Neither a stage nor any other durable step was made.
    #[error("the workflow did nothing: it made no stage, tool call, question or child")]
    Empty,
    /// The author's own failure.
    #[error("{0}")]
    Failed(String),
    /// The author's own failure, with a class.
    #[error("{}", .0.message)]
    Classified(Failure),
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuestionError {
    /// Nobody is there to answer; the question is recorded and the run can be resumed.
    #[error("the run waits for an answer (question {key}); answer it, then resume the run")]
    Waiting {
        /// The key to answer under.
        key: String,
    },
    /// A choice was asked without anything to choose from.
    #[error("a choice needs at least one option")]
    NoOptions,
    /// The answer is not of the kind that was asked for.
    #[error("the answer must be {0}")]
    WrongAnswer(&'static str),
    /// Asking failed.
    #[error("the question could not be asked: {0}")]
    Failed(String),
}

/// How a store fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is damaged. It was set aside, nothing was overwritten.
    #[error(
        "the workflow database is damaged ({problem}); it was moved to {} and nothing of it was \
         changed. The next start begins an empty one", .moved_to.display()
    )]
    Damaged {
        /// What was found.
        problem: String,
        /// Where the damaged file is now.
        moved_to: PathBuf,
    },
    /// The database was written by a newer version of this program.
    #[error("the workflow database has version {found}, this program knows {known}: update it")]
    Newer {
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The file is not a workflow database.
    #[error("{} is not a workflow database", .0.display())]
    Foreign(PathBuf),
    /// Somebody else runs this root.
    #[error("the run is under way elsewhere ({0})")]
    Busy(String),
    /// The lease was lost: somebody killed the run or took it over. Nothing was written.
    #[error("the run was taken away from this process ({0}); nothing was written")]
    Fenced(&'static str),
    /// There is no such root.
    #[error("there is no run {0}")]
    Unknown(String),
    /// The root has ended and cannot be resumed.
    #[error("the run {id} is {status} and cannot be resumed")]
    NotResumable {
        /// Its id.
        id: String,
        /// Its status.
        status: String,
    },
    /// Reading or writing failed.
    #[error("the workflow store failed: {0}")]
    Io(String),
}

/// A recorded step that is not the step the code asks for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Divergence {
    /// What kind of step.
    pub kind: Kind,
    /// Its key.
    pub key: String,
    /// The fingerprint of what was recorded.
    pub recorded: String,
    /// The fingerprint of what is asked for now.
    pub now: String,
    /// The models that the run had for the step, where only they have changed: the fingerprints,
    /// which have those that a stage names itself, are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<OtherModels>,
}

/// The models of a run for its stages that name none, in the order they are asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherModels {
    /// Those that the recorded result was made with.
    pub recorded: Vec<String>,
    /// Those of this run.
    pub now: Vec<String>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key, recorded, now, models } = self;
        let kind = kind.as_str();
        match models {
            Some(models) => write!(
                f,
                "the {kind} {key} was recorded with the model {}, and the run has {} now",
                models.recorded.join(", "),
                models.now.join(", ")
            )?,
            None => write!(
                f,
                "the {kind} {key} was recorded for something else (fingerprint {recorded}, now \
                 {now}): its prompt, schema, models or inputs have changed"
            )?,
        }
        f.write_str(". Accept the recorded result, run the step again, or start a new run")
    }
}

impl Error {
    pub(crate) fn definition(message: impl Into<String>) -> Self {
        Self::Definition(message.into())
    }

    /// The author's own failure: the run fails with this message and can be resumed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// The class of this error: what becomes of a run that ends with it. Tokens in the message are
    /// taken out, as it is kept.
    pub fn failure(&self) -> Failure {
        let message = agentwire::redact::clean(&self.to_string());
        match self {
            Self::Stage { failure, .. }
            | Self::Child { failure, .. }
            | Self::Parallel { failure, .. }
            | Self::Classified(failure) => Failure { message, ..failure.clone() },
            Self::Cancelled(_) => Failure::new(Code::Cancelled, message),
            _ => Failure::new(Code::Unknown, message),
        }
    }

    /// Whether the run only waits: for an answer, or because somebody paused it.
    pub(crate) fn pauses(&self) -> bool {
        match self {
            Self::Paused | Self::Question(QuestionError::Waiting { .. }) => true,
            Self::Parallel { first, .. } => first.pauses(),
            _ => false,
        }
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Failed(message.to_owned())
    }
}
