//! The hash that keys are made of: SHA-256 over canonical JSON, as the reference computes it.
//!
//! Canonical means: object keys sorted by UTF-16 code unit, arrays in order, scalars as
//! ECMAScript's `JSON.stringify` prints them. So every number goes through a 64-bit float, as it
//! does there: integers above 2^53 collapse to the same neighbours.

use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Bytes of the digest that are kept: 128 bits are enough for keys within one run.
const KEPT: usize = 16;

/// `h` and 32 lower-case hexadecimal digits over the canonical text of `value`.
///
/// ```
/// use agentwire_workflow::hash::durable_hash;
/// use serde_json::json;
///
/// assert_eq!(durable_hash(&json!({"b": 2, "a": 1})), "h43258cff783fe7036d8a43033f830adf");
/// ```
pub fn durable_hash(value: &Value) -> String {
    hash_text(&canonical(value))
}

/// The hash of a text that is canonical already.
pub fn hash_text(canonical: &str) -> String {
    let digest = Sha256::digest(canonical.as_bytes());
    let mut out = String::with_capacity(1 + 2 * KEPT);
    out.push('h');
    for byte in digest.iter().take(KEPT) {
        // Writing to a string cannot fail.
        let _written = write!(out, "{byte:02x}");
    }
    out
}

/// The canonical text of `value`.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}

fn print(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => print_number(number.as_f64().unwrap_or(f64::NAN), out),
        Value::String(text) => print_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                print(item, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            // UTF-16 order, not byte order: they differ above the basic plane.
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                print_string(key, out);
                out.push(':');
                print(item, out);
            }
            out.push('}');
        }
    }
}

fn print_number(number: f64, out: &mut String) {
    if number == 0.0 {
        // JavaScript prints negative zero without its sign.
        out.push('0');
    } else if number.is_finite() {
        out.push_str(ryu_js::Buffer::new().format_finite(number));
    } else {
        out.push_str("null");
    }
}

fn print_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _written = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
