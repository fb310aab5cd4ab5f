//! What a turn has said and done so far, as messages: what it is rebuilt from when the service no
//! longer has it.

use std::sync::Arc;

use crate::context::{AssistantPart, Message, ToolCall, ToolResult};

/// A string of a part grows to so many bytes; then the part goes on in another. Growing one string to
/// megabytes copies it at every step.
const PIECE: usize = 64 << 10;

/// The messages of one turn, in order. When they become too many, what is left is the text since
/// the last checkpoint: a turn can be resumed without the rest, though not rebuilt.
#[derive(Debug)]
pub(super) struct Transcript {
    closed: Vec<Arc<Message>>,
    /// The assistant's message that is being said. Parts of one kind that follow one another are
    /// pieces of one.
    open: Vec<AssistantPart>,
    /// Bytes of everything, with those of `room`.
    bytes: usize,
    limit: usize,
    /// Bytes that the last part takes without another look at the limit or at its length.
    room: usize,
    kept: Kept,
}

/// What of the turn is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    All,
    /// Text and reasoning since the last checkpoint.
    SinceCheckpoint,
    /// Nothing until the next checkpoint: there was too much even since the last.
    Nothing,
}

impl Transcript {
    /// Keeps at most so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        let (closed, open) = (Vec::new(), Vec::new());
        Self { closed, open, bytes: 0, limit, room: 0, kept: Kept::All }
    }

    /// What an earlier process kept.
    pub(super) fn restored(messages: &[Arc<Message>], limit: usize) -> Self {
        let mut transcript = Self::new(limit);
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
        self.kept == Kept::All
    }

    /// The service's state covers everything that was said.
    pub(super) fn checkpoint(&mut self) {
        if !self.is_complete() {
            self.forget(Kept::SinceCheckpoint);
        }
    }

    fn forget(&mut self, kept: Kept) {
        *self = Self { kept, ..Self::new(self.limit) };
    }

    /// The last so many bytes of text, in the order they were said. `None` where they are not there.
    pub(super) fn last_text(&self, bytes: usize) -> Option<String> {
        self.last(bytes, |part| match part {
            AssistantPart::Text { text } => Some(text),
            _ => None,
        })
    }

    /// The same for reasoning.
    pub(super) fn last_thinking(&self, bytes: usize) -> Option<String> {
        self.last(bytes, |part| match part {
            AssistantPart::Thinking { thinking } => Some(thinking),
            _ => None,
        })
    }

    /// What is behind the last result only: with one since the last checkpoint the turn goes on from
    /// its history.
    fn last(&self, bytes: usize, of: fn(&AssistantPart) -> Option<&String>) -> Option<String> {
        let mut pieces = Vec::new();
        let mut missing = bytes;
        for text in self.open.iter().rev().filter_map(of) {
            let from = text.len().saturating_sub(missing);
            pieces.push(text.get(from..)?);
            missing -= text.len() - from;
            if missing == 0 {
                break;
            }
        }
        pieces.reverse();
        (missing == 0).then(|| pieces.concat())
    }

    #[inline(always)]
    pub(super) fn text(&mut self, piece: &str) {
        self.add(piece, said, |text| AssistantPart::Text { text });
    }

    #[inline(always)]
    pub(super) fn thinking(&mut self, piece: &str) {
        self.add(piece, thought, |thinking| AssistantPart::Thinking { thinking });
    }

    #[inline(always)]
    fn add(&mut self, piece: &str, of: TextOf, part: impl FnOnce(String) -> AssistantPart) {
        if let Some(text) = self.open.last_mut().and_then(of)
            && let Some(room) = self.room.checked_sub(piece.len())
        {
            text.push_str(piece);
            self.room = room;
        } else if let Some(text) = self.begin(piece, of) {
            self.open.push(part(text));
        }
    }

    /// Another part, of which `piece` is the first, if it is kept. Where the part before it is of
    /// its kind, that one is full: this one will be so soon, and need not grow step by step.
    #[cold]
    fn begin(&mut self, piece: &str, of: TextOf) -> Option<String> {
        if !self.has_room(piece.len()) {
            return None;
        }
        let goes_on = self.open.last_mut().and_then(of).is_some();
        let mut text =
            String::with_capacity(if goes_on { PIECE.max(piece.len()) } else { piece.len() });
        text.push_str(piece);
        self.room = PIECE.saturating_sub(piece.len()).min(self.limit.saturating_sub(self.bytes));
        self.bytes += self.room;
        Some(text)
    }

    pub(super) fn call(&mut self, call: &ToolCall, bytes: usize) {
        if self.is_complete() && self.has_room(bytes) {
            self.open.push(AssistantPart::ToolCall(call.clone()));
        }
    }

    pub(super) fn result(&mut self, result: &Arc<Message>, bytes: usize) {
        if self.is_complete() && self.has_room(bytes) {
            self.close();
            self.closed.push(Arc::clone(result));
        }
    }

    /// Takes back the last bytes of text: something else was said in their place.
    pub(super) fn unsay_text(&mut self, bytes: usize) {
        self.unsay(bytes, said);
    }

    /// The same for reasoning.
    pub(super) fn unsay_thinking(&mut self, bytes: usize) {
        self.unsay(bytes, thought);
    }

    fn unsay(&mut self, mut bytes: usize, of: TextOf) {
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
            messages
                .push(Arc::new(Message::Assistant { content: joined(content.iter().cloned()) }));
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
            let content = joined(std::mem::take(&mut self.open));
            self.closed.push(Arc::new(Message::Assistant { content }));
        }
    }

    /// Whether so many more bytes are kept. What the last part had room for is given back.
    fn has_room(&mut self, bytes: usize) -> bool {
        self.bytes = (self.bytes - std::mem::take(&mut self.room)).saturating_add(bytes);
        if self.bytes > self.limit {
            self.forget(Kept::Nothing);
        }
        self.kept != Kept::Nothing
    }
}

