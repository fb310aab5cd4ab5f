//! The five-byte envelope: writing it, and splitting a stream of chunks into frames.
//!
//! ```text
//! flags: u8 | length: u32, big endian | payload
//! ```
//!
//! The [`Splitter`] hands out a frame as a slice of the chunk it came in, and copies only what
//! straddles chunks. Flags mean nothing here; [`super::Decoder`] gives them meaning.

/// Bytes before the payload: flags and length (PROTOCOL 2).
pub const HEADER_LEN: usize = 5;
/// Flag bit: the payload is compressed with the encoding that the headers named.
pub const FLAG_COMPRESSED: u8 = 0x01;
/// Flag bit: the payload is the end-stream message, and nothing follows it.
pub const FLAG_END_STREAM: u8 = 0x02;
/// The other six bits; a frame that sets one is a breach of the protocol.
pub const FLAGS_RESERVED: u8 = !(FLAG_COMPRESSED | FLAG_END_STREAM);

/// What is reserved for a frame at first, however long it claims to be (FAULTS M7). From there
/// the buffer grows with what arrives, so a claim without bytes costs this much and no more.
const FIRST_RESERVE: usize = 64 * 1024;
/// What the carry buffer may keep between frames; larger ones are given back.
const KEEP: usize = 256 * 1024;

/// The header of an envelope whose payload has `len` bytes.
#[inline]
pub const fn header(flags: u8, len: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [flags, a, b, c, d]
}

/// Appends an envelope around `payload`.
///
/// # Panics
///
/// When the payload has 4 GiB or more, which the header cannot say. Every encoder here stops at
/// its own limit far below that.
pub fn put_envelope(out: &mut Vec<u8>, flags: u8, payload: &[u8]) {
    assert!(payload.len() <= u32::MAX as usize, "a payload must be shorter than 4 GiB");
    out.reserve(HEADER_LEN + payload.len());
    out.extend_from_slice(&header(flags, payload.len() as u32));
    out.extend_from_slice(payload);
}

/// One frame: the flags as they came, the payload borrowed from the chunk or the carry buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// All eight bits.
    pub flags: u8,
    /// Exactly as many bytes as the header said.
    pub payload: &'a [u8],
}

/// Why a stream cannot be split further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A header claims more than the limit. Nothing was reserved and nothing is waited for.
    #[error("a message of {declared} bytes is announced, the limit is {limit}")]
    TooLong {
        /// What the header says.
        declared: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A header sets flag bits that the rules do not allow.
    #[error("a message has the flags {flags:#04x}, which are not allowed here")]
    Flags {
        /// All eight bits.
        flags: u8,
    },
    /// The stream ended inside a header.
    #[error("the stream ended inside a message header, after {received} of 5 bytes")]
    TruncatedHeader {
        /// Bytes of the header that came: 1 to 4.
        received: usize,
    },
    /// The stream ended inside a payload.
    #[error("the stream ended inside a message, after {received} of {declared} bytes")]
    TruncatedBody {
        /// What the header says.
        declared: usize,
        /// Bytes of the payload that came.
        received: usize,
    },
}

/// What a header may say.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// Longest payload.
    message: usize,
    /// Longest payload of a frame with [`FLAG_END_STREAM`].
    end_stream: usize,
    /// Flag bits that are refused as soon as they are seen.
    refused: u8,
}

impl Rules {
    const fn limit(self, flags: u8) -> usize {
        if flags & FLAG_END_STREAM == 0 { self.message } else { self.end_stream }
    }

    const fn allow(self, flags: u8, declared: usize) -> bool {
        flags & self.refused == 0 && declared <= self.limit(flags)
    }

    /// Why a header is not allowed.
    const fn refusal(self, flags: u8, declared: usize) -> FrameError {
        if flags & self.refused != 0 {
            return FrameError::Flags { flags };
        }
        FrameError::TooLong { declared, limit: self.limit(flags) }
    }
}

/// Flags and payload length of a header.
#[inline(always)]
const fn read_header([flags, a, b, c, d]: [u8; HEADER_LEN]) -> (u8, usize) {
    (flags, u32::from_be_bytes([a, b, c, d]) as usize)
}

/// Splits chunks into frames, whatever the chunks' borders, in time linear in the bytes.
///
/// A frame that lies whole in its chunk is handed out without a copy or an allocation. After an
/// error the same error comes again.
///
/// ```
/// use agentwire::connect::Splitter;
/// let mut splitter = Splitter::new(1024);
/// let mut texts = Vec::new();
/// for mut chunk in [&b"\0\0\0\0\x02h"[..], b"i\0\0\0\0\x01!"] {
///     while let Some(frame) = splitter.next(&mut chunk)? {
///         texts.push(frame.payload.to_vec());
///     }
/// }
/// splitter.finish()?;
/// assert_eq!(texts, [b"hi".to_vec(), b"!".to_vec()]);
/// # Ok::<(), agentwire::connect::FrameError>(())
/// ```
#[derive(Debug)]
pub struct Splitter {
    rules: Rules,
    /// The header of the frame that is incomplete, as far as it came.
    head: [u8; HEADER_LEN],
    /// How much of `head` came; 0 between frames.
    head_len: usize,
    /// How much of the payload has not come; 0 while the header is incomplete.
    missing: usize,
    /// The payload of the frame that is incomplete. Between frames, what the last one left.
    carry: Vec<u8>,
    error: Option<FrameError>,
}

