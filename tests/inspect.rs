//! The inspector: bytes to JSON and back to the same bytes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[path = "inspect/messages.rs"]
mod messages;
#[path = "inspect/soup.rs"]
mod soup;
#[path = "inspect/streams.rs"]
mod streams;
#[path = "inspect/vectors.rs"]
mod vectors;

use serde_json::Value;

/// Bytes written as hexadecimal; spaces are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert_eq!(digits.len() % 2, 0, "{text}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// The JSON as somebody gets it who sorts the keys of what was printed.
fn sorted(value: &Value) -> Value {
    let mut value: Value = serde_json::from_str(&value.to_string()).expect("what was printed");
    value.sort_all_objects();
    value
}
