//! What a run tells its caller.

use serde::{Deserialize, Serialize};

use crate::context::ToolCall;
use crate::error::{Error, Result};

use super::progress::Progress;
use super::usage::Usage;

/// One event, borrowed where it is hot: text points into the frame that carried it.
///
/// This is what [`Session::poll_events`](super::Session::poll_events) hands to its sink;
/// [`EventRef::to_event`] makes the owned form.
#[derive(Debug)]
#[non_exhaustive]
pub enum EventRef<'a> {
    /// A piece of the answer, never empty.
    Text(&'a str),
    /// A piece of the model's reasoning, never empty.
    Thinking(&'a str),
    /// Output tokens since the last such event, as the service counts them; never negative.
    OutputTokens(u32),
    /// Everything that is not hot; boxed, so that what is hot is passed on in registers.
    Other(Box<Event>),
}

impl EventRef<'_> {
    /// The owned form; allocates for text.
    pub fn to_event(self) -> Event {
        match self {
            Self::Text(text) => Event::Text(text.to_owned()),
            Self::Thinking(text) => Event::Thinking(text.to_owned()),
            Self::OutputTokens(tokens) => Event::OutputTokens(tokens),
            Self::Other(event) => *event,
        }
    }

    /// Bytes that the owned form holds on the heap, roughly: for queues that are bounded in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Text(text) | Self::Thinking(text) => text.len(),
            Self::OutputTokens(_) => 0,
            Self::Other(event) => event.weight(),
        }
    }
}

/// One event of a run, owned.
///
/// The order is the service's. [`Event::Ended`] comes exactly once and last.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A piece of the answer, never empty.
    Text(String),
    /// A piece of the model's reasoning, never empty.
    Thinking(String),
    /// Output tokens since the last such event, as the service counts them.
    OutputTokens(u32),
    /// Tool calls that came together; the turn waits for the answer of each.
    ToolCalls(Vec<ToolCall>),
    /// The service no longer waits for these calls: stop the tools; answers are dropped.
    ToolsAborted(Vec<String>),
    /// The service reports what it does; nothing has to be answered.
    Progress(Progress),
    /// The service gave its state of the conversation; it is kept, whatever happens next.
    Checkpoint(CheckpointInfo),
    /// What was used so far; the last one before the end is the bill where the service sent one.
    Usage(Usage),
    /// Something a person may want to know; nothing has to be done.
    Notice(Notice),
    /// The run is over; nothing follows.
    Ended(Ended),
}

/// How a run ended: `Ok` when the turn is complete.
pub type Ended = Result<Finish, Error>;

impl PartialEq for Error {
    /// Kind, code and message: what a test or a caller that compares events means by equal.
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind()
            && self.code() == other.code()
            && self.message() == other.message()
    }
}

/// A complete turn.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Finish {
    /// What the turn used, as far as the service said.
    pub usage: Usage,
}

/// The service's state of the conversation arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    /// Size of the state in bytes.
    pub bytes: usize,
    /// Tokens of the live context, when the service said so. Not a bill.
    pub used_tokens: Option<u32>,
    /// Size of the model's context window in tokens, when the service said so.
    pub max_tokens: Option<u32>,
}

/// Something a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Notice {
    /// Bytes of a text or thinking delta were not UTF-8 and were replaced with U+FFFD (FAULTS M31).
    Utf8Replaced,
    /// A message, update or case that this version does not know was skipped.
    Unrecognised,
    /// The service asked for something that nobody here serves; it was refused at once.
    Refused {
        /// The exec or query, by its name in the schema, or its field number when unknown.
        what: String,
    },
    /// A blob of the service was not stored, and the service was told so.
    BlobRefused {
        /// Why, in a few words.
        why: String,
    },
    /// A blob came under an id that is not the SHA-256 of its bytes; it was stored as asked.
    BlobIdMismatch,
    /// The connection was lost after the turn had ended; the answer is complete.
    LostAfterEnd,
    /// The way to the service failed; another attempt follows and the turn goes on.
    Retrying {
        /// How often it was tried again, this time included.
        attempt: u32,
        /// Milliseconds until then.
        delay_ms: u64,
        /// What failed, as the error would have said it.
        why: String,
    },
    /// The service refused the request for a reason that has a remedy; it is asked again at once.
    Repairing {
        /// The remedy.
        remedy: Remedy,
    },
    /// The stream is gone while tool calls wait for their answers: they took longer than the limit,
    /// or the connection was lost. Nothing else is lost: once they are answered, the turn goes on.
    Parked,
    /// The turn goes on, on a new stream, from the history.
    Resuming,
    /// What the service now says is not what it said before the stream broke. Drop the last
    /// `text` bytes of the answer and the last `thinking` bytes of the reasoning: what follows
    /// stands in their place.
    Restarted {
        /// Bytes of text, from the end of what was handed out so far.
        text: usize,
        /// Bytes of reasoning, from the end of what was handed out so far.
        thinking: usize,
    },
    /// The state of the conversation could not be kept; the run goes on.
    NotKept {
        /// Why, in a few words.
        why: String,
    },
}

/// What is done about a refusal that has a remedy (PROTOCOL 3 and 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Remedy {
    /// The model is named by the other of its two fields.
    OtherModelForm,
    /// The conversation goes on under a fresh id.
    FreshConversation,
    /// The service lost a blob: the conversation is built anew from the history.
    Rebuild,
    /// The service did not take the token: another is used.
    OtherToken,
}

impl Event {
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Text(text) | Self::Thinking(text) => text.len(),
            Self::ToolCalls(calls) => calls.iter().map(call_weight).sum(),
            Self::Progress(progress) => progress.weight(),
            Self::ToolsAborted(ids) => ids.iter().map(String::len).sum(),
            _ => size_of::<Self>(),
        }
    }
}

/// A call's strings and, roughly, its arguments: small calls dominate, so an estimate will do.
pub(super) fn call_weight(call: &ToolCall) -> usize {
    fn value(v: &serde_json::Value) -> usize {
        match v {
            serde_json::Value::String(s) => 32 + s.len(),
            serde_json::Value::Array(items) => 32 + items.iter().map(value).sum::<usize>(),
            serde_json::Value::Object(map) => {
                32 + map.iter().map(|(k, v)| 32 + k.len() + value(v)).sum::<usize>()
            }
            _ => 32,
        }
    }
    call.id.len() + call.name.len() + value(&call.arguments)
}

impl std::fmt::Debug for Event {
    /// Sizes instead of content: an event in a log must not show what was said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Thinking(text) => write!(f, "Thinking({} bytes)", text.len()),
            Self::OutputTokens(n) => write!(f, "OutputTokens({n})"),
            Self::ToolCalls(calls) => f.debug_tuple("ToolCalls").field(calls).finish(),
            Self::ToolsAborted(ids) => f.debug_tuple("ToolsAborted").field(ids).finish(),
            Self::Progress(progress) => progress.fmt(f),
            Self::Checkpoint(info) => info.fmt(f),
            Self::Usage(usage) => usage.fmt(f),
            Self::Notice(notice) => notice.fmt(f),
            Self::Ended(end) => f.debug_tuple("Ended").field(end).finish(),
        }
    }
}
