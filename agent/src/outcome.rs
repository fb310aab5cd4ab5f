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

    /// The outcome of this task and the next one, which together are one for the caller.
    pub(crate) fn and(self, next: Self) -> Self {
        let attempts = self.attempts.into_iter().chain(next.attempts).collect();
        Self {
            attempts,
            usage: sum(self.usage, next.usage),
            turns: self.turns.saturating_add(next.turns),
            tool_calls: self.tool_calls.saturating_add(next.tool_calls),
            elapsed_ms: self.elapsed_ms.saturating_add(next.elapsed_ms),
            ..next
        }
    }
}

/// What two calls used together; context figures are those of the later one.
pub(crate) fn sum(a: Usage, b: Usage) -> Usage {
    let add = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    };
    Usage {
        input: add(a.input, b.input),
        output: a.output.saturating_add(b.output),
        cache_read: add(a.cache_read, b.cache_read),
        cache_write: add(a.cache_write, b.cache_write),
        reasoning: add(a.reasoning, b.reasoning),
        context_used: b.context_used.or(a.context_used),
        context_limit: b.context_limit.or(a.context_limit),
        billed: a.billed || b.billed,
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
