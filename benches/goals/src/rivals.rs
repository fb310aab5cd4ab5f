//! The usual ways to do the same.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

/// The full schema as prost generates it unasked: nothing boxed.
#[allow(missing_docs, clippy::all)]
pub mod full {
    include!(concat!(env!("OUT_DIR"), "/agent.v1.rs"));
}

/// The hot messages as buffa generates them.
#[allow(missing_docs, clippy::all, unused_qualifications)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/buffa.rs"));
}

pub use generated::bench as buffa;

/// Prost with a schema of nothing but the hot messages: the best case of generated code.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Trimmed {
    #[prost(message, optional, tag = "1")]
    update: Option<Update>,
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

impl Trimmed {
    /// Length of the text, if it is one.
    #[inline(always)]
    pub fn text_len(self) -> usize {
        match self.update.and_then(|update| update.case) {
            Some(Case::Text(delta)) => std::hint::black_box(delta.text).len(),
            _ => 0,
        }
    }
}

/// Length of the text.
#[inline(always)]
pub fn trimmed(payload: impl Buf) -> usize {
    Trimmed::decode(payload).map_or(0, Trimmed::text_len)
}

/// Length of the text, by buffa's borrowed view.
#[inline(always)]
pub fn view(payload: &[u8]) -> usize {
    use ::buffa::MessageView as _;
    buffa::TrimmedView::decode_view(payload).map_or(0, |message| view_len(&message))
}

/// Length of the text in one of buffa's views.
#[inline(always)]
pub fn view_len(message: &buffa::TrimmedView<'_>) -> usize {
    use buffa::__buffa::view::oneof::update::Message;
    match message.update.message {
        Some(Message::Text(ref delta)) => std::hint::black_box(delta.text).len(),
        _ => 0,
    }
}

/// Length of the text.
#[inline(always)]
pub fn full(payload: impl Buf) -> usize {
    use self::full::{agent_server_message as server, interaction_update as update};
    match full::AgentServerMessage::decode(payload).map(|message| message.message) {
        Ok(Some(server::Message::InteractionUpdate(update))) => match update.message {
            Some(update::Message::TextDelta(delta)) => std::hint::black_box(delta.text).len(),
            _ => 0,
        },
        _ => 0,
    }
}

/// The idiomatic splitter: collect in a `BytesMut`, hand out frozen parts of it.
#[derive(Default)]
pub struct BytesMutSplitter(BytesMut);

impl BytesMutSplitter {
    /// Takes a chunk, gives the frames that are complete.
    #[inline]
    pub fn push(&mut self, chunk: &[u8], mut frame: impl FnMut(Bytes)) {
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
pub struct NaiveSplitter(Vec<u8>);

impl NaiveSplitter {
    /// Takes a chunk, gives the frames that are complete.
    pub fn push(&mut self, chunk: &[u8], mut frame: impl FnMut(Vec<u8>)) {
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
