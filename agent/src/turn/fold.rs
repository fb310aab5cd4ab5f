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

    /// Takes back so many bytes from the end of what was said: the model says something else
    /// instead. What an earlier message holds stays there.
    pub(super) fn unsay(&mut self, text: usize, thinking: usize) {
        let (mut text, mut thinking) = (text, thinking);
        for part in self.parts.iter_mut().rev() {
            let (said, left) = match part {
                AssistantPart::Text { text: said } => (said, &mut text),
                AssistantPart::Thinking { thinking: said } => (said, &mut thinking),
                AssistantPart::ToolCall(_) => continue,
            };
            let keep = said.floor_char_boundary(said.len().saturating_sub(*left));
            let dropped = said.len() - keep;
            said.truncate(keep);
            *left = left.saturating_sub(dropped);
            self.bytes -= dropped;
        }
        self.parts.retain(|part| match part {
            AssistantPart::Text { text: said } | AssistantPart::Thinking { thinking: said } => {
                !said.is_empty()
            }
            AssistantPart::ToolCall(_) => true,
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_back_is_gone_from_the_end() {
        let mut fold = Fold::default();
        fold.text("one");
        fold.thinking("hm");
        fold.text("two");
        fold.unsay(4, 1);
        assert_eq!((fold.text_bytes(), fold.bytes()), (2, 3));
        fold.text("2");
        let Some(Message::Assistant { content }) = fold.finish() else { panic!() };
        let texts: Vec<_> = content
            .iter()
            .map(|part| match part {
                AssistantPart::Text { text } => text.as_str(),
                AssistantPart::Thinking { thinking } => thinking.as_str(),
                AssistantPart::ToolCall(_) => "call",
            })
            .collect();
        assert_eq!(texts, ["on", "h", "2"]);

        let mut all = Fold::default();
        all.text("x");
        all.unsay(9, 9);
        assert!(all.finish().is_none());
    }
}