/// The text of a part of one kind.
type TextOf = fn(&mut AssistantPart) -> Option<&mut String>;

#[inline(always)]
fn said(part: &mut AssistantPart) -> Option<&mut String> {
    match part {
        AssistantPart::Text { text } => Some(text),
        _ => None,
    }
}

#[inline(always)]
fn thought(part: &mut AssistantPart) -> Option<&mut String> {
    match part {
        AssistantPart::Thinking { thinking } => Some(thinking),
        _ => None,
    }
}

/// The same parts, where those that belong together are one.
fn joined(parts: impl IntoIterator<Item = AssistantPart>) -> Vec<AssistantPart> {
    let mut joined = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(AssistantPart::Text { text: before }), AssistantPart::Text { text }) => {
                before.push_str(&text);
            }
            (
                Some(AssistantPart::Thinking { thinking: before }),
                AssistantPart::Thinking { thinking },
            ) => before.push_str(&thinking),
            (_, part) => joined.push(part),
        }
    }
    joined
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
        let mut turn = Transcript::new(1 << 20);
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
        let restored = Transcript::restored(&turn.whole(), 1 << 20);
        assert_eq!(shapes(&restored.whole()), shapes(&turn.whole()));
    }

    #[test]
    fn the_last_bytes_of_text_are_found_in_whatever_parts_they_are() {
        let mut turn = Transcript::new(1 << 20);
        turn.text("one ");
        turn.thinking("hm");
        turn.call(&call("a"), 1);
        turn.text("two");
        assert_eq!(turn.last_text(7).as_deref(), Some("one two"));
        assert_eq!(turn.last_text(5).as_deref(), Some("e two"));
        assert_eq!(turn.last_text(0).as_deref(), Some(""));
        assert_eq!(turn.last_text(8), None);
        assert_eq!(turn.last_thinking(2).as_deref(), Some("hm"));
    }

    #[test]
    fn a_long_text_is_one_part_to_others_and_does_not_grow_in_one_piece() {
        let mut turn = Transcript::new(1 << 20);
        let piece = "nineteen characters";
        turn.thinking("hm");
        (0..20_000).for_each(|_| turn.text(piece));
        assert!(turn.open.len() > 4);
        let whole = piece.repeat(20_000);
        assert_eq!(shapes(&turn.whole()), [format!("(hm) {whole}")]);
        assert_eq!(turn.tail(), (whole.clone(), "hm".to_owned()));
        assert_eq!(turn.last_text(PIECE + 9), Some(whole[whole.len() - PIECE - 9..].to_owned()));
        turn.unsay_text(whole.len() - piece.len());
        assert_eq!(shapes(&turn.whole()), [format!("(hm) {piece}")]);
        turn.result(&result("a"), 1);
        assert_eq!(shapes(&turn.whole()), [format!("(hm) {piece}"), "=a".to_owned()]);
    }

    #[test]
    fn too_much_is_not_kept_in_part() {
        let mut turn = Transcript::new(1_000);
        turn.text("x");
        assert!(turn.is_complete());
        turn.result(&result("a"), 1_000);
        assert!(!turn.is_complete() && turn.whole().is_empty());
        turn.text("y");
        assert!(turn.whole().is_empty());
        assert_eq!(turn.last_text(1), None);
    }

    /// Whatever parts it comes in, and what was room for more of a part is none of it.
    #[test]
    fn so_many_bytes_are_kept_and_not_one_more() {
        let full = |limit: usize| {
            let mut turn = Transcript::new(limit);
            for _ in 0..3 {
                (0..4_000).for_each(|_| turn.text("nineteen characters"));
                turn.thinking("hm");
                turn.call(&call("a"), 7);
            }
            turn.text("");
            turn.is_complete()
        };
        let all = 3 * (4_000 * 19 + 2 + 7);
        assert!(full(all) && full(all + PIECE));
        assert!(!full(all - 1) && !full(all - PIECE));
    }

    #[test]
    fn when_there_was_too_much_the_text_since_a_checkpoint_is_there_again() {
        let mut turn = Transcript::new(10);
        turn.text("eleven bytes");
        turn.text("lost");
        turn.checkpoint();
        turn.text("here");
        turn.call(&call("a"), 1);
        turn.result(&result("a"), 1);
        assert_eq!(turn.last_text(4).as_deref(), Some("here"));
        turn.checkpoint();
        turn.text("more");
        assert_eq!((turn.last_text(4).as_deref(), turn.last_text(8)), (Some("more"), None));
        assert!(!turn.is_complete());
    }
}
