//! JSON to wire bytes: the inverse of [`super::decode`].

use serde_json::{Map, Value};

use super::decode::{Decoder, Level};
use super::error::InspectError;
use super::scalar::{from_base64, put_number, to_wire, wire_type};
use crate::proto::reflect::{FieldInfo, FieldKind, MessageInfo, Shape};
use crate::wire::{MAX_DEPTH, WireType, put_bytes, put_tag, put_uint};

/// The highest field number there is.
const MAX_NUMBER: u32 = (1 << 29) - 1;

type Result<T> = std::result::Result<T, InspectError>;

/// Writes one message; knows where in the JSON it is.
pub(super) struct Encoder {
    path: Vec<String>,
}

/// A member that becomes fields.
enum Member<'v> {
    Known(&'static FieldInfo, &'v Value),
    Unknown(&'v Value),
}

impl Encoder {
    /// An encoder of what stands at `path` in the whole JSON.
    pub(super) fn at(path: &str) -> Self {
        let path = if path.is_empty() { Vec::new() } else { vec![path.to_owned()] };
        Self { path }
    }

    fn error(&self, reason: impl Into<std::borrow::Cow<'static, str>>) -> InspectError {
        InspectError::json(self.path.join("."), reason)
    }

    fn object<'v>(&self, value: &'v Value) -> Result<&'v Map<String, Value>> {
        value.as_object().ok_or_else(|| self.error("expected an object"))
    }

    fn base64(&self, value: &Value) -> Result<Vec<u8>> {
        from_base64(value).ok_or_else(|| self.error("expected a string of base64"))
    }

    /// Runs `write` one step further down the path.
    fn inside<R>(
        &mut self,
        step: impl Into<String>,
        write: impl FnOnce(&mut Self) -> Result<R>,
    ) -> Result<R> {
        self.path.push(step.into());
        let result = write(self)?;
        self.path.pop();
        Ok(result)
    }

    /// The bytes of a message.
    pub(super) fn message(
        &mut self,
        info: &'static MessageInfo,
        value: &Value,
        level: Level,
    ) -> Result<Vec<u8>> {
        let object = self.object(value)?;
        if let Some(raw) = object.get("raw") {
            let bytes = self.inside("raw", |this| this.base64(raw))?;
            return self.kept(info, object, bytes, level);
        }
        if level.is_too_deep() {
            return Err(self.error(format!("messages are nested more than {MAX_DEPTH} levels")));
        }
        let mut members = Vec::with_capacity(object.len());
        for (name, value) in object.iter().filter(|(_, value)| !value.is_null()) {
            members.push(self.member(info, name, value)?);
        }
        members.sort_by_key(|(number, _)| *number);
        let mut out = Vec::new();
        for (number, member) in members {
            match member {
                Member::Known(field, value) => {
                    self.inside(field.name, |this| this.field(&mut out, field, value, level))?;
                }
                Member::Unknown(value) => {
                    self.inside(number.to_string(), |this| this.unknown(&mut out, number, value))?;
                }
            }
        }
        Ok(out)
    }

    /// Bytes that are given exactly. The members beside them must say the same, so that nobody
    /// changes one of them and wonders why nothing happens.
    fn kept(
        &self,
        info: &'static MessageInfo,
        object: &Map<String, Value>,
        bytes: Vec<u8>,
        level: Level,
    ) -> Result<Vec<u8>> {
        if object.len() == 1 {
            return Ok(bytes);
        }
        let shown = Decoder::new().nested(info, &bytes, level);
        let mut shown = shown.map_err(|error| self.error(error.reason().to_owned()))?;
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("raw".to_owned(), object.get("raw").cloned().unwrap_or_default());
            if shown == object {
                return Ok(bytes);
            }
        }
        Err(self.error(
            "the members beside `raw` do not say what `raw` says; \
             remove `raw` to have the members encoded, or the members to have `raw` taken as it is",
        ))
    }

    fn member<'v>(
        &self,
        info: &'static MessageInfo,
        name: &str,
        value: &'v Value,
    ) -> Result<(u32, Member<'v>)> {
        if let Some(field) = info.field_named(name) {
            return Ok((field.number, Member::Known(field, value)));
        }
        let number = name.parse().ok().filter(|number| (1..=MAX_NUMBER).contains(number));
        match number {
            Some(number) => Ok((number, Member::Unknown(value))),
            None => Err(self.error(format!("{} has no field {}", info.name, quoted(name)))),
        }
    }

    fn field(
        &mut self,
        out: &mut Vec<u8>,
        field: &'static FieldInfo,
        value: &Value,
        level: Level,
    ) -> Result<()> {
        let level = level.inside(field.shape, 0);
        match field.shape {
            Shape::One => self.put(out, field.number, field.kind, value, level),
            Shape::Many => {
                let Value::Array(values) = value else {
                    return Err(self.error("expected an array"));
                };
                if field.kind.is_packable() {
                    return self.packed(out, field, values);
                }
                for (index, value) in values.iter().enumerate() {
                    self.inside(index.to_string(), |this| {
                        this.put(out, field.number, field.kind, value, level)
                    })?;
                }
                Ok(())
            }
            Shape::Map => {
                let mut entries: Vec<_> = self.object(value)?.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_bytes());
                for (key, value) in entries {
                    let mut entry = Vec::new();
                    put_bytes(&mut entry, 1, key.as_bytes());
                    self.inside("{}", |this| this.put(&mut entry, 2, field.kind, value, level))?;
                    put_bytes(out, field.number, &entry);
                }
                Ok(())
            }
        }
    }

    fn packed(&mut self, out: &mut Vec<u8>, field: &FieldInfo, values: &[Value]) -> Result<()> {
        let mut content = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let bits = self.inside(index.to_string(), |this| this.bits(field.kind, value))?;
            put_number(&mut content, field.kind, bits);
        }
        if !content.is_empty() {
            put_bytes(out, field.number, &content);
        }
        Ok(())
    }

    fn bits(&self, kind: FieldKind, value: &Value) -> Result<u64> {
        to_wire(kind, value).map_err(|expected| self.error(expected))
    }

    /// One value with its tag.
    fn put(
        &mut self,
        out: &mut Vec<u8>,
        number: u32,
        kind: FieldKind,
        value: &Value,
        level: Level,
    ) -> Result<()> {
        match kind {
            FieldKind::Message(info) => put_bytes(out, number, &self.message(info, value, level)?),
            FieldKind::Bytes => put_bytes(out, number, &self.base64(value)?),
            FieldKind::String => match value {
                Value::String(text) => put_bytes(out, number, text.as_bytes()),
                Value::Object(object) if object.len() == 1 && object.contains_key("raw") => {
                    let raw = object.get("raw").unwrap_or(&Value::Null);
                    put_bytes(out, number, &self.inside("raw", |this| this.base64(raw))?);
                }
                _ => return Err(self.error("expected a string")),
            },
            _ => {
                let bits = self.bits(kind, value)?;
                put_tag(out, number, wire_type(kind));
                put_number(out, kind, bits);
            }
        }
        Ok(())
    }

    /// Fields that the schema does not know.
    fn unknown(&mut self, out: &mut Vec<u8>, number: u32, value: &Value) -> Result<()> {
        if let Value::Array(values) = value {
            for (index, value) in values.iter().enumerate() {
                self.inside(index.to_string(), |this| this.unknown_one(out, number, value))?;
            }
            return Ok(());
        }
        self.unknown_one(out, number, value)
    }

    fn unknown_one(&self, out: &mut Vec<u8>, number: u32, field: &Value) -> Result<()> {
        let value = field.get("value").unwrap_or(&Value::Null);
        match field.get("wire_type").and_then(Value::as_str) {
            Some("varint") => put_uint(out, number, self.bits(FieldKind::Uint64, value)?),
            Some("i64") => {
                let bits = self.bits(FieldKind::Uint64, value)?;
                put_tag(out, number, WireType::I64);
                out.extend_from_slice(&bits.to_le_bytes());
            }
            Some("len") => put_bytes(out, number, &self.base64(value)?),
            Some("group") => {
                put_tag(out, number, WireType::StartGroup);
                out.extend_from_slice(&self.base64(value)?);
                put_tag(out, number, WireType::EndGroup);
            }
            Some("i32") => {
                let bits = self.bits(FieldKind::Uint32, value)? as u32;
                put_tag(out, number, WireType::I32);
                out.extend_from_slice(&bits.to_le_bytes());
            }
            _ => {
                return Err(self.error(
                    "expected an object with `wire_type` (varint, i64, len, group or i32) and `value`",
                ));
            }
        }
        Ok(())
    }
}

/// A name from the JSON, short enough for an error.
fn quoted(name: &str) -> String {
    let short: String = name.chars().take(60).collect();
    format!("{short:?}")
}
