//! How a task ended.

use agentwire::run::Usage;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::limits::LimitKind;

/// Why a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stop", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stop {
    /// The model gave its answer.
    Completed,
    /// The caller cancelled.
    Cancelled,
    /// A limit was crossed.
    Limit {
        /// Which one.
        limit: LimitKind,
    },
    /// No model could answer.
    Failed {
        /// Why the last one that was asked could not.
        failure: Failure,
    },
}

/// A model call that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The model that was asked.
    pub model: String,
    /// Why it did not answer.
    pub failure: Failure,
}

/// How a task ended, and what it took.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome {
    /// Why it ended.
    #[serde(flatten)]
    pub stop: Stop,
    /// Text of the model's last answer; what there was of it when the task was cut short.
    pub text: String,
    /// The model that answered last.
    pub model: String,
    /// Calls that failed before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Tokens of all calls together. Context figures are those of the last call.
    pub usage: Usage,
    /// Model turns.
    pub turns: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Milliseconds from the start to the end.
    pub elapsed_ms: u64,
}

impl Outcome {
    /// Whether the model gave its answer.
    pub fn is_completed(&self) -> bool {
        self.stop == Stop::Completed
    }
}

impl std::fmt::Debug for Outcome {
    /// Sizes instead of the answer.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outcome")
            .field("stop", &self.stop)
            .field("text_len", &self.text.len())
            .field("model", &self.model)
            .field("attempts", &self.attempts)
            .field("usage", &self.usage)
            .field("turns", &self.turns)
            .field("tool_calls", &self.tool_calls)
            .field("elapsed_ms", &self.elapsed_ms)
            .finish()
    }
}
