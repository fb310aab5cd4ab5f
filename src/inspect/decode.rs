//! Wire bytes to JSON.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::error::{Fault, InspectError};
use super::scalar::{base64, number, wire_type, zero};
use super::scan::{self, Part};
use super::{FOLD_AT, MAX_VALUES};
use crate::proto::reflect::{FieldInfo, FieldKind, MessageInfo, Shape};
use crate::wire::{MAX_DEPTH, Value as Wire};

/// Turns one message into JSON, and remembers the first damage inside it.
pub(super) struct Decoder {
    /// How many more values it may make.
    budget: usize,
    /// The first part that no decoder of the protocol would take.
    pub(super) damage: Option<InspectError>,
}

/// Where in the nest a message is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    /// Messages around it.
    messages: u32,
    /// JSON objects and arrays around it.
    json: u32,
    /// A message around it keeps its exact bytes, so this one need not.
    kept: bool,
    /// Its first byte, counted from that of the outermost message.
    at: u64,
}

impl Level {
    /// That of the outermost message.
    pub(super) const TOP: Self = Self { messages: 0, json: 0, kept: false, at: 0 };

    /// That of a message in a field of this one.
    pub(super) fn inside(self, shape: Shape, at: usize) -> Self {
        Self {
            messages: self.messages + 1,
            json: self.json + if shape == Shape::One { 1 } else { 2 },
            kept: self.kept,
            at: self.at.saturating_add(at as u64),
        }
    }

    pub(super) fn is_too_deep(self) -> bool {
        self.messages > MAX_DEPTH
    }
}

/// A member of the object to be: made already, or to be made when it is known whether the message
/// around it keeps its exact bytes.
enum Slot<'a> {
    Ready(Value),
    One(&'static MessageInfo, Cow<'a, [u8]>, usize),
    Many(&'static MessageInfo, Vec<(&'a [u8], usize)>),
    Map(&'static MessageInfo, Vec<(&'a str, &'a [u8], usize)>),
}

/// A member and whether writing it gives the bytes it was made from.
type Shown<'a> = (Slot<'a>, bool);

impl Decoder {
    pub(super) fn new() -> Self {
        Self { budget: MAX_VALUES, damage: None }
    }

    /// The JSON of a message.
    pub(super) fn message(
        &mut self,
        info: &MessageInfo,
        bytes: &[u8],
        level: Level,
    ) -> Result<Value, Fault> {
        if level.json > FOLD_AT {
            return Ok(json!({ "raw": base64(bytes) }));
        }
        if level.is_too_deep() {
            let reason = format!("messages are nested more than {MAX_DEPTH} levels");
            return Err(Fault::Limit(InspectError::bytes(level.at, reason)));
        }
        let mut parts =
            scan::scan(bytes, &mut self.budget).map_err(|fault| fault.moved(level.at))?;
        let mut exact = parts.is_sorted_by_key(Part::number) && parts.iter().all(Part::is_shortest);
        parts.sort_by_key(Part::number);
        let mut slots = Vec::new();
        for group in parts.chunk_by(|a, b| a.number() == b.number()) {
            exact &= self.group(info, group, level, &mut slots)?;
        }
        let inside = Level { kept: level.kept || !exact, ..level };
        let mut object = Map::new();
        for (name, slot) in slots {
            object.insert(name, self.fill(slot, inside)?);
        }
        if inside.kept && !level.kept {
            object.insert("raw".to_owned(), base64(bytes).into());
        }
        Ok(Value::Object(object))
    }

    /// The JSON of a message inside another. One that does not parse is shown by its bytes.
    pub(super) fn nested(
        &mut self,
        info: &MessageInfo,
        bytes: &[u8],
        level: Level,
    ) -> Result<Value, InspectError> {
        match self.message(info, bytes, level) {
            Ok(value) => Ok(value),
            Err(Fault::Limit(error)) => Err(error),
            Err(Fault::Malformed(error)) => {
                let offset = error.offset().unwrap_or_default().saturating_sub(level.at);
                let damaged = json!({ "offset": offset, "reason": error.reason() });
                self.damage.get_or_insert(error);
                Ok(json!({ "damaged": damaged, "raw": base64(bytes) }))
            }
        }
    }

