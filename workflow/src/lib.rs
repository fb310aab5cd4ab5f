//! Durable workflow stages.
#![forbid(unsafe_code)]

mod ask;
pub mod child;
pub mod clock;
pub mod ctx;
pub mod definition;
pub mod engine;
pub mod error;
pub mod event;
pub mod failure;
pub mod hash;
pub mod key;
mod pool;
pub mod ports;
pub mod record;
pub mod run;
pub mod stage;
pub mod store;
pub mod task;
pub mod tool;

pub use ctx::Ctx;
pub use definition::{Input, InputKind, Workflow};
pub use engine::{AutoResume, Control, Engine, Outcome};
pub use error::{Error, Result};
pub use run::{Exit, ExitStatus, Policy};
pub use task::{Parallel, TaskResult, TaskStep};
