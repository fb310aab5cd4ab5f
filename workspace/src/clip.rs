//! Long text that keeps its head and its tail, in bounded memory.

use std::collections::VecDeque;

/// Collects bytes; what is neither in the head nor in the tail is counted and let go.
#[derive(Debug)]
pub(crate) struct Clip {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    total: u64,
    /// Bytes that begin a character, in all of it.
    starts: u64,
}

/// What was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clipped {
    pub(crate) head: String,
    pub(crate) tail: String,
    /// Characters between head and tail; 0 when everything was kept (in `head`).
    pub(crate) elided: u64,
}

impl Clip {
    /// Two thirds of `max` bytes for the head, the rest for the tail.
    pub(crate) fn new(max: usize) -> Self {
        Self::with(max - max / 3, max / 3)
    }

    pub(crate) fn with(head_max: usize, tail_max: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), head_max, tail_max, total: 0, starts: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.starts += starts(bytes);
        let room = (self.head_max - self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.tail_max)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(self.tail_max);
        self.tail.drain(..over);
        self.tail.extend(rest);
    }

    /// Bytes that were pushed.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The kept text. Cuts fall between characters; bytes that are no UTF-8 become U+FFFD.
    pub(crate) fn finish(mut self) -> Clipped {
        if self.total == (self.head.len() + self.tail.len()) as u64 {
            self.head.extend(&self.tail);
            return Clipped { head: lossy(self.head), tail: String::new(), elided: 0 };
        }
        let kept = self.head.len() - unfinished(&self.head);
        self.head.truncate(kept);
        let tail: Vec<u8> = self.tail.into_iter().skip_while(|byte| is_inner(*byte)).collect();
        // At least one, even where what was dropped begins no character.
        let elided = (self.starts - starts(&self.head) - starts(&tail)).max(1);
        Clipped { head: lossy(self.head), tail: lossy(tail), elided }
    }
}

impl Clipped {
    /// One text, with a line that says how much is missing.
    pub(crate) fn into_text(self) -> String {
        if self.elided == 0 {
            return self.head;
        }
        format!("{}\n{}\n{}", self.head, left_out(self.elided), self.tail)
    }
}

/// The line that stands for what was left out.
pub(crate) fn left_out(characters: u64) -> String {
    format!("[… {characters} characters left out …]")
}

/// UTF-8 from a stream of bytes that is cut anywhere; what is no UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    carry: Vec<u8>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.carry.extend_from_slice(bytes);
        let whole = self.carry.len() - unfinished(&self.carry);
        let rest = self.carry.split_off(whole);
        lossy(std::mem::replace(&mut self.carry, rest))
    }

    /// What is left when the stream ends in the middle of a character.
    pub(crate) fn finish(&mut self) -> String {
        lossy(std::mem::take(&mut self.carry))
    }
}

/// Text of bytes; without a copy where they are UTF-8.
pub(crate) fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The longest prefix of `text` of at most `max` bytes that ends between two characters.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

pub(crate) const fn is_inner(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

fn starts(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| !is_inner(**byte)).count() as u64
}

/// How many bytes at the end are the beginning of a character that is not complete.
fn unfinished(bytes: &[u8]) -> usize {
    let inner = bytes.iter().rev().take(3).take_while(|byte| is_inner(**byte)).count();
    let Some(first) = bytes.len().checked_sub(inner + 1).and_then(|at| bytes.get(at)) else {
        return 0;
    };
    let needs = match first {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => 1,
    };
    if inner + 1 < needs { inner + 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_head_and_tail_and_counts_the_rest() {
        let mut clip = Clip::with(4, 3);
        for byte in b"abcdefghij" {
            clip.push(&[*byte]);
        }
        let kept = clip.finish();
        assert_eq!(kept, Clipped { head: "abcd".into(), tail: "hij".into(), elided: 3 });
        assert_eq!(kept.into_text(), "abcd\n[… 3 characters left out …]\nhij");
    }

    #[test]
    fn cuts_between_characters() {
        let mut clip = Clip::with(4, 4);
        clip.push("äöüäöüäöü€".as_bytes());
        let kept = clip.finish();
        assert_eq!((kept.head.as_str(), kept.tail.as_str(), kept.elided), ("äö", "€", 7));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_is_lost_or_counted_twice(text in ".{0,60}", head in 0usize..20, tail in 0usize..20, step in 1usize..9) {
            let mut clip = Clip::with(head, tail);
            let mut decoder = Decoder::default();
            let mut decoded = String::new();
            for chunk in text.as_bytes().chunks(step) {
                clip.push(chunk);
                decoded += &decoder.push(chunk);
            }
            decoded += &decoder.finish();
            prop_assert_eq!(&decoded, &text);
            prop_assert_eq!(clip.total(), text.len() as u64);
            let kept = clip.finish();
            prop_assert!(text.starts_with(&kept.head) && text.ends_with(&kept.tail));
            let count = (kept.head.chars().count() + kept.tail.chars().count()) as u64;
            prop_assert_eq!(count + kept.elided, text.chars().count() as u64);
        }
    }
}
