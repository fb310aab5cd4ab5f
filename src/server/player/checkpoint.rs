//! The checkpoint that a plausible service would send: what the client sent, and this turn on top.

use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Player;
use super::facts::{Called, Facts};
use super::task::{Task, estimate};
use crate::proto::{self, conversation_step, conversation_turn_structure};
use crate::server::reflect;
use crate::server::script::{ActionKind, Checkpoint};
use crate::wire::{self, Reader};
use crate::{Error, Result};

/// The most bytes of one turn that are remembered for its checkpoint; what is said beyond is left
/// out of it. No option, as the next: what is said is the script's own, not the peer's.
const MAX_SPOKEN: usize = 1 << 20;

/// The most pieces of one turn that are remembered for its checkpoint.
const MAX_PARTS: usize = 1 << 14;

/// Context window of a checkpoint that the script does not give numbers for.
const WINDOW_TOKENS: u32 = 200_000;

/// What was said in this turn, in order.
#[derive(Default)]
pub(super) struct Spoken {
    parts: Vec<Said>,
    bytes: usize,
}

enum Said {
    Text(String),
    Thinking(String),
    User(String),
    Call(Box<Called>),
}

impl Spoken {
    pub(super) fn text(&mut self, text: &str) {
        if !self.room(text.len()) {
            return;
        }
        match self.parts.last_mut() {
            Some(Said::Text(before)) => before.push_str(text),
            _ => self.parts.push(Said::Text(text.into())),
        }
    }

    pub(super) fn thinking(&mut self, text: &str) {
        if !self.room(text.len()) {
            return;
        }
        match self.parts.last_mut() {
            Some(Said::Thinking(before)) => before.push_str(text),
            _ => self.parts.push(Said::Thinking(text.into())),
        }
    }

    pub(super) fn user(&mut self, text: &str) {
        if self.room(text.len()) {
            self.parts.push(Said::User(text.into()));
        }
    }

    pub(super) fn call(&mut self, call: Called) {
        if self.room(call.text.as_ref().map_or(0, String::len)) {
            self.parts.push(Said::Call(Box::new(call)));
        }
    }

    fn room(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= MAX_SPOKEN && self.parts.len() < MAX_PARTS
    }
}

/// Blobs to hand over, and the fields that name them.
#[derive(Default)]
struct Blobs(Vec<(Vec<u8>, Vec<u8>)>);

impl Blobs {
    /// Adds a blob; gives its id.
    fn add(&mut self, content: Vec<u8>) -> Vec<u8> {
        let id = Sha256::digest(&content).to_vec();
        if !self.0.iter().any(|(known, _)| *known == id) {
            self.0.push((id.clone(), content));
        }
        id
    }
}

impl Player {
    /// Plans a checkpoint: its blobs, their receipts, then the state.
    pub(super) fn make_checkpoint(&mut self, wanted: &Checkpoint, now: Instant) -> Result<()> {
        if let Some(state) = &wanted.state {
            let state = reflect::encode("ConversationStateStructure", state)?;
            self.session.checkpoint(&state);
            return Ok(());
        }
        if let Some(state) = wanted.bytes().map_err(Error::invalid)? {
            self.session.checkpoint(&state);
            return Ok(());
        }
        let Some(facts) = &self.facts else { return Ok(()) };
        let mut blobs = Blobs::default();
        let roots: Vec<_> =
            root_entries(facts, &self.spoken).map(|entry| blobs.add(entry)).collect();
        let turn = turn_blob(facts, &self.spoken, &mut blobs);
        let used = wanted.used_tokens.unwrap_or_else(|| self.used_tokens());
        let max = wanted.max_tokens.unwrap_or(WINDOW_TOKENS);
        let state = grown(&self.state, &roots, &turn, used, max)?;
        for (id, content) in &blobs.0 {
            self.store(id, content, now)?;
        }
        self.tasks.push_front(Task::SendCheckpoint(state));
        self.tasks.push_front(Task::Await);
        Ok(())
    }

    /// Tokens in the context after this turn.
    fn used_tokens(&self) -> u32 {
        let said = i64::from(estimate(self.spoken.bytes));
        u32::try_from(self.input_tokens() + said).unwrap_or(u32::MAX)
    }
}

