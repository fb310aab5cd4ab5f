//! Sessions by name, in one folder.

use std::path::{Path, PathBuf};

use super::log::{self, Entry, Header, Log, Parent, Torn};
use super::{Session, SessionError, markdown};
use crate::record::Transcript;

/// A folder of sessions.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// What a list says of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Its id; empty when not even the log's first line can be read.
    pub id: String,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// When its last record was written, in milliseconds since 1970.
    pub updated: u64,
    /// How many records it has.
    pub records: usize,
    /// Whether a task was begun that has no end.
    pub unfinished: bool,
    /// What the last task asked for, its first line.
    pub task: String,
    /// Why the log cannot be read any further; the rest is of the records before that.
    pub damage: Option<String>,
}

/// What can be read of a log.
#[derive(Debug)]
#[non_exhaustive]
pub struct Readable {
    /// The records, up to the first that cannot be read.
    pub entries: Vec<Entry>,
    /// The end of the log, where it is not a whole line.
    pub torn: Option<Torn>,
    /// Why the records after these cannot be read.
    pub damage: Option<SessionError>,
}

impl Store {
    /// The sessions in this folder. It is made when the first session is.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens a session, a new one when there is none of that name.
    ///
    /// # Errors
    /// Any [`SessionError`].
    pub fn open(&self, name: &str) -> Result<Session, SessionError> {
        let path = self.path(name)?;
        self.make_folder()?;
        Session::open(path)
    }

    /// All sessions, the one that was used last first. One whose log is damaged is among them, see
    /// [`Summary::damage`]; files whose names are none of sessions are passed over.
    ///
    /// # Errors
    /// [`SessionError::Io`] when the folder cannot be read; none when it is not there.
    pub fn list(&self) -> Result<Vec<Summary>, SessionError> {
        let files = match std::fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(self.io("read", error)),
        };
        let mut all: Vec<_> = files
            .filter_map(|file| {
                let path = file.ok()?.path();
                let is_log = path.extension().is_some_and(|extension| extension == "jsonl");
                let name = path.file_stem()?.to_str().filter(|_| is_log)?.to_owned();
                self.path(&name).ok()?;
                summary(name, &path)
            })
            .collect();
        all.sort_by(|a, b| b.updated.cmp(&a.updated).then_with(|| a.name.cmp(&b.name)));
        Ok(all)
    }

    /// The records of a session, and what is torn at its end.
    ///
    /// # Errors
    /// Any [`SessionError`].
    pub fn read(&self, name: &str) -> Result<(Header, Vec<Entry>, Option<Torn>), SessionError> {
        self.first(name, usize::MAX)
    }

    /// The records of a session that can be read, and why those after them cannot.
    ///
    /// # Errors
    /// [`SessionError::Missing`], [`SessionError::Name`], and [`SessionError::Io`] when the log
    /// cannot be opened.
    pub fn readable(&self, name: &str) -> Result<Readable, SessionError> {
        let read = log::read(&self.existing(name)?, usize::MAX)?;
        Ok(Readable { entries: read.entries, torn: read.torn, damage: read.fault })
    }

    fn first(
        &self,
        name: &str,
        records: usize,
    ) -> Result<(Header, Vec<Entry>, Option<Torn>), SessionError> {
        let read = log::read(&self.existing(name)?, records)?.sound()?;
        let header = read.header.ok_or_else(|| SessionError::Missing(name.to_owned()))?;
        Ok((header, read.entries, read.torn))
    }

    /// A new session that begins with the first `records` records of another, all of them when
    /// `None`. What comes after them may be damaged. The service's state stays with the other: the
    /// first run is made from the transcript.
    ///
    /// # Errors
    /// Any [`SessionError`].
    pub fn fork(&self, name: &str, new: &str, records: Option<usize>) -> Result<(), SessionError> {
        let (header, entries, _) = self.first(name, records.unwrap_or(usize::MAX))?;
        let records = records.unwrap_or(entries.len());
        let taken = entries.get(..records).ok_or(SessionError::NoRecord(records))?;
        let path = self.path(new)?;
        if path.exists() {
            return Err(SessionError::Exists(new.to_owned()));
        }
        let parent = Parent { id: header.id, records };
        Log::create(&path, Header::new(Some(parent)), taken)
    }

    /// A session as Markdown.
    ///
    /// # Errors
    /// Any [`SessionError`].
    pub fn export(&self, name: &str) -> Result<String, SessionError> {
        let (_, entries, _) = self.read(name)?;
        Ok(markdown(name, &entries))
    }

    /// Removes a session.
    ///
    /// # Errors
    /// Any [`SessionError`]; one that is in use is not removed.
    pub fn remove(&self, name: &str) -> Result<(), SessionError> {
        let path = self.existing(name)?;
        // One that is damaged can be removed too.
        if let Err(error @ SessionError::InUse(_)) = Session::open(&path) {
            return Err(error);
        }
        std::fs::remove_file(&path).map_err(|error| self.io("remove", error))?;
        // There may be no state yet.
        let _absent = std::fs::remove_file(path.with_extension("state"));
        Ok(())
    }

    fn path(&self, name: &str) -> Result<PathBuf, SessionError> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=100).contains(&name.len()) && name.bytes().all(good);
        if !fits || name.starts_with('.') {
            return Err(SessionError::Name(name.chars().take(100).collect()));
        }
        Ok(self.folder.join(format!("{name}.jsonl")))
    }

    fn existing(&self, name: &str) -> Result<PathBuf, SessionError> {
        let path = self.path(name)?;
        if path.exists() { Ok(path) } else { Err(SessionError::Missing(name.to_owned())) }
    }

    fn make_folder(&self) -> Result<(), SessionError> {
        std::fs::create_dir_all(&self.folder).map_err(|error| self.io("make", error))
    }

    fn io(&self, what: &'static str, error: std::io::Error) -> SessionError {
        SessionError::Io { what, path: self.folder.clone(), error }
    }
}

fn summary(name: String, path: &Path) -> Option<Summary> {
    let read = match log::read(path, usize::MAX) {
        Ok(read) => read,
        // Removed since the folder was read.
        Err(SessionError::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
            return None;
        }
        Err(error) => return Some(Summary { damage: Some(error.to_string()), ..of(name, &[]) }),
    };
    // A log without a header and without a fault is one that is being made.
    if read.header.is_none() && read.fault.is_none() {
        return None;
    }
    let mut summary = of(name, &read.entries);
    summary.damage = read.fault.map(|fault| fault.to_string());
    if let Some(header) = read.header {
        summary.updated = summary.updated.max(header.created);
        summary.created = header.created;
        summary.id = header.id;
    }
    Some(summary)
}

/// What records say of their session.
fn of(name: String, entries: &[Entry]) -> Summary {
    let mut transcript = Transcript::default();
    for entry in entries {
        transcript.apply(&entry.record);
    }
    let task = transcript.last_task().unwrap_or_default();
    Summary {
        name,
        id: String::new(),
        created: 0,
        updated: entries.last().map_or(0, |entry| entry.at),
        records: entries.len(),
        unfinished: transcript.is_unfinished(),
        task: task.lines().next().unwrap_or_default().chars().take(80).collect(),
        damage: None,
    }
}
