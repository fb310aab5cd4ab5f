//! What of a task is kept: one record for each thing that must not be lost.

use std::sync::Arc;

use agentwire::context::{AssistantPart, Message, ToolCall, ToolResult};
use serde::{Deserialize, Serialize};

use crate::event::ToolStatus;
use crate::outcome::Outcome;

/// One record of a session's log, without its envelope. The [`Turn`](crate::turn::Turn) says what
/// is recorded and when; [`Transcript::apply`] is the inverse.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Record {
    /// Something the caller said.
    User {
        /// The message.
        message: Arc<Message>,
        /// It begins a task, it is not said into one.
        begins: bool,
    },
    /// A whole message of the model.
    Assistant {
        /// The message.
        message: Arc<Message>,
        /// Who said it.
        model: String,
    },
    /// A tool is about to run. Written before it does.
    ToolStarted {
        /// Id of the call.
        id: String,
    },
    /// A tool gave its result, or will not.
    ToolResult {
        /// What the model is told.
        result: ToolResult,
        /// What became of the call.
        status: ToolStatus,
    },
    /// Messages before `boundary` are replaced by a summary.
    Compaction {
        /// Index of the first message that stays.
        boundary: usize,
        /// Index of the message with the current task, where the boundary is behind it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<usize>,
        /// What the model made of the messages before.
        summary: String,
    },
    /// A task ended.
    End {
        /// How.
        outcome: Outcome,
    },
}

/// The messages of a session as its records tell them.
///
/// Every call is paired with a result, always: [`Transcript::messages`] closes those that have
/// none.
#[derive(Clone, Default)]
pub struct Transcript {
    messages: Vec<Arc<Message>>,
    /// Calls of the last assistant message, until each has its result.
    open: Vec<Open>,
    /// Whether a task began and has not ended, and its message.
    running: Option<usize>,
    last: Option<Outcome>,
    /// Who said the last message of a model.
    model: Option<String>,
}

#[derive(Clone)]
struct Open {
    call: ToolCall,
    started: bool,
    result: Option<ToolResult>,
}

impl Transcript {
    /// Takes in the next record. `false`: the record does not fit what came before (a result
    /// without a call, a boundary that is not there) and says nothing.
    pub fn apply(&mut self, record: &Record) -> bool {
        match record {
            Record::User { message, begins } => {
                self.settle();
                if *begins {
                    self.running = Some(self.messages.len());
                    self.last = None;
                }
                self.messages.push(Arc::clone(message));
            }
            Record::Assistant { message, model } => {
                self.settle();
                self.model = Some(model.clone());
                self.messages.push(Arc::clone(message));
                self.open = calls_of(message)
                    .map(|call| Open { call: call.clone(), started: false, result: None })
                    .collect();
            }
            Record::ToolStarted { id } => {
                let Some(open) = self.waiting(id) else { return false };
                open.started = true;
            }
            Record::ToolResult { result, .. } => {
                let Some(open) = self.waiting(&result.tool_call_id) else { return false };
                open.result = Some(result.clone());
                if self.open.iter().all(|open| open.result.is_some()) {
                    self.settle();
                }
            }
            Record::Compaction { boundary, task, summary } => {
                self.settle();
                if *boundary > self.messages.len() {
                    return false;
                }
                self.messages = compacted(&self.messages, *boundary, *task, summary);
                // Only whether there is one matters from here on.
                self.running = self.running.map(|_| 0);
            }
            Record::End { outcome } => {
                self.settle();
                self.running = None;
                self.last = Some(outcome.clone());
            }
        }
        true
    }

