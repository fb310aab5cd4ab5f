//! What the benches compare with: the usual ways to do the same.

use std::collections::HashMap;

use agentwire::connect::put_envelope;
use agentwire::context::{AssistantPart, Context, Message, Part, UserContent};
use agentwire::proto::{self, agent_client_message, conversation_action};
use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;
use sha2::{Digest, Sha256};

/// Prost with a schema of nothing but the hot messages: the best case of generated code.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Trimmed {
    #[prost(message, optional, tag = "1")]
    update: Option<Update>,
}

impl Trimmed {
    /// Length of the text, if it is one.
    pub(crate) fn text_len(&self) -> usize {
        match self.update.as_ref().and_then(|update| update.case.as_ref()) {
            Some(Case::Text(delta)) => delta.text.len(),
            _ => 0,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Update {
    #[prost(oneof = "Case", tags = "1, 4, 8")]
    case: Option<Case>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Case {
    #[prost(message, tag = "1")]
    Text(Delta),
    #[prost(message, tag = "4")]
    Thinking(Delta),
    #[prost(message, tag = "8")]
    Tokens(Tokens),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Delta {
    #[prost(string, tag = "1")]
    text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Tokens {
    #[prost(int32, tag = "1")]
    tokens: i32,
}

/// The idiomatic splitter: collect in a `BytesMut`, hand out frozen parts of it.
#[derive(Default)]
pub(crate) struct BytesMutSplitter(BytesMut);

impl BytesMutSplitter {
    /// Takes a chunk, gives the frames that are complete.
    pub(crate) fn push(&mut self, chunk: &[u8], mut frame: impl FnMut(Bytes)) {
        self.0.extend_from_slice(chunk);
        while let Some([_, a, b, c, d]) = self.0.first_chunk() {
            let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            if self.0.len() < 5 + len {
                return;
            }
            self.0.advance(5);
            frame(self.0.split_to(len).freeze());
        }
    }
}

/// The algorithm that one writes first (BEHAVIOUR H01): a new buffer for each chunk, a copy for
/// each frame and one for the rest.
#[derive(Default)]
pub(crate) struct NaiveSplitter(Vec<u8>);

impl NaiveSplitter {
    /// Takes a chunk, gives the frames that are complete.
    pub(crate) fn push(&mut self, chunk: &[u8], mut frame: impl FnMut(Vec<u8>)) {
        let buffer = [&self.0, chunk].concat();
        let mut at = 0;
        while let Some(&[_, a, b, c, d]) = buffer.get(at..).and_then(<[u8]>::first_chunk) {
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            let Some(payload) = buffer.get(at + 5..at + 5 + len) else { break };
            frame(payload.to_vec());
            at += 5 + len;
        }
        self.0 = buffer.get(at..).unwrap_or_default().to_vec();
    }
}

/// The role and the text of every message.
pub(crate) fn history_texts(context: &Context) -> Vec<(&'static str, String)> {
    let text_of = |message: &Message| match message {
        Message::User { content: UserContent::Text(text), .. } => ("user", text.clone()),
        Message::User { content: UserContent::Parts(parts), .. } => ("user", texts(parts)),
        Message::Assistant { content, .. } => ("assistant", spoken(content)),
        _ => ("tool", String::new()),
    };
    context.messages.iter().map(|message| text_of(message)).collect()
}

fn texts(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text { text, .. } => text.clone(),
        _ => String::new(),
    };
    parts.iter().map(text).collect()
}

fn spoken(parts: &[AssistantPart]) -> String {
    let text = |part: &AssistantPart| match part {
        AssistantPart::Text { text, .. } => text.clone(),
        _ => String::new(),
    };
    parts.iter().map(text).collect()
}

/// SHA-256 of every text: the least that content-addressed history costs.
pub(crate) fn hash_all(history: &[(&'static str, String)]) -> u8 {
    history.iter().fold(0, |sum, (_, text)| sum ^ Sha256::digest(text.as_bytes())[0])
}

/// A run request the way that one writes first: JSON trees, hexadecimal keys, owned prost
/// messages, a copy into the frame. Display turns are left out, so it does less than ours.
pub(crate) fn encode_request(context: &Context) -> (Vec<u8>, HashMap<String, Vec<u8>>) {
    let mut blobs = HashMap::new();
    let mut state = proto::ConversationStateStructure::default();
    for (role, text) in history_texts(context) {
        let content = serde_json::json!([{ "type": "text", "text": text }]);
        let blob = serde_json::json!({ "role": role, "content": content }).to_string().into_bytes();
        let id = Sha256::digest(&blob).to_vec();
        let key = id.iter().map(|byte| format!("{byte:02x}")).collect();
        blobs.insert(key, blob);
        state.root_prompt_messages_json.push(id.into());
    }
    let action = proto::UserMessageAction::default();
    let run = proto::AgentRunRequest {
        conversation_state: Some(state),
        action: Some(proto::ConversationAction {
            action: Some(conversation_action::Action::UserMessageAction(Box::new(action))),
        }),
        ..Default::default()
    };
    let message = agent_client_message::Message::RunRequest(Box::new(run));
    let payload = proto::AgentClientMessage { message: Some(message) }.encode_to_vec();
    let mut envelope = Vec::new();
    put_envelope(&mut envelope, 0, &payload);
    (envelope, blobs)
}
