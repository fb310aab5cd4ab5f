//! How much memory a message will take once it is decoded, before it is.
//!
//! A field of two bytes on the wire can become a struct of hundreds (FAULTS M37): what a peer sends
//! is weighed by the schema first, and refused when it is out of all proportion.

use super::reflect::{FieldKind, MessageInfo, Shape};
use crate::wire::{MAX_DEPTH, Reader, Value, WireError};

/// What a message inside another counts for, in bytes: more than most structs of the schema take,
/// fewer than the largest.
const MESSAGE: u64 = 512;

/// What a string or bytes field counts for beside its content.
const BYTES: u64 = 32;

/// What a number counts for.
const NUMBER: u64 = 8;

/// About how many bytes the message takes in memory. Counts fields by the schema: structs, strings,
/// numbers; what the schema does not know is skipped by decoders and counts nothing.
///
/// # Errors
/// The bytes are not a message, or nest deeper than decoders take them.
pub fn weigh(info: &MessageInfo, message: &[u8]) -> Result<u64, WireError> {
    weigh_at(info, message, MAX_DEPTH)
}

fn weigh_at(info: &MessageInfo, message: &[u8], depth: u32) -> Result<u64, WireError> {
    let inside = depth.checked_sub(1).ok_or(WireError::TooDeep)?;
    let mut weight = 0_u64;
    let mut reader = Reader::new(message);
    while let Some(field) = reader.field()? {
        let Some(known) = info.field(field.number) else { continue };
        weight += match (known.shape, field.value) {
            (Shape::Map, Value::Len(entry)) => weigh_entry(known.kind, entry, inside)?,
            (_, value) => weigh_value(known.kind, value, inside)?,
        };
    }
    Ok(weight)
}

fn weigh_value(kind: FieldKind, value: Value<'_>, depth: u32) -> Result<u64, WireError> {
    Ok(match (kind, value) {
        (FieldKind::Message(inner), Value::Len(bytes)) => MESSAGE + weigh_at(inner, bytes, depth)?,
        (FieldKind::String | FieldKind::Bytes, Value::Len(bytes)) => BYTES + bytes.len() as u64,
        // Packed numbers: at most one for each byte.
        (_, Value::Len(bytes)) => NUMBER * bytes.len() as u64,
        _ => NUMBER,
    })
}

/// An entry of a map: a key, and a value of the map's kind in field 2.
fn weigh_entry(kind: FieldKind, entry: &[u8], depth: u32) -> Result<u64, WireError> {
    let mut weight = 2 * BYTES;
    let mut reader = Reader::new(entry);
    while let Some(field) = reader.field()? {
        weight += match field.number {
            2 => weigh_value(kind, field.value, depth)?,
            _ => weigh_value(FieldKind::Bytes, field.value, depth)?,
        };
    }
    Ok(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn many_empty_structs_weigh_more_than_they_show() {
        let client = MessageInfo::named("AgentClientMessage").unwrap();
        let tools = [0x0a, 0x00].repeat(1_000);
        let mut message = Vec::new();
        wire::put_nested(&mut message, 1, |out| wire::put_bytes(out, 4, &tools));
        assert!(weigh(client, &message).unwrap() > 500_000);

        let mut text = Vec::new();
        wire::put_nested(&mut text, 1, |out| wire::put_bytes(out, 5, &[b'x'; 2_000]));
        assert!(weigh(client, &text).unwrap() < 4_000);

        // A map of messages: an entry with an empty value in it still makes a struct.
        let states = [0x82, 0x01, 0x02, 0x12, 0x00].repeat(1_000);
        let mut message = Vec::new();
        wire::put_nested(&mut message, 1, |out| wire::put_bytes(out, 1, &states));
        assert!(weigh(client, &message).unwrap() > 500_000);

        assert!(weigh(client, &[0x0a, 5]).is_err());
    }
}
