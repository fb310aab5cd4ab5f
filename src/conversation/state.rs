//! A conversation as bytes, for whoever keeps it on disk.
//!
//! The bytes are protobuf: 1 version, 2 id, 3 checkpoint, 4 messages that the checkpoint covers,
//! 5 our blobs {1 id, 2 content}, 6 the service's blobs {1 id, 2 content}, 7 ids of tool calls
//! {1 safe form, 2 the host's}, 8 the open turn {1 messages of the context before it, 2 whether it
//! goes on from the history, 3 its messages as JSON}. Unknown fields are passed over. They hold what people said: keep
//! them as private as that.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::blobs::{BlobLimits, BlobStore};
use super::{Checkpoint, Conversation, OpenTurn};
use crate::codec::back::Back;
use crate::codec::request::check_id;
use crate::context::Message;
use crate::error::{Blame, Error, Kind, Result};
use crate::wire::{Reader, WireError};

const VERSION: u64 = 1;

impl Conversation {
    /// The conversation as bytes: id, checkpoint, blobs, ids of tool calls, open turn. What is known of the
    /// history is left out: the next request makes it again, to the same bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Back::new(self.blobs.peer_bytes() + 4096);
        if let Some(open) = &self.open {
            let mark = out.len();
            for message in open.messages().iter().rev() {
                // A message is made of strings and JSON values: it always has a JSON form.
                out.bytes(3, &serde_json::to_vec(message).unwrap_or_default());
            }
            out.uint_unless_zero(2, u64::from(open.needs_history()));
            out.uint(1, open.covers() as u64);
            out.wrap(8, mark);
        }
        for (wire, host) in self.calls.pairs() {
            pair(&mut out, 7, wire.as_bytes(), host.as_bytes());
        }
        for (id, data) in self.blobs.peer() {
            pair(&mut out, 6, id, data);
        }
        for (id, data) in self.blobs.own() {
            pair(&mut out, 5, id, data);
        }
        if let Some(checkpoint) = &self.checkpoint {
            out.uint(4, checkpoint.covers as u64);
            out.bytes(3, checkpoint.raw());
        }
        if let Some(id) = &self.id {
            out.text(2, id);
        }
        out.uint(1, VERSION);
        out.finish()
    }

    /// The conversation that [`Self::to_bytes`] wrote, with limits for blobs of the service.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` when the bytes are not such a conversation, or hold a blob of ours whose id
    /// is not its hash; `LimitExceeded` when they hold more blobs than the limits allow.
    pub fn from_bytes(bytes: &Bytes, limits: BlobLimits) -> Result<Self> {
        let damaged = |error: Error| {
            let kind = match error.kind() {
                Kind::LimitExceeded => Kind::LimitExceeded,
                _ => Kind::InvalidRequest,
            };
            Error::new(kind, format!("the kept conversation is damaged: {}", error.message()))
                .with_blame(Blame::Local)
                .with_hint("start the conversation from its history")
        };
        Self::read(bytes, limits).map_err(damaged)
    }

    fn read(bytes: &Bytes, limits: BlobLimits) -> Result<Self> {
        let mut read = Self { blobs: BlobStore::new(limits), ..Self::default() };
        let (mut version, mut covers) = (0, 0);
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.field()? {
            match field.number {
                1 => version = field.value.varint()?,
                2 => {
                    let id = field.value.text()?;
                    check_id("conversation id", id)?;
                    read.id = Some(id.to_owned());
                }
                3 => {
                    read.checkpoint = Some(Checkpoint::new(bytes.slice_ref(field.value.bytes()?))?);
                }
                4 => covers = usize::try_from(field.value.varint()?).unwrap_or(0),
                5 => {
                    let (id, data) = both(field.value.bytes()?)?;
                    let hash = Sha256::digest(data).into();
                    if hash != *id {
                        return Err(Error::invalid("a blob does not have the hash it is named by"));
                    }
                    read.blobs.insert_own(hash, bytes.slice_ref(data));
                }
                6 => {
                    let (id, data) = both(field.value.bytes()?)?;
                    let kept = read.blobs.set_from_peer(id, data);
                    kept.map_err(|refused| Error::limit(refused.to_string()))?;
                }
                7 => {
                    let (wire, host) = both(field.value.bytes()?)?;
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    read.calls.remember(text(wire), text(host));
                }
                8 => read.open = Some(open_turn(field.value.bytes()?)?),
                _ => {}
            }
        }
        if version != VERSION {
            return Err(Error::invalid("the version is not one that this library reads"));
        }
        if let Some(checkpoint) = &mut read.checkpoint {
            checkpoint.covers = covers;
        }
        read.sent = covers;
        Ok(read)
    }
}

fn open_turn(bytes: &[u8]) -> Result<OpenTurn> {
    let (mut covers, mut from_history, mut messages) = (0, false, Vec::new());
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => covers = usize::try_from(field.value.varint()?).unwrap_or(usize::MAX),
            2 => from_history = field.value.varint()? != 0,
            3 => {
                let message = serde_json::from_slice::<Message>(field.value.bytes()?);
                // The error of the parser may repeat what people said.
                messages.push(message.map_err(|_| Error::invalid("a message is not JSON"))?.into());
            }
            _ => {}
        }
    }
    Ok(OpenTurn::new(covers, from_history, messages))
}

/// Writes two bytes fields as a message.
fn pair(out: &mut Back<'_>, field: u32, first: &[u8], second: &[u8]) {
    let mark = out.len();
    out.bytes(2, second);
    out.bytes(1, first);
    out.wrap(field, mark);
}

fn both(bytes: &[u8]) -> Result<(&[u8], &[u8]), WireError> {
    let (mut first, mut second) = (&[][..], &[][..]);
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => first = field.value.bytes()?,
            2 => second = field.value.bytes()?,
            _ => {}
        }
    }
    Ok((first, second))
}
