//! Writes a recording down, line by line, as long as there is room.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{FORMAT, Head, Record, Recorder, What};

/// Why a recording is not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// It is as long as it may be.
    Limit {
        /// So many bytes.
        bytes: u64,
    },
    /// It could not be written.
    Failed {
        /// In the words of the system.
        why: String,
    },
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Limit { bytes } => write!(f, "the recording stops at its limit of {bytes} bytes"),
            Self::Failed { why } => write!(f, "the recording could not be written: {why}"),
        }
    }
}

/// A [`Recorder`] that writes the file described in the [module](super).
///
/// Each record is one write, so that what happened before a process is killed is in the file. The
/// first trouble ends the recording and is kept; the runs go on.
pub struct Writer<W>(Mutex<State<W>>);

struct State<W> {
    to: W,
    left: u64,
    limit: u64,
    runs: u32,
    trouble: Option<Trouble>,
}

/// What the last line of a recording that is too long takes, at most.
const ROOM_FOR_THE_END: u64 = 128;

impl<W: Write + Send> Writer<W> {
    /// Writes the first line. No more than `limit` bytes are written, first and last line included.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(mut to: W, limit: u64) -> io::Result<Self> {
        let mut line = serde_json::to_vec(&Head { agentwire_recording: FORMAT })?;
        line.push(b'\n');
        to.write_all(&line)?;
        let left = limit.saturating_sub(line.len() as u64 + ROOM_FOR_THE_END);
        Ok(Self(Mutex::new(State { to, left, limit, runs: 0, trouble: None })))
    }

    /// Why the recording is not complete, if it is not.
    pub fn trouble(&self) -> Option<Trouble> {
        self.lock().trouble.clone()
    }

    /// Valid between statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write> State<W> {
    /// Writes the line of `record` if there is room for it; says whether there was.
    fn write(&mut self, record: &Record, room: u64) -> io::Result<bool> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let Some(left) = room.checked_sub(line.len() as u64) else { return Ok(false) };
        self.left = left;
        self.to.write_all(&line).and_then(|()| self.to.flush())?;
        Ok(true)
    }

    /// Writes the record, or that there is no room for it.
    fn write_or_end(&mut self, record: &Record) -> io::Result<()> {
        if !self.write(record, self.left)? {
            self.trouble = Some(Trouble::Limit { bytes: self.limit });
            self.write(&Record { what: What::Limit, ..*record }, ROOM_FOR_THE_END)?;
        }
        Ok(())
    }
}

impl<W: Write + Send> Recorder for Writer<W> {
    fn begin(&self) -> u32 {
        let mut state = self.lock();
        state.runs += 1;
        state.runs
    }

    fn record(&self, record: Record) {
        let mut state = self.lock();
        if state.trouble.is_some() {
            return;
        }
        if let Err(error) = state.write_or_end(&record) {
            state.trouble = Some(Trouble::Failed { why: error.to_string() });
        }
    }
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}
