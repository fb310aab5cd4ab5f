//! Images as base64 text: what is accepted, and decoding straight into the place they are sent from.
//!
//! BEHAVIOUR 2: TAB, LF, FF, CR and SPACE may stand anywhere and are ignored. The rest must not be
//! empty and must be whole quads of the standard alphabet, padded at the end only. Bits of the last
//! quad that hold no byte may be anything, as in the reference.
//!
//! Most text has either no separators or lines of one length. Both are decoded as they stand,
//! without a pass that looks for separators first; a separator where none is expected is refused by
//! the alphabet check, and only then the text is read again slowly (PERFORMANCE B.4).

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use sha2::{Digest, Sha256};

use super::back::Back;
use crate::context::Image;
use crate::error::{Error, Result};

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);

#[cfg(target_arch = "x86_64")]
static ENGINE: LazyLock<base64::engine::Simd> =
    LazyLock::new(|| base64::engine::Simd::standard(CONFIG));
#[cfg(not(target_arch = "x86_64"))]
static ENGINE: LazyLock<base64::engine::GeneralPurpose> =
    LazyLock::new(|| base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG));

/// Where a line break is looked for before lines are given up: longer ones are not in use.
const LONGEST_LINE: usize = 1024;
/// Characters that are decoded at a time: what they become is hashed while it is in the cache. Whole
/// quads, and lines are gathered into blocks of at most as many.
const BLOCK: usize = 4 * 1024;

/// Which image of a request a problem is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// An image of a user message, counted among the images of that message from 0.
    Selected {
        /// Position among the images of its message.
        index: usize,
        /// MIME type as given.
        mime_type: &'a str,
    },
    /// An image of a tool result, counted among all parts of that result from 0.
    Mcp {
        /// Position among the parts of its result.
        index: usize,
        /// MIME type as given.
        mime_type: &'a str,
    },
}

impl Place<'_> {
    /// The words that name the kind of image, as the reference has them.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Selected { .. } => "selected image",
            Self::Mcp { .. } => "MCP image",
        }
    }

    /// The position that is counted from 0.
    pub fn index(&self) -> usize {
        match *self {
            Self::Selected { index, .. } | Self::Mcp { index, .. } => index,
        }
    }

    /// The MIME type, escaped and cut to 100 characters: it is the caller's, and may be anything
    /// (BEHAVIOUR H38).
    pub fn mime_type(&self) -> String {
        let (Self::Selected { mime_type, .. } | Self::Mcp { mime_type, .. }) = self;
        mime_type.chars().take(100).flat_map(char::escape_debug).collect()
    }
}

impl fmt::Display for Place<'_> {
    /// `selected image at index 0 (image/png)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at index {} ({})", self.kind(), self.index(), self.mime_type())
    }
}

/// The bytes of an image.
///
/// # Errors
///
/// `InvalidRequest` that names the place and the MIME type, never the text, when the text is not
/// base64 as described above.
pub fn decode(text: &str, place: Place<'_>) -> Result<Vec<u8>> {
    let text = Text::new(text.as_bytes());
    let mut out = Vec::with_capacity(text.decoded_len());
    if text.append(&mut out, |_| {}) {
        return Ok(out);
    }
    let stripped = text.strip();
    let text = Text::flat(&stripped);
    out.clear();
    out.reserve_exact(text.decoded_len());
    if text.append(&mut out, |_| {}) { Ok(out) } else { Err(invalid(place)) }
}

/// The same image without the separators of its text.
pub(crate) fn stripped(image: &Image) -> Image {
    let data = Text::new(image.data.as_bytes()).strip();
    // Single bytes of ASCII were taken out.
    let data = String::from_utf8(data).unwrap_or_default();
    Image { data, mime_type: image.mime_type.clone() }
}

/// Decodes in front of what `out` holds and returns the number of bytes.
pub(crate) fn write(out: &mut Back<'_>, text: &str, place: Place<'_>) -> Result<usize> {
    let mark = out.len();
    let text = Text::new(text.as_bytes());
    if text.decode_into(out.space(text.decoded_len())) {
        return Ok(out.len() - mark);
    }
    out.rewind(mark);
    let stripped = text.strip();
    let text = Text::flat(&stripped);
    if text.decode_into(out.space(text.decoded_len())) {
        return Ok(out.len() - mark);
    }
    out.rewind(mark);
    Err(invalid(place))
}

/// The same text without separators, checked: what a JSON message carries.
pub(crate) fn canonical<'a>(text: &'a str, place: Place<'_>) -> Result<Cow<'a, str>> {
    // Decoding is the check; the bytes themselves are not needed here.
    decode(text, place)?;
    let bytes = text.as_bytes();
    if !bytes.iter().copied().any(is_separator) {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(text.chars().filter(|c| !u8::try_from(*c).is_ok_and(is_separator)).collect()))
}

/// At most how many bytes `text` decodes to: what to reserve.
pub(crate) fn size_hint(text: &str) -> usize {
    text.len() / 4 * 3 + 3
}

