//! What a server says, decoded where it lies.
//!
//! Nearly all messages of a run are a few bytes of text. Those have one shape, so [`decode`] compares
//! the header with the only one that a plain delta of this length can have and is done; a message
//! of another shape is walked tag by tag; what is rare is decoded by prost. All three accept and
//! refuse the same bytes and give the same values as the generated decoder, with one exception on
//! purpose: a text or thinking delta that is not UTF-8 is repaired, because losing a turn over one
//! byte helps nobody (FAULTS, note on M31).

mod checkpoint;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod walk;

use std::borrow::Cow;

use crate::connect::Limits;
use crate::error::{Error, Result};
use crate::proto::{ExecServerMessage, InteractionQuery, interaction_update};
use crate::wire::WireError;

/// One server message, borrowed from its payload where it can be.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming<'a> {
    /// A piece of the answer; can be empty. `Owned` means that invalid UTF-8 was replaced.
    Text(Cow<'a, str>),
    /// A piece of thinking, likewise.
    Thinking(Cow<'a, str>),
    /// Output tokens since the last count. Can be 0 or negative (BEHAVIOUR 4).
    Tokens(i32),
    /// The server is alive.
    Heartbeat,
    /// The turn is over, and what it cost.
    TurnEnded(Box<TurnTokens>),
    /// The state of the conversation.
    Checkpoint(CheckpointRef<'a>),
    /// The server asks for a blob.
    GetBlob {
        /// To be repeated in the answer.
        id: u32,
        /// Which blob.
        blob_id: &'a [u8],
    },
    /// The server gives a blob to keep.
    SetBlob {
        /// To be repeated in the answer.
        id: u32,
        /// The name of the blob.
        blob_id: &'a [u8],
        /// Its content.
        data: &'a [u8],
    },
    /// Another update of the interaction.
    Update(Box<interaction_update::Message>),
    /// A question to the client's tools. Where no case is set that we know, the second member is
    /// the field number of the one that was; `id` and `exec_id` are there in any case, so that it
    /// can be refused (PROTOCOL 3).
    Exec(Box<ExecServerMessage>, Option<u32>),
    /// The exec with this id is to be stopped; `None` is a control message that we do not know.
    ExecControl(Option<u32>),
    /// A question to the person in front of the client; the second member as in [`Self::Exec`].
    Query(Box<InteractionQuery>, Option<u32>),
    /// No case that we know, at any of the levels: to be skipped and counted (FAULTS M36).
    Unknown,
}

/// What a turn cost, as billed; the service may leave any of it out (PROTOCOL 3, usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TurnTokens {
    /// Input tokens, those read from the cache included.
    pub input: Option<i64>,
    /// Output tokens.
    pub output: Option<i64>,
    /// Input tokens read from the cache.
    pub cache_read: Option<i64>,
    /// Input tokens written to the cache.
    pub cache_write: Option<i64>,
    /// Output tokens spent on reasoning.
    pub reasoning: Option<i64>,
}

/// A checkpoint as bytes, checked to be well formed to the last nested string.
///
/// The bytes are kept and sent back as they are: a decoder that does not know a field would drop
/// it (BEHAVIOUR T01).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckpointRef<'a> {
    /// A `ConversationStateStructure`. `Owned` when the message held it in several parts.
    pub raw: Cow<'a, [u8]>,
    /// `token_details.used_tokens`: the size of the context now; `None` without token details.
    pub used_tokens: Option<u32>,
    /// `token_details.max_tokens`.
    pub max_tokens: Option<u32>,
}

/// Decodes the payload of one envelope of the Run stream, within the default [`Limits`].
///
/// ```
/// use agentwire::codec::hot::{Incoming, decode};
/// let delta = b"\x0a\x06\x0a\x04\x0a\x02hi";
/// assert_eq!(decode(delta)?, Incoming::Text("hi".into()));
/// # Ok::<(), agentwire::Error>(())
/// ```
#[inline(always)]
pub fn decode(payload: &[u8]) -> Result<Incoming<'_>> {
    decode_within(payload, &DEFAULT)
}

/// What [`decode`] goes by: in memory already, so that a caller without limits pays for none.
static DEFAULT: Limits = Limits::DEFAULT;

/// Decodes the payload of one envelope of the Run stream.
///
/// Refuses what is not protobuf or does not fit the schema (`Protocol`; the message names the part,
/// never the content), and what would take more memory than [`Limits::decoded`] and
/// [`Limits::decoded_factor`] allow (`LimitExceeded`). The other limits are those of the envelope.
#[inline(always)]
pub fn decode_within<'a>(payload: &'a [u8], limits: &Limits) -> Result<Incoming<'a>> {
    match short(payload) {
        Some(Delta::Text(text)) => Ok(Incoming::Text(Cow::Borrowed(text))),
        Some(Delta::Thinking(text)) => Ok(Incoming::Thinking(Cow::Borrowed(text))),
        None => longer(payload, limits),
    }
}

