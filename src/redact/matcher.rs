//! Finding a secret in a text, whichever way the text spells it.
//!
//! Rather than listing the encoded forms of a secret, the matcher reads the text one unit at a
//! time, where a unit is a character as it is, `%41`, `\u0041` or `\/`, and compares the bytes that
//! the units stand for. So every mixture is found: a URL encoder that leaves `:` alone, JSON inside
//! a query, upper and lower hex.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

use crate::secret::REDACTED;

/// From this length on a secret is taken out wherever it stands.
const ANYWHERE: usize = 8;
/// Below this length it is ignored.
const SHORTEST: usize = 3;
/// How much of a secret at an end of the text counts as a part of it.
const PART: usize = 8;

/// One spelling of a secret to look for.
pub(super) struct Needle {
    bytes: Zeroizing<Vec<u8>>,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The secret, found anywhere.
    Plain,
    /// A short secret, found only where no letter or digit touches it.
    Word,
    /// What is certain of the base64 of a text that holds the secret, in either alphabet.
    Base64,
}

/// Adds what to look for so that `secret` is found.
pub(super) fn add_forms(needles: &mut Vec<Needle>, secret: &str) {
    let bytes = secret.as_bytes();
    if bytes.len() < SHORTEST {
        return;
    }
    let form = if bytes.len() < ANYWHERE { Form::Word } else { Form::Plain };
    needles.push(Needle { bytes: Zeroizing::new(bytes.to_vec()), form });
    if form == Form::Plain {
        needles.extend((0..3).map(|offset| base64_core(bytes, offset)));
    }
}

/// The base64 characters that depend on the secret alone when `offset` bytes stand before it.
fn base64_core(secret: &[u8], offset: usize) -> Needle {
    let padded = Zeroizing::new([&[0; 2][..offset.min(2)], secret].concat());
    let mut text = Zeroizing::new(STANDARD_NO_PAD.encode(padded.as_slice()).into_bytes());
    // Six bits a character: those that hold bits of a neighbour are left out at both ends.
    text.truncate(padded.len() * 8 / 6);
    let shared = (offset * 8).div_ceil(6).min(text.len());
    text.drain(..shared);
    Needle { bytes: text, form: Form::Base64 }
}

