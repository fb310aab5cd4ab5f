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
    /// Its id.
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

    /// All sessions, the one that was used last first. Files that are no sessions are passed over.
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
        let read = log::read(&self.existing(name)?)?;
        let header = read.header.ok_or_else(|| SessionError::Missing(name.to_owned()))?;
        Ok((header, read.entries, read.torn))
    }

    /// A new session that begins with the first `records` records of another, all of them when
    /// `None`. The service's state stays with the other: the first run is made from the transcript.
    ///
    /// # Errors
    /// Any [`SessionError`].
    pub fn fork(&self, name: &str, new: &str, records: Option<usize>) -> Result<(), SessionError> {
        let (header, entries, _) = self.read(name)?;
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
    let read = log::read(path).ok()?;
    let header = read.header?;
    let mut transcript = Transcript::default();
    for entry in &read.entries {
        transcript.apply(&entry.record);
    }
    let task = transcript.last_task().unwrap_or_default();
    Some(Summary {
        name,
        id: header.id,
        created: header.created,
        updated: read.entries.last().map_or(header.created, |entry| entry.at),
        records: read.entries.len(),
        unfinished: transcript.is_unfinished(),
        task: task.lines().next().unwrap_or_default().chars().take(80).collect(),
    })
}
