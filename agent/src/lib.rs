//! The agent runtime above the [`agentwire`] transport: from a prompt and some functions to a
//! finished task.
//!
//! ```
//! use agentwire::server::Script;
//! use agentwire_agent::tool::{Effect, tool};
//! use agentwire_agent::{Agent, Event, model::Local};
//!
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! struct Add {
//!     /// The first number.
//!     a: i64,
//!     /// The second number.
//!     b: i64,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A tool is a function with typed arguments; its schema follows from the type.
//! let add = tool("add", "Adds two numbers", |_, Add { a, b }: Add| async move {
//!     Ok((a + b).to_string())
//! })
//! .effect(Effect::ReadOnly);
//!
//! // The server side in memory plays the model: it calls the tool and says what came back. With
//! // an account this is `agentwire::Client`.
//! let script = r#"{"rules": [{"steps": [
//!     {"call": {"tool": "add", "args": {"a": 40, "b": 2}}},
//!     {"text": "It is {{result}}."},
//!     {"turn_end": {"output_tokens": 4}}]}]}"#;
//! let model = Local::new(Script::from_json(script)?)?;
//!
//! let agent = Agent::builder(model).model("composer-2").tool(add).build()?;
//! let mut running = agent.prompt("What is 40 and 2?").start();
//! let mut tools = 0;
//! while let Some(event) = running.next().await {
//!     match event {
//!         Event::Text { text } => print!("{text}"),
//!         Event::ToolFinished { result, .. } if !result.is_error => tools += 1,
//!         Event::Finished { outcome } => assert_eq!(outcome.text, "It is 42."),
//!         _ => {}
//!     }
//! }
//! assert_eq!(tools, 1);
//! # Ok(()) }
//! ```
//!
//! The parts can be taken one by one: [`turn::Turn`] is the loop as a machine without I/O,
//! [`Model`] the seam below it, [`tool`] what the model may call, [`session`] what is kept,
//! [`stage`] the entry for workflow engines.
#![forbid(unsafe_code)]

mod agent;
mod drive;
mod event;
pub mod failure;
mod generate;
pub mod limits;
#[cfg(feature = "mcp")]
pub mod mcp;
pub mod model;
pub mod outcome;
pub mod record;
mod resume;
mod running;
pub mod session;
pub mod stage;
mod stages;
pub mod tool;
pub mod turn;

pub use agent::{Agent, AgentBuilder, Task};
pub use event::{Event, Notice, ToolStatus};
pub use failure::{Failure, FailureClass};
pub use generate::Generated;
pub use limits::{LimitKind, Limits};
pub use model::{Model, ModelRequest, ModelRun};
pub use outcome::{Attempt, Outcome, Stop};
pub use running::{Control, Ended, Running};
pub use session::{Session, Store};
pub use stage::{
    SessionRef, StageError, StageOutcome, StageRunner, StageSession, StageSpec, run_stage,
};
pub use tokio_util::sync::CancellationToken;
pub use tool::{Tool, ToolContext, ToolError, ToolOutput};
