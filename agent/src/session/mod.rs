//! A session: the transcript of a conversation and the service's side of it, kept so that another
//! process can go on.
//!
//! On disk a session is two files. `NAME.jsonl` is the log, append-only: a header, then one record
//! a line; each write is flushed to the disk before what it records goes on. `NAME.state` is the
//! service's state (last checkpoint and blobs, and what the turn under way had said at it), replaced
//! as a whole at each checkpoint and when a run ends; without it, or when it is damaged, the next run
//! is made from the transcript.
//!
//! ```
//! # fn main() -> Result<(), agentwire_agent::session::SessionError> {
//! # let folder = tempfile::tempdir().unwrap();
//! use agentwire_agent::session::Store;
//!
//! let store = Store::new(folder.path());
//! let session = store.open("review")?;
//! assert!(session.messages().is_empty());
//! assert_eq!(store.list()?.len(), 1);
//! # Ok(())
//! # }
//! ```

mod export;
mod log;
mod store;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agentwire::context::Message;
use agentwire::conversation::{BlobLimits, Conversation};
use agentwire::ids::{IdSource as _, RandomIds};

use crate::outcome::Outcome;
use crate::record::{Record, Transcript};
use crate::stage::SessionRef;

pub use export::markdown;
pub use log::{Entry, Header, Parent, Torn};
pub use store::{Readable, Store, Summary};

use log::Log;

/// Why a session cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The file system refused.
    #[error("cannot {what} {}: {error}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process, or another part of this one, has the session open.
    #[error("the session {} is in use", .0.display())]
    InUse(PathBuf),
    /// A line that is not the last cannot be read.
    #[error("line {line} of {} is damaged; {}", path.display(), way_out(*records))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// How many records before it can be read.
        records: usize,
    },
    /// A newer version wrote it.
    #[error("{} was written by a newer version (format {version})", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The format it names.
        version: u64,
    },
    /// The log is larger than 256 MiB.
    #[error("{} is larger than 256 MiB; {}", path.display(), way_out(*records))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How many records there are before that size.
        records: usize,
    },
    /// There is no such session.
    #[error("there is no session `{0}`")]
    Missing(String),
    /// There is such a session already.
    #[error("there is a session `{0}` already")]
    Exists(String),
    /// The name cannot be one of a session.
    #[error(
        "`{0}` cannot name a session: 1 to 100 letters, digits, `.`, `_` and `-`, no `.` first"
    )]
    Name(String),
    /// The session has no record of that number.
    #[error("the session has no record {0}")]
    NoRecord(usize),
}

/// What to do about a log that cannot be read to its end.
fn way_out(records: usize) -> String {
    match records {
        0 => "no record before that can be read: remove the session and begin another".to_owned(),
        n => {
            format!("a fork of the session at record {n}, or at one before it, can be gone on with")
        }
    }
}

/// A conversation that can be gone on with. Dropping it releases the file.
pub struct Session {
    reference: SessionRef,
    transcript: Transcript,
    pub(crate) conversation: Conversation,
    log: Option<Arc<Mutex<Log>>>,
    torn: Option<Torn>,
}

impl Session {
    /// A session that lives in memory only.
    pub fn in_memory() -> Self {
        let reference = SessionRef::new(RandomIds.next_id().to_string(), None);
        Self {
            conversation: Conversation::of_session(&reference.id),
            reference,
            transcript: Transcript::default(),
            log: None,
            torn: None,
        }
    }

