//! What a task tells its caller while it runs.

use agentwire::context::{ToolCall, ToolResult};
use agentwire::run::{self, Progress, Usage};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::outcome::Outcome;

/// One event of a task. [`Event::Started`] is the first and [`Event::Finished`] the last; nothing
/// follows it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The task began.
    Started {
        /// The model that is asked first.
        model: String,
    },
    /// A piece of the answer.
    Text {
        /// The text, never empty.
        text: String,
    },
    /// A piece of the model's reasoning.
    Thinking {
        /// The text, never empty.
        text: String,
    },
    /// A tool of ours begins.
    ToolStarted {
        /// What the model asked for.
        call: ToolCall,
    },
    /// A tool says how far it is.
    ToolProgress {
        /// Id of the call.
        id: String,
        /// In the tool's words.
        text: String,
    },
    /// A tool is done. Comes once for each call, also for one that was never started.
    ToolFinished {
        /// What the model is told.
        result: ToolResult,
        /// What became of the call.
        status: ToolStatus,
    },
    /// The service reports what it does itself, files and commands of a workspace included.
    Progress {
        /// What it reports.
        progress: Progress,
    },
    /// Tokens of the task so far.
    Usage {
        /// All calls together.
        usage: Usage,
    },
    /// Something a person may want to know.
    Notice {
        /// What it is.
        notice: Notice,
    },
    /// The task is over.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

/// What became of a tool call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// The tool gave a result.
    Ok,
    /// The tool failed, or the call was refused; the model is told why.
    Error,
    /// It was stopped, or the program ended, before there was a result: it may have had effects.
    Interrupted,
    /// It was never started.
    NotRun,
}

impl ToolStatus {
    /// The name in snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Interrupted => "interrupted",
            Self::NotRun => "not_run",
        }
    }
}

/// Something a person may want to know; nothing has to be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Notice {
    /// A notice of the transport.
    Transport {
        /// What it says.
        of: run::Notice,
    },
    /// A model call failed; it is made again, maybe with another model.
    Again {
        /// The model that failed.
        model: String,
        /// The model that is asked next.
        next: String,
        /// Why it failed.
        failure: Failure,
        /// Bytes of text that were handed out and are not part of the answer: it begins anew.
        discarded: usize,
    },
    /// The conversation was summarised to make room.
    Compacted {
        /// Messages that the summary stands for.
        messages: usize,
    },
    /// A message of the caller was taken into the running task.
    Steered,
    /// A follow-up of the caller is worked on now.
    FollowedUp,
}

impl std::fmt::Debug for Event {
    /// Sizes instead of content: an event in a log must not show what was said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Started { model } => write!(f, "Started({model})"),
            Self::Text { text } => write!(f, "Text({} bytes)", text.len()),
            Self::Thinking { text } => write!(f, "Thinking({} bytes)", text.len()),
            Self::ToolStarted { call } => write!(f, "ToolStarted({call:?})"),
            Self::ToolProgress { id, text } => write!(f, "ToolProgress({id}, {})", text.len()),
            Self::ToolFinished { result, status } => {
                write!(f, "ToolFinished({}, {})", result.tool_call_id, status.as_str())
            }
            Self::Progress { progress } => progress.fmt(f),
            Self::Usage { usage } => usage.fmt(f),
            Self::Notice { notice } => notice.fmt(f),
            Self::Finished { outcome } => outcome.fmt(f),
        }
    }
}