impl Needle {
    /// A needle for [`Needle::replace_exact`]; the empty secret is none.
    pub(super) fn exact(secret: &str) -> Option<Self> {
        let bytes = Zeroizing::new(secret.as_bytes().to_vec());
        (!secret.is_empty()).then_some(Self { bytes, form: Form::Plain })
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// For `super::Mask`.
#[cfg(any(feature = "client", test))]
impl Needle {
    /// The bytes to look for.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where a match that starts at the start of `bytes` ends, whatever stands around it: in a
    /// stream of bytes the neighbours of a secret are lengths and tags.
    pub(super) fn masked(&self, bytes: &[u8]) -> Option<usize> {
        match bytes.starts_with(&self.bytes) {
            true => Some(self.bytes.len()),
            false if self.form == Form::Word => None,
            false => self.matched_from(0, bytes),
        }
    }

    /// What stands in the place of each byte of it: what holds base64 holds it afterwards, too.
    pub(super) fn filler(&self) -> u8 {
        if self.form == Form::Base64 { b'A' } else { b'*' }
    }
}

impl Needle {
    /// `text` with every exact occurrence replaced.
    pub(super) fn replace_exact(&self, text: &str) -> String {
        match std::str::from_utf8(&self.bytes) {
            Ok(secret) => text.replace(secret, REDACTED),
            Err(_) => text.to_owned(),
        }
    }

    /// Where a match that starts at the start of `text` ends. A text that ends inside the match
    /// is one too when [`PART`] bytes of it are there.
    fn matched(&self, text: &[u8], before: Option<u8>) -> Option<usize> {
        if self.form == Form::Word && before.is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let end = match text.starts_with(&self.bytes) {
            true => self.bytes.len(),
            false => self.matched_from(0, text)?,
        };
        let after = text.get(end).copied();
        let touches = after.is_some_and(|byte| byte.is_ascii_alphanumeric());
        (self.form != Form::Word || !touches).then_some(end)
    }

    /// The same for what the needle has from `from` on.
    fn matched_from(&self, from: usize, text: &[u8]) -> Option<usize> {
        let mut at = 0;
        for (done, &wanted) in self.bytes.get(from..)?.iter().enumerate() {
            let rest = text.get(at..).unwrap_or_default();
            let Some((unit, len)) = unit(rest) else {
                return (self.form != Form::Word && done >= PART).then_some(at);
            };
            if unit == wanted || self.alike(unit, wanted) {
                at += len;
            } else if rest.first() == Some(&wanted) {
                at += 1;
            } else {
                // An escape that the end of the text cut is the end of the text.
                let is_part = self.form != Form::Word && done >= PART && is_escape(rest);
                return is_part.then_some(text.len());
            }
        }
        Some(at)
    }

    /// Bytes that stand for each other: both alphabets of base64, and `+` for a space in a query.
    fn alike(&self, unit: u8, wanted: u8) -> bool {
        match self.form {
            Form::Base64 => matches!((unit, wanted), (b'-', b'+') | (b'_', b'/')),
            Form::Plain | Form::Word => unit == b'+' && wanted == b' ',
        }
    }
}

/// Whether `rest`, the last bytes of a text, is the start of an escape that lost its end.
fn is_escape(rest: &[u8]) -> bool {
    match rest {
        [b'%', hex @ ..] => hex.len() < 2 && hex.iter().all(u8::is_ascii_hexdigit),
        [b'\\'] => true,
        [b'\\', b'u', hex @ ..] => hex.len() < 4 && hex.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    }
}

/// The first unit of `text`: the byte that it stands for, and its length in the text.
fn unit(text: &[u8]) -> Option<(u8, usize)> {
    let hex = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    match *text {
        [b'%', high, low, ..] => match (hex(high), hex(low)) {
            (Some(high), Some(low)) => Some((high << 4 | low, 3)),
            _ => Some((b'%', 1)),
        },
        // Above 7f the number is a code point, not a byte; secrets of headers are ASCII.
        [b'\\', b'u', b'0', b'0', high @ b'0'..=b'7', low, ..] => match (hex(high), hex(low)) {
            (Some(high), Some(low)) => Some((high << 4 | low, 6)),
            _ => Some((b'\\', 1)),
        },
        [b'\\', byte @ (b'"' | b'\\' | b'/'), ..] => Some((byte, 2)),
        [b'\\', b'n', ..] => Some((b'\n', 2)),
        [b'\\', b'r', ..] => Some((b'\r', 2)),
        [b'\\', b't', ..] => Some((b'\t', 2)),
        [byte, ..] => Some((byte, 1)),
        [] => None,
    }
}

/// `text` with every match of every needle replaced.
pub(super) fn replace(needles: &[Needle], text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    if let Some(end) = needles.iter().filter_map(|needle| leading_part(needle, bytes)).max() {
        out.extend_from_slice(REDACTED.as_bytes());
        at = end;
    }
    while let Some(&byte) = bytes.get(at) {
        let before = at.checked_sub(1).and_then(|index| bytes.get(index)).copied();
        let rest = bytes.get(at..).unwrap_or_default();
        let end = needles.iter().filter_map(|needle| needle.matched(rest, before)).max();
        if let Some(end) = end.filter(|&end| end > 0) {
            out.extend_from_slice(REDACTED.as_bytes());
            at += end;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    // A match can end inside a character only where a secret was cut there: lossy is right.
    String::from_utf8(out)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The end of a secret that a text starts with because the rest went elsewhere.
fn leading_part(needle: &Needle, text: &[u8]) -> Option<usize> {
    if needle.form == Form::Word {
        return None;
    }
    let last = needle.len().checked_sub(PART)?;
    (1..=last).find_map(|from| needle.matched_from(from, text))
}
