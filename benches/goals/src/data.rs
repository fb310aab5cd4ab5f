//! What the races run on: the same bytes every time.

use agentwire::connect::put_envelope;
use agentwire::wire::{put_nested, put_str, put_uint};

const ASCII: &str = "the quick brown fox jumps over the lazy dog, ";
const WIDE: &str = "漢字はкириллицаと😀é";

/// `len` bytes of text, or a little less where a character does not fit.
pub fn text(len: usize, alphabet: &str, seed: usize) -> String {
    let mut text = String::new();
    for c in alphabet.chars().cycle().skip(seed % 7) {
        if text.len() + c.len_utf8() > len {
            break;
        }
        text.push(c);
    }
    text
}

pub fn ascii(len: usize, seed: usize) -> String {
    text(len, ASCII, seed)
}

/// The characters of [`WIDE`] in an order that does not come again: the goal is about mixed text,
/// which a validator cannot foresee (PERFORMANCE B.1, 470 ns in `core::str`). A row of fifteen
/// characters over and over is learnt by the branch predictor, and then takes a third of that.
pub fn wide(len: usize, seed: usize) -> String {
    let alphabet: Vec<char> = WIDE.chars().collect();
    let mut text = String::new();
    let mut state = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    loop {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let c = alphabet[(state % alphabet.len() as u64) as usize];
        if text.len() + c.len_utf8() > len {
            return text;
        }
        text.push(c);
    }
}

/// A text delta as a server sends it.
pub fn delta(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_nested(&mut out, 1, |out| put_nested(out, 1, |out| put_str(out, 1, text)));
    out
}

/// The same with an unknown field behind it: not the usual shape.
pub fn odd_delta(text: &str) -> Vec<u8> {
    let mut out = delta(text);
    put_uint(&mut out, 99, 1);
    out
}

/// Every payload in its envelope, one behind the other.
pub fn stream<'a>(payloads: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    payloads.into_iter().for_each(|payload| put_envelope(&mut out, 0, payload));
    out
}