/// What became of a frame that straddles chunks. It fits a register: [`Splitter::next`] builds its
/// result from the fields, because a result that came through memory would slow the fast path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stitched {
    /// The chunk is used up and the frame is incomplete.
    Incomplete,
    /// The payload is in the carry buffer.
    Carried,
    /// Only the header straddled: the payload is the start of the chunk.
    InChunk,
    /// `error` says why not.
    Failed,
}

impl Splitter {
    /// A splitter of frames with any flags and at most `limit` bytes of payload.
    pub const fn new(limit: usize) -> Self {
        Self::with_rules(limit, limit, 0)
    }

    /// The same with another limit for end-stream frames and with flag bits that are refused.
    pub(super) const fn with_rules(message: usize, end_stream: usize, refused: u8) -> Self {
        Self {
            rules: Rules { message, end_stream, refused },
            head: [0; HEADER_LEN],
            head_len: 0,
            missing: 0,
            carry: Vec::new(),
            error: None,
        }
    }

    /// The next frame, or `None` when `chunk` is used up. `chunk` moves on past what was taken.
    #[inline(always)]
    pub fn next<'s, 'c: 's>(
        &'s mut self,
        chunk: &mut &'c [u8],
    ) -> Result<Option<Frame<'s>>, FrameError> {
        if self.head_len == 0
            && let Some((head, rest)) = chunk.split_first_chunk::<HEADER_LEN>()
        {
            // A frame with flags is rare and goes the long way. So the flags given here are a
            // constant, and a caller into which this is inlined does not test them again.
            if let (0, len) = read_header(*head)
                && len <= self.rules.message
                && let Some((payload, rest)) = rest.split_at_checked(len)
            {
                *chunk = rest;
                return Ok(Some(Frame { flags: 0, payload }));
            }
        }
        if chunk.is_empty() {
            return Ok(None);
        }
        // A byte inside a payload, with room for it: a call would cost more than the byte.
        if let [byte] = **chunk
            && self.missing > 1
            && self.carry.len() < self.carry.capacity()
        {
            self.carry.push(byte);
            self.missing -= 1;
            *chunk = &[];
            return Ok(None);
        }
        // By value, and the count back: a chunk whose address is taken would live in memory.
        let (stitched, used) =
            if self.missing > 0 { self.carry_on(chunk) } else { self.begin(chunk) };
        *chunk = chunk.get(used..).unwrap_or_default();
        match stitched {
            Stitched::Incomplete => Ok(None),
            Stitched::Carried => Ok(Some(Frame { flags: self.head[0], payload: &self.carry })),
            Stitched::InChunk => {
                let (flags, len) = read_header(self.head);
                let (payload, rest) = chunk.split_at(len.min(chunk.len()));
                *chunk = rest;
                Ok(Some(Frame { flags, payload }))
            }
            Stitched::Failed => {
                Err(self.error.unwrap_or(FrameError::TruncatedHeader { received: 0 }))
            }
        }
    }

    /// Takes what the chunk has of the payload that is missing, and says how much that is.
    #[inline(never)]
    fn carry_on(&mut self, chunk: &[u8]) -> (Stitched, usize) {
        let part = chunk.get(..self.missing).unwrap_or(chunk);
        if self.carry.capacity() - self.carry.len() < part.len() {
            self.grow(part.len());
        }
        self.carry.extend_from_slice(part);
        self.missing -= part.len();
        if self.missing > 0 {
            return (Stitched::Incomplete, part.len());
        }
        self.head_len = 0;
        (Stitched::Carried, part.len())
    }

    /// Takes the header of a frame that is not whole in the chunk, as far as it is there, and what
    /// there is of the payload.
    #[inline(never)]
    fn begin(&mut self, chunk: &[u8]) -> (Stitched, usize) {
        if self.error.is_some() {
            return (Stitched::Failed, 0);
        }
        let used = match chunk.first_chunk() {
            Some(head) if self.head_len == 0 => {
                self.head = *head;
                HEADER_LEN
            }
            _ => {
                let missing = self.head.iter_mut().skip(self.head_len);
                missing.zip(chunk).map(|(slot, byte)| *slot = *byte).count()
            }
        };
        self.head_len += used;
        if self.head_len < HEADER_LEN {
            return (Stitched::Incomplete, used);
        }
        let (flags, len) = read_header(self.head);
        if !self.rules.allow(flags, len) {
            self.error = Some(self.rules.refusal(flags, len));
            return (Stitched::Failed, used);
        }
        let rest = chunk.get(used..).unwrap_or_default();
        if len <= rest.len() {
            self.head_len = 0;
            return (Stitched::InChunk, used);
        }
        self.carry.clear();
        if self.carry.capacity() > KEEP {
            self.carry = Vec::new();
        }
        self.missing = len;
        if self.carry.capacity() < rest.len() {
            self.grow(rest.len());
        }
        self.carry.extend_from_slice(rest);
        self.missing -= rest.len();
        (Stitched::Incomplete, used + rest.len())
    }

    /// Room for `more` bytes of the payload: [`FIRST_RESERVE`] at first, then twice what is there,
    /// never more than the payload needs.
    #[cold]
    fn grow(&mut self, more: usize) {
        let have = self.carry.len();
        let target = (have + more).max(self.carry.capacity() * 2).max(FIRST_RESERVE);
        self.carry.reserve_exact(target.min(have + self.missing) - have);
    }

    /// Whether a frame has begun and is not complete.
    pub const fn is_partial(&self) -> bool {
        self.head_len > 0
    }

    /// At the end of the stream: an error when it ended inside a frame.
    pub const fn finish(&self) -> Result<(), FrameError> {
        match (self.error, self.head_len) {
            (Some(error), _) => Err(error),
            (None, 0) => Ok(()),
            (None, HEADER_LEN) => {
                let (_, declared) = read_header(self.head);
                Err(FrameError::TruncatedBody { declared, received: self.carry.len() })
            }
            (None, received) => Err(FrameError::TruncatedHeader { received }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Owned = (u8, Vec<u8>);

    fn split(chunks: &[&[u8]], limit: usize) -> (Vec<Owned>, Result<(), FrameError>) {
        let mut splitter = Splitter::new(limit);
        let mut frames = Vec::new();
        for mut chunk in chunks.iter().copied() {
            loop {
                match splitter.next(&mut chunk) {
                    Ok(Some(frame)) => frames.push((frame.flags, frame.payload.to_vec())),
                    Ok(None) => break,
                    Err(error) => return (frames, Err(error)),
                }
            }
            assert!(chunk.is_empty(), "`None` means that the chunk is used up");
        }
        (frames, splitter.finish())
    }

    fn stream() -> (Vec<u8>, Vec<Owned>) {
        let frames: Vec<Owned> = [0_usize, 1, 4, 300, 0, 70, 70_000]
            .iter()
            .enumerate()
            .map(|(index, &len)| (index as u8, (0..len).map(|byte| byte as u8).collect()))
            .collect();
        let mut bytes = Vec::new();
        for (flags, payload) in &frames {
            put_envelope(&mut bytes, *flags, payload);
        }
        (bytes, frames)
    }

    #[test]
    fn m02_every_cut_gives_the_same_frames() {
        let (bytes, frames) = stream();
        for at in 0..450 {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(split(&[head, &[], tail], 70_000), (frames.clone(), Ok(())), "cut at {at}");
        }
        for size in [1, 2, 3, 5, 64, 1400, 16_384] {
            let chunks: Vec<_> = bytes.chunks(size).collect();
            assert_eq!(split(&chunks, 70_000), (frames.clone(), Ok(())), "chunks of {size}");
        }
    }

    #[test]
    fn m05_m06_a_cut_stream_says_where() {
        let error = |bytes: &[u8]| split(&[bytes], 100).1.unwrap_err();
        assert_eq!(error(&[0, 0, 0]), FrameError::TruncatedHeader { received: 3 });
        let body = FrameError::TruncatedBody { declared: 5, received: 2 };
        assert_eq!(error(&[0, 0, 0, 0, 5, 1, 2]), body);
        let empty = FrameError::TruncatedBody { declared: 5, received: 0 };
        assert_eq!(error(&[0, 0, 0, 0, 5]), empty);
    }

    #[test]
    fn m07_a_claim_over_the_limit_reserves_nothing() {
        let mut splitter = Splitter::new(16 << 20);
        let mut claim: &[u8] = &[0, 0xff, 0xff, 0xff, 0xff];
        let expected = FrameError::TooLong { declared: u32::MAX as usize, limit: 16 << 20 };
        assert_eq!(splitter.next(&mut claim), Err(expected));
        let mut splitter = Splitter::new(16 << 20);
        for byte in [0, 0xff, 0xff, 0xff] {
            assert_eq!(splitter.next(&mut &[byte][..]), Ok(None));
        }
        assert_eq!(splitter.next(&mut &[0xff][..]), Err(expected));
        assert_eq!(splitter.carry.capacity(), 0);
    }

    #[test]
    fn m07_a_claim_under_the_limit_reserves_little() {
        let mut splitter = Splitter::new(16 << 20);
        let mut bytes: &[u8] = &[0, 0x00, 0xff, 0xff, 0xff, 1];
        assert_eq!(splitter.next(&mut bytes), Ok(None));
        assert!(splitter.carry.capacity() <= FIRST_RESERVE);
    }

    #[test]
    fn m09_the_limit_itself_passes() {
        let mut bytes = Vec::new();
        put_envelope(&mut bytes, 0, &[7; 100]);
        assert_eq!(split(&[&bytes], 100).0.len(), 1);
        let expected = FrameError::TooLong { declared: 100, limit: 99 };
        assert_eq!(split(&[&bytes], 99).1, Err(expected));
    }
}
