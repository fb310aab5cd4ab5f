//! Tools: what a model may call.

mod output;
mod toolbox;
mod typed;

use std::fmt;
use std::time::Duration;

use agentwire::context::{Image, Part, ToolCall};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::model::Boxed;

pub use output::OutputLimits;
pub(crate) use toolbox::faults;
pub use toolbox::{Approval, Toolbox, ToolboxError};
pub(crate) use typed::schema_of;
pub use typed::{Typed, tool};

/// What running a tool twice would do. Decides nothing here but what approval callbacks and
/// workflow engines make of it; a call that was cut short is never run again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It changes nothing.
    ReadOnly,
    /// Running it again with the same arguments changes nothing more.
    Idempotent,
    /// Each run counts.
    SideEffect,
}

/// Something that a model may call. Object-safe; for functions with typed arguments see [`tool`].
pub trait Tool: Send + Sync {
    /// Name, unique in a toolbox: 1 to 64 of `A-Z a-z 0-9 _ -`.
    fn name(&self) -> &str;

    /// What it does and when to use it, for the model.
    fn description(&self) -> &str;

    /// JSON schema of its arguments: an object.
    fn schema(&self) -> Value;

    /// What running it twice would do. Default: each run counts.
    fn effect(&self) -> Effect {
        Effect::SideEffect
    }

    /// How long one call may take. Default: the toolbox's own limit.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Runs it. `arguments` fit the schema. The future is dropped when the call is cancelled or
    /// takes too long; work that goes on elsewhere watches [`ToolContext::cancelled`].
    ///
    /// # Errors
    /// What the model is told: say what is wrong and what would work.
    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        arguments: Value,
    ) -> Boxed<'a, Result<ToolOutput, ToolError>>;
}

/// One call, as a tool sees it.
#[derive(Clone)]
pub struct ToolContext {
    pub(crate) call: ToolCall,
    pub(crate) cancelled: CancellationToken,
    pub(crate) progress: Option<tokio::sync::mpsc::Sender<(String, String)>>,
}

impl ToolContext {
    /// A call outside of a task, for tests of tools.
    pub fn detached(call: ToolCall) -> Self {
        Self { call, cancelled: CancellationToken::new(), progress: None }
    }

    /// Id of the call, unique in its task: a key for what must happen once.
    pub fn call_id(&self) -> &str {
        &self.call.id
    }

    /// Ends when the call's result is no longer wanted.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Tells the caller of the task how far it is; dropped when 1,024 such words wait. The model
    /// does not see it.
    pub fn progress(&self, text: impl Into<String>) {
        if let Some(progress) = &self.progress {
            // Words that nobody has the time to hear.
            let _unheard = progress.try_send((self.call.id.clone(), text.into()));
        }
    }
}

impl fmt::Debug for ToolContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolContext").field("call", &self.call).finish_non_exhaustive()
    }
}

/// What a tool gives: text and images.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolOutput {
    /// The parts in order.
    pub parts: Vec<Part>,
}

impl ToolOutput {
    /// Text alone.
    pub fn text(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::Text { text: text.into() }] }
    }

    /// The same output and more text.
    #[must_use]
    pub fn and_text(mut self, text: impl Into<String>) -> Self {
        self.parts.push(Part::Text { text: text.into() });
        self
    }

    /// Its text, a line for each part; images are left out.
    pub fn to_text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            Part::Image(_) => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// The same output and an image: base64 of a file, and its MIME type.
    #[must_use]
    pub fn image(mut self, data: impl Into<String>, mime_type: impl Into<String>) -> Self {
        self.parts.push(Part::Image(Image { data: data.into(), mime_type: mime_type.into() }));
        self
    }
}

impl From<String> for ToolOutput {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&str> for ToolOutput {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<Value> for ToolOutput {
    fn from(value: Value) -> Self {
        Self::text(value.to_string())
    }
}

/// Why a tool has no result, in words for the model.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ToolError(String);

impl ToolError {
    /// The model reads this: say what is wrong and what would work.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<String> for ToolError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for ToolError {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for ToolError {
    /// The size: a tool's words may hold what it read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ToolError({} bytes)", self.0.len())
    }
}
