//! The decoder of one direction of one stream: framing, flag rules, gzip, end-stream.

use super::end_stream::EndStream;
use super::envelope::{FLAG_COMPRESSED, FLAG_END_STREAM, FLAGS_RESERVED};
use super::envelope::{Frame, FrameError, Splitter};
use super::gzip;
use crate::error::{Error, Result};
use crate::redact::Redactor;

/// How long what a peer sends may be. Each is checked before anything of that length is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One message on the wire, in bytes. Default 16 MiB: the largest checkpoint and the largest
    /// blob that are kept (FAULTS, promises).
    pub message: usize,
    /// One message after decompression, in bytes. Default 16 MiB, for the same reason.
    pub decompressed: usize,
    /// The end-stream message, on the wire and decompressed, in bytes. Default 1 MiB: an error
    /// with its details has a few KiB.
    pub end_stream: usize,
    /// The memory that one message may take once it is built, in bytes, as
    /// [`proto::weigh`](crate::proto::weigh) counts it. Default 64 MiB: four times the largest
    /// message (FAULTS, promises). It is weighed before it is built, where it has more than 64 KiB:
    /// what a smaller one can become is bounded by its size.
    pub decoded: u64,
    /// The same for each byte of it. Default 64: text takes one or two and lists of ids two, while
    /// two bytes can be made to take hundreds (FAULTS M37).
    pub decoded_factor: u64,
}

impl Limits {
    /// The defaults, for constants.
    pub const DEFAULT: Self = Self {
        message: 16 << 20,
        decompressed: 16 << 20,
        end_stream: 1 << 20,
        decoded: 64 << 20,
        decoded_factor: 64,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The encoding that the headers named for the messages of this direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// None, or `identity`: a message that says it is compressed is a breach of the protocol.
    #[default]
    None,
    /// `gzip`: each message says for itself whether it is compressed.
    Gzip,
}

/// What a decoder hands out.
#[derive(Debug)]
pub enum Envelope<'a> {
    /// A message, decompressed.
    Message(&'a [u8]),
    /// The end of the stream. Whatever follows it is an error.
    EndStream(EndStream),
}

/// Envelopes out of chunks: [`Splitter`] plus the rules of PROTOCOL 2.
///
/// Call [`Decoder::next`] until it gives `None`, then feed the next chunk; [`Decoder::finish`] at
/// the end of the body. After an error the same error comes again on every call. Any cut of the
/// same bytes into chunks gives the same envelopes and the same error.
#[derive(Debug)]
pub struct Decoder {
    splitter: Splitter,
    limits: Limits,
    inflated: Vec<u8>,
    redactor: Redactor,
    state: State,
    /// The end-stream message between [`special`] and the caller.
    end: Option<EndStream>,
}

#[derive(Debug)]
enum State {
    Open,
    Ended,
    Failed(Error),
}

/// What the inflated buffer may keep between messages.
const KEEP: usize = 256 * 1024;

impl Decoder {
    /// A decoder at the start of a body. Without [`Decoder::with_redactor`] it knows no secrets.
    pub fn new(limits: Limits, compression: Compression) -> Self {
        let refused = match compression {
            Compression::None => FLAGS_RESERVED | FLAG_COMPRESSED,
            Compression::Gzip => FLAGS_RESERVED,
        };
        Self {
            splitter: Splitter::with_rules(limits.message, limits.end_stream, refused),
            limits,
            inflated: Vec::new(),
            redactor: Redactor::default(),
            state: State::Open,
            end: None,
        }
    }

    /// The same decoder, cleaning what the end-stream message says of the secrets given.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// Whether the end-stream message was handed out.
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Whether an envelope has begun and is not complete: what a deadline for one runs on.
    pub const fn is_partial(&self) -> bool {
        matches!(self.state, State::Open) && self.splitter.is_partial()
    }

