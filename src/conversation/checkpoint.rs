//! Checkpoints: the whole state of a conversation as the service sent it, kept as bytes.
//!
//! What we do not know in it is kept bit for bit: it is never decoded and encoded again, only cut
//! at field boundaries (DESIGN, generated code; BEHAVIOUR T01).

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::error::Error;
use crate::wire::{Reader, WireError};

/// `ConversationStateStructure.root_prompt_messages_json`.
pub(crate) const ROOT_PROMPT: u32 = 1;
const TOKEN_DETAILS: u32 = 5;

/// A well-formed `ConversationStateStructure`.
#[derive(Clone, PartialEq, Eq)]
pub struct Checkpoint {
    raw: Bytes,
    used_tokens: Option<u32>,
    max_tokens: Option<u32>,
    /// How many messages of the context the run knew that brought this checkpoint.
    pub(crate) covers: usize,
}

impl Checkpoint {
    /// Takes the bytes of a checkpoint; they are shared, not copied.
    ///
    /// # Errors
    ///
    /// `Protocol` when the fields of the state are not well-formed (FAULTS M85). What is inside of
    /// them is the service's own business and not looked at, but for the token details.
    pub fn new(raw: Bytes) -> Result<Self, Error> {
        let mut checkpoint = Self { raw, used_tokens: None, max_tokens: None, covers: 0 };
        let raw = checkpoint.raw.clone();
        let mut reader = Reader::new(&raw);
        while let Some(field) = reader.field()? {
            if field.number == TOKEN_DETAILS {
                checkpoint.token_details(field.value.bytes()?)?;
            }
        }
        Ok(checkpoint)
    }

    fn token_details(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        // Present without numbers means 0, as proto3 says.
        self.used_tokens.get_or_insert_default();
        self.max_tokens.get_or_insert_default();
        let mut reader = Reader::new(bytes);
        while let Some(field) = reader.field()? {
            match field.number {
                1 => self.used_tokens = Some(field.value.varint()? as u32),
                2 => self.max_tokens = Some(field.value.varint()? as u32),
                _ => {}
            }
        }
        Ok(())
    }

    /// The bytes as they came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Size of the live context in tokens, where the service said it; not a bill (PROTOCOL 3).
    pub fn used_tokens(&self) -> Option<u32> {
        self.used_tokens
    }

    /// Size of the context window, where the service said it.
    pub fn max_tokens(&self) -> Option<u32> {
        self.max_tokens
    }

    /// The bytes without the entries of the prompt list: as few ranges as there are gaps.
    pub(crate) fn without_root_prompt(&self) -> Vec<Range<usize>> {
        let mut kept: Vec<Range<usize>> = Vec::new();
        let mut reader = Reader::new(&self.raw);
        let mut start = 0;
        // `new` has read the same fields, so there is no error to meet.
        while let Ok(Some(field)) = reader.field() {
            let end = self.raw.len() - reader.rest().len();
            if field.number != ROOT_PROMPT {
                match kept.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => kept.push(start..end),
                }
            }
            start = end;
        }
        kept
    }
}

impl fmt::Debug for Checkpoint {
    /// Sizes only: a checkpoint can hold what people said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("len", &self.raw.len())
            .field("used_tokens", &self.used_tokens)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{put_bytes, put_nested, put_uint};

    #[test]
    fn token_details_and_cuts() {
        let mut raw = Vec::new();
        put_bytes(&mut raw, 1, b"old");
        put_nested(&mut raw, 5, |out| {
            put_uint(out, 1, 120);
            put_uint(out, 2, 2000);
        });
        put_bytes(&mut raw, 1, b"again");
        put_bytes(&mut raw, 8, b"turn");
        put_bytes(&mut raw, 99, b"UNK");
        let checkpoint = Checkpoint::new(raw.clone().into()).unwrap();
        assert_eq!(checkpoint.used_tokens(), Some(120));
        assert_eq!(checkpoint.max_tokens(), Some(2000));
        assert_eq!(checkpoint.raw(), &raw);

        let kept: Vec<u8> = checkpoint
            .without_root_prompt()
            .into_iter()
            .flat_map(|range| checkpoint.raw()[range].to_vec())
            .collect();
        let mut expected = raw[5..12].to_vec();
        put_bytes(&mut expected, 8, b"turn");
        put_bytes(&mut expected, 99, b"UNK");
        assert_eq!(kept, expected);
        assert_eq!(checkpoint.without_root_prompt().len(), 2);
    }

    #[test]
    fn malformed_states_are_refused() {
        for raw in [&[0x0a, 5, 1][..], &[0x28, 1], &[0x2a, 2, 0x0a, 5], &[0x0f]] {
            let error = Checkpoint::new(Bytes::copy_from_slice(raw)).unwrap_err();
            assert_eq!(error.kind(), &crate::error::Kind::Protocol, "{raw:02x?}");
        }
        let empty = Checkpoint::new(Bytes::from_static(&[0x2a, 0])).unwrap();
        assert_eq!((empty.used_tokens(), empty.max_tokens()), (Some(0), Some(0)));
    }
}