/// The messages of this turn as entries of the root prompt: JSON with sorted keys.
fn root_entries<'a>(facts: &'a Facts, spoken: &'a Spoken) -> impl Iterator<Item = Vec<u8>> + 'a {
    let asked =
        (facts.action == ActionKind::User).then(|| entry("user", &text_part(&facts.prompt)));
    let said = spoken.parts.iter().flat_map(|part| match part {
        Said::Text(text) => vec![entry("assistant", &text_part(text))],
        Said::Thinking(text) => {
            vec![entry("assistant", &json!({"text": text, "type": "reasoning"}))]
        }
        Said::User(text) => vec![entry("user", &text_part(text))],
        Said::Call(call) => vec![
            entry("assistant", &json!({
                "args": call.args, "toolCallId": call.id, "toolName": call.tool, "type": "tool-call",
            })),
            entry("tool", &json!({
                "isError": call.is_error, "result": call.text, "toolCallId": call.id,
                "toolName": call.tool, "type": "tool-result",
            })),
        ],
    });
    asked.into_iter().chain(said)
}

fn text_part(text: &str) -> Value {
    json!({"text": text, "type": "text"})
}

fn entry(role: &str, part: &Value) -> Vec<u8> {
    json!({"content": [part], "role": role}).to_string().into_bytes()
}

/// The turn as the client shows it: a blob of blobs. Gives its id.
fn turn_blob(facts: &Facts, spoken: &Spoken, blobs: &mut Blobs) -> Vec<u8> {
    let message = proto::UserMessage { text: facts.prompt.clone(), mode: 1, ..Default::default() };
    let user_message = Bytes::from(blobs.add(message.encode_to_vec()));
    let steps = spoken.parts.iter().filter_map(|part| step(part, facts));
    let steps: Vec<_> = steps.map(|step| Bytes::from(blobs.add(step.encode_to_vec()))).collect();
    let turn = proto::AgentConversationTurnStructure { user_message, steps, ..Default::default() };
    let turn = proto::ConversationTurnStructure {
        turn: Some(conversation_turn_structure::Turn::AgentConversationTurn(turn)),
    };
    blobs.add(turn.encode_to_vec())
}

fn step(part: &Said, facts: &Facts) -> Option<proto::ConversationStep> {
    use conversation_step::Message as M;

    let message = match part {
        Said::Text(text) => M::AssistantMessage(proto::AssistantMessage { text: text.clone() }),
        Said::Thinking(text) => {
            M::ThinkingMessage(proto::ThinkingMessage { text: text.clone(), ..Default::default() })
        }
        Said::Call(call) => M::ToolCall(call.to_proto(Some(facts))),
        Said::User(_) => return None,
    };
    Some(proto::ConversationStep { message: Some(message) })
}

/// The state with entries and a turn added: fields are copied as they are, unknown ones too, and
/// the new ones follow. Protobuf appends repeated fields in the order they come.
fn grown(state: &[u8], roots: &[Vec<u8>], turn: &[u8], used: u32, max: u32) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(state.len() + roots.len() * 34 + 64);
    let mut reader = Reader::new(state);
    while let Some(field) = reader.field()? {
        if field.number != 5 {
            out.extend_from_slice(field.raw);
        }
    }
    for root in roots {
        wire::put_bytes(&mut out, 1, root);
    }
    wire::put_bytes(&mut out, 8, turn);
    wire::put_nested(&mut out, 5, |out| {
        wire::put_uint(out, 1, u64::from(used));
        wire::put_uint(out, 2, u64::from(max));
    });
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grown_state_keeps_what_it_does_not_know() {
        let mut state = Vec::new();
        wire::put_bytes(&mut state, 1, b"old root");
        wire::put_nested(&mut state, 5, |out| wire::put_uint(out, 1, 7));
        wire::put_bytes(&mut state, 8, b"old turn");
        wire::put_str(&mut state, 9_999, "unknown");
        let state = grown(&state, &[b"new root".to_vec()], b"new turn", 9, 10).unwrap();
        let decoded = proto::ConversationStateStructure::decode(state.as_slice()).unwrap();
        assert_eq!(decoded.root_prompt_messages_json, ["old root", "new root"]);
        assert_eq!(decoded.turns, ["old turn", "new turn"]);
        let tokens = decoded.token_details.unwrap();
        assert_eq!((tokens.used_tokens, tokens.max_tokens), (9, 10));
        assert!(state.windows(7).any(|bytes| bytes == b"unknown"));
    }
}