    /// The next envelope, or `None` when `chunk` is used up.
    #[inline(always)]
    pub fn next<'s, 'c: 's>(&'s mut self, chunk: &mut &'c [u8]) -> Result<Option<Envelope<'s>>> {
        if !matches!(self.state, State::Open) {
            return self.after(chunk).map(|()| None);
        }
        // The result is built here and nowhere else: one that a call writes goes through memory, and
        // with it those of the plain messages.
        match self.splitter.next(chunk) {
            Ok(Some(Frame { flags: 0, payload })) => Ok(Some(Envelope::Message(payload))),
            Ok(Some(Frame { flags, payload })) => {
                let (limits, inflated, end) = (&self.limits, &mut self.inflated, &mut self.end);
                match special(flags, payload, limits, &self.redactor, inflated, end) {
                    Ok(Special::AsItIs) => Ok(Some(Envelope::Message(payload))),
                    Ok(Special::Inflated) => Ok(Some(Envelope::Message(&self.inflated))),
                    Ok(Special::End) => {
                        self.state = State::Ended;
                        Ok(self.end.take().map(Envelope::EndStream))
                    }
                    Err(error) => Err(fail(&mut self.state, error)),
                }
            }
            Ok(None) => Ok(None),
            Err(error) => Err(fail(&mut self.state, error.into())),
        }
    }

    /// Bytes after the end, or after an error.
    #[cold]
    fn after(&mut self, chunk: &[u8]) -> Result<()> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            _ if chunk.is_empty() => Ok(()),
            _ => Err(fail(
                &mut self.state,
                Error::protocol("the peer sent data after the end-stream message"),
            )),
        }
    }

    /// At the end of the body: an error when it ended inside an envelope. That an end-stream
    /// message came at all is the caller's question: [`Decoder::is_ended`].
    pub fn finish(&mut self) -> Result<()> {
        match &self.state {
            State::Failed(error) => Err(error.clone()),
            State::Ended => Ok(()),
            State::Open => {
                self.splitter.finish().map_err(|error| fail(&mut self.state, error.into()))
            }
        }
    }
}

/// Remembers `error`: nothing that follows it can be trusted.
#[cold]
fn fail(state: &mut State, error: Error) -> Error {
    *state = State::Failed(error.clone());
    error
}

/// What a frame with flags turned out to be.
enum Special {
    /// A message, its bytes those of the frame.
    AsItIs,
    /// A message, its bytes in the inflated buffer.
    Inflated,
    /// The end-stream message, parsed.
    End,
}

/// A frame with flags: decompressed, parsed. The splitter refused all other flags.
#[inline(never)]
fn special(
    flags: u8,
    payload: &[u8],
    limits: &Limits,
    redactor: &Redactor,
    inflated: &mut Vec<u8>,
    end: &mut Option<EndStream>,
) -> Result<Special> {
    let is_end = flags & FLAG_END_STREAM != 0;
    let is_compressed = flags & FLAG_COMPRESSED != 0;
    if is_compressed {
        let limit = if is_end { limits.end_stream } else { limits.decompressed };
        if inflated.capacity() > KEEP {
            *inflated = Vec::new();
        }
        gzip::decompress(payload, limit, inflated)?;
    }
    if is_end {
        let payload = if is_compressed { inflated.as_slice() } else { payload };
        *end = Some(EndStream::parse(payload, redactor)?);
        return Ok(Special::End);
    }
    Ok(if is_compressed { Special::Inflated } else { Special::AsItIs })
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        let text = error.to_string();
        match error {
            FrameError::TooLong { .. } => Self::limit(text)
                .with_hint("raise the message limit if the peer is trusted to send this much"),
            FrameError::Flags { flags } if flags & FLAGS_RESERVED == 0 => {
                Self::protocol("a message is compressed, but no encoding was named")
            }
            _ => Self::protocol(text),
        }
    }
}

impl From<gzip::GzipError> for Error {
    fn from(error: gzip::GzipError) -> Self {
        let text = error.to_string();
        match error {
            gzip::GzipError::TooLong { .. } => Self::limit(text),
            gzip::GzipError::Invalid => Self::protocol(text),
        }
    }
}
