//! The messages of a context as turns: a user message and the steps that answer it (BEHAVIOUR 3.6).
//!
//! Turns point into the messages by position; nothing is copied. One turn at a time is open: the
//! messages that come next may add to it.

use std::sync::Arc;

use super::arena::Arena;
use super::blobs::BlobId;
use crate::codec::json::Keys;
use crate::codec::turn::{CallOf, CallStep, text_step};
use crate::context::{AssistantPart, Message, ToolCall, ToolResult};
use crate::error::Result;

/// Message and part of it.
type At = (usize, usize);

/// What a step is made of.
#[derive(Debug, Clone)]
enum What {
    /// Adjacent pieces of answer text, or of thinking, without a separator between them.
    Text { thinking: bool, first: At, more: Vec<At> },
    /// A tool call and, when it is known, the message with its result.
    Call { call: At, result: Option<usize> },
    /// A result without its call.
    Orphan { result: usize },
}

/// A step, and its blob once that is made.
#[derive(Debug, Clone)]
struct Step {
    what: What,
    blob: Option<BlobId>,
}

/// A turn.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    /// Position of its first message.
    pub(crate) start: usize,
    /// Position of its user message; a turn that an answer opened has none.
    pub(crate) user: Option<usize>,
    /// The blob of its user message once that is made.
    pub(crate) user_blob: Option<BlobId>,
    steps: Vec<Step>,
}

/// How the steps of a turn are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style<'a> {
    /// Thinking is appended to the answer text, as the reference does (BEHAVIOUR H42).
    pub(crate) glue_thinking: bool,
    pub(crate) provider: &'a str,
    pub(crate) keys: Keys,
}

impl Turn {
    fn new(start: usize) -> Self {
        Self { start, user: None, user_blob: None, steps: Vec::new() }
    }

    /// Whether the answer has a step.
    pub(crate) fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    /// Adds the message at `index` to the open turn and gives the turn that it closes.
    pub(crate) fn absorb(
        open: &mut Option<Self>,
        messages: &[Arc<Message>],
        index: usize,
        style: Style<'_>,
    ) -> Option<Self> {
        match messages.get(index).map(|message| &**message) {
            None => None,
            Some(Message::User { .. }) => {
                let turn = Self { user: Some(index), ..Self::new(index) };
                open.replace(turn)
            }
            Some(Message::Assistant { content }) => {
                let turn = open.get_or_insert_with(|| Self::new(index));
                for (part, content) in content.iter().enumerate() {
                    turn.part((index, part), content, style);
                }
                None
            }
            Some(Message::ToolResult(result)) => {
                let turn = open.get_or_insert_with(|| Self::new(index));
                turn.result(messages, index, result);
                None
            }
        }
    }

    fn part(&mut self, at: At, part: &AssistantPart, style: Style<'_>) {
        let (text, thinking) = match part {
            AssistantPart::Text { text } => (text, false),
            AssistantPart::Thinking { thinking } => (thinking, !style.glue_thinking),
            AssistantPart::ToolCall(_) => {
                self.push(What::Call { call: at, result: None });
                return;
            }
        };
        if text.is_empty() {
            return;
        }
        match self.steps.last_mut() {
            Some(Step { what: What::Text { thinking: same, more, .. }, blob })
                if *same == thinking =>
            {
                more.push(at);
                *blob = None;
            }
            _ => self.push(What::Text { thinking, first: at, more: Vec::new() }),
        }
    }

    fn push(&mut self, what: What) {
        self.steps.push(Step { what, blob: None });
    }

    /// Sets the result of the step with this call; a repeated result replaces the one before.
    fn result(&mut self, messages: &[Arc<Message>], index: usize, result: &ToolResult) {
        let id = &result.tool_call_id;
        let found = self.steps.iter_mut().find(|step| match &step.what {
            What::Text { .. } => false,
            What::Call { call, .. } => call_at(messages, *call).is_some_and(|call| call.id == *id),
            What::Orphan { result } => {
                result_at(messages, *result).is_some_and(|result| result.tool_call_id == *id)
            }
        });
        match found {
            Some(Step { what: What::Call { result, .. }, blob }) => {
                *result = Some(index);
                *blob = None;
            }
            Some(Step { what: What::Orphan { result }, blob }) => {
                *result = index;
                *blob = None;
            }
            _ => self.push(What::Orphan { result: index }),
        }
    }

    /// The blobs of the steps; those that are made already are not made again. `wire_id` gives the
    /// form of a call id that the service may see.
    pub(crate) fn step_blobs(
        &mut self,
        messages: &[Arc<Message>],
        style: Style<'_>,
        arena: &mut Arena,
        wire_id: &mut dyn FnMut(&str) -> String,
    ) -> Result<Vec<BlobId>> {
        let mut ids = Vec::with_capacity(self.steps.len());
        for step in &mut self.steps {
            let id = match step.blob {
                Some(id) => id,
                None => step.what.blob(messages, style, arena, wire_id)?,
            };
            step.blob = Some(id);
            ids.push(id);
        }
        Ok(ids)
    }

    /// All blobs that are made.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = BlobId> {
        self.user_blob.into_iter().chain(self.steps.iter().filter_map(|step| step.blob))
    }
}

impl What {
    fn blob(
        &self,
        messages: &[Arc<Message>],
        style: Style<'_>,
        arena: &mut Arena,
        wire_id: &mut dyn FnMut(&str) -> String,
    ) -> Result<BlobId> {
        let (call, result) = match self {
            Self::Text { thinking, first, more } => {
                let field = if *thinking { 3 } else { 1 };
                let pieces = std::iter::once(first).chain(more).map(|at| text_at(messages, *at));
                return arena.message(|out| {
                    text_step(out, field, pieces);
                    Ok(())
                });
            }
            Self::Call { call, result } => {
                (call_at(messages, *call), result.and_then(|result| result_at(messages, result)))
            }
            Self::Orphan { result } => (None, result_at(messages, *result)),
        };
        let (id, call) = match (call, result) {
            (Some(call), _) => (call.id.as_str(), CallOf::Call(call)),
            (None, Some(result)) => (result.tool_call_id.as_str(), CallOf::Name(&result.tool_name)),
            (None, None) => ("", CallOf::Name("")),
        };
        let (provider, keys) = (style.provider, style.keys);
        let id = wire_id(id);
        arena.message(|out| CallStep { id: &id, call, result, provider, keys }.write(out))
    }
}

fn text_at(messages: &[Arc<Message>], at: At) -> &str {
    match part_at(messages, at) {
        Some(AssistantPart::Text { text } | AssistantPart::Thinking { thinking: text }) => text,
        _ => "",
    }
}

fn call_at(messages: &[Arc<Message>], at: At) -> Option<&ToolCall> {
    match part_at(messages, at) {
        Some(AssistantPart::ToolCall(call)) => Some(call),
        _ => None,
    }
}

fn part_at(messages: &[Arc<Message>], (message, part): At) -> Option<&AssistantPart> {
    match messages.get(message).map(|message| &**message) {
        Some(Message::Assistant { content }) => content.get(part),
        _ => None,
    }
}

fn result_at(messages: &[Arc<Message>], index: usize) -> Option<&ToolResult> {
    match messages.get(index).map(|message| &**message) {
        Some(Message::ToolResult(result)) => Some(result),
        _ => None,
    }
}
