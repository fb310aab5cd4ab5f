//! A store that lives as long as its process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::{Lease, Mode, NewRoot, Put, Store, StoreResult, answer_record, fenced, may_take};
use crate::error::StoreError;
use crate::key::Kind;
use crate::record::{Change, Millis, Owner, Record, Root, Status};
use crate::store::LEASE_MS;

/// A store in memory, for tests and for runs that need not survive. Clones share their contents.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<BTreeMap<String, Entry>>>);

#[derive(Debug)]
struct Entry {
    root: Root,
    /// In the order they were written.
    records: Vec<Record>,
}

impl Entry {
    fn find(&self, kind: Kind, key: &str) -> Option<usize> {
        self.records.iter().position(|record| record.kind == kind && record.key == key)
    }

    /// The head with its counts.
    fn head(&self) -> Root {
        let mut root = self.root.clone();
        root.records = self.records.iter().filter(|record| record.kind.is_result()).count() as u64;
        let open = |record: &&Record| {
            record.kind == Kind::Asked && self.find(Kind::Ask, &record.key).is_none()
        };
        root.pending = self.records.iter().filter(open).count() as u64;
        root
    }

    fn apply(&mut self, change: &Change, now: Millis) {
        let root = &mut self.root;
        root.status = change.status;
        root.resumable = change.resumable;
        root.result.clone_from(&change.result);
        root.failure.clone_from(&change.failure);
        root.retry_at = change.retry_at;
        root.updated = root.updated.max(now);
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leased<T>(&self, lease: &Lease, work: impl FnOnce(&mut Entry) -> T) -> StoreResult<T> {
        let mut roots = self.lock();
        let entry = roots.get_mut(&lease.root).ok_or_else(|| fenced(None))?;
        if entry.root.owner.as_ref() != Some(&lease.owner) {
            return Err(fenced(Some(entry.root.status)));
        }
        Ok(work(entry))
    }
}

impl Store for MemoryStore {
    fn is_blocking(&self) -> bool {
        false
    }

    fn begin(&self, new: &NewRoot, owner: &Owner, now: Millis) -> StoreResult<Lease> {
        let mut roots = self.lock();
        let entry = match roots.get_mut(&new.id) {
            Some(entry) => {
                may_take(&entry.root, now)?;
                entry
            }
            None => roots.entry(new.id.clone()).or_insert_with(|| Entry {
                root: Root {
                    id: new.id.clone(),
                    name: new.name.clone(),
                    inputs: new.inputs.clone(),
                    status: Status::Running,
                    resumable: true,
                    created: now,
                    updated: now,
                    code: new.code.clone(),
                    result: None,
                    failure: None,
                    retry_at: None,
                    records: 0,
                    pending: 0,
                    owner: None,
                    lease_until: 0,
                },
                records: Vec::new(),
            }),
        };
        entry.apply(&Change::running(), now);
        entry.root.owner = Some(owner.clone());
        entry.root.lease_until = now.saturating_add(LEASE_MS);
        Ok(Lease { root: new.id.clone(), owner: owner.clone() })
    }

    fn renew(&self, lease: &Lease, now: Millis) -> StoreResult<()> {
        self.leased(lease, |entry| entry.root.lease_until = now.saturating_add(LEASE_MS))
    }

    fn release(&self, lease: &Lease) -> StoreResult<()> {
        match self.leased(lease, |entry| entry.root.owner = None) {
            Err(StoreError::Fenced(_)) => Ok(()),
            other => other,
        }
    }

    fn put(&self, lease: &Lease, record: &Record, mode: Mode) -> StoreResult<Put> {
        self.leased(lease, |entry| {
            let met = match (entry.find(record.kind, &record.key), mode) {
                (None, _) => {
                    entry.records.push(record.clone());
                    Put::Stored
                }
                (Some(index), Mode::Replace) => {
                    if let Some(old) = entry.records.get_mut(index) {
                        *old = record.clone();
                    }
                    Put::Stored
                }
                (Some(index), Mode::IfAbsent) => entry
                    .records
                    .get(index)
                    .map_or(Put::Stored, |old| Put::Existing(Box::new(old.clone()))),
            };
            entry.root.updated = entry.root.updated.max(record.at);
            met
        })
    }

    fn set(&self, lease: &Lease, change: &Change, now: Millis) -> StoreResult<()> {
        self.leased(lease, |entry| entry.apply(change, now))
    }

    fn get(&self, root: &str, kind: Kind, key: &str) -> StoreResult<Option<Record>> {
        let roots = self.lock();
        let found = roots.get(root).and_then(|entry| {
            entry.find(kind, key).and_then(|index| entry.records.get(index)).cloned()
        });
        Ok(found)
    }

    fn records(&self, root: &str) -> StoreResult<Vec<Record>> {
        let mut records =
            self.lock().get(root).map(|entry| entry.records.clone()).unwrap_or_default();
        records.sort_by_key(|record| record.at);
        Ok(records)
    }

    fn root(&self, id: &str) -> StoreResult<Option<Root>> {
        Ok(self.lock().get(id).map(Entry::head))
    }

    fn roots(&self) -> StoreResult<Vec<Root>> {
        let mut roots: Vec<Root> = self.lock().values().map(Entry::head).collect();
        roots.sort_by(|a, b| b.updated.cmp(&a.updated).then_with(|| a.id.cmp(&b.id)));
        Ok(roots)
    }

    fn kill(&self, id: &str, now: Millis) -> StoreResult<bool> {
        let mut roots = self.lock();
        let entry = roots.get_mut(id).ok_or_else(|| StoreError::Unknown(id.to_owned()))?;
        if entry.root.is_terminal() {
            return Ok(false);
        }
        entry.apply(&Change::to(Status::Cancelled, false), now);
        entry.root.owner = None;
        Ok(true)
    }

    fn answer(&self, root: &str, key: &str, answer: &Value, now: Millis) -> StoreResult<bool> {
        let mut roots = self.lock();
        let asked = roots
            .get_mut(root)
            .and_then(|entry| entry.find(Kind::Asked, key).map(|index| (entry, index)));
        let Some((entry, index)) = asked else {
            return Err(StoreError::Unknown(format!("{root}, question {key}")));
        };
        if entry.find(Kind::Ask, key).is_some() {
            return Ok(false);
        }
        if let Some(asked) = entry.records.get(index).cloned() {
            entry.records.push(answer_record(asked, answer, now));
            entry.root.updated = entry.root.updated.max(now);
        }
        Ok(true)
    }

    fn prune(&self, before: Millis) -> StoreResult<usize> {
        let mut roots = self.lock();
        let count = roots.len();
        roots.retain(|_, entry| !(entry.root.is_terminal() && entry.root.updated < before));
        Ok(count - roots.len())
    }
}
