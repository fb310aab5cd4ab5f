//! A captured stream in pieces, in memory that does not grow with it.

use super::{InspectError, Inspected, Lines, Side, lines};
use crate::connect::Limits;

/// The same lines as [`lines`] gives, from pieces as they come: of a file that is larger than the
/// memory, or of a stream that is still being written.
///
/// Push a piece, take lines until there is none, push the next; [`Stream::finish`] at the end. What
/// is kept is one envelope that is not complete, at most as long as the limits allow, and the last
/// piece.
///
/// ```
/// use agentwire::connect::Limits;
/// use agentwire::inspect::{Side, Stream};
///
/// let mut stream = Stream::new(Side::Server, Limits::default());
/// stream.push(b"\x00\x00\x00\x00");
/// assert!(stream.next().is_none());
/// stream.push(b"\x02\x0a\x00");
/// let line = stream.next().expect("a whole envelope")?;
/// assert_eq!(line.value["message"]["interaction_update"], serde_json::json!({}));
/// assert!(stream.finish().is_none());
/// # Ok::<(), agentwire::inspect::InspectError>(())
/// ```
#[derive(Debug)]
pub struct Stream {
    side: Side,
    limits: Limits,
    buffer: Vec<u8>,
    /// How much of `buffer` has become lines.
    read: usize,
    offset: u64,
    ended: bool,
    failed: bool,
}

impl Stream {
    /// A stream from its start.
    pub fn new(side: Side, limits: Limits) -> Self {
        Self { side, limits, buffer: Vec::new(), read: 0, offset: 0, ended: false, failed: false }
    }

    /// Takes in the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        if self.failed {
            return;
        }
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next line. `None` when it needs more bytes, and for good after an error.
    #[allow(
        clippy::should_implement_trait,
        reason = "it goes on after `None`, an iterator may not"
    )]
    pub fn next(&mut self) -> Option<Result<Inspected, InspectError>> {
        self.lines()?.is_settled().then(|| self.line())?
    }

    /// At the end: the error of a stream that is cut inside an envelope.
    pub fn finish(&mut self) -> Option<Result<Inspected, InspectError>> {
        self.line()
    }

    fn lines(&self) -> Option<Lines<'_>> {
        if self.failed {
            return None;
        }
        let mut lines = lines(self.side, self.buffer.get(self.read..)?, self.limits);
        (lines.offset, lines.ended) = (self.offset, self.ended);
        Some(lines)
    }

    fn line(&mut self) -> Option<Result<Inspected, InspectError>> {
        let mut lines = self.lines()?;
        let line = lines.next()?;
        let (rest, offset, ended) = (lines.rest.len(), lines.offset, lines.ended);
        self.read = self.buffer.len().saturating_sub(rest);
        (self.offset, self.ended) = (offset, ended);
        if line.is_err() {
            self.failed = true;
            self.buffer = Vec::new();
            self.read = 0;
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::put_envelope;

    const LIMITS: Limits =
        Limits { message: 64, decompressed: 64, end_stream: 64, ..Limits::DEFAULT };

    fn whole(stream: &[u8]) -> Vec<Result<Inspected, InspectError>> {
        lines(Side::Server, stream, LIMITS).collect()
    }

    fn in_pieces(bytes: &[u8], size: usize) -> Vec<Result<Inspected, InspectError>> {
        let mut stream = Stream::new(Side::Server, LIMITS);
        let mut lines = Vec::new();
        for piece in bytes.chunks(size) {
            stream.push(piece);
            lines.extend(std::iter::from_fn(|| stream.next()));
        }
        lines.extend(stream.finish());
        lines
    }

    /// Good ends, every kind of damage to the framing, and damage inside.
    #[test]
    fn any_cut_gives_the_lines_of_the_whole() {
        let mut good = Vec::new();
        put_envelope(&mut good, 0, b"\x0a\x06\x0a\x04\x0a\x02hi");
        put_envelope(&mut good, 0, b"\x0a\x05\x0a\x03\x0a\x01\xff");
        put_envelope(&mut good, 2, b"{}");
        let with = |tail: &[u8]| [&good, tail].concat();
        let mut bad = Vec::new();
        put_envelope(&mut bad, 0, b"\x0a\xff");
        let table = [
            good.clone(),
            Vec::new(),
            with(b"\0"),
            good[..good.len() - 1].to_vec(),
            good[..3].to_vec(),
            [b"\x00\x00\x00\x00\x41".to_vec(), vec![0; 10]].concat(),
            [b"\x04\x00\x00\x00\x01".to_vec(), good.clone()].concat(),
            [bad, good.clone()].concat(),
        ];
        for stream in table {
            let expected = whole(&stream);
            for size in [1, 2, 3, 7, 1_000] {
                assert_eq!(in_pieces(&stream, size), expected, "{stream:02x?} by {size}");
            }
        }
    }

    #[test]
    fn memory_holds_one_envelope_and_one_piece() {
        let mut envelope = Vec::new();
        put_envelope(&mut envelope, 0, &[0x0a, 0x00]);
        let piece = envelope.repeat(10);
        let mut stream = Stream::new(Side::Server, LIMITS);
        for _ in 0..1_000 {
            stream.push(&piece);
            while stream.next().is_some() {}
        }
        assert!(stream.buffer.capacity() <= 2 * (piece.len() + 64), "{}", stream.buffer.capacity());
    }
}
