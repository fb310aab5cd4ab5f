//! A store that fails on purpose: what tests of an application put between it and the real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use super::{Lease, Mode, NewRoot, Put, Store, StoreResult};
use crate::error::StoreError;
use crate::key::Kind;
use crate::record::{Change, Millis, Owner, Record, Root};

/// What happens at one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is made.
    None,
    /// It is not made, and fails.
    Before,
    /// It is made, and the caller is told that it failed: the process died in between, or the
    /// disk's answer was lost.
    After,
}

type Plan = dyn Fn(u64) -> Fault + Send + Sync;

/// Wraps a store; writes of a run (records and changes of its head) are counted from 1, and a
/// function says what happens at each. Reads, leases and what other programs do are left alone.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    plan: Arc<Plan>,
    writes: Arc<AtomicU64>,
}

impl std::fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultStore").field("writes", &self.writes()).finish_non_exhaustive()
    }
}

impl FaultStore {
    /// Fails as `plan` says. The plan may also block, to hold a write at its boundary.
    pub fn new(inner: Arc<dyn Store>, plan: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Self {
        Self { inner, plan: Arc::new(plan), writes: Arc::default() }
    }

    /// Fails the `n`-th write, counted from 1, and all after it, as a full disk does.
    pub fn failing_from(inner: Arc<dyn Store>, n: u64) -> Self {
        Self::new(inner, move |write| if write >= n { Fault::Before } else { Fault::None })
    }

    /// The number of writes so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    fn write<T>(&self, work: impl FnOnce() -> StoreResult<T>) -> StoreResult<T> {
        let n = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let fault = (self.plan)(n);
        if fault == Fault::Before {
            return Err(StoreError::Io(format!("write {n} failed on purpose")));
        }
        let done = work()?;
        if fault == Fault::After {
            return Err(StoreError::Io(format!("the answer to write {n} was lost on purpose")));
        }
        Ok(done)
    }
}

impl Store for FaultStore {
    fn is_blocking(&self) -> bool {
        self.inner.is_blocking()
    }

    fn begin(&self, new: &NewRoot, owner: &Owner, now: Millis) -> StoreResult<Lease> {
        self.inner.begin(new, owner, now)
    }

    fn renew(&self, lease: &Lease, now: Millis) -> StoreResult<()> {
        self.inner.renew(lease, now)
    }

    fn release(&self, lease: &Lease) -> StoreResult<()> {
        self.inner.release(lease)
    }

    fn put(&self, lease: &Lease, record: &Record, mode: Mode) -> StoreResult<Put> {
        self.write(|| self.inner.put(lease, record, mode))
    }

    fn set(&self, lease: &Lease, change: &Change, now: Millis) -> StoreResult<()> {
        self.write(|| self.inner.set(lease, change, now))
    }

    fn get(&self, root: &str, kind: Kind, key: &str) -> StoreResult<Option<Record>> {
        self.inner.get(root, kind, key)
    }

    fn records(&self, root: &str) -> StoreResult<Vec<Record>> {
        self.inner.records(root)
    }

    fn root(&self, id: &str) -> StoreResult<Option<Root>> {
        self.inner.root(id)
    }

    fn roots(&self) -> StoreResult<Vec<Root>> {
        self.inner.roots()
    }

    fn kill(&self, id: &str, now: Millis) -> StoreResult<bool> {
        self.inner.kill(id, now)
    }

    fn answer(&self, root: &str, key: &str, answer: &Value, now: Millis) -> StoreResult<bool> {
        self.inner.answer(root, key, answer, now)
    }

    fn prune(&self, before: Millis) -> StoreResult<usize> {
        self.inner.prune(before)
    }
}
