//! The log file: a header and one record a line, JSON.
#![allow(clippy::disallowed_methods, reason = "a driver: records carry the time of the system")]

use std::fs::{File, OpenOptions, TryLockError};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use agentwire::ids::{IdSource as _, RandomIds};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::SessionError;
use crate::failure::millis;
use crate::record::Record;

/// Version of the format, in every line.
const VERSION: u64 = 1;
/// Longest log that is read. 256 MiB: thousands of turns with images. No option: a process that set it
/// lower could not open what another wrote.
const LONGEST: u64 = 256 << 20;

/// The first line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format: 1.
    pub v: u64,
    /// Always `session`.
    #[serde(rename = "type")]
    kind: String,
    /// Id of the session, a UUID.
    pub id: String,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// What it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// What a session was forked from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Id of that session.
    pub id: String,
    /// How many of its records were taken over.
    pub records: usize,
}

/// One line after the header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the format: 1.
    pub v: u64,
    /// When it was written, in milliseconds since 1970.
    pub at: u64,
    /// What it says.
    #[serde(flatten)]
    pub record: Record,
}

/// The end of a log that was not a whole line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    /// Number of the line, from 1.
    pub line: usize,
    /// Bytes that were dropped.
    pub bytes: usize,
}

impl Header {
    pub(super) fn new(parent: Option<Parent>) -> Self {
        let id = RandomIds.next_id().to_string();
        Self { v: VERSION, kind: "session".into(), id, created: now(), parent }
    }
}

/// An open log, locked against other processes.
pub(super) struct Log {
    file: File,
    path: PathBuf,
    /// The state that is on the disk.
    saved: Option<StateMark>,
}

/// Tells a state from the one before it: its length and a hash. Two that follow each other and
/// differ in content alone are taken for one once in 2^64 times; the next run is then made from an
/// older checkpoint.
#[derive(PartialEq, Eq)]
struct StateMark(usize, u64);

impl StateMark {
    fn of(state: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(state);
        Self(state.len(), hasher.finish())
    }
}

/// A log and what was in it.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) header: Header,
    pub(super) entries: Vec<Entry>,
    pub(super) torn: Option<Torn>,
    pub(super) state: Option<Bytes>,
}

/// What a log says, as far as it can be read.
pub(super) struct Read {
    pub(super) header: Option<Header>,
    pub(super) entries: Vec<Entry>,
    pub(super) torn: Option<Torn>,
    /// Why it cannot be read any further.
    pub(super) fault: Option<SessionError>,
    /// Bytes up to the end of the last whole line.
    end: u64,
}

impl Log {
    /// Opens the log; one that is not there is made when `make` says so. Otherwise nothing is
    /// written where no log is, not even into an empty file.
    pub(super) fn open(path: &Path, make: bool) -> Result<Opened, SessionError> {
        let io = |what| failed(what, path);
        let missing = || SessionError::Missing(path.display().to_string());
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(make);
        private(&mut options);
        let mut file = match options.open(path) {
            Err(error) if !make && error.kind() == io::ErrorKind::NotFound => {
                return Err(missing());
            }
            opened => opened.map_err(io("open"))?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SessionError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io("lock")(error)),
        }
        let read = read_file(&mut file, path, usize::MAX).sound()?;
        if read.header.is_none() && !make {
            return Err(missing());
        }
        if read.torn.is_some() {
            file.set_len(read.end).map_err(io("cut the torn end of"))?;
        }
        let mut log = Self { file, path: path.to_owned(), saved: None };
        let header = match read.header {
            Some(header) => header,
            None => log.begin(Header::new(None))?,
        };
        let state = std::fs::read(log.state_path()).ok().map(Bytes::from);
        log.saved = state.as_deref().map(StateMark::of);
        Ok(Opened { log, header, entries: read.entries, torn: read.torn, state })
    }

    /// Makes a log with these entries in it.
    pub(super) fn create(
        path: &Path,
        header: Header,
        entries: &[Entry],
    ) -> Result<(), SessionError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        private(&mut options);
        let file = options.open(path).map_err(failed("make", path))?;
        let mut log = Self { file, path: path.to_owned(), saved: None };
        log.begin(header)?;
        let mut lines = Vec::new();
        entries.iter().for_each(|entry| push_line(&mut lines, entry));
        log.write(&lines)
    }

    #[cfg(test)]
    pub(super) fn read_only(path: &Path) -> Self {
        Self { file: File::open(path).expect("the log"), path: path.to_owned(), saved: None }
    }

    fn begin(&mut self, header: Header) -> Result<Header, SessionError> {
        let mut line = Vec::new();
        push_line(&mut line, &header);
        self.write(&line)?;
        // The name is on the disk only when its folder is.
        if let Some(folder) = self.path.parent()
            && let Ok(folder) = File::open(folder)
        {
            let _unsupported = folder.sync_all();
        }
        Ok(header)
    }

    /// Writes records and waits until they are on the disk.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), SessionError> {
        let mut lines = Vec::new();
        for record in records {
            push_line(&mut lines, &Entry { v: VERSION, at: now(), record: record.clone() });
        }
        self.write(&lines)
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), SessionError> {
        let written = self.file.write_all(lines).and_then(|()| self.file.sync_data());
        written.map_err(failed("write", &self.path))
    }

    /// Replaces the service's state as a whole, unless that is what is there.
    pub(super) fn save_state(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        let mark = StateMark::of(bytes);
        if self.saved.as_ref() == Some(&mark) {
            return Ok(());
        }
        let path = self.state_path();
        let new = path.with_extension("state.new");
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            private(&mut options);
            let mut file = options.open(&new)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            std::fs::rename(&new, &path)
        };
        write().map_err(failed("write", &path))?;
        self.saved = Some(mark);
        Ok(())
    }

    fn state_path(&self) -> PathBuf {
        self.path.with_extension("state")
    }
}

