//! Whole streams: an envelope a line.

use serde_json::{Map, Value, json};

use super::decode::{Decoder, Level};
use super::encode::Encoder;
use super::scalar::{base64, from_base64};
use super::{FOLD_AT, InspectError, Inspected, Side};
use crate::connect::{
    FLAG_COMPRESSED, FLAG_END_STREAM, FLAGS_RESERVED, HEADER_LEN, Limits, gzip, put_envelope,
};

/// The envelopes of one direction of a captured stream, each as JSON.
///
/// ```json
/// {"offset": 0, "flags": 0, "length": 10, "message": {"interaction_update": {}}}
/// {"offset": 15, "flags": 2, "length": 2, "end_stream": {}}
/// ```
///
/// - `offset` is where the envelope starts, `flags` and `length` are what its header says.
/// - `message` is the JSON of the message (see [`super`]), `end_stream` that of the end-stream
///   message. Where writing that compactly and with its keys in order does not give the same bytes,
///   they are kept in `raw` beside it; where it is no JSON, it is `null` and `damaged` says so.
/// - Of a compressed envelope (flag 1, gzip) the payload as it stands in the stream is kept in
///   `compressed`.
///
/// A stream that is cut, flags that are reserved, a message that is no protobuf, gzip that is not,
/// anything after the end-stream envelope, and whatever crosses a limit end the iteration with an
/// error that has the offset in the stream. Damage inside a message does not: see
/// [`Inspected::damage`], whose offset is one of the stream too.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    side: Side,
    limits: Limits,
    pub(super) rest: &'a [u8],
    pub(super) offset: u64,
    pub(super) ended: bool,
}

/// Reads a captured stream. `limits` are those of a connection, with the same defaults.
pub fn lines(side: Side, stream: &[u8], limits: Limits) -> Lines<'_> {
    Lines { side, limits, rest: stream, offset: 0, ended: false }
}

impl Iterator for Lines<'_> {
    type Item = Result<Inspected, InspectError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line().map_err(|error| error.moved(self.offset));
        match &line {
            Ok((_, length)) => {
                self.rest = self.rest.get(*length..).unwrap_or_default();
                self.offset += *length as u64;
            }
            Err(_) => self.rest = &[],
        }
        Some(line.map(|(line, _)| line))
    }
}

impl std::iter::FusedIterator for Lines<'_> {}

impl Lines<'_> {
    /// Whether the next line can be made, or refused, without more bytes behind `rest`.
    pub(super) fn is_settled(&self) -> bool {
        if self.ended {
            return !self.rest.is_empty();
        }
        let Some((&[flags, a, b, c, d], rest)) = self.rest.split_first_chunk::<HEADER_LEN>() else {
            return false;
        };
        let size = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let refused = flags & FLAGS_RESERVED != 0 || size > self.limit(flags, self.limits.message);
        refused || rest.len() >= size
    }

    /// The next line and the length of its envelope. Offsets are those in the envelope.
    fn line(&mut self) -> Result<(Inspected, usize), InspectError> {
        let fail = |reason: String| InspectError::bytes(0, reason);
        if self.ended {
            return Err(fail("something follows the end-stream envelope".to_owned()));
        }
        let Some((&[flags, a, b, c, d], rest)) = self.rest.split_first_chunk::<HEADER_LEN>() else {
            let left = self.rest.len();
            return Err(fail(format!("the stream ends inside a header, after {left} of 5 bytes")));
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if flags & FLAGS_RESERVED != 0 {
            return Err(fail(format!("the envelope has reserved flags: 0x{flags:02x}")));
        }
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        let limit = self.limit(flags, self.limits.message);
        if size > limit {
            return Err(fail(format!("{length} bytes are announced, the limit is {limit}")));
        }
        let payload = rest.get(..size).ok_or_else(|| {
            fail(format!(
                "the stream ends inside a payload, after {} of {length} bytes",
                rest.len()
            ))
        })?;
        let limit = self.limit(flags, self.limits.decompressed);
        let shown = show(self.side, flags, payload, limit)?;
        let head = json!({ "offset": self.offset, "flags": flags, "length": length });
        let mut line = head.as_object().cloned().unwrap_or_default();
        line.extend(shown.members);
        let damage = shown.damage.map(|damage| damage.moved(self.offset));
        self.ended = flags & FLAG_END_STREAM != 0;
        Ok((Inspected { value: Value::Object(line), damage }, HEADER_LEN + size))
    }

    fn limit(&self, flags: u8, message: usize) -> usize {
        if flags & FLAG_END_STREAM != 0 { self.limits.end_stream } else { message }
    }
}

