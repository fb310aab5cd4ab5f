//! What went over the wire in a run, as it is written down and played back.
//!
//! A recording is made while runs are under way ([`Recorder`], [`Client::recorded`]) and is read by
//! `agentwire decode`, which shows its messages, and by [`Recording::replay`], which plays it into
//! the machine of a run and gives the events that the caller saw.
//!
//! # The file
//!
//! Lines of JSON. The first one is `{"agentwire_recording":1}`, the number of this format. Every
//! other line is a [`Record`]: `at_us` (microseconds since its run began), `run` and `stream`
//! (numbers from 1; each attempt of a run has a stream of its own), `kind`, and what the kind has:
//!
//! | kind | members | what it says |
//! |---|---|---|
//! | `run` | `request_id`, `retries`, `read_only_tools`, `renewable`, `deadline_us` | a run begins |
//! | `open` | | another stream is asked for |
//! | `client`, `server` | `bytes` (base64) | a piece of the body of that side, as it was cut |
//! | `head` | `status`, `headers` | the head of the response |
//! | `end` | | the body of the response ended in good order |
//! | `lost` | `error`, `fault`, `http2`, `code` (of Connect), `message` | the stream or the way to it failed |
//! | `no_credentials` | | there were none for this stream |
//! | `half_close`, `reset` | `code` | how this side ended the stream |
//! | `answer` | `calls` | tool calls were answered |
//! | `say`, `cancel` | | the caller spoke, or stopped the run |
//! | `serve` | `name`, `read_only` | an exec or a query was given to a handler |
//! | `served` | `nth`, `how` | the handler of the run's `nth` such question came back |
//! | `limit` | | the file is as long as it may be; nothing more is written |
//!
//! # What is not in it
//!
//! The head of the request, and with it the token, is never given to a recorder. Where the service
//! repeats the token in what it says, each byte of it is overwritten, also in base64 and where it
//! is cut between two pieces; only inside a compressed message it stays as it came. Headers that
//! hold secrets are `[redacted]`. Everything else that was said is there: prompts, answers, files.
//!
//! [`Client::recorded`]: crate::transport

mod record;
mod replay;
mod writer;

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

pub use record::{Called, Loss, Record, ServedHow, What};
pub use replay::Played;
pub use writer::{Trouble, Writer};

/// The number of the format.
const FORMAT: u32 = 1;

/// The longest line that is read: a piece of a body is as long as a stream's window at most, 16 MiB
/// by any setting that makes sense, and base64 makes four bytes of three. No option: the file is this
/// side's own.
const MAX_LINE: u64 = 32 << 20;

/// Takes what went over the wire. Called on the tasks of runs: it must not block for long.
pub trait Recorder: Send + Sync {
    /// A run begins: its number, from 1.
    fn begin(&self) -> u32;

    /// One thing that happened. Those of a stream come in order.
    fn record(&self, record: Record);
}

#[derive(Serialize, Deserialize)]
struct Head {
    agentwire_recording: u32,
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct RecordingError {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it, without its content.
    pub reason: String,
}

/// The records of a file, one after the other.
///
/// A last line that is not whole, as a process that was killed leaves it, is not an error: see
/// [`Reader::is_torn`].
pub struct Reader<R> {
    input: R,
    line: u64,
    torn: bool,
    over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line, which says that it is a recording.
    ///
    /// # Errors
    /// It is none, or one of another format.
    pub fn new(input: R) -> Result<Self, RecordingError> {
        let mut reader = Self { input, line: 0, torn: false, over: false };
        let first = reader.read_line()?.unwrap_or_default();
        match serde_json::from_slice::<Head>(&first) {
            Ok(head) if head.agentwire_recording == FORMAT => Ok(reader),
            Ok(head) => Err(reader.fail(format!(
                "the recording has format {}; this version reads format {FORMAT}",
                head.agentwire_recording
            ))),
            Err(_) => Err(reader.fail("this is no recording: its first line does not say so")),
        }
    }

    /// Whether the end of the last line is missing; it was left out.
    pub fn is_torn(&self) -> bool {
        self.torn
    }

    fn fail(&mut self, reason: impl Into<String>) -> RecordingError {
        self.over = true;
        RecordingError { line: self.line, reason: reason.into() }
    }

    fn read_line(&mut self) -> Result<Option<Vec<u8>>, RecordingError> {
        let mut line = Vec::new();
        self.line += 1;
        let mut limited = io::Read::take(&mut self.input, MAX_LINE);
        match limited.read_until(b'\n', &mut line) {
            Ok(0) => Ok(None),
            Ok(read) if read as u64 == MAX_LINE => {
                Err(self.fail(format!("it is longer than {MAX_LINE} bytes")))
            }
            Ok(_) => Ok(Some(line)),
            Err(error) => Err(self.fail(format!("cannot be read: {error}"))),
        }
    }

    fn read(&mut self) -> Result<Option<Record>, RecordingError> {
        let Some(line) = self.read_line()? else { return Ok(None) };
        match serde_json::from_slice(&line) {
            Ok(record) => Ok(Some(record)),
            Err(_) if line.last() != Some(&b'\n') => {
                self.torn = true;
                Ok(None)
            }
            // The error's own words may repeat what stands there.
            Err(error) => {
                let at = error.column();
                Err(self.fail(format!("it is no record of this format, from column {at} on")))
            }
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Record, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.read().transpose();
        self.over |= next.is_none();
        next
    }
}

/// A recording in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recording {
    /// What happened, in the order in which it was written down.
    pub records: Vec<Record>,
    /// The end of the last line was missing.
    pub torn: bool,
}

impl Recording {
    /// Reads all of `input`.
    ///
    /// # Errors
    /// It is no recording, or damaged: the error names the line.
    pub fn read(input: impl BufRead) -> Result<Self, RecordingError> {
        let mut reader = Reader::new(input)?;
        let records = reader.by_ref().collect::<Result<_, _>>()?;
        Ok(Self { records, torn: reader.is_torn() })
    }

    /// The numbers of the runs in it, in the order in which they began.
    pub fn runs(&self) -> Vec<u32> {
        let begin = |record: &&Record| matches!(record.what, What::Run { .. });
        self.records.iter().filter(begin).map(|record| record.run).collect()
    }
}

#[cfg(test)]
mod tests;
