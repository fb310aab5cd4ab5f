//! Fuzz bodies of JSON values, base64 images and tool calls; `fuzz/` and the property tests call
//! them.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::image::{Place, decode};
use super::{call, schema, value};
use crate::error::Kind;
use crate::ids::CountingIds;

/// Any bytes as a `google.protobuf.Value`, and as JSON text: what is read is written and read again
/// as the same.
///
/// # Panics
///
/// When a promise is broken.
pub fn json_value(data: &[u8]) {
    if let Ok(read) = value::to_json(data) {
        assert_eq!(rewritten(&read).as_ref(), Some(&read), "a value of the wire");
    }
    if let Ok(parsed) = serde_json::from_slice::<Value>(data)
        && let Some(read) = rewritten(&parsed)
    {
        // Numbers are doubles on the wire: they are compared as those.
        let texts = [&parsed, &read].map(|v| value::to_text(v, super::Policy::Reference).ok());
        assert_eq!(texts[0], texts[1], "a value of JSON");
    }
}

fn rewritten(value: &Value) -> Option<Value> {
    let mut bytes = Vec::new();
    value::from_json(value, &mut bytes).ok()?;
    value::to_json(&bytes).ok()
}

/// Any JSON as the schema of a tool: refused with a reason, or rewritten so that nothing is left to
/// rewrite.
///
/// # Panics
///
/// When a promise is broken.
pub fn tool_schema(data: &[u8]) {
    let Ok(given) = serde_json::from_slice::<Value>(data) else { return };
    match schema::rewrite(&given) {
        Ok(sent) => {
            let again = schema::rewrite(&sent).map(std::borrow::Cow::into_owned);
            assert_eq!(again.as_ref(), Ok(&*sent), "rewritten once and for all");
        }
        Err(refused) => assert!(refused.to_string().len() < 8_000),
    }
}

/// Any text as an image: accepted and decoded as the base64 crate does after the separators are
/// taken out one by one.
///
/// # Panics
///
/// When a promise is broken.
pub fn base64_image(text: &str) {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    let stripped: Vec<u8> =
        text.bytes().filter(|b| !matches!(b, b'\t' | b'\n' | 0x0c | b'\r' | b' ')).collect();
    let expected = match stripped[..] {
        [] => None,
        _ => GeneralPurpose::new(&STANDARD, CONFIG).decode(&stripped).ok(),
    };
    let ours = decode(text, Place::Selected { index: 0, mime_type: "image/png" });
    assert_eq!(ours.ok(), expected);
}

/// Any bytes as a server message with a tool call: a call with a name and an id, or a typed error.
///
/// # Panics
///
/// When a promise is broken.
pub fn tool_call(payload: &[u8]) {
    match call::tool_call(payload, &mut CountingIds::hex()) {
        Ok(call) => {
            assert!(!call.name.is_empty() && !call.id.is_empty() && call.arguments.is_object());
        }
        Err(error) => assert!(matches!(error.kind(), Kind::Protocol | Kind::LimitExceeded)),
    }
}
