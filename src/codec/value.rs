//! `google.protobuf.Value` to and from JSON: tool schemas and the arguments of tool calls.
//!
//! Keys keep their order, as the source has it. Every number is a double on the wire; one that is
//! whole comes in as an integer, so that `2` does not become `2.0` (BEHAVIOUR T03).

use serde_json::{Map, Number, Value};

use super::Policy;
use super::back::Back;
use super::json::{self, Keys};
use crate::error::{Blame, Error};
use crate::wire::{Field, Reader, WireError, size_bytes};

/// How deep values may nest, the value itself included. The library's own JSON reader stops at 128
/// and prost at 50 (BEHAVIOUR T02); this is beyond what a model writes, and low enough that
/// whoever walks the result by recursion does not run out of stack. No option: the stack is not
/// ours to know.
pub const MAX_DEPTH: usize = 256;

/// Largest whole number that every double below can tell from its neighbours.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// A JSON value that nests deeper than [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("JSON nested deeper than {MAX_DEPTH} levels")]
pub struct TooDeep;

impl From<TooDeep> for Error {
    fn from(error: TooDeep) -> Self {
        Self::limit(error.to_string()).with_blame(Blame::Caller)
    }
}

/// Why bytes do not give a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a `google.protobuf.Value`: not protobuf, no kind, not finite, or not UTF-8.
    #[error("not a google.protobuf.Value")]
    NotAValue,
    /// A value, but one that nests too deep.
    #[error(transparent)]
    TooDeep(#[from] TooDeep),
}

impl From<WireError> for ValueError {
    fn from(_: WireError) -> Self {
        Self::NotAValue
    }
}

/// The JSON of an encoded `google.protobuf.Value`.
///
/// # Errors
///
/// [`ValueError::NotAValue`] when the bytes are none, when a value in it has no kind, or when a
/// number is not finite; [`ValueError::TooDeep`] beyond [`MAX_DEPTH`].
pub fn to_json(bytes: &[u8]) -> Result<Value, ValueError> {
    let mut value = None;
    merge(&mut value, bytes, MAX_DEPTH)?;
    value.ok_or(ValueError::NotAValue)
}

/// The JSON of one argument of a tool call: bytes that are no value are text, with U+FFFD for what
/// is not UTF-8; they are not parsed as JSON (BEHAVIOUR 4).
///
/// # Errors
///
/// [`TooDeep`] beyond [`MAX_DEPTH`]: text would be garbage there.
pub fn argument(bytes: &[u8]) -> Result<Value, TooDeep> {
    match to_json(bytes) {
        Ok(value) => Ok(value),
        Err(ValueError::NotAValue) => Ok(Value::String(String::from_utf8_lossy(bytes).into())),
        Err(ValueError::TooDeep(error)) => Err(error),
    }
}

/// `value` as compact JSON text: under [`Policy::Typed`] with the keys in their order, under
/// [`Policy::Reference`] as JavaScript prints it, integer-like keys first and every number a double.
///
/// # Errors
///
/// [`TooDeep`] beyond [`MAX_DEPTH`].
pub fn to_text(value: &Value, policy: Policy) -> Result<String, TooDeep> {
    let keys = match policy {
        Policy::Typed => Keys::Source,
        Policy::Reference => Keys::Reference,
    };
    let mut out = Vec::new();
    json::write(&mut out, value, keys)?;
    // Made of strings and ASCII only.
    Ok(String::from_utf8(out).unwrap_or_default())
}

/// Appends `value` as an encoded `google.protobuf.Value`.
///
/// # Errors
///
/// [`TooDeep`] beyond [`MAX_DEPTH`]; `out` is as it was then.
pub fn from_json(value: &Value, out: &mut Vec<u8>) -> Result<(), TooDeep> {
    let mut back = Back::new(64);
    write(&mut back, value, Keys::Source)?;
    out.extend_from_slice(back.since(0));
    Ok(())
}

/// Writes the fields of a `google.protobuf.Value` in front of what `out` holds.
pub(crate) fn write(out: &mut Back<'_>, value: &Value, keys: Keys) -> Result<(), TooDeep> {
    write_at(out, value, keys, MAX_DEPTH)
}