/// What the payload of an envelope becomes.
struct Shown {
    members: Map<String, Value>,
    damage: Option<InspectError>,
}

/// The members for a payload. Offsets are those in the envelope; inside a compressed one there are
/// none, so that is said.
fn show(side: Side, flags: u8, payload: &[u8], limit: usize) -> Result<Shown, InspectError> {
    let at = HEADER_LEN as u64;
    if flags & FLAG_COMPRESSED == 0 {
        let mut shown = content(side, flags, payload).map_err(|error| error.moved(at))?;
        shown.damage = shown.damage.map(|damage| damage.moved(at));
        return Ok(shown);
    }
    let mut plain = Vec::new();
    gzip::decompress(payload, limit, &mut plain)
        .map_err(|error| InspectError::bytes(at, error.to_string()))?;
    let unpacked = |error: InspectError| {
        let offset = error.offset().unwrap_or_default();
        let reason = format!("at byte {offset} of the decompressed message: {}", error.reason());
        InspectError::bytes(at, reason)
    };
    let mut shown = content(side, flags, &plain).map_err(unpacked)?;
    shown.damage = shown.damage.map(unpacked);
    shown.members.insert("compressed".to_owned(), base64(payload).into());
    Ok(shown)
}

/// The members for a payload that is not compressed. Offsets are those in the payload.
fn content(side: Side, flags: u8, plain: &[u8]) -> Result<Shown, InspectError> {
    let mut members = Map::new();
    if flags & FLAG_END_STREAM == 0 {
        let mut decoder = Decoder::new();
        let value = decoder.message(side.message(), plain, Level::TOP)?;
        members.insert("message".to_owned(), value);
        return Ok(Shown { members, damage: decoder.damage });
    }
    let parsed = serde_json::from_slice::<Value>(plain).ok();
    let damage = match &parsed {
        None => Some("the end-stream message is no JSON"),
        Some(value) if depth(value) > FOLD_AT => Some("the end-stream message is nested too deep"),
        Some(Value::Object(_)) => None,
        Some(_) => Some("the end-stream message is no JSON object"),
    };
    let value = parsed.filter(|value| depth(value) <= FOLD_AT).unwrap_or_default();
    if end_stream_bytes(&value) != plain {
        members.insert("raw".to_owned(), base64(plain).into());
    }
    members.insert("end_stream".to_owned(), value);
    if let Some(reason) = damage {
        members.insert("damaged".to_owned(), json!({ "offset": 0, "reason": reason }));
    }
    Ok(Shown { members, damage: damage.map(|reason| InspectError::bytes(0, reason)) })
}

/// How an end-stream message is written: compactly, keys in order.
fn end_stream_bytes(value: &Value) -> Vec<u8> {
    let mut value = value.clone();
    value.sort_all_objects();
    value.to_string().into_bytes()
}