/// Reads the first `most` records of a log that may be open elsewhere, or those before the place
/// from which on it cannot be read. What comes after them is not looked at.
///
/// # Errors
/// There is nothing to read from. A log that is damaged is none: see [`Read::fault`].
pub(super) fn read(path: &Path, most: usize) -> Result<Read, SessionError> {
    let mut file = File::open(path).map_err(failed("open", path))?;
    Ok(read_file(&mut file, path, most))
}

fn read_file(file: &mut File, path: &Path, most: usize) -> Read {
    let mut read = Read { header: None, entries: Vec::new(), torn: None, fault: None, end: 0 };
    read.fault = read.lines(BufReader::new(file.take(LONGEST + 1)), path, most).err();
    read
}

impl Read {
    /// The log, where all of it that was asked for can be read.
    pub(super) fn sound(mut self) -> Result<Self, SessionError> {
        self.fault.take().map_or(Ok(self), Err)
    }

    fn lines(
        &mut self,
        mut file: impl BufRead,
        path: &Path,
        most: usize,
    ) -> Result<(), SessionError> {
        let io = failed("read", path);
        let mut text = Vec::new();
        for line in 1.. {
            if self.header.is_some() && self.entries.len() >= most {
                break;
            }
            text.clear();
            let bytes = file.read_until(b'\n', &mut text).map_err(&io)?;
            if bytes == 0 {
                break;
            }
            if self.end + bytes as u64 > LONGEST {
                let records = self.entries.len();
                return Err(SessionError::TooLarge { path: path.to_owned(), records });
            }
            if text.ends_with(b"\n") && self.take(&text, path)? {
                self.end += bytes as u64;
            } else if file.fill_buf().map_err(&io)?.is_empty() {
                self.torn = Some(Torn { line, bytes });
            } else {
                let records = self.entries.len();
                return Err(SessionError::Damaged { path: path.to_owned(), line, records });
            }
        }
        Ok(())
    }

    /// Takes in one line; `false` when it cannot be read.
    fn take(&mut self, text: &[u8], path: &Path) -> Result<bool, SessionError> {
        let Ok(value) = serde_json::from_slice::<Value>(text) else { return Ok(false) };
        let version = value.get("v").and_then(Value::as_u64).unwrap_or(0);
        if version > VERSION {
            return Err(SessionError::Version { path: path.to_owned(), version });
        }
        if self.header.is_none() {
            self.header = serde_json::from_value(value).ok();
            return Ok(self.header.is_some());
        }
        let Ok(entry) = serde_json::from_value(value) else { return Ok(false) };
        self.entries.push(entry);
        Ok(true)
    }
}

fn push_line(lines: &mut Vec<u8>, value: &impl Serialize) {
    // Writing to memory cannot fail, and every key here is a string.
    if serde_json::to_writer(&mut *lines, value).is_ok() {
        lines.push(b'\n');
    }
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> SessionError + 'a {
    move |error| SessionError::Io { what, path: path.to_owned(), error }
}

/// What people said is theirs: nobody else may read it.
fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = options;
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}
