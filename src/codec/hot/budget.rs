//! How large a message may become before prost builds it.
//!
//! Two bytes on the wire can become an element of 176 bytes in memory, so 16 MiB could become
//! more than a gigabyte (FAULTS M37). The count here reads every length-delimited field as if it
//! were a message, as far as that goes: prost cannot build more than what is counted, because what
//! it takes for a message is one, and text that looks like a message by chance costs little.

use crate::error::{Error, Result};
use crate::wire::{MAX_DEPTH, Reader, Value};

/// The most memory that one message may take when decoded, in bytes (FAULTS, promises).
pub const MAX_DECODED: usize = 64 << 20;
/// The most memory that it may take for each byte on the wire.
pub const MAX_FACTOR: usize = 64;
/// Below this size, in bytes on the wire, a message is decoded without a count: what it can become
/// is bounded by its size.
const UNCOUNTED: usize = 64 * 1024;

/// Memory for an element of a repeated message field: the largest has 176 bytes.
const ELEMENT: usize = 192;
/// Memory for an element of a repeated number: all of them are 32 bits wide. Packed ones, a byte
/// each on the wire, are not counted; they grow by four at most.
const NUMBER: usize = 4;

/// Refuses a message that would take too much memory when decoded.
pub(super) fn check(payload: &[u8]) -> Result<()> {
    if payload.len() <= UNCOUNTED {
        return Ok(());
    }
    let limit = payload.len().saturating_mul(MAX_FACTOR).min(MAX_DECODED);
    let counted = count(payload, MAX_DEPTH);
    if counted <= limit {
        return Ok(());
    }
    Err(Error::limit(format!(
        "a server message of {} bytes would take {counted} bytes when decoded, the limit is {limit}",
        payload.len()
    )))
}

/// Memory for the fields of `content`, up to where it stops to be a message.
fn count(content: &[u8], depth: u32) -> usize {
    let mut total = 0_usize;
    let mut reader = Reader::new(content);
    while let Ok(Some(field)) = reader.field() {
        total += match field.value {
            Value::Len(inner) => match depth.checked_sub(1) {
                Some(depth) => ELEMENT + count(inner, depth).max(inner.len()),
                None => ELEMENT + inner.len(),
            },
            _ => NUMBER,
        };
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{put_bytes, put_nested};

    /// An exec message with `content` in the field of `grep_args`.
    fn exec(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_nested(&mut out, 2, |out| put_bytes(out, 5, content));
        out
    }

    #[test]
    fn m37_elements_are_counted_before_they_are_built() {
        let million = [0x0a, 0].repeat(1_500_000);
        let error = check(&exec(&million)).unwrap_err();
        assert_eq!(error.kind(), &crate::error::Kind::LimitExceeded);
        let cut = [&million[..], &[0xff]].concat();
        assert!(check(&exec(&cut)).is_err(), "what fails at its end is built up to there");
    }

    #[test]
    fn large_texts_pass() {
        for unit in ["fn main() {}\n", " ", "a", "0", "漢字", "\0", "{\"a\": [1]}, "] {
            let text = unit.repeat((16 << 20) / unit.len());
            assert!(check(&exec(text.as_bytes())).is_ok(), "{unit:?}");
        }
        // A line feed is a tag and a length too: the texts that look most like elements.
        for unit in ["\n", "\n    x"] {
            assert!(
                check(&exec(unit.repeat((2 << 20) / unit.len()).as_bytes())).is_ok(),
                "{unit:?}"
            );
        }
    }
}
