//! The error object of the Connect protocol, as JSON: in an end-stream message and as the body of
//! a unary error. Reading is lenient where that keeps the code and the message (FAULTS M17, M20),
//! never deep on the stack and never large beside the input (FAULTS M18, M19).

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Code;
use super::json::{Members, elements, string};
use crate::error::{Detail, Error};
use crate::redact::Redactor;

/// How many details of an error are kept; a service sends one or two. No option, as the next: the
/// limits of an end-stream message and of an error body bound all of it; these keep an error small
/// that is cloned and printed.
const MAX_DETAILS: usize = 64;
/// The longest `debug` member that is kept, in bytes of JSON.
const MAX_DEBUG: usize = 64 * 1024;
/// What a type URL may have before the name of the message.
const TYPE_PREFIX: &str = "type.googleapis.com/";

/// Base64 with padding or without, as both are sent.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An error as the peer stated it, before anybody decides what it means.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Stated {
    /// The code, where it is one of the sixteen.
    pub code: Option<Code>,
    /// The message, cleaned by the redactor; `None` when there is none or it is no string.
    pub message: Option<String>,
    /// The details that could be read.
    pub details: Vec<Detail>,
}

impl fmt::Debug for Stated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stated").field("code", &self.code).finish_non_exhaustive()
    }
}

impl Stated {
    /// Reads an error object. `None` when `raw` is no object.
    pub(super) fn parse(raw: &str, redactor: &Redactor) -> Option<Self> {
        let members = Members::parse(raw)?;
        let text = |name| members.get(name).and_then(string);
        Some(Self {
            code: text("code").and_then(|code| code.parse().ok()),
            message: text("message").map(|text| redactor.clean(&text)),
            details: members.get("details").map_or_else(Vec::new, |raw| details(raw, redactor)),
        })
    }
}

/// The readable entries of `details`.
fn details(raw: &str, redactor: &Redactor) -> Vec<Detail> {
    elements(raw).into_iter().take(MAX_DETAILS).filter_map(|raw| detail(raw, redactor)).collect()
}

fn detail(raw: &str, redactor: &Redactor) -> Option<Detail> {
    let members = Members::parse(raw)?;
    let type_name = string(members.get("type")?)?;
    let value = BASE64.decode(string(members.get("value")?)?).ok()?;
    let debug = members.get("debug").filter(|raw| raw.len() <= MAX_DEBUG);
    let mut debug = debug.and_then(|raw| serde_json::from_str::<Value>(raw).ok());
    if let Some(debug) = &mut debug {
        redactor.hide_json(debug);
    }
    let type_name = redactor.clean(type_name.strip_prefix(TYPE_PREFIX).unwrap_or(&type_name));
    Some(Detail { type_name, value: Bytes::from(value), debug })
}

/// The JSON error object of `error`: what a server sends. The hint stays here; it is not for the
/// peer.
pub fn error_json(error: &Error) -> Value {
    let mut object = Map::new();
    object.insert("code".to_owned(), error.code().as_str().into());
    if !error.message().is_empty() {
        object.insert("message".to_owned(), error.message().into());
    }
    if !error.details().is_empty() {
        object.insert("details".to_owned(), error.details().iter().map(detail_json).collect());
    }
    Value::Object(object)
}

fn detail_json(detail: &Detail) -> Value {
    let value = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&detail.value);
    let mut object = json!({ "type": detail.type_name, "value": value });
    if let (Some(debug), Some(object)) = (&detail.debug, object.as_object_mut()) {
        object.insert("debug".to_owned(), debug.clone());
    }
    object
}