    /// The members for all fields with one number: one under its name for those that are what the
    /// schema says, one under its number for the others. Gives whether they can be written again.
    fn group<'a>(
        &mut self,
        info: &MessageInfo,
        parts: &[Part<'a>],
        level: Level,
        slots: &mut Vec<(String, Slot<'a>)>,
    ) -> Result<bool, Fault> {
        let Some(number) = parts.first().map(Part::number) else { return Ok(true) };
        let Some(field) = info.field(number) else {
            slots.push((number.to_string(), Slot::Ready(unknown(parts))));
            return Ok(true);
        };
        let (fit, other): (Vec<Part<'a>>, Vec<Part<'a>>) =
            parts.iter().partition(|part| fits(field, part));
        let mut exact = fit.is_empty() || other.is_empty();
        if let Some(part) = other.first() {
            let offset = level.at + part.at as u64;
            let reason = format!("the bytes of {}.{} do not fit its type", info.name, field.name);
            self.damage.get_or_insert_with(|| InspectError::bytes(offset, reason));
        }
        if !fit.is_empty() {
            let (slot, shown_exactly) = match field.shape {
                Shape::One => self.single(field.kind, &fit, level),
                Shape::Many => self.repeated(field.kind, &fit, level)?,
                Shape::Map => self.map(field.kind, &fit, level),
            };
            exact &= shown_exactly;
            slots.push((field.name.to_owned(), slot));
        }
        if !other.is_empty() {
            slots.push((number.to_string(), Slot::Ready(unknown(&other))));
        }
        Ok(exact)
    }

    /// A field that should be there once. The last one counts; messages are joined, as protobuf
    /// has it.
    fn single<'a>(&mut self, kind: FieldKind, parts: &[Part<'a>], level: Level) -> Shown<'a> {
        let alone = parts.len() == 1;
        if let FieldKind::Message(info) = kind {
            let at = parts.first().map_or(0, Part::content_at);
            let contents: Vec<&[u8]> = parts.iter().filter_map(Part::content).collect();
            let bytes = match contents.as_slice() {
                [content] => Cow::Borrowed(*content),
                several => Cow::Owned(several.concat()),
            };
            return (Slot::One(info, bytes, at), alone);
        }
        let Some(part) = parts.last() else { return (Slot::Ready(Value::Null), true) };
        let (value, exact) = self.scalar(kind, part.field.value, level, part.content_at());
        (Slot::Ready(value), alone && exact)
    }

    fn repeated<'a>(
        &mut self,
        kind: FieldKind,
        parts: &[Part<'a>],
        level: Level,
    ) -> Result<Shown<'a>, Fault> {
        let contents = || parts.iter().filter_map(|p| Some((p.content()?, p.content_at())));
        if let FieldKind::Message(info) = kind {
            return Ok((Slot::Many(info, contents().collect()), true));
        }
        if !kind.is_packable() {
            let values = contents()
                .map(|(content, at)| self.scalar(kind, Wire::Len(content), level, at).0)
                .collect();
            return Ok((Slot::Ready(Value::Array(values)), true));
        }
        let mut array = Vec::new();
        let mut exact = parts.len() == 1;
        for part in parts {
            let (elements, shortest) = match part.content() {
                Some(content) => scan::packed(content, wire_type(kind)).unwrap_or_default(),
                None => (vec![part.field.value], false),
            };
            self.spend(elements.len(), level.at + part.at as u64)?;
            exact &= shortest && !elements.is_empty();
            for element in elements {
                let (value, element_exact) = number(kind, element);
                exact &= element_exact;
                array.push(value);
            }
        }
        Ok((Slot::Ready(Value::Array(array)), exact))
    }

    /// A map, in the order of the wire. Written are maps in the order of their keys.
    fn map<'a>(&mut self, kind: FieldKind, parts: &[Part<'a>], level: Level) -> Shown<'a> {
        let mut object = Map::new();
        let mut messages = Vec::new();
        let mut exact = true;
        let mut before = None;
        for part in parts {
            let Some(entry) = part.content().and_then(scan::entry) else { continue };
            exact &= entry.exact && before.is_none_or(|before| before < entry.key);
            before = Some(entry.key);
            let at = part.content_at() + entry.value.map_or(0, |value| value.content_at());
            if let FieldKind::Message(info) = kind {
                let content = entry.value.and_then(|value| value.content()).unwrap_or_default();
                messages.push((info, (entry.key, content, at)));
                continue;
            }
            let wire = entry.value.map_or_else(|| zero(kind), |value| value.field.value);
            let (value, value_exact) = self.scalar(kind, wire, level, at);
            exact &= value_exact;
            object.insert(entry.key.to_owned(), value);
        }
        match messages.first() {
            Some((info, _)) => {
                let info = *info;
                (Slot::Map(info, messages.into_iter().map(|(_, entry)| entry).collect()), exact)
            }
            None => (Slot::Ready(Value::Object(object)), exact),
        }
    }

    /// A value that is no message. Text that is not UTF-8 is shown by its bytes.
    fn scalar(
        &mut self,
        kind: FieldKind,
        wire: Wire<'_>,
        level: Level,
        at: usize,
    ) -> (Value, bool) {
        match (kind, wire) {
            (FieldKind::Bytes, Wire::Len(content)) => (base64(content).into(), true),
            (FieldKind::String, Wire::Len(content)) => match simdutf8::compat::from_utf8(content) {
                Ok(text) => (text.into(), true),
                Err(error) => {
                    let offset = level.at + (at + error.valid_up_to()) as u64;
                    let damage = || InspectError::bytes(offset, "a string is not valid UTF-8");
                    self.damage.get_or_insert_with(damage);
                    (json!({ "raw": base64(content) }), true)
                }
            },
            (kind, wire) => number(kind, wire),
        }
    }

    fn fill(&mut self, slot: Slot<'_>, level: Level) -> Result<Value, Fault> {
        let limit = Fault::Limit;
        Ok(match slot {
            Slot::Ready(value) => value,
            Slot::One(info, bytes, at) => {
                self.nested(info, &bytes, level.inside(Shape::One, at)).map_err(limit)?
            }
            Slot::Many(info, contents) => {
                let mut array = Vec::with_capacity(contents.len());
                for (bytes, at) in contents {
                    let level = level.inside(Shape::Many, at);
                    array.push(self.nested(info, bytes, level).map_err(limit)?);
                }
                Value::Array(array)
            }
            Slot::Map(info, entries) => {
                let mut object = Map::new();
                for (key, bytes, at) in entries {
                    let level = level.inside(Shape::Map, at);
                    let value = self.nested(info, bytes, level).map_err(limit)?;
                    object.insert(key.to_owned(), value);
                }
                Value::Object(object)
            }
        })
    }

    fn spend(&mut self, values: usize, offset: u64) -> Result<(), Fault> {
        self.budget = self.budget.checked_sub(values).ok_or_else(|| scan::too_many(offset))?;
        Ok(())
    }
}

