//! JSON text with an order of keys that is chosen, and numbers as JavaScript prints them.
//!
//! Blobs hold JSON whose bytes are hashed: the same value must give the same bytes, run after run.

use serde_json::{Map, Number, Value};

use super::value::{MAX_DEPTH, TooDeep};

/// The order of the keys of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// As they stand in the source.
    Source,
    /// By their bytes: what blobs hold (PROTOCOL 4).
    Sorted,
    /// Integer-like keys first, by number, then the others as they stand: JavaScript's order.
    Reference,
}

/// The members of an object in that order.
pub(crate) fn members(map: &Map<String, Value>, keys: Keys) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = map.iter().collect();
    match keys {
        Keys::Source => {}
        Keys::Sorted => members.sort_by_key(|(key, _)| *key),
        // A stable sort: keys that are no integers all compare equal and keep their order.
        Keys::Reference => members.sort_by_key(|(key, _)| array_index(key).unwrap_or(u64::MAX)),
    }
    members
}

/// The number of a key that JavaScript takes for an array index.
fn array_index(key: &str) -> Option<u64> {
    let plain = key.bytes().all(|b| b.is_ascii_digit()) && (key == "0" || !key.starts_with('0'));
    key.parse().ok().filter(|index| plain && *index < u64::from(u32::MAX))
}

/// Appends `value` as compact JSON.
pub(crate) fn write(out: &mut Vec<u8>, value: &Value, keys: Keys) -> Result<(), TooDeep> {
    write_at(out, value, keys, MAX_DEPTH)
}

fn write_at(out: &mut Vec<u8>, value: &Value, keys: Keys, depth: usize) -> Result<(), TooDeep> {
    let inside = depth.checked_sub(1).ok_or(TooDeep)?;
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, number, keys),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            let mut before = b'[';
            for item in items {
                out.push(before);
                before = b',';
                write_at(out, item, keys, inside)?;
            }
            out.extend_from_slice(if items.is_empty() { b"[]" } else { b"]" });
        }
        Value::Object(map) => {
            let mut before = b'{';
            for (key, item) in members(map, keys) {
                out.push(before);
                before = b',';
                write_string(out, key);
                out.push(b':');
                write_at(out, item, keys, inside)?;
            }
            out.extend_from_slice(if map.is_empty() { b"{}" } else { b"}" });
        }
    }
    Ok(())
}

/// Integers keep all their digits, but under [`Keys::Reference`], where every number is a double.
fn write_number(out: &mut Vec<u8>, number: &Number, keys: Keys) {
    match number.as_f64() {
        Some(double) if keys == Keys::Reference || number.is_f64() => {
            out.extend_from_slice(js_number(double).as_bytes());
        }
        _ => out.extend_from_slice(number.to_string().as_bytes()),
    }
}

/// A finite number as JavaScript prints it: no fraction where there is none, `0` for minus zero,
/// an exponent from 1e21 up and below 1e-6 (BEHAVIOUR T03).
pub(crate) fn js_number(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    // The shortest digits that read back as the same number, and where the point stands.
    let text = format!("{:e}", number.abs());
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.replace('.', "");
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let sign = if number < 0.0 { "-" } else { "" };
    let count = digits.len() as i32;
    match point {
        1..=21 if count <= point => format!("{sign}{digits:0<0$}", point as usize),
        1..=21 => {
            let (whole, fraction) = digits.split_at(point as usize);
            format!("{sign}{whole}.{fraction}")
        }
        -5..=0 => format!("{sign}0.{}{digits}", "0".repeat(point.unsigned_abs() as usize)),
        _ => {
            let (first, rest) = digits.split_at(1);
            let dot = if rest.is_empty() { "" } else { "." };
            let plus = if point > 0 { "+" } else { "-" };
            format!("{sign}{first}{dot}{rest}e{plus}{}", (point - 1).unsigned_abs())
        }
    }
}

