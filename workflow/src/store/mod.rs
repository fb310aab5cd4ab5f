//! Where records live: one trait, a store in memory, one in SQLite, one that fails on purpose.
//!
//! A store is a table of facts for each root: the first write of a key wins *in the store*, and
//! the loser of a race is told the winner's value. Each write names the lease it is made under; a
//! process that lost its lease can write nothing more.

mod fault;
mod memory;
mod owner;
mod sqlite;

use serde_json::{Map, Value};

use crate::error::StoreError;
use crate::key::Kind;
use crate::record::{Change, Millis, Owner, Record, Root, Status};

pub use fault::{Fault, FaultStore};
pub use memory::MemoryStore;
pub use owner::current as current_owner;
pub use sqlite::SqliteStore;

/// Result of a store.
pub type StoreResult<T> = Result<T, StoreError>;

/// How long a lease holds without being renewed, in milliseconds. The owner renews at a third of
/// it, so two renewals may fail; 30 s is how long a run on another host stays closed after a crash.
/// No option: all who share a store must mean the same by it.
pub const LEASE_MS: u64 = 30_000;

/// What begins with a new run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoot {
    /// Its id.
    pub id: String,
    /// The workflow's name.
    pub name: String,
    /// The inputs, defaults applied.
    pub inputs: Map<String, Value>,
    /// What it is made from.
    pub code: String,
}

/// The right to write records of one root. Lost when somebody else takes the root over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The root.
    pub root: String,
    /// Who holds it.
    pub owner: Owner,
}

/// What a write met.
#[derive(Debug, Clone, PartialEq)]
pub enum Put {
    /// The record was written.
    Stored,
    /// There was one already; it stays, and this is it.
    Existing(Box<Record>),
}

/// Whether a write may take the place of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The first write wins.
    IfAbsent,
    /// The step was run again on purpose: the new result takes the old one's place.
    Replace,
}

/// A durable store. Calls block; the engine makes them on a blocking thread where
/// [`Store::is_blocking`] says so. When a call returns `Ok`, what it wrote is durable.
pub trait Store: Send + Sync {
    /// Whether calls wait for a disk.
    fn is_blocking(&self) -> bool {
        true
    }

    /// Begins a run, or takes an existing one over. A root that is new is stored with status
    /// running; one that is there keeps its inputs and its creation time and becomes running. A
    /// store with a log brings it into its main file, so that a run that began is never unknown.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while its owner lives, [`StoreError::NotResumable`] once it is over.
    fn begin(&self, new: &NewRoot, owner: &Owner, now: Millis) -> StoreResult<Lease>;

    /// Renews the lease.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when it is lost.
    fn renew(&self, lease: &Lease, now: Millis) -> StoreResult<()>;

    /// Gives the lease up. Not an error when it is lost already.
    ///
    /// # Errors
    /// When writing fails.
    fn release(&self, lease: &Lease) -> StoreResult<()>;

    /// Writes a record.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the lease is lost; nothing is written then.
    fn put(&self, lease: &Lease, record: &Record, mode: Mode) -> StoreResult<Put>;

    /// Changes the head: status and result in one transaction, so a run whose status is completed
    /// has its outputs and all its records.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] when the lease is lost.
    fn set(&self, lease: &Lease, change: &Change, now: Millis) -> StoreResult<()>;

    /// One record.
    ///
    /// # Errors
    /// When reading fails.
    fn get(&self, root: &str, kind: Kind, key: &str) -> StoreResult<Option<Record>>;

    /// All records of a root, oldest first.
    ///
    /// # Errors
    /// When reading fails.
    fn records(&self, root: &str) -> StoreResult<Vec<Record>>;

    /// The head of a root.
    ///
    /// # Errors
    /// When reading fails.
    fn root(&self, id: &str) -> StoreResult<Option<Root>>;

    /// All heads, newest first.
    ///
    /// # Errors
    /// When reading fails.
    fn roots(&self) -> StoreResult<Vec<Root>>;

    /// Ends a run for good, whoever runs it: its owner loses the lease, notices at its next write
    /// or renewal, and stops. `false`: it was over already, and nothing was changed.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    fn kill(&self, id: &str, now: Millis) -> StoreResult<bool>;

    /// Records an answer to a question that was shown. The first answer wins; `false`: there was
    /// one.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when no such question was shown.
    fn answer(&self, root: &str, key: &str, answer: &Value, now: Millis) -> StoreResult<bool>;

    /// Removes the runs that were over before this time; the number of them.
    ///
    /// # Errors
    /// When writing fails.
    fn prune(&self, before: Millis) -> StoreResult<usize>;

    /// Heads of the runs that can be gone on with, newest first.
    ///
    /// # Errors
    /// When reading fails.
    fn resumable(&self) -> StoreResult<Vec<Root>> {
        Ok(self.roots()?.into_iter().filter(Root::is_resumable).collect())
    }

    /// The roots whose id is `prefix` or begins with it; an exact match is alone.
    ///
    /// # Errors
    /// When reading fails.
    fn find(&self, prefix: &str) -> StoreResult<Vec<Root>> {
        if let Some(exact) = self.root(prefix)? {
            return Ok(vec![exact]);
        }
        Ok(self.roots()?.into_iter().filter(|root| root.id.starts_with(prefix)).collect())
    }
}

/// Whether a root may be taken over now.
fn may_take(root: &Root, now: Millis) -> StoreResult<()> {
    if root.is_terminal() {
        let status = root.status.as_str().to_owned();
        return Err(StoreError::NotResumable { id: root.id.clone(), status });
    }
    match &root.owner {
        Some(owner) if root.lease_until > now && !owner::is_dead(owner) => {
            Err(StoreError::Busy(owner.to_string()))
        }
        _ => Ok(()),
    }
}

/// Why a lease does not hold: what a fenced writer is told.
fn fenced(status: Option<Status>) -> StoreError {
    StoreError::Fenced(match status {
        Some(Status::Cancelled) => "it was killed",
        Some(_) => "somebody else took it over",
        None => "it was removed",
    })
}

/// The record of an answer to a question that was shown.
fn answer_record(asked: Record, answer: &Value, now: Millis) -> Record {
    Record { kind: Kind::Ask, value: Some(answer.clone()), at: now, ..asked }
}
