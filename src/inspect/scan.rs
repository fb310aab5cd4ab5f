//! The fields of one message as they stand on the wire, and whether they stand there in the one
//! form that [`super::encode`] writes.

use super::MAX_VALUES;
use super::error::{Fault, InspectError};
use crate::wire::{
    Field, Reader, Value, WireError, WireType, size_bytes, size_tag, size_uint, size_varint,
};

/// A field with the place of its first byte in its message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) at: usize,
    pub(super) field: Field<'a>,
}

impl<'a> Part<'a> {
    pub(super) fn number(&self) -> u32 {
        self.field.number
    }

    /// The content of a length-delimited field.
    pub(super) fn content(&self) -> Option<&'a [u8]> {
        match self.field.value {
            Value::Len(content) => Some(content),
            _ => None,
        }
    }

    /// Where that content starts in the message.
    pub(super) fn content_at(&self) -> usize {
        let content = self.content().map_or(0, <[u8]>::len);
        self.at + self.field.raw.len().saturating_sub(content)
    }

    pub(super) fn wire_type(&self) -> WireType {
        match self.field.value {
            Value::Varint(_) => WireType::Varint,
            Value::I64(_) => WireType::I64,
            Value::Len(_) => WireType::Len,
            Value::Group(_) => WireType::StartGroup,
            Value::I32(_) => WireType::I32,
        }
    }

    /// Whether tag, length and varint are as short as they can be.
    pub(super) fn is_shortest(&self) -> bool {
        let number = self.number();
        let shortest = match self.field.value {
            Value::Varint(value) => size_uint(number, value),
            Value::I64(_) => size_tag(number) + 8,
            Value::Len(content) => size_bytes(number, content.len()),
            Value::Group(content) => 2 * size_tag(number) + content.len(),
            Value::I32(_) => size_tag(number) + 4,
        };
        self.field.raw.len() == shortest
    }
}

/// Takes a message apart, one level deep. Its fields are counted against `budget`.
pub(super) fn scan<'a>(message: &'a [u8], budget: &mut usize) -> Result<Vec<Part<'a>>, Fault> {
    let mut reader = Reader::new(message);
    let mut parts = Vec::new();
    loop {
        let at = message.len() - reader.rest().len();
        let malformed =
            |error: WireError| Fault::Malformed(InspectError::bytes(at as u64, error.to_string()));
        let Some(field) = reader.field().map_err(malformed)? else { return Ok(parts) };
        *budget = budget.checked_sub(1).ok_or_else(|| too_many(at as u64))?;
        parts.push(Part { at, field });
    }
}

/// The fault of a message with more values than [`MAX_VALUES`].
pub(super) fn too_many(offset: u64) -> Fault {
    let reason = format!("the message holds more than {MAX_VALUES} values");
    Fault::Limit(InspectError::bytes(offset, reason))
}

/// The elements of a packed field, and whether each is in its shortest form. `None` where the
/// content is not a row of elements of that type.
pub(super) fn packed(content: &[u8], element: WireType) -> Option<(Vec<Value<'_>>, bool)> {
    let mut reader = Reader::new(content);
    let mut values = Vec::new();
    let mut size = 0;
    while !reader.is_empty() {
        let value = reader.value(1, element).ok()?;
        size += match value {
            Value::Varint(value) => size_varint(value),
            Value::I64(_) => 8,
            _ => return None,
        };
        values.push(value);
    }
    Some((values, size == content.len()))
}

/// Key and value of a map entry, with the place of the value in the entry.
pub(super) struct Entry<'a> {
    pub(super) key: &'a str,
    pub(super) value: Option<Part<'a>>,
    /// One key, then one value, in the shortest form.
    pub(super) exact: bool,
}

/// Takes a map entry apart. `None` where it is not one: it does not parse, or the key is no text.
/// As in any message, the last of two keys or values counts.
pub(super) fn entry(content: &[u8]) -> Option<Entry<'_>> {
    let mut budget = content.len();
    let parts = scan(content, &mut budget).ok()?;
    let mut found = Entry { key: "", value: None, exact: false };
    for part in &parts {
        match part.number() {
            1 => found.key = std::str::from_utf8(part.content()?).ok()?,
            2 => found.value = Some(*part),
            _ => {}
        }
    }
    let numbers = parts.iter().map(Part::number);
    found.exact = numbers.eq([1, 2]) && parts.iter().all(Part::is_shortest);
    Some(found)
}
