//! Fuzz bodies of framing, end-stream and redaction. They live here so that they compile with it;
//! `fuzz/` and the property tests call them.

use super::{Compression, Decoder, EndStream, Envelope, Limits, put_envelope};
use crate::redact::Redactor;

/// Small, so that a fuzzer finds its way to them.
const LIMITS: Limits =
    Limits { message: 4_096, decompressed: 8_192, end_stream: 1_024, ..Limits::DEFAULT };

/// The secret that must not come out of anything.
const SECRET: &str = "secret-token-123";

/// What a decoder made of a body.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Message(Vec<u8>),
    EndStream(Option<String>, Vec<(String, String)>),
    Failed(String),
}

/// Any bytes, cut anywhere, in both encodings: no panic, the limits hold, and every cut gives what
/// the whole gives.
///
/// # Panics
/// When a promise is broken. `cuts` are sizes of the pieces, used in turn; zeros are skipped.
pub fn decoder_split(body: &[u8], cuts: &[u8]) {
    for compression in [Compression::None, Compression::Gzip] {
        let whole = decode(compression, std::iter::once(body));
        assert_eq!(whole, decode(compression, body.chunks(1)), "byte by byte");
        assert_eq!(whole, decode(compression, Pieces { body, cuts: cuts.iter().cycle() }));
    }
}

fn decode<'a>(compression: Compression, chunks: impl Iterator<Item = &'a [u8]>) -> Vec<Seen> {
    let redactor = Redactor::new([SECRET]);
    let mut decoder = Decoder::new(LIMITS, compression).with_redactor(redactor);
    let mut seen = Vec::new();
    for mut chunk in chunks {
        loop {
            match decoder.next(&mut chunk) {
                Ok(Some(envelope)) => seen.push(look(envelope)),
                Ok(None) => break,
                Err(error) => {
                    let again = decoder.next(&mut chunk).err().map(|again| again.to_string());
                    assert_eq!(again, Some(error.to_string()), "an error is final");
                    seen.push(Seen::Failed(error.to_string()));
                    return seen;
                }
            }
        }
        assert!(chunk.is_empty(), "a chunk is used up before the next");
    }
    if let Err(error) = decoder.finish() {
        seen.push(Seen::Failed(error.to_string()));
    }
    seen
}

fn look(envelope: Envelope<'_>) -> Seen {
    match envelope {
        Envelope::Message(payload) => {
            assert!(payload.len() <= LIMITS.decompressed);
            Seen::Message(payload.to_vec())
        }
        Envelope::EndStream(end) => {
            Seen::EndStream(end.error.map(|error| error.to_string()), end.metadata)
        }
    }
}

/// The pieces of a body, their sizes taken from a list again and again.
struct Pieces<'a, C> {
    body: &'a [u8],
    cuts: C,
}

impl<'a, 'c, C: Iterator<Item = &'c u8>> Iterator for Pieces<'a, C> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.body.is_empty() {
            return None;
        }
        // Without a cut that is not zero in sight, the rest comes in one piece.
        let cut = self.cuts.by_ref().take(64).map(|&cut| usize::from(cut)).find(|&cut| cut > 0);
        let at = cut.unwrap_or(self.body.len()).min(self.body.len());
        let (piece, rest) = self.body.split_at(at);
        self.body = rest;
        Some(piece)
    }
}

/// Envelopes whose framing is right and whose inside is wild: each payload comes out as it went in.
///
/// # Panics
/// When one does not. `data` is cut into payloads at its zero bytes.
pub fn envelopes(data: &[u8]) {
    let payloads: Vec<&[u8]> =
        data.split(|&byte| byte == 0).map(|part| part.get(..4_096).unwrap_or(part)).collect();
    let mut body = Vec::new();
    for payload in &payloads {
        put_envelope(&mut body, 0, payload);
    }
    let expected: Vec<Seen> =
        payloads.iter().map(|payload| Seen::Message(payload.to_vec())).collect();
    assert_eq!(decode(Compression::None, body.chunks(7)), expected);
}

/// Any end-stream message: no panic, no secret, one printable line; what is written from it reads
/// as the same.
///
/// # Panics
/// When a promise is broken.
pub fn end_stream(payload: &[u8]) {
    let redactor = Redactor::new([SECRET]);
    let Ok(end) = EndStream::parse(payload, &redactor) else { return };
    if let Some(error) = &end.error {
        let text = error.to_string();
        assert!(!text.contains(SECRET), "a secret in {text}");
        assert!(!text.contains(['\n', '\r', '\u{1b}']), "control characters in {text:?}");
    }
    let again = EndStream::parse(end.to_json().as_bytes(), &redactor);
    let again = again.expect("what was written can be read");
    let code = |end: &EndStream| end.error.as_ref().map(crate::Error::code);
    assert_eq!(code(&end), code(&again));
}

/// Any text: what comes out of redaction holds no secret in any form that is known, no control
/// character, and is not longer than the limit.
///
/// # Panics
/// When a promise is broken.
pub fn redaction(text: &str) {
    let clean = Redactor::new([SECRET]).clean(text);
    assert!(!clean.contains(SECRET), "a secret in {clean}");
    assert!(!clean.chars().any(char::is_control), "control characters in {clean:?}");
    assert!(clean.encode_utf16().count() <= 1_200, "{} units", clean.encode_utf16().count());
}
