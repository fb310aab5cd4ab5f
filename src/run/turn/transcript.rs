//! What a turn has said and done so far, as messages: what it is rebuilt from when the service no
//! longer has it.

use std::sync::Arc;

use crate::context::{AssistantPart, Message, ToolCall, ToolResult};

/// Bytes of one turn that are kept. 8 MiB: half of what one message of the wire may have, so that
/// the rebuilt request still passes.
const KEPT: usize = 8 << 20;

/// The messages of one turn, in order.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    closed: Vec<Arc<Message>>,
    /// The assistant's message that is being said.
    open: Vec<AssistantPart>,
    bytes: usize,
    /// There was too much of it.
    incomplete: bool,
}

impl Transcript {
    /// What an earlier process kept.
    pub(super) fn restored(messages: &[Arc<Message>]) -> Self {
        let mut transcript = Self::default();
        for message in messages {
            match &**message {
                Message::Assistant { content } => transcript.open.extend(content.iter().cloned()),
                Message::ToolResult(_) => {
                    transcript.close();
                    transcript.closed.push(Arc::clone(message));
                }
                Message::User { .. } => {}
            }
        }
        transcript
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.incomplete
    }

    #[inline]
    pub(super) fn text(&mut self, piece: &str) {
        if self.has_room(piece.len()) {
            match self.open.last_mut() {
                Some(AssistantPart::Text { text }) => text.push_str(piece),
                _ => self.open.push(AssistantPart::Text { text: piece.to_owned() }),
            }
        }
    }

    #[inline]
    pub(super) fn thinking(&mut self, piece: &str) {
        if self.has_room(piece.len()) {
            match self.open.last_mut() {
                Some(AssistantPart::Thinking { thinking }) => thinking.push_str(piece),
                _ => self.open.push(AssistantPart::Thinking { thinking: piece.to_owned() }),
            }
        }
    }

    pub(super) fn call(&mut self, call: &ToolCall, bytes: usize) {
        if self.has_room(bytes) {
            self.open.push(AssistantPart::ToolCall(call.clone()));
        }
    }

    pub(super) fn result(&mut self, result: &Arc<Message>, bytes: usize) {
        if self.has_room(bytes) {
            self.close();
            self.closed.push(Arc::clone(result));
        }
    }

    /// Takes back the last bytes of text: something else was said in their place.
    pub(super) fn unsay_text(&mut self, bytes: usize) {
        self.unsay(bytes, |part| match part {
            AssistantPart::Text { text } => Some(text),
            _ => None,
        });
    }

    /// The same for reasoning.
    pub(super) fn unsay_thinking(&mut self, bytes: usize) {
        self.unsay(bytes, |part| match part {
            AssistantPart::Thinking { thinking } => Some(thinking),
            _ => None,
        });
    }

    fn unsay(&mut self, mut bytes: usize, of: fn(&mut AssistantPart) -> Option<&mut String>) {
        for text in self.open.iter_mut().rev().filter_map(of) {
            let cut = bytes.min(text.len());
            text.truncate(text.floor_char_boundary(text.len() - cut));
            bytes -= cut;
        }
        self.open.retain(|part| match part {
            AssistantPart::Text { text } | AssistantPart::Thinking { thinking: text } => {
                !text.is_empty()
            }
            AssistantPart::ToolCall(_) => true,
        });
    }

    /// The messages up to the last tool call or result. An answer that broke off after it is left
    /// out: models go on from a result, and not all of them from half an answer.
    pub(super) fn up_to_tools(&self) -> Vec<Arc<Message>> {
        self.with_open(self.tail_start())
    }

    /// All messages.
    pub(super) fn whole(&self) -> Vec<Arc<Message>> {
        self.with_open(self.open.len())
    }

    fn with_open(&self, parts: usize) -> Vec<Arc<Message>> {
        let mut messages = self.closed.clone();
        if let Some(content) = self.open.get(..parts).filter(|parts| !parts.is_empty()) {
            messages.push(Arc::new(Message::Assistant { content: content.to_vec() }));
        }
        messages
    }

