//! When and where a conversation is summarised.

use std::sync::Arc;

use agentwire::context::{AssistantPart, Message, Part, UserContent};
use serde::{Deserialize, Serialize};

/// What the model is told to do with the messages before the boundary.
pub(super) const INSTRUCTION: &str = "Summarise this conversation for yourself, so that you can go on \
with it without seeing it again: what was asked and what is still to be done, decisions and their \
reasons, facts that were found (names, paths, values, errors) and what was changed. Be complete and \
brief. Answer with the summary only.";

/// Tokens of an image, roughly.
const IMAGE_TOKENS: u64 = 1_500;

/// The context budget: when the conversation is larger than this, its older part is summarised by
/// the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextBudget {
    /// Tokens of context above which it happens. The service's own figure is used where there is
    /// one, else four bytes count as a token.
    pub tokens: u64,
    /// Tokens of the most recent messages that stay as they are.
    pub keep: u64,
}

impl ContextBudget {
    /// A budget that keeps the most recent quarter as it is.
    pub fn new(tokens: u64) -> Self {
        Self { tokens, keep: tokens / 4 }
    }
}

/// Tokens of messages, roughly.
pub(super) fn estimate(messages: &[Arc<Message>]) -> u64 {
    messages.iter().map(|message| tokens(message)).sum()
}

fn tokens(message: &Message) -> u64 {
    let parts = |parts: &[Part]| {
        let of = |part: &Part| match part {
            Part::Text { text } => text.len() as u64 / 4,
            Part::Image(_) => IMAGE_TOKENS,
        };
        parts.iter().map(of).sum::<u64>()
    };
    let content = match message {
        Message::User { content: UserContent::Text(text) } => text.len() as u64 / 4,
        Message::User { content: UserContent::Parts(content) } => parts(content),
        Message::ToolResult(result) => parts(&result.content),
        Message::Assistant { content } => {
            let of = |part: &AssistantPart| match part {
                AssistantPart::Text { text } => text.len() as u64 / 4,
                AssistantPart::Thinking { .. } => 0,
                AssistantPart::ToolCall(call) => call.arguments.to_string().len() as u64 / 4,
            };
            content.iter().map(of).sum()
        }
    };
    content + 8
}

/// The first message that stays; `None` when there is nothing before it. A boundary is never
/// between a call and its result.
pub(super) fn boundary(messages: &[Arc<Message>], keep: u64) -> Option<usize> {
    let mut kept = 0;
    let mut index = messages.len();
    while index > 0 {
        kept += tokens(&messages[index - 1]);
        if kept > keep && index < messages.len() {
            break;
        }
        index -= 1;
    }
    while index > 0 && messages.get(index).is_some_and(|m| matches!(**m, Message::ToolResult(_))) {
        index -= 1;
    }
    (index > 0).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentwire::context::{ToolCall, ToolResult};

    #[test]
    fn a_boundary_keeps_the_tail_and_never_splits_a_pair() {
        let call = |id: &str| {
            let call = ToolCall { id: id.into(), name: "t".into(), arguments: ().into() };
            Arc::new(Message::Assistant { content: vec![AssistantPart::ToolCall(call)] })
        };
        let result = |id| Arc::new(Message::ToolResult(ToolResult::text(id, "t", "x".repeat(400))));
        let user = || Arc::new(Message::user("y".repeat(400)));
        let messages = [
            user(),
            call("a"),
            result("a"),
            call("b"),
            result("b"),
            user(),
            call("c"),
            result("c"),
        ];
        let all = estimate(&messages);
        for keep in 0..=all {
            let Some(index) = boundary(&messages, keep) else { continue };
            assert!(index < messages.len());
            assert!(!matches!(*messages[index], Message::ToolResult(_)), "{keep}: {index}");
        }
        assert_eq!(boundary(&messages, 0), Some(6));
        assert_eq!(boundary(&messages, all), None);
        assert_eq!(boundary(&messages[..1], 0), None);
    }
}
