//! A `ConversationStateStructure` checked in place: nothing is built, and still everything that
//! the generated decoder would refuse is refused, so a checkpoint that is kept is a good one
//! (FAULTS M31, M35, M85).
//!
//! The schema of the ten messages below it is a table; a test compares it with the field tables.

use super::utf8;
use crate::wire::{MAX_DEPTH, Reader, WireError, WireType};

type Wire<T> = Result<T, WireError>;

/// `token_details` of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tokens {
    pub(super) used: u32,
    pub(super) max: u32,
}

/// What a field must hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// An integer of any width, a bool or an enum.
    Varint,
    /// Any bytes.
    Bytes,
    /// UTF-8.
    Text,
    /// A message.
    Message(&'static Shape),
    /// A map: entries are messages of this shape.
    Map(&'static Shape),
}

/// The fields of a message, ascending by number; others are unknown and skipped.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) fields: &'static [(u32, Kind)],
}

use Kind::{Bytes, Map, Message, Text, Varint};

pub(super) static STATE: Shape = Shape {
    fields: &[
        (1, Bytes),
        (2, Bytes),
        (3, Bytes),
        (4, Text),
        (5, Message(&TOKENS)),
        (6, Bytes),
        (7, Bytes),
        (8, Bytes),
        (9, Text),
        (10, Varint),
        (11, Bytes),
        (12, Map(&BYTES_ENTRY)),
        (13, Bytes),
        (14, Message(&TIMING)),
        (15, Map(&FILE_ENTRY)),
        (16, Map(&SUBAGENT_ENTRY)),
        (17, Varint),
        (18, Text),
        (21, Bytes),
        (22, Text),
    ],
};
static TOKENS: Shape = Shape { fields: &[(1, Varint), (2, Varint)] };
static TIMING: Shape = Shape { fields: &[(1, Varint), (2, Varint)] };
static BYTES_ENTRY: Shape = Shape { fields: &[(1, Text), (2, Bytes)] };
static FILE_ENTRY: Shape = Shape { fields: &[(1, Text), (2, Message(&FILE))] };
static FILE: Shape = Shape { fields: &[(1, Bytes), (2, Bytes)] };
static SUBAGENT_ENTRY: Shape = Shape { fields: &[(1, Text), (2, Message(&SUBAGENT))] };
static SUBAGENT: Shape = Shape {
    fields: &[(1, Message(&STATE)), (2, Varint), (3, Varint), (4, Message(&SUBAGENT_TYPE))],
};
static SUBAGENT_TYPE: Shape = Shape {
    fields: &[
        (1, Message(&Shape { fields: &[] })),
        (2, Message(&Shape { fields: &[] })),
        (3, Message(&Shape { fields: &[(1, Text)] })),
        (4, Message(&Shape { fields: &[] })),
    ],
};
pub(super) static SPAN: Shape = Shape { fields: &[(1, Text), (2, Text), (3, Varint), (4, Text)] };

/// Checks one occurrence of a checkpoint in a server message and folds its token details.
pub(super) fn check(content: &[u8], tokens: &mut Option<Tokens>) -> Wire<()> {
    let depth = MAX_DEPTH - 1;
    let mut reader = Reader::new(behind_ids(content));
    while !reader.is_empty() {
        match reader.tag()? {
            (5, WireType::Len) => fold_tokens(tokens.get_or_insert_default(), reader.bytes()?)?,
            (number, wire_type) => check_field(&STATE, &mut reader, number, wire_type, depth)?,
        }
        reader = Reader::new(behind_ids(reader.rest()));
    }
    Ok(())
}

/// What follows the fields that are by far the most: blob ids of prompt messages (1) and turns (8), 32
/// bytes each. A tag and a length of one byte each need no varints.
#[inline]
fn behind_ids(mut rest: &[u8]) -> &[u8] {
    while let [0x0a | 0x42, len @ ..0x80, content @ ..] = rest
        && let Some(after) = content.get(usize::from(*len)..)
    {
        rest = after;
    }
    rest
}

/// Checks a `SpanContext` two levels down.
pub(super) fn check_span(content: &[u8]) -> Wire<()> {
    check_message(&SPAN, content, MAX_DEPTH - 2)
}

fn fold_tokens(tokens: &mut Tokens, content: &[u8]) -> Wire<()> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        match reader.tag()? {
            (1, WireType::Varint) => tokens.used = reader.varint()? as u32,
            (2, WireType::Varint) => tokens.max = reader.varint()? as u32,
            (1 | 2, _) => return Err(WireError::WrongWireType),
            (number, wire_type) => reader.skip(number, wire_type, MAX_DEPTH - 2)?,
        }
    }
    Ok(())
}

/// Checks a whole message; `depth` is how many levels it may hold.
fn check_message(shape: &'static Shape, content: &[u8], depth: u32) -> Wire<()> {
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        let (number, wire_type) = reader.tag()?;
        check_field(shape, &mut reader, number, wire_type, depth)?;
    }
    Ok(())
}

/// Checks the value after a tag. Recurses once for each message level, which `depth` bounds.
fn check_field(
    shape: &'static Shape,
    reader: &mut Reader<'_>,
    number: u32,
    wire_type: WireType,
    depth: u32,
) -> Wire<()> {
    let Some((_, kind)) = shape.fields.iter().find(|(known, _)| *known == number) else {
        return reader.skip(number, wire_type, depth);
    };
    let expected = if matches!(kind, Varint) { WireType::Varint } else { WireType::Len };
    if wire_type != expected {
        return Err(WireError::WrongWireType);
    }
    match kind {
        Varint => reader.varint().map(drop),
        Bytes => reader.bytes().map(drop),
        Text => utf8(reader.bytes()?).map(drop).ok_or(WireError::InvalidUtf8),
        Message(shape) | Map(shape) => {
            let depth = depth.checked_sub(1).ok_or(WireError::TooDeep)?;
            check_message(shape, reader.bytes()?, depth)
        }
    }
}