/// A piece of the answer or of the reasoning.
pub(crate) enum Delta<'a> {
    Text(&'a str),
    Thinking(&'a str),
}

/// A delta of a few words, as nearly every message of a turn is. The first look of
/// [`decode_within`], for a caller to whom such a delta is a case of its own: a result that is merged
/// with another goes through memory, and waiting for that costs more than the decoding. For the same
/// reason each arm here validates its own text.
#[inline(always)]
pub(crate) fn short(payload: &[u8]) -> Option<Delta<'_>> {
    match short_delta(payload) {
        Some((TEXT, text)) => utf8(text).map(Delta::Text),
        Some((THINKING, text)) => utf8(text).map(Delta::Thinking),
        _ => None,
    }
}

/// The tag of `text_delta`.
const TEXT: u8 = 0x0a;
/// The tag of `thinking_delta`.
const THINKING: u8 = 0x22;
/// The longest text whose three lengths take one byte each.
const ONE_BYTE: usize = 0x7f - 4;

/// A delta and nothing else, with lengths of one byte: its tag and its text.
#[inline(always)]
fn short_delta(payload: &[u8]) -> Option<(u8, &[u8])> {
    let (head, text) = payload.split_first_chunk()?;
    let [a, b, tag, c, d, e] = *head;
    // `0a L+4 TAG L+2` and `0a L` as two numbers, as they can be loaded: two comparisons instead of
    // five.
    let outer = u32::from_le_bytes([a, b, tag, c]);
    let inner = u16::from_le_bytes([d, e]);
    // Truncated and wrapping: a text that is longer than 32 bits or 64 KiB is too long all the same.
    let len = text.len() as u32;
    let wanted = len.wrapping_mul(0x01_00_01_00).wrapping_add(0x02_00_04_0a);
    if text.len() > ONE_BYTE || u32::from(inner) != len.wrapping_mul(0x100).wrapping_add(0x0a) {
        None
    } else if outer == wanted | u32::from(TEXT) << 16 {
        Some((TEXT, text))
    } else if outer == wanted | u32::from(THINKING) << 16 {
        Some((THINKING, text))
    } else {
        None
    }
}

/// The same with lengths of two bytes.
#[inline(always)]
fn long_delta(payload: &[u8]) -> Option<(u8, &[u8])> {
    match payload {
        [0x0a, o0, o1, tag, i0, i1, 0x0a, l0, l1, text @ ..]
            if [*l0, *l1] == two_bytes(text.len())
                && [*i0, *i1] == two_bytes(text.len() + 3)
                && [*o0, *o1] == two_bytes(text.len() + 6)
                && (0x80..0x4000 - 6).contains(&text.len()) =>
        {
            Some((*tag, text))
        }
        _ => None,
    }
}

/// What [`short`] does not know. A call of its own, so that what is inlined everywhere stays a few
/// instructions.
#[inline(never)]
fn longer<'a>(payload: &'a [u8], limits: &Limits) -> Result<Incoming<'a>> {
    if let Some((tag, text)) = long_delta(payload)
        && let Some(text) = utf8_long(text)
    {
        match tag {
            TEXT => return Ok(Incoming::Text(Cow::Borrowed(text))),
            THINKING => return Ok(Incoming::Thinking(Cow::Borrowed(text))),
            _ => {}
        }
    }
    decode_any(payload, limits)
}

/// What has not the one shape of a delta. Apart from the longer deltas, which need less of the stack.
#[inline(never)]
fn decode_any<'a>(payload: &'a [u8], limits: &Limits) -> Result<Incoming<'a>> {
    if let Some((number, text)) = walk::lone_delta(payload)
        && let Some(text) = utf8(text)
    {
        let text = Cow::Borrowed(text);
        return Ok(if number == 1 { Incoming::Text(text) } else { Incoming::Thinking(text) });
    }
    walk::decode(payload, limits)
}

/// The varint of a number from 128 to 16,383.
#[inline]
const fn two_bytes(len: usize) -> [u8; 2] {
    [len as u8 | 0x80, (len >> 7) as u8]
}

/// `bytes` as text, by the validator that is fastest for it (PERFORMANCE B.1): the short ones are
/// a few words, the long ones plain ASCII or worth a vector unit.
#[inline(always)]
fn utf8(bytes: &[u8]) -> Option<&str> {
    if bytes.len() < 64 { smoothutf8::from_utf8(bytes) } else { utf8_long(bytes) }
}

fn utf8_long(bytes: &[u8]) -> Option<&str> {
    // A guess from both ends, which a pass over all of it would cost more to know. Where it is
    // wrong the text is validated all the same, at the other one's pace.
    let plain = |end: Option<&[u8; 8]>| {
        end.is_some_and(|end| u64::from_le_bytes(*end) & 0x8080_8080_8080_8080 == 0)
    };
    if bytes.len() < 512 && plain(bytes.first_chunk()) && plain(bytes.last_chunk()) {
        return smoothutf8::from_utf8(bytes);
    }
    simdutf8::basic::from_utf8(bytes).ok()
}

/// The error for bytes that are not the part of the message that they should be.
#[cold]
fn refused(part: &str, error: WireError) -> Error {
    Error::protocol(format!("cannot decode `{part}` of a server message: {error}"))
}

#[cfg(test)]
mod tests;