/// Objects and arrays inside each other. A value that was read is never deeper than its reader goes.
fn depth(value: &Value) -> u32 {
    let inner = match value {
        Value::Array(values) => values.iter().map(depth).max(),
        Value::Object(members) => members.values().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or_default()
}

/// The bytes of an envelope from its line.
///
/// `offset` and `length` are not read: both follow from what is written. A compressed envelope
/// without `compressed` is compressed anew.
///
/// # Errors
///
/// As for [`super::from_json`], and for flags that no envelope may have.
pub fn envelope_from_json(side: Side, line: &Value) -> Result<Vec<u8>, InspectError> {
    let object = line.as_object().ok_or_else(|| InspectError::json("", "expected an object"))?;
    let flags = match object.get("flags") {
        None => 0,
        Some(flags) => flags
            .as_u64()
            .and_then(|flags| u8::try_from(flags).ok())
            .filter(|flags| flags & FLAGS_RESERVED == 0)
            .ok_or_else(|| InspectError::json("flags", "expected 0, 1, 2 or 3"))?,
    };
    let payload = payload(side, flags, object)?;
    if u32::try_from(payload.len()).is_err() {
        return Err(InspectError::json("", "an envelope holds less than 4 GiB"));
    }
    let mut out = Vec::new();
    put_envelope(&mut out, flags, &payload);
    Ok(out)
}

fn payload(side: Side, flags: u8, line: &Map<String, Value>) -> Result<Vec<u8>, InspectError> {
    let name = if flags & FLAG_END_STREAM == 0 { "message" } else { "end_stream" };
    for key in line.keys() {
        let known = ["offset", "flags", "length", "damaged", "compressed", "raw", name];
        if !known.contains(&key.as_str()) {
            let reason = format!("an envelope with flags {flags} has no such member");
            return Err(InspectError::json(key.chars().take(60).collect::<String>(), reason));
        }
    }
    let Some(compressed) = line.get("compressed") else {
        let plain = plain(side, name, line)?;
        let packed = flags & FLAG_COMPRESSED != 0;
        return Ok(if packed { gzip::compress(&plain) } else { plain });
    };
    if flags & FLAG_COMPRESSED == 0 {
        return Err(InspectError::json("compressed", "flag 1 (compressed) is not set"));
    }
    let payload = bytes("compressed", compressed)?;
    if line.contains_key(name) && !says_the_same(side, flags, line, &payload) {
        let reason = "the members beside it say something else; \
                      remove it to have them compressed anew";
        return Err(InspectError::json("compressed", reason));
    }
    Ok(payload)
}

/// Whether the members of a line are those that its compressed payload gives.
fn says_the_same(side: Side, flags: u8, line: &Map<String, Value>, payload: &[u8]) -> bool {
    // The line itself bounds what this may become: it holds what was decompressed.
    let limit = Limits::default().decompressed.max(Value::Object(line.clone()).to_string().len());
    show(side, flags, payload, limit).is_ok_and(|shown| {
        let content =
            |(key, _): &(&String, &Value)| !["offset", "flags", "length"].contains(&key.as_str());
        line.iter().filter(content).count() == shown.members.len()
            && shown.members.iter().all(|(key, value)| line.get(key) == Some(value))
    })
}

/// The payload before compression.
fn plain(side: Side, name: &str, line: &Map<String, Value>) -> Result<Vec<u8>, InspectError> {
    let Some(value) = line.get(name) else {
        return match line.get("raw") {
            Some(raw) => bytes("raw", raw),
            None => Err(InspectError::json("", format!("expected a member `{name}`"))),
        };
    };
    if name == "message" {
        return Encoder::at(name).message(side.message(), value, Level::TOP);
    }
    let Some(raw) = line.get("raw") else { return Ok(end_stream_bytes(value)) };
    let raw = bytes("raw", raw)?;
    let said = content(Side::Server, FLAG_END_STREAM, &raw)?;
    if said.members.get(name) == Some(value) {
        return Ok(raw);
    }
    let reason = "it says something else than `end_stream`; remove one of them";
    Err(InspectError::json("raw", reason))
}

fn bytes(path: &str, value: &Value) -> Result<Vec<u8>, InspectError> {
    from_base64(value).ok_or_else(|| InspectError::json(path, "expected a string of base64"))
}
