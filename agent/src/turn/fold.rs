//! Folding what a model says into one message. Deltas and whole messages go through the same
//! functions, so there is one set of rules.

use agentwire::context::{AssistantPart, Message, ToolCall};
use serde::{Deserialize, Serialize};

/// The message that is being said.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Fold {
    parts: Vec<AssistantPart>,
    bytes: usize,
}

impl Fold {
    pub(super) fn text(&mut self, delta: &str) {
        self.bytes += delta.len();
        if let Some(AssistantPart::Text { text }) = self.parts.last_mut() {
            text.push_str(delta);
        } else if !delta.is_empty() {
            self.parts.push(AssistantPart::Text { text: delta.to_owned() });
        }
    }

    pub(super) fn thinking(&mut self, delta: &str) {
        self.bytes += delta.len();
        if let Some(AssistantPart::Thinking { thinking }) = self.parts.last_mut() {
            thinking.push_str(delta);
        } else if !delta.is_empty() {
            self.parts.push(AssistantPart::Thinking { thinking: delta.to_owned() });
        }
    }

    /// Adds calls; one whose id is there already is left out, it could not be answered apart.
    pub(super) fn calls(&mut self, calls: Vec<ToolCall>) -> Vec<ToolCall> {
        let mut new = Vec::with_capacity(calls.len());
        for call in calls {
            if new.iter().any(|known: &ToolCall| known.id == call.id) {
                continue;
            }
            self.parts.push(AssistantPart::ToolCall(call.clone()));
            new.push(call);
        }
        new
    }

    /// Bytes of text and thinking.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of text.
    pub(super) fn text_bytes(&self) -> usize {
        let texts = self.parts.iter().map(|part| match part {
            AssistantPart::Text { text } => text.len(),
            _ => 0,
        });
        texts.sum()
    }

    /// The message; `None` when nothing was said.
    pub(super) fn finish(self) -> Option<Message> {
        (!self.parts.is_empty()).then_some(Message::Assistant { content: self.parts })
    }
}