    /// Opens the session in this log file, which ends in `.jsonl`, and makes it when it is not
    /// there. Calls that have no result are closed in the log.
    ///
    /// # Errors
    /// Any [`SessionError`]. A torn last line is none: see [`Session::torn`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SessionError> {
        Self::opened(path.as_ref(), true)
    }

    /// Opens the session in this log file, which must be there.
    ///
    /// # Errors
    /// [`SessionError::Missing`] when it is not, and nothing is made; any other [`SessionError`].
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self, SessionError> {
        Self::opened(path.as_ref(), false)
    }

    fn opened(path: &Path, make: bool) -> Result<Self, SessionError> {
        let opened = Log::open(path, make)?;
        let mut transcript = Transcript::default();
        for entry in &opened.entries {
            transcript.apply(&entry.record);
        }
        let reference = SessionRef::new(opened.header.id.clone(), Some(path.to_owned()));
        let conversation = opened
            .state
            .and_then(|bytes| Conversation::from_bytes(&bytes, BlobLimits::default()).ok())
            .unwrap_or_else(|| Conversation::of_session(&reference.id));
        let mut session = Self {
            reference,
            transcript,
            conversation,
            log: Some(Arc::new(Mutex::new(opened.log))),
            torn: opened.torn,
        };
        let orphans = session.transcript.orphans();
        session.append_now(&orphans)?;
        Ok(session)
    }

    /// Where it is.
    pub fn reference(&self) -> &SessionRef {
        &self.reference
    }

    /// The messages, every call paired with its result.
    pub fn messages(&self) -> Vec<Arc<Message>> {
        self.transcript.messages()
    }

    /// Whether a task was begun that has no end.
    pub fn is_unfinished(&self) -> bool {
        self.transcript.is_unfinished()
    }

    /// How the last task ended.
    pub fn last_outcome(&self) -> Option<&Outcome> {
        self.transcript.last_outcome()
    }

    /// The model that answered last.
    pub fn last_model(&self) -> Option<&str> {
        self.transcript.last_model()
    }

    /// The end of the log that was cut off when it was opened: a write that did not get through.
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// Writes records; when this returns they are on the disk.
    pub(crate) async fn append(&mut self, records: Vec<Record>) -> Result<(), SessionError> {
        for record in &records {
            self.transcript.apply(record);
        }
        let Some(log) = self.log.clone().filter(|_| !records.is_empty()) else { return Ok(()) };
        blocking(move || lock(&log).append(&records)).await
    }

    fn append_now(&mut self, records: &[Record]) -> Result<(), SessionError> {
        for record in records {
            self.transcript.apply(record);
        }
        match &self.log {
            Some(log) if !records.is_empty() => lock(log).append(records),
            _ => Ok(()),
        }
    }

    /// Keeps this state of the service's side; when this returns it is on the disk.
    pub(crate) async fn save_state(&self, state: &Conversation) -> Result<(), SessionError> {
        let Some(log) = self.log.clone() else { return Ok(()) };
        let state = state.clone();
        blocking(move || lock(&log).save_state(&state.to_bytes())).await
    }
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs file work where it does not hold up other tasks.
async fn blocking(
    work: impl FnOnce() -> Result<(), SessionError> + Send + 'static,
) -> Result<(), SessionError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(SessionError::Io {
            what: "write",
            path: PathBuf::new(),
            error: io::Error::other(error),
        }),
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("reference", &self.reference)
            .field("transcript", &self.transcript)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Scripted;
    use crate::{Agent, Stop};

    #[test]
    fn a_session_that_must_be_there_is_not_made() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.jsonl");
        let missing = Session::open_existing(&path);
        assert!(matches!(missing, Err(SessionError::Missing(_))), "{missing:?}");
        assert!(!path.exists(), "it was made");
        // As a process leaves it that died before its first line was written.
        std::fs::write(&path, "").expect("a file");
        let empty = Session::open_existing(&path);
        assert!(matches!(empty, Err(SessionError::Missing(_))), "{empty:?}");
        assert_eq!(std::fs::read(&path).expect("the file"), b"", "something was written");
        let made = Session::open(&path).expect("it opens");
        let busy = Session::open_existing(&path);
        assert!(matches!(busy, Err(SessionError::InUse(_))), "{busy:?}");
        let reference = made.reference().clone();
        drop(made);
        assert_eq!(*Session::open_existing(&path).expect("it is there").reference(), reference);
    }

    #[tokio::test]
    async fn a_state_that_is_on_the_disk_is_not_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.jsonl");
        let state = path.with_extension("state");
        let session = Session::open(&path).expect("it opens");
        let one = Conversation::with_id("one");
        session.save_state(&one).await.expect("saved");
        // Only a write brings it back.
        std::fs::rename(&state, folder.path().join("kept")).expect("moved");
        session.save_state(&one).await.expect("passed over");
        assert!(!state.exists());
        session.save_state(&Conversation::with_id("two")).await.expect("saved");
        let two = std::fs::read(&state).expect("it is there");
        drop(session);
        // Another process knows what is there.
        let session = Session::open(&path).expect("it opens");
        assert_eq!(session.conversation.to_bytes(), two);
        std::fs::remove_file(&state).expect("removed");
        session.save_state(&session.conversation).await.expect("passed over");
        assert!(!state.exists());
    }

    #[tokio::test]
    async fn what_is_not_on_record_is_not_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.jsonl");
        let mut session = Session::open(&path).expect("it opens");
        // The disk refuses from here on.
        session.log = Some(Arc::new(Mutex::new(Log::read_only(&path))));
        let model = Scripted::new(|_| unreachable!("the model is not asked"));
        let agent = Agent::builder(model).model("m").build().expect("an agent");
        let ended = agent.prompt("go").session(session).start().finish().await.expect("an end");
        let Stop::Failed { failure } = ended.outcome.stop else { panic!("it went on") };
        assert_eq!(failure.kind, "session");
        assert!(failure.message.starts_with("cannot write"), "{failure}");
    }
}