pub(crate) fn invalid(place: Place<'_>) -> Error {
    Error::invalid(format!("the data of the {place} is not valid base64"))
        .with_hint("send the standard alphabet with padding and without a data: prefix")
}

const fn is_separator(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ')
}

/// Base64 text with a guess at how it is laid out, and no separators at its ends.
pub(crate) struct Text<'a> {
    bytes: &'a [u8],
    /// Characters of a line and of the separator behind it; `None`: one run of characters.
    lines: Option<(usize, usize)>,
}

impl<'a> Text<'a> {
    /// Guesses the layout from the beginning.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let from = bytes.iter().position(|b| !is_separator(*b)).unwrap_or(bytes.len());
        let to = bytes.iter().rposition(|b| !is_separator(*b)).map_or(from, |last| last + 1);
        let bytes = bytes.get(from..to).unwrap_or_default();
        let head = bytes.get(..bytes.len().min(LONGEST_LINE)).unwrap_or_default();
        let lines = head.iter().position(|b| is_separator(*b)).map(|line| {
            let gap = head.iter().skip(line).take_while(|b| is_separator(**b)).count();
            (line, gap)
        });
        Self { bytes, lines }
    }

    /// Text that holds no separators.
    fn flat(bytes: &'a [u8]) -> Self {
        Self { bytes, lines: None }
    }

    /// How many bytes the text decodes to if the guess is right.
    pub(crate) fn decoded_len(&self) -> usize {
        let characters = match self.lines {
            None => self.bytes.len(),
            Some((line, gap)) => {
                let whole = self.bytes.len() / (line + gap);
                self.bytes.len() - whole * gap
            }
        };
        decoded_len(characters, self.bytes)
    }

    /// Decodes into exactly [`Self::decoded_len`] bytes; false: not valid, or the guess was wrong.
    fn decode_into(&self, mut out: &mut [u8]) -> bool {
        let whole = self.blocks(|text| {
            let written = decode_run(text, out)?;
            out = std::mem::take(&mut out).get_mut(written..)?;
            Some(written)
        });
        whole && out.is_empty()
    }

    /// Appends exactly [`Self::decoded_len`] bytes, each block shown to `seen` while it is in the
    /// cache; false: not valid, or the guess was wrong, and something may have been appended.
    fn append(&self, out: &mut Vec<u8>, mut seen: impl FnMut(&[u8])) -> bool {
        let start = out.len();
        let whole = self.blocks(|text| {
            let at = out.len();
            out.resize(at + decoded_len(text.len(), text), 0);
            let written = decode_run(text, out.get_mut(at..)?)?;
            out.truncate(at + written);
            seen(out.get(at..)?);
            Some(written)
        });
        whole && out.len() - start == self.decoded_len()
    }

    /// The same, with the hash of what was appended.
    pub(crate) fn append_hashed(&self, out: &mut Vec<u8>) -> Option<[u8; 32]> {
        let mut digest = Sha256::new();
        self.append(out, |block| digest.update(block)).then(|| digest.finalize().into())
    }

    /// Gives the characters to `decode`, block by block; that gives the number of bytes they are.
    /// False: it gave none, or the text is not laid out as was guessed.
    fn blocks(&self, mut decode: impl FnMut(&[u8]) -> Option<usize>) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        match self.lines {
            None => {
                let mut blocks = self.bytes.chunks(BLOCK).peekable();
                while let Some(text) = blocks.next() {
                    let Some(written) = decode(text) else { return false };
                    // Padding may only end the whole text.
                    if written != text.len() / 4 * 3 && blocks.peek().is_some() {
                        return false;
                    }
                }
                true
            }
            Some((76, 1)) => self.gathered::<76>(1, decode),
            Some((76, 2)) => self.gathered::<76>(2, decode),
            Some((64, 1)) => self.gathered::<64>(1, decode),
            Some((64, 2)) => self.gathered::<64>(2, decode),
            // Other lengths are rare: not worth a variant each.
            Some(_) => false,
        }
    }

    /// Copies whole lines together, block by block.
    fn gathered<const LINE: usize>(
        &self,
        gap: usize,
        mut decode: impl FnMut(&[u8]) -> Option<usize>,
    ) -> bool {
        let mut block = [0_u8; BLOCK];
        let per_block = BLOCK / LINE / 4 * 4;
        let mut lines = self.bytes.chunks(LINE + gap).peekable();
        while lines.peek().is_some() {
            let mut used = 0;
            for line in lines.by_ref().take(per_block) {
                let (text, separators) = line.split_at(line.len().min(LINE));
                if !separators.iter().copied().all(is_separator) {
                    return false;
                }
                let Some(to) = block.get_mut(used..used + text.len()) else { return false };
                match (to.first_chunk_mut::<LINE>(), text.first_chunk::<LINE>()) {
                    (Some(to), Some(text)) => *to = *text,
                    _ => to.copy_from_slice(text),
                }
                used += text.len();
            }
            let Some(written) = block.get(..used).and_then(&mut decode) else { return false };
            if written != used / 4 * 3 && lines.peek().is_some() {
                return false;
            }
        }
        true
    }

    /// The text without separators.
    fn strip(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len());
        let mut rest = self.bytes;
        // Two searches that each look for three bytes would read everything twice; the three
        // common separators are searched for, the two others are rare enough to filter.
        while let Some(at) = memchr::memchr3(b'\n', b'\r', b' ', rest) {
            let (run, tail) = rest.split_at(at);
            out.extend_from_slice(run);
            rest = tail.get(1..).unwrap_or_default();
        }
        out.extend_from_slice(rest);
        if memchr::memchr2(b'\t', b'\x0c', &out).is_some() {
            out.retain(|b| !is_separator(*b));
        }
        out
    }
}