    fn waiting(&mut self, id: &str) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.call.id == id && open.result.is_none())
    }

    /// Puts the results behind their calls, in the order of the calls whatever order they came in:
    /// the same history gives the same bytes. Calls without a result are closed.
    fn settle(&mut self) {
        for open in self.open.drain(..) {
            let result = open.result.unwrap_or_else(|| interrupted(&open.call, open.started).0);
            self.messages.push(Arc::new(Message::ToolResult(result)));
        }
    }

    /// The calls that have no result, each with the one that closes it. Empty after a clean end.
    pub fn orphans(&self) -> Vec<Record> {
        let waiting = self.open.iter().filter(|open| open.result.is_none());
        let close = |open: &Open| {
            let (result, status) = interrupted(&open.call, open.started);
            Record::ToolResult { result, status }
        };
        waiting.map(close).collect()
    }

    /// The messages, with every call paired.
    pub fn messages(&self) -> Vec<Arc<Message>> {
        let mut whole = self.clone();
        whole.settle();
        whole.messages
    }

    /// Whether a task began that has no end: the program was stopped in the middle of it.
    pub fn is_unfinished(&self) -> bool {
        self.running.is_some()
    }

    /// How the last task ended; `None` while one is unfinished, or there was none.
    pub fn last_outcome(&self) -> Option<&Outcome> {
        self.last.as_ref()
    }

    /// The model that answered last.
    pub fn last_model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// What the last task asked for.
    pub fn last_task(&self) -> Option<String> {
        self.messages.iter().rev().find_map(|message| match &**message {
            Message::User { .. } => Some(text_of(message)),
            _ => None,
        })
    }
}

/// The result that closes a call which will not get one, and what became of the call.
pub(crate) fn interrupted(call: &ToolCall, started: bool) -> (ToolResult, ToolStatus) {
    let (text, status) = if started {
        let text = "Interrupted: the tool was started, but the program ended or stopped it before \
                    its result was known. It may have had its effect: check before calling again.";
        (text, ToolStatus::Interrupted)
    } else {
        ("Interrupted: the tool was not started, it had no effect.", ToolStatus::NotRun)
    };
    (ToolResult::error(&call.id, &call.name, text), status)
}

/// The calls in a message.
pub fn calls_of(message: &Message) -> impl Iterator<Item = &ToolCall> {
    let parts = match message {
        Message::Assistant { content } => content.as_slice(),
        _ => &[],
    };
    parts.iter().filter_map(|part| match part {
        AssistantPart::ToolCall(call) => Some(call),
        _ => None,
    })
}

/// The text in a message: thinking and images are left out.
pub fn text_of(message: &Message) -> String {
    use agentwire::context::{Part, UserContent};
    let of_parts = |parts: &[Part]| {
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text { text } => Some(text.as_str()),
            Part::Image(_) => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    };
    match message {
        Message::User { content: UserContent::Text(text) } => text.clone(),
        Message::User { content: UserContent::Parts(parts) } => of_parts(parts),
        Message::ToolResult(result) => of_parts(&result.content),
        Message::Assistant { content } => {
            let texts = content.iter().filter_map(|part| match part {
                AssistantPart::Text { text } => Some(text.as_str()),
                _ => None,
            });
            texts.collect()
        }
    }
}

/// The messages after a compaction: the summary, the current task where it would be lost, the rest.
pub(crate) fn compacted(
    messages: &[Arc<Message>],
    boundary: usize,
    task: Option<usize>,
    summary: &str,
) -> Vec<Arc<Message>> {
    let text = format!("Summary of the conversation so far:\n\n{summary}");
    let task = task.and_then(|task| messages.get(task)).cloned();
    let rest = messages.get(boundary..).unwrap_or_default().iter().cloned();
    std::iter::once(Arc::new(Message::user(text))).chain(task).chain(rest).collect()
}

impl std::fmt::Debug for Record {
    /// Kinds and ids: the rest is what people said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User { begins, .. } => write!(f, "User(begins: {begins})"),
            Self::Assistant { model, .. } => write!(f, "Assistant({model})"),
            Self::ToolStarted { id } => write!(f, "ToolStarted({id})"),
            Self::ToolResult { result, status } => {
                write!(f, "ToolResult({}, {})", result.tool_call_id, status.as_str())
            }
            Self::Compaction { boundary, .. } => write!(f, "Compaction({boundary})"),
            Self::End { outcome } => write!(f, "End({outcome:?})"),
        }
    }
}

impl std::fmt::Debug for Transcript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transcript")
            .field("messages", &self.messages.len())
            .field("open_calls", &self.open.len())
            .field("unfinished", &self.is_unfinished())
            .finish()
    }
}
