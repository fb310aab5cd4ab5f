//! What a canned server answers, as a word on a command line.

use std::str::FromStr;

use agentwire::connect::put_envelope;
use agentwire::wire::{put_bytes, put_nested, put_uint};

use crate::data;

/// Texts have this many bytes.
pub const TEXT: usize = 20;

/// What every request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// So many messages, one in each DATA frame, all at once.
    Single(usize),
    /// So many DATA frames with 500 messages each.
    Packed(usize),
    /// So many messages, one in each DATA frame, each written 40 us after the one before.
    Paced(usize),
    /// So many questions for a blob, each asked when the one before was answered.
    Ping(usize),
    /// A message at once, and one more when so many requests are open.
    Hold(usize),
}

/// A server: what it answers, and how it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub answer: Answer,
    /// gRPC's head and trailers instead of Connect's.
    pub grpc: bool,
    pub tls: bool,
    /// Milliseconds for a round trip, if the way is to be long.
    pub delay: u64,
}

impl Plan {
    pub const fn of(answer: Answer) -> Self {
        Self { answer, grpc: false, tls: false, delay: 0 }
    }

    pub const fn grpc(self) -> Self {
        Self { grpc: true, ..self }
    }

    pub const fn over_tls(self, delay: u64) -> Self {
        Self { tls: true, delay, ..self }
    }

    /// The words that [`FromStr`] understands.
    pub fn word(&self) -> String {
        let (name, count) = match self.answer {
            Answer::Single(count) => ("single", count),
            Answer::Packed(count) => ("packed", count),
            Answer::Paced(count) => ("paced", count),
            Answer::Ping(count) => ("ping", count),
            Answer::Hold(count) => ("hold", count),
        };
        let Self { grpc, tls, delay, .. } = self;
        format!("{name}:{count}:{}:{}:{delay}", u8::from(*grpc), u8::from(*tls))
    }

    /// The payloads of the DATA frames with messages in them, all of one length.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        match self.answer {
            Answer::Single(count) | Answer::Paced(count) => (0..count).map(text).collect(),
            Answer::Packed(count) => {
                (0..count).map(|frame| (0..500).flat_map(|at| text(frame + at)).collect()).collect()
            }
            Answer::Ping(count) => (0..count).map(|_| question()).collect(),
            Answer::Hold(_) => (0..2).map(text).collect(),
        }
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let parts: Vec<_> = word.split(':').collect();
        let [name, numbers @ ..] = &parts[..] else { return Err(word.to_owned()) };
        let numbers: Vec<u64> = numbers.iter().filter_map(|number| number.parse().ok()).collect();
        let [count, grpc, tls, delay] = numbers[..] else { return Err(word.to_owned()) };
        let count = usize::try_from(count).map_err(|error| error.to_string())?;
        let answer = match *name {
            "single" => Answer::Single(count),
            "packed" => Answer::Packed(count),
            "paced" => Answer::Paced(count),
            "ping" => Answer::Ping(count),
            "hold" => Answer::Hold(count),
            _ => return Err(word.to_owned()),
        };
        Ok(Self { answer, grpc: grpc == 1, tls: tls == 1, delay })
    }
}

fn text(seed: usize) -> Vec<u8> {
    data::stream([&data::delta(&data::ascii(TEXT, seed))])
}

/// A question for a blob that the client does not have.
fn question() -> Vec<u8> {
    let mut payload = Vec::new();
    put_nested(&mut payload, 4, |out| {
        put_uint(out, 1, 1);
        put_nested(out, 2, |out| put_bytes(out, 1, &[7; 32]));
    });
    data::stream([&payload])
}

/// The last message of a turn: `turn_ended`, without a bill.
pub fn last() -> Vec<u8> {
    let mut payload = Vec::new();
    put_nested(&mut payload, 1, |out| put_nested(out, 14, |_| {}));
    data::stream([&payload])
}

/// Connect's end of a stream.
pub fn end() -> Vec<u8> {
    let mut out = Vec::new();
    put_envelope(&mut out, 2, b"{}");
    out
}