/// How many bytes so many characters are, the last of them those of `text`.
fn decoded_len(characters: usize, text: &[u8]) -> usize {
    let padding = text.iter().rev().take(2).take_while(|b| **b == b'=').count();
    (characters / 4 * 3).saturating_sub(padding)
}

/// Decodes one run of quads; `None` when it is not base64 or does not fit.
fn decode_run(text: &[u8], out: &mut [u8]) -> Option<usize> {
    ENGINE.decode_slice(text, out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place<'_> = Place::Selected { index: 3, mime_type: "image/png" };

    /// The rules of BEHAVIOUR 2 word by word, slowly.
    fn naive(text: &str) -> Option<Vec<u8>> {
        let text: Vec<u8> = text.bytes().filter(|b| !is_separator(*b)).collect();
        let data = text.iter().rposition(|b| *b != b'=').map_or(0, |last| last + 1);
        let padding = text.len() - data;
        if text.is_empty() || !text.len().is_multiple_of(4) || padding > 2 {
            return None;
        }
        let mut bits = 0_u32;
        let mut out = Vec::new();
        for (i, byte) in text[..data].iter().enumerate() {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
            if i % 4 != 0 {
                out.push((bits >> (6 - 2 * (i % 4))) as u8);
            }
        }
        Some(out)
    }

    fn check(text: &str) -> Option<Vec<u8>> {
        let decoded = decode(text, PLACE);
        let mut back = Back::new(0);
        back.raw(b"tail");
        let written = write(&mut back, text, PLACE).ok();
        let decoded = decoded.ok();
        assert_eq!(written, decoded.as_ref().map(Vec::len));
        assert_eq!(back.since(4), decoded.as_deref().unwrap_or_default());
        assert_eq!(decoded, naive(text));
        decoded
    }

    #[test]
    fn lines_of_every_common_length() {
        let bytes: Vec<u8> = (0..60_000_u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in 0..4 {
            let bytes = &bytes[cut..];
            let flat = base64::engine::general_purpose::STANDARD.encode(bytes);
            assert_eq!(check(&flat).as_deref(), Some(bytes));
            for (line, gap) in [(76, "\n"), (76, "\r\n"), (64, "\n"), (60, "\n"), (77, " \t\r\n")] {
                let lines: Vec<&str> =
                    flat.as_bytes().chunks(line).map(|l| str::from_utf8(l).unwrap()).collect();
                let mut text = lines.join(gap);
                assert_eq!(check(&text).as_deref(), Some(bytes), "{line}");
                text.insert(line / 2, '\x0c');
                assert_eq!(check(&text).as_deref(), Some(bytes), "{line}");
                text.push_str("\r\n");
                assert_eq!(check(&text).as_deref(), Some(bytes), "{line}");
                text.insert(text.len() / 2, '=');
                assert_eq!(check(&text), None, "{line}");
            }
        }
    }

    #[test]
    fn padding_inside_is_refused_at_block_ends() {
        let block = "A".repeat(76) + "\n";
        let blocks = block.repeat(BLOCK / 76 / 4 * 4);
        let padded = format!("{}{}=\n", &blocks[..blocks.len() - 77], "A".repeat(75));
        assert!(check(&padded).is_some());
        assert_eq!(check(&format!("{padded}{block}")), None);
    }

    #[test]
    fn errors_name_the_place_and_nothing_else() {
        let place = Place::Mcp { index: 2, mime_type: "image/webp\r\n" };
        let text = decode(" \r\n\t", place).unwrap_err().to_string();
        assert!(text.contains("MCP image at index 2 (image/webp\\r\\n)"), "{text}");
        assert!(!text.contains(['\r', '\n', '\t']), "{text}");
        let text = decode("c2VjcmV0!", PLACE).unwrap_err().to_string();
        assert!(!text.contains("c2Vj"), "{text}");
    }

    #[test]
    fn canonical_text_has_no_separators() {
        assert_eq!(canonical("aGk=", PLACE).unwrap(), "aGk=");
        assert_eq!(canonical("a\nG\tk =\x0c", PLACE).unwrap(), "aGk=");
        assert!(canonical("aGk", PLACE).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn accepts_and_refuses_as_the_rules_say(text in "[A-Za-z0-9+/=\\-_ \t\n\r\x0c]{0,24}|[AQgw=\n]{0,9}|\\PC{0,8}") {
            check(&text);
        }
    }
}