    /// Text and reasoning after the last tool call or result.
    pub(super) fn tail(&self) -> (String, String) {
        let (mut said, mut thought) = (String::new(), String::new());
        for part in self.open.iter().skip(self.tail_start()) {
            match part {
                AssistantPart::Text { text } => said.push_str(text),
                AssistantPart::Thinking { thinking } => thought.push_str(thinking),
                AssistantPart::ToolCall(_) => {}
            }
        }
        (said, thought)
    }

    fn tail_start(&self) -> usize {
        let is_call = |part: &AssistantPart| matches!(part, AssistantPart::ToolCall(_));
        self.open.iter().rposition(is_call).map_or(0, |at| at + 1)
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let content = std::mem::take(&mut self.open);
            self.closed.push(Arc::new(Message::Assistant { content }));
        }
    }

    /// Whether so many more bytes are kept; once something is missing nothing is.
    #[inline]
    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        if !self.incomplete && self.bytes > KEPT {
            *self = Self { incomplete: true, ..Self::default() };
        }
        !self.incomplete
    }
}

/// The calls in `messages` that have no result.
pub(crate) fn unanswered(messages: &[Arc<Message>]) -> Vec<ToolCall> {
    let calls = messages.iter().flat_map(|message| match &**message {
        Message::Assistant { content } => content.as_slice(),
        _ => &[],
    });
    let answered = |call: &ToolCall| {
        messages.iter().any(|message| {
            matches!(&**message, Message::ToolResult(ToolResult { tool_call_id, .. })
                if *tool_call_id == call.id)
        })
    };
    calls
        .filter_map(|part| match part {
            AssistantPart::ToolCall(call) if !answered(call) => Some(call.clone()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> ToolCall {
        ToolCall { id: id.into(), name: "ls".into(), arguments: serde_json::json!({}) }
    }

    fn result(id: &str) -> Arc<Message> {
        Arc::new(Message::ToolResult(ToolResult::text(id, "ls", "a.rs")))
    }

    fn shapes(messages: &[Arc<Message>]) -> Vec<String> {
        let part = |part: &AssistantPart| match part {
            AssistantPart::Text { text } => text.clone(),
            AssistantPart::Thinking { thinking } => format!("({thinking})"),
            AssistantPart::ToolCall(call) => format!("!{}", call.id),
        };
        messages
            .iter()
            .map(|message| match &**message {
                Message::Assistant { content } => {
                    content.iter().map(part).collect::<Vec<_>>().join(" ")
                }
                Message::ToolResult(result) => format!("={}", result.tool_call_id),
                Message::User { .. } => "user".into(),
            })
            .collect()
    }

    #[test]
    fn a_turn_is_calls_with_their_results_and_what_was_said_around_them() {
        let mut turn = Transcript::default();
        turn.thinking("hm");
        turn.text("Let me ");
        turn.text("look.");
        turn.call(&call("a"), 1);
        turn.call(&call("b"), 1);
        assert_eq!(unanswered(&turn.whole()).len(), 2);
        turn.result(&result("a"), 1);
        turn.result(&result("b"), 1);
        turn.text("It has ");
        assert_eq!(shapes(&turn.up_to_tools()), ["(hm) Let me look. !a !b", "=a", "=b"]);
        assert_eq!(shapes(&turn.whole())[3..], ["It has "]);
        assert_eq!(turn.tail(), ("It has ".to_owned(), String::new()));
        turn.unsay_text(4);
        turn.text("holds");
        assert_eq!(turn.tail().0, "It holds");
        assert!(unanswered(&turn.whole()).is_empty());
        let restored = Transcript::restored(&turn.whole());
        assert_eq!(shapes(&restored.whole()), shapes(&turn.whole()));
    }

    #[test]
    fn too_much_is_not_kept_in_part() {
        let mut turn = Transcript::default();
        turn.text("x");
        assert!(turn.is_complete());
        turn.result(&result("a"), KEPT);
        assert!(!turn.is_complete() && turn.whole().is_empty());
        turn.text("y");
        assert!(turn.whole().is_empty());
    }
}