/// Appends a JSON string with quotes, escaped as little as JSON allows (BEHAVIOUR 3.2).
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = next_escape(rest) {
        let (run, tail) = rest.split_at(at);
        out.extend_from_slice(run);
        let Some((byte, tail)) = tail.split_first() else { break };
        write_escape(out, *byte);
        rest = tail;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Bytes of a value as compact JSON with its keys as they stand.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => match number.as_u64() {
            Some(whole) => whole.checked_ilog10().unwrap_or(0) as usize + 1,
            None => number.to_string().len(),
        },
        Value::String(text) => string_size(text),
        Value::Array(items) => {
            2 + items.iter().map(size).sum::<usize>() + items.len().saturating_sub(1)
        }
        Value::Object(map) => {
            let members = map.iter().map(|(key, item)| string_size(key) + 1 + size(item));
            2 + members.sum::<usize>() + map.len().saturating_sub(1)
        }
    }
}

/// Bytes of a JSON string with its quotes.
fn string_size(text: &str) -> usize {
    let mut size = text.len() + 2;
    let mut rest = text.as_bytes();
    while let Some(at) = next_escape(rest) {
        let Some((byte, tail)) = rest.get(at..).and_then(<[u8]>::split_first) else { break };
        let short = matches!(byte, b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r');
        size += if short { 1 } else { 5 };
        rest = tail;
    }
    size
}

/// Where the next character stands that must be escaped.
///
/// This runs over every byte of a history: blocks are asked as a whole first, without a branch for
/// each byte, which the compiler makes vectors of.
#[inline]
fn next_escape(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 32;
    let escaped = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    let (blocks, tail) = bytes.as_chunks::<BLOCK>();
    for (place, block) in blocks.iter().enumerate() {
        if block.iter().fold(false, |found, byte| found | escaped(byte)) {
            return block.iter().position(escaped).map(|at| place * BLOCK + at);
        }
    }
    tail.iter().position(escaped).map(|at| blocks.len() * BLOCK + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(value: &Value, keys: Keys) -> String {
        let mut out = Vec::new();
        write(&mut out, value, keys).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_as_javascript_prints_them() {
        let cases = [
            (0.0, "0"),
            (-0.0, "0"),
            (2.0, "2"),
            (-3.5, "-3.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (1_152_921_504_606_846_976.0, "1152921504606847000"),
            (123.456, "123.456"),
            (0.000_001, "0.000001"),
            (0.000_001_5, "0.0000015"),
            (1e-7, "1e-7"),
            (1.25e-9, "1.25e-9"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ];
        for (number, expected) in cases {
            assert_eq!(js_number(number), expected);
        }
    }

    #[test]
    fn keys_in_each_order() {
        let value =
            json!({"b": 1, "10": 2, "9": 3, "a": {"z": 1, "": 2}, "01": 4, "4294967295": 5});
        assert_eq!(
            text(&value, Keys::Source),
            r#"{"b":1,"10":2,"9":3,"a":{"z":1,"":2},"01":4,"4294967295":5}"#
        );
        assert_eq!(
            text(&value, Keys::Sorted),
            r#"{"01":4,"10":2,"4294967295":5,"9":3,"a":{"":2,"z":1},"b":1}"#
        );
        assert_eq!(
            text(&value, Keys::Reference),
            r#"{"9":3,"10":2,"b":1,"a":{"z":1,"":2},"01":4,"4294967295":5}"#
        );
    }

    #[test]
    fn too_deep_is_an_error() {
        let mut value = json!(1);
        for _ in 1..MAX_DEPTH {
            value = json!([value]);
        }
        assert_eq!(write(&mut Vec::new(), &value, Keys::Sorted), Ok(()));
        assert_eq!(write(&mut Vec::new(), &json!([value]), Keys::Sorted), Err(TooDeep));
    }

    proptest! {
        #[test]
        fn strings_as_serde_json_writes_them(text in "(\\PC|[\\x00-\\x1f\"\\\\]){0,40}") {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(&out, &serde_json::to_vec(&text).unwrap());
            let value = json!({"a": [text, null, true, false], "b": {}, "c": [-1, 0, 9, 10, 0.5]});
            prop_assert_eq!(size(&value), value.to_string().len());
        }

        #[test]
        fn numbers_read_back(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            if number.is_finite() {
                prop_assert_eq!(js_number(number).parse::<f64>().unwrap(), number);
            }
        }
    }
}
