//! The agent runtime above the [`agentwire`] transport: from a prompt and some functions to a
//! finished task.
#![forbid(unsafe_code)]

pub mod failure;
pub mod limits;
pub mod model;
pub mod outcome;
pub mod stage;

pub use failure::{Failure, FailureClass};
pub use limits::{LimitKind, Limits};
pub use model::{Model, ModelRequest, ModelRun};
pub use outcome::{Attempt, Outcome, Stop};
pub use stage::{
    SessionRef, StageError, StageOutcome, StageRunner, StageSession, StageSpec, run_stage,
};
pub use tokio_util::sync::CancellationToken;
