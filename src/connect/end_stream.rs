//! The end-stream message: the JSON that ends every stream (PROTOCOL 2).

use std::fmt;

use serde_json::{Map, Value};

use super::classify::{self, Circumstances};
use super::envelope::{FLAG_END_STREAM, put_envelope};
use super::json::{MAX_ENTRIES, Members, elements, members, string};
use super::stated::{Stated, error_json};
use crate::error::{Error, Result};
use crate::redact::Redactor;

/// How the peer ended the stream.
#[derive(Clone, Default)]
pub struct EndStream {
    /// The error it stated; `None` is success.
    pub error: Option<Error>,
    /// The trailers: names in lower case, one entry for each value, in the order they came. The
    /// values are as they came; a program may read them, a log must not.
    pub metadata: Vec<(String, String)>,
}

impl fmt::Debug for EndStream {
    /// The error, and how many trailers there were: their values can be anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndStream")
            .field("error", &self.error)
            .field("metadata", &self.metadata.len())
            .finish()
    }
}

impl EndStream {
    /// The end of a stream that went well.
    pub fn ok() -> Self {
        Self::default()
    }

    /// The end of a stream that failed.
    pub fn failed(error: Error) -> Self {
        Self { error: Some(error), metadata: Vec::new() }
    }

    /// Reads the payload of an end-stream frame.
    ///
    /// What is no JSON object is an error, never success (FAULTS M15, M16). Inside, `error` decides:
    /// missing or `null` is success; an object is the stated error, `unknown` where its code is
    /// none of the sixteen, and its message is kept (M17); any other value is a stated error too
    /// (M18). The error is classified without knowledge of the run: [`classify::refine`] adds that.
    pub fn parse(payload: &[u8], redactor: &Redactor) -> Result<Self> {
        let malformed = || Error::protocol("the end-stream message is not a JSON object");
        let text = simdutf8::basic::from_utf8(payload).map_err(|_| malformed())?;
        let members = Members::parse(text).ok_or_else(malformed)?;
        let metadata: Vec<_> = members.get("metadata").map_or_else(Vec::new, |raw| {
            let pairs = parse_metadata(raw).into_iter();
            pairs.map(|(name, value)| (redactor.hide(&name), redactor.hide(&value))).collect()
        });
        let error = members.get("error").map(|raw| {
            let stated = Stated::parse(raw, redactor).unwrap_or_else(|| Stated {
                message: string(raw).map(|text| redactor.clean(&text)),
                ..Stated::default()
            });
            classify::stated_error(stated, &Circumstances::default())
                .with_metadata(metadata.clone())
        });
        Ok(Self { error, metadata })
    }

    /// The JSON payload: what a server sends.
    pub fn to_json(&self) -> String {
        let mut object = Map::new();
        if let Some(error) = &self.error {
            object.insert("error".to_owned(), error_json(error));
        }
        if !self.metadata.is_empty() {
            object.insert("metadata".to_owned(), Value::Object(grouped(&self.metadata)));
        }
        Value::Object(object).to_string()
    }

    /// The whole envelope, uncompressed.
    pub fn to_envelope(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_envelope(&mut out, FLAG_END_STREAM, self.to_json().as_bytes());
        out
    }
}

/// `{"name": ["value", …]}` as pairs; what is no string is left out.
fn parse_metadata(raw: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, raw) in members(raw) {
        let name = name.to_ascii_lowercase();
        let values = if raw.starts_with('[') { elements(raw) } else { vec![raw] };
        pairs.extend(values.into_iter().filter_map(string).map(|value| (name.clone(), value)));
    }
    pairs.truncate(MAX_ENTRIES);
    pairs
}

/// Pairs as `{"name": ["value", …]}`, names in the order of their first value.
fn grouped(pairs: &[(String, String)]) -> Map<String, Value> {
    let mut object = Map::new();
    for (name, value) in pairs {
        let entry = object.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = entry {
            values.push(Value::String(value.clone()));
        }
    }
    object
}
