//! Durable workflows of LLM stages: async functions that survive the death of their process.
//!
//! A workflow is an async function with a context. Each call of the context that does outside work
//! (a stage, a tool, a question, a child) has a key; its result is recorded before the caller gets
//! it. A run whose process died is run again from its first line: what is recorded is given again,
//! what was under way is made again, and a stage that was talking to its model opens that
//! conversation again and goes on.
//!
//! ```
//! use std::sync::Arc;
//!
//! use agentwire_agent::Agent;
//! use agentwire_agent::model::{Reply, Scripted};
//! use agentwire_workflow::store::MemoryStore;
//! use agentwire_workflow::{Control, Engine, Input, Parallel, TaskStep, Workflow};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct In {
//!     topic: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Out {
//!     reviews: Vec<String>,
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let workflow = Workflow::builder("review")
//!     .input("topic", Input::text())
//!     .output("reviews")
//!     .body(|ctx, input: In| async move {
//!         let draft = ctx.stage("draft").prompt(&format!("Write about {}.", input.topic)).await?;
//!         let steps = ["style", "facts"]
//!             .map(|what| TaskStep::new(what).prompt(format!("Review the {what}: {}", draft.text())));
//!         let reviews = ctx.parallel(steps.to_vec(), Parallel::default()).await?;
//!         Ok(Out { reviews: reviews.into_iter().map(|one| one.text).collect() })
//!     })?;
//!
//! // A model that plays a script; `agentwire::Client` is another.
//! let agent = Agent::builder(Scripted::new(|_| Reply::new().text("fine"))).model("any").build()?;
//! // `SqliteStore::open(path)?` keeps runs on disk.
//! let engine = Engine::builder(Arc::new(MemoryStore::new()), Arc::new(agent)).build();
//! let inputs = serde_json::json!({"topic": "tides"});
//! let outcome =
//!     engine.run(&workflow, inputs.as_object().unwrap(), &Control::new()).await?;
//! assert_eq!(outcome.outputs.unwrap()["reviews"], serde_json::json!(["fine", "fine"]));
//! assert!(engine.verify(&outcome.id, &workflow).await?.is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
pub mod import;
pub mod key;
pub mod output;
pub mod pipeline;
mod pool;
pub mod ports;
pub mod record;
pub mod run;
pub mod scope;
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