fn write_at(out: &mut Back<'_>, value: &Value, keys: Keys, depth: usize) -> Result<(), TooDeep> {
    let inside = depth.checked_sub(1).ok_or(TooDeep)?;
    match value {
        Value::Null => out.uint(1, 0),
        // A number beyond doubles does not exist without arbitrary precision; NaN would be refused.
        Value::Number(number) => out.double(2, number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => out.text(3, text),
        Value::Bool(flag) => out.uint(4, u64::from(*flag)),
        Value::Object(map) => {
            let mark = out.len();
            if keys == Keys::Source {
                for (key, item) in map.iter().rev() {
                    write_member(out, key, item, keys, inside)?;
                }
            } else {
                for (key, item) in json::members(map, keys).into_iter().rev() {
                    write_member(out, key, item, keys, inside)?;
                }
            }
            out.wrap(5, mark);
        }
        Value::Array(items) => {
            let mark = out.len();
            for item in items.iter().rev() {
                out.message(1, |out| write_at(out, item, keys, inside))?;
            }
            out.wrap(6, mark);
        }
    }
    Ok(())
}

/// One entry of `Struct.fields`; key and value are written even when empty (BEHAVIOUR 3.5).
fn write_member(
    out: &mut Back<'_>,
    key: &str,
    value: &Value,
    keys: Keys,
    depth: usize,
) -> Result<(), TooDeep> {
    let mark = out.len();
    out.message(2, |out| write_at(out, value, keys, depth))?;
    out.text(1, key);
    out.wrap(1, mark);
    Ok(())
}

/// Bytes that [`write`] writes; less where the value nests too deep for it.
pub(crate) fn size(value: &Value) -> usize {
    size_at(value, MAX_DEPTH)
}

fn size_at(value: &Value, depth: usize) -> usize {
    let Some(inside) = depth.checked_sub(1) else { return 0 };
    match value {
        Value::Null | Value::Bool(_) => 2,
        Value::Number(_) => 9,
        Value::String(text) => size_bytes(3, text.len()),
        Value::Array(items) => {
            size_bytes(6, items.iter().map(|item| size_bytes(1, size_at(item, inside))).sum())
        }
        Value::Object(map) => {
            let member = |(key, item): (&String, &Value)| {
                size_bytes(1, size_bytes(1, key.len()) + size_bytes(2, size_at(item, inside)))
            };
            size_bytes(5, map.iter().map(member).sum())
        }
    }
}

/// Reads the fields of a `Value` into `value`. The last kind wins; the same kind again is merged.
fn merge(value: &mut Option<Value>, bytes: &[u8], depth: usize) -> Result<(), ValueError> {
    let inside = depth.checked_sub(1).ok_or(TooDeep)?;
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => {
                field.value.varint()?;
                *value = Some(Value::Null);
            }
            2 => *value = Some(number(field)?),
            3 => *value = Some(Value::String(field.value.text()?.to_owned())),
            4 => *value = Some(Value::Bool(field.value.varint()? != 0)),
            5 => {
                if !matches!(value, Some(Value::Object(_))) {
                    *value = Some(Value::Object(Map::new()));
                }
                if let Some(Value::Object(map)) = value {
                    merge_struct(map, field.value.bytes()?, inside)?;
                }
            }
            6 => {
                if !matches!(value, Some(Value::Array(_))) {
                    *value = Some(Value::Array(Vec::new()));
                }
                if let Some(Value::Array(items)) = value {
                    merge_list(items, field.value.bytes()?, inside)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn number(field: Field<'_>) -> Result<Value, ValueError> {
    let crate::wire::Value::I64(bits) = field.value else { return Err(ValueError::NotAValue) };
    let double = f64::from_bits(bits);
    if double.fract() == 0.0 && double.abs() <= MAX_WHOLE {
        return Ok(Value::Number(Number::from(double as i64)));
    }
    Number::from_f64(double).map(Value::Number).ok_or(ValueError::NotAValue)
}

fn merge_struct(
    map: &mut Map<String, Value>,
    bytes: &[u8],
    depth: usize,
) -> Result<(), ValueError> {
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field()? {
        if field.number != 1 {
            continue;
        }
        let (mut key, mut value) = ("", None);
        let mut entry = Reader::new(field.value.bytes()?);
        while let Some(field) = entry.field()? {
            match field.number {
                1 => key = field.value.text()?,
                2 => merge(&mut value, field.value.bytes()?, depth)?,
                _ => {}
            }
        }
        // A repeated key keeps its first place and takes the last value.
        map.insert(key.to_owned(), value.ok_or(ValueError::NotAValue)?);
    }
    Ok(())
}

fn merge_list(items: &mut Vec<Value>, bytes: &[u8], depth: usize) -> Result<(), ValueError> {
    let mut reader = Reader::new(bytes);
    while let Some(field) = reader.field()? {
        if field.number == 1 {
            let mut item = None;
            merge(&mut item, field.value.bytes()?, depth)?;
            items.push(item.ok_or(ValueError::NotAValue)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;
    use serde_json::json;

    use super::*;

    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        from_json(value, &mut out).unwrap();
        out
    }

    #[test]
    fn whole_numbers_come_in_as_integers() {
        for (double, expected) in [
            (2.0, json!(2)),
            (-0.0, json!(0)),
            (42.5, json!(42.5)),
            (MAX_WHOLE, json!(9_007_199_254_740_992_i64)),
            (1e21, json!(1e21)),
        ] {
            let mut out = Back::new(16);
            out.double(2, double);
            let value = to_json(&out.finish()).unwrap();
            assert_eq!(value.to_string(), expected.to_string());
        }
    }

    #[test]
    fn what_is_no_value_is_text() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"README.md", "README.md"),
            (b"2024", "2024"),
            (b"{\"limit\":3}", "{\"limit\":3}"),
            (&[0xff], "\u{fffd}"),
            (&[0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f], "\u{11}\0\0\0\0\0\0\u{fffd}\u{7f}"),
            (&[0x32, 2, 0x0a, 0], "2\u{2}\n\0"),
        ] {
            assert_eq!(to_json(bytes), Err(ValueError::NotAValue), "{bytes:02x?}");
            assert_eq!(argument(bytes), Ok(json!(text)));
        }
        // The last kind wins.
        assert_eq!(argument(&[0x08, 0, 0x20, 1]), Ok(json!(true)));
    }

    #[test]
    fn deep_values_are_refused_without_a_deep_stack() {
        let nested = |levels: usize| {
            let mut out = Back::new(16 * levels);
            out.uint(1, 0);
            for _ in 1..levels {
                out.wrap(1, 0);
                out.wrap(6, 0);
            }
            out.finish()
        };
        let run = move || {
            let value = argument(&nested(MAX_DEPTH)).unwrap();
            assert_eq!(encoded(&value), nested(MAX_DEPTH));
            assert_eq!(argument(&nested(MAX_DEPTH + 1)), Err(TooDeep));
            assert_eq!(argument(&nested(100_000)), Err(TooDeep));
            assert_eq!(from_json(&json!([value]), &mut Vec::new()), Err(TooDeep));
        };
        // Half of what a thread has by default.
        std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
    }

    /// The value as prost knows it: an independent decoder.
    fn from_prost(value: prost_types::Value) -> Option<Value> {
        use prost_types::value::Kind;
        Some(match value.kind? {
            Kind::NullValue(_) => Value::Null,
            Kind::NumberValue(n) if n.fract() == 0.0 && n.abs() <= MAX_WHOLE => json!(n as i64),
            Kind::NumberValue(n) => Value::Number(Number::from_f64(n)?),
            Kind::StringValue(s) => Value::String(s),
            Kind::BoolValue(b) => Value::Bool(b),
            Kind::StructValue(s) => Value::Object(
                s.fields
                    .into_iter()
                    .map(|(k, v)| Some((k, from_prost(v)?)))
                    .collect::<Option<_>>()?,
            ),
            Kind::ListValue(l) => {
                Value::Array(l.values.into_iter().map(from_prost).collect::<Option<_>>()?)
            }
        })
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i32>().prop_map(|n| json!(n)),
            (-1e300..1e300).prop_map(|n: f64| json!(n)),
            "\\PC{0,8}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::vec(("\\PC{0,4}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// Equal, order of keys included, and `2.0` the same as `2`.
    fn same(a: &Value, b: &Value) -> bool {
        let mut texts = [Vec::new(), Vec::new()];
        json::write(&mut texts[0], a, Keys::Source).unwrap();
        json::write(&mut texts[1], b, Keys::Source).unwrap();
        texts[0] == texts[1]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn json_survives_the_wire(value in any_json()) {
            let bytes = encoded(&value);
            prop_assert_eq!(size(&value), bytes.len());
            let back = to_json(&bytes).unwrap();
            prop_assert!(same(&back, &value), "{value} {back}");
            let oracle = from_prost(prost_types::Value::decode(&bytes[..]).unwrap()).unwrap();
            prop_assert_eq!(back, oracle);
        }

        #[test]
        fn accepts_what_prost_accepts(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let oracle = prost_types::Value::decode(&bytes[..]).ok().and_then(from_prost);
            prop_assert_eq!(to_json(&bytes).ok(), oracle);
        }
    }
}
