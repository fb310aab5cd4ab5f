//! Our types to and from the bytes of `agent.v1`: run requests, replies, images, JSON values.
//!
//! Nothing here keeps state, waits or does I/O. What is sent is written by hand in ascending field
//! order, because blob ids are hashes of bytes and prost cannot keep that order everywhere
//! (ARCHITECTURE, generated code); what is rare in what is received is decoded by prost.

mod about;
pub(crate) mod back;
pub(crate) mod budget;
pub mod call;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
pub mod hot;
pub mod image;
pub(crate) mod json;
pub(crate) mod model;
pub(crate) mod prompt;
pub mod reply;
pub mod request;
mod schema;
pub(crate) mod tools;
pub(crate) mod turn;
pub mod value;

pub use model::{Model, ModelForm};
pub use request::{Action, History, Naming, PromptRoutes, RunRequest};
pub(crate) use tools::Offer;
pub use tools::{Schemas, ToolContext, ToolRules};

/// Whose behaviour to show where ours differs from the reference's on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Ours: everything that asks gets a typed answer that says what to do instead.
    #[default]
    Typed,
    /// The reference's (BEHAVIOUR 4 and 5), for the vectors and for comparison.
    Reference,
}