/// Whether the bytes of a field are what its declaration says; what is inside a message is not
/// looked at here.
fn fits(field: &FieldInfo, part: &Part<'_>) -> bool {
    let expected = wire_type(field.kind);
    match (field.shape, part.content()) {
        (Shape::Map, Some(content)) => scan::entry(content)
            .is_some_and(|entry| entry.value.is_none_or(|value| value.wire_type() == expected)),
        (Shape::Map, None) => false,
        (Shape::Many, Some(content)) if field.kind.is_packable() => {
            scan::packed(content, expected).is_some()
        }
        _ => part.wire_type() == expected,
    }
}

/// Fields that the schema does not know: one object each, an array where there are several.
fn unknown(parts: &[Part<'_>]) -> Value {
    let show = |part: &Part<'_>| match part.field.value {
        Wire::Varint(value) => json!({ "wire_type": "varint", "value": value.to_string() }),
        Wire::I64(value) => json!({ "wire_type": "i64", "value": value.to_string() }),
        Wire::Len(content) => json!({ "wire_type": "len", "value": base64(content) }),
        Wire::Group(content) => json!({ "wire_type": "group", "value": base64(content) }),
        Wire::I32(value) => json!({ "wire_type": "i32", "value": value }),
    };
    match parts {
        [part] => show(part),
        several => several.iter().map(show).collect(),
    }
}
