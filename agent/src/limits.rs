//! What one task may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// What one task (one prompt up to its answer, follow-ups included) may use. Zero allows nothing;
/// `None` means without limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Limits {
    /// Model turns: answers of the model up to a batch of tool calls or the end. Default 100: more
    /// than a long task needs, fewer than a loop that nobody watches.
    pub turns: Option<u32>,
    /// Tool calls. Default 500.
    pub tool_calls: Option<u32>,
    /// Tokens, input and output together, as far as the service says. Default none.
    pub tokens: Option<u64>,
    /// Time from the start, tools included. Default none.
    pub wall: Option<Duration>,
    /// Tools at work at a time. Default 8; at least one always runs.
    pub parallel: u32,
    /// Bytes of text and thinking in one message of a model. Default 16 MiB: the largest message of
    /// the transport.
    pub message: usize,
    /// How often a broken stream is taken up again with the same model before the next is asked.
    /// Default 2: the transport has tried by itself before.
    pub interruptions: u32,
    /// Messages of the caller that may wait, of each kind. Default 256: more than a person types
    /// during a task.
    pub waiting: usize,
    /// How often the model may correct an answer that does not fit its schema. Default 3: a model that
    /// has not got it by then goes round in circles.
    pub corrections: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            turns: Some(100),
            tool_calls: Some(500),
            tokens: None,
            wall: None,
            parallel: 8,
            message: 16 << 20,
            interruptions: 2,
            waiting: 256,
            corrections: 3,
        }
    }
}

impl Limits {
    /// What is left of them after a task that used so much.
    pub(crate) fn after(&self, used: &Outcome) -> Self {
        let tokens = used.usage.input.unwrap_or(0).saturating_add(used.usage.output);
        let elapsed = Duration::from_millis(used.elapsed_ms);
        Self {
            turns: self.turns.map(|limit| limit.saturating_sub(used.turns)),
            tool_calls: self.tool_calls.map(|limit| limit.saturating_sub(used.tool_calls)),
            tokens: self.tokens.map(|limit| limit.saturating_sub(tokens)),
            wall: self.wall.map(|limit| limit.saturating_sub(elapsed)),
            ..self.clone()
        }
    }
}

/// Which limit ended a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LimitKind {
    /// [`Limits::turns`].
    Turns,
    /// [`Limits::tool_calls`].
    ToolCalls,
    /// [`Limits::tokens`].
    Tokens,
    /// [`Limits::wall`].
    Wall,
}

impl LimitKind {
    /// The name in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Turns => "turns",
            Self::ToolCalls => "tool_calls",
            Self::Tokens => "tokens",
            Self::Wall => "wall",
        }
    }
}
