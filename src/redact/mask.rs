//! Taking secrets out of a stream of bytes without changing its length.

use std::sync::Arc;

use super::matcher::Needle;
use super::{Inner, Redactor};

/// Overwrites the secrets of a [`Redactor`] in bytes that come in pieces, also where a piece ends
/// inside one. Lengths stay, so that what frames the bytes stays true; what is compressed is not
/// looked into.
pub(crate) struct Mask {
    known: Arc<Inner>,
    /// The end of what came, which may be the start of a secret.
    held: Vec<u8>,
}

impl Mask {
    pub(crate) fn new(redactor: &Redactor) -> Self {
        Self { known: Arc::clone(&redactor.0), held: Vec::new() }
    }

    /// Takes in a piece and gives what is certain: all but the start of a secret at its end.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let settled = self.overwrite(&mut bytes, true);
        self.held = bytes.split_off(settled);
        bytes
    }

    /// What was held back; nothing follows it.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.held);
        self.overwrite(&mut bytes, false);
        bytes
    }

    /// Overwrites every secret, and says how many bytes are certain.
    fn overwrite(&self, bytes: &mut [u8], more_may_come: bool) -> usize {
        let needles = &self.known.needles;
        let mut at = 0;
        while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
            if more_may_come && needles.iter().any(|needle| needle.begins_with(rest)) {
                return at;
            }
            let found = needles.iter().filter_map(|needle| Some((needle.masked(rest)?, needle)));
            match found.max_by_key(|(end, _)| *end).filter(|(end, _)| *end > 0) {
                Some((end, needle)) => {
                    rest.iter_mut().take(end).for_each(|byte| *byte = needle.filler());
                    at += end;
                }
                None => at += 1,
            }
        }
        at
    }
}

impl Needle {
    /// Whether this secret begins with `text` and goes on.
    fn begins_with(&self, text: &[u8]) -> bool {
        text.len() < self.len() && self.bytes().starts_with(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "tok-Zq81-tok-Zq8x";

    fn masked(text: &[u8], size: usize) -> Vec<u8> {
        let mut mask = Mask::new(&Redactor::new([SECRET]));
        let mut out: Vec<u8> = text.chunks(size).flat_map(|piece| mask.push(piece)).collect();
        out.extend(mask.finish());
        out
    }

    #[test]
    fn a_secret_goes_out_whichever_way_it_is_cut() {
        let text = format!("\0\x12 {SECRET}{SECRET} and tok-Zq81 and {SECRET}");
        let whole = masked(text.as_bytes(), usize::MAX);
        let shown = String::from_utf8_lossy(&whole).into_owned();
        assert_eq!(shown, format!("\0\x12 {0}{0} and tok-Zq81 and {0}", "*".repeat(17)));
        for size in 1..text.len() {
            assert_eq!(masked(text.as_bytes(), size), whole, "by {size}");
        }
    }

    #[test]
    fn base64_of_it_stays_base64_and_lengths_stay() {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        for before in ["", "a", "ab"] {
            let text = STANDARD.encode(format!("{before}{SECRET} and more"));
            for size in [3, 7, 1_000] {
                let out = masked(text.as_bytes(), size);
                assert_eq!(out.len(), text.len());
                let plain = String::from_utf8_lossy(&STANDARD.decode(out).unwrap()).into_owned();
                assert!(!plain.contains("Zq8") && plain.contains(" and more"), "{plain}");
            }
        }
    }

    #[test]
    fn what_only_begins_like_a_secret_comes_in_the_end() {
        assert_eq!(masked(b"so tok-Z", 2), b"so tok-Z");
        // Eight bytes of it are enough to be one that was cut off.
        assert_eq!(masked(b"so tok-Zq81", 2), b"so ********");
        assert_eq!(masked(b"nothing", 2), b"nothing");
    }

    #[test]
    fn a_short_secret_goes_out_between_any_bytes() {
        let mut mask = Mask::new(&Redactor::new(["abc"]));
        assert_eq!(mask.push(b"xabcx ab"), b"x***x ");
        assert_eq!(mask.push(b"d"), b"abd");
    }
}
