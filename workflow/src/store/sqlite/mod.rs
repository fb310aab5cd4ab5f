//! The embedded store: one SQLite file for each state directory.
//!
//! Write-ahead log with `synchronous=FULL`: a call that returned is on the disk, for one `fsync` a
//! record. Several processes may have it open; what they race for is decided by the database.

mod open;
mod rows;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use serde_json::Value;

use super::{Lease, Mode, NewRoot, Put, Store, StoreResult, answer_record, fenced, may_take};
use crate::error::StoreError;
use crate::key::Kind;
use crate::record::{Change, Millis, Owner, Record, Root, Status};
use crate::store::LEASE_MS;
use rows::{json, read_record, read_root, sql_millis};

/// A store in an SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Mutex<Connection>,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens the database at `path`; one that is not there yet is made, with its directory, for
    /// this user alone (0600, 0700).
    ///
    /// # Errors
    /// [`StoreError::Damaged`]: the file was damaged, and is set aside under another name;
    /// [`StoreError::Newer`], [`StoreError::Foreign`]: it was left alone.
    pub fn open(path: impl Into<PathBuf>) -> StoreResult<Self> {
        let path = path.into();
        let connection = open::open(&path)?;
        Ok(Self { connection: Mutex::new(connection), path })
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> StoreResult<T> {
        work(&self.connection.lock().unwrap_or_else(PoisonError::into_inner)).map_err(failed)
    }

    /// A write that begins with the lock, so that what is read in it stays true in it.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<StoreResult<T>>,
    ) -> StoreResult<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        // Dropping the transaction undoes it.
        let done = work(&transaction).map_err(failed)??;
        transaction.commit().map_err(failed)?;
        Ok(done)
    }

    /// Brings the log into the main file. A log can be cut or lost without a trace, and a run
    /// whose head was only there would be taken for one that never was. Somebody who reads at the
    /// moment may keep it from being emptied; what is in the main file then is enough.
    fn empty_log(&self) -> StoreResult<()> {
        self.read(|connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_busy| Ok(()))
        })
    }

    fn leased<T>(
        &self,
        lease: &Lease,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> StoreResult<T> {
        self.write(|transaction| {
            let held: Option<(Option<String>, String)> = transaction
                .prepare_cached("SELECT nonce, status FROM root WHERE id = ?1")?
                .query_row([&lease.root], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            match held {
                Some((Some(nonce), _)) if nonce == lease.owner.nonce => work(transaction).map(Ok),
                Some((_, status)) => Ok(Err(fenced(Status::parse(&status)))),
                None => Ok(Err(fenced(None))),
            }
        })
    }
}

/// An error of SQLite in our words. Values never appear in them.
#[allow(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::Io(error.to_string())
}

fn insert(transaction: &Transaction<'_>, root: &str, record: &Record) -> rusqlite::Result<usize> {
    transaction
        .prepare_cached(
            "INSERT INTO record(root, key, kind, scope, name, seq, print, present, value,
                                detail, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            root,
            record.key,
            record.kind.as_str(),
            record.scope,
            record.name,
            sql_millis(record.seq),
            record.print,
            record.value.is_some(),
            json(record.value.as_ref()),
            json(record.detail.as_ref()),
            sql_millis(record.at),
        ])
}

fn find(
    connection: &Connection,
    root: &str,
    kind: Kind,
    key: &str,
) -> rusqlite::Result<Option<Record>> {
    connection
        .prepare_cached(rows::ONE_RECORD)?
        .query_row(params![root, key, kind.as_str()], read_record)
        .optional()
}

fn head(connection: &Connection, id: &str) -> rusqlite::Result<Option<Root>> {
    connection.prepare_cached(rows::ONE_ROOT)?.query_row([id], read_root).optional()
}

fn touch(connection: &Connection, root: &str, now: Millis) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("UPDATE root SET updated = max(updated, ?2) WHERE id = ?1")?
        .execute(params![root, sql_millis(now)])
}

fn apply(
    connection: &Connection,
    root: &str,
    change: &Change,
    now: Millis,
) -> rusqlite::Result<usize> {
    let failure = change.failure.as_ref().and_then(|failure| serde_json::to_string(failure).ok());
    connection
        .prepare_cached(
            "UPDATE root SET status = ?2, resumable = ?3, result = ?4, failure = ?5, retry_at = ?6,
                             updated = max(updated, ?7)
             WHERE id = ?1",
        )?
        .execute(params![
            root,
            change.status.as_str(),
            change.resumable,
            json(change.result.as_ref()),
            failure,
            change.retry_at.map(sql_millis),
            sql_millis(now),
        ])
}

impl Store for SqliteStore {
    fn begin(&self, new: &NewRoot, owner: &Owner, now: Millis) -> StoreResult<Lease> {
        let lease = self.write(|transaction| {
            match head(transaction, &new.id)? {
                Some(root) => {
                    if let Err(refused) = may_take(&root, now) {
                        return Ok(Err(refused));
                    }
                }
                None => {
                    let inputs = Value::Object(new.inputs.clone());
                    transaction.execute(
                        "INSERT INTO root(id, name, inputs, status, resumable, created, updated,
                                          code, lease_until)
                         VALUES (?1, ?2, ?3, 'running', 1, ?4, ?4, ?5, 0)",
                        params![new.id, new.name, json(Some(&inputs)), sql_millis(now), new.code],
                    )?;
                }
            }
            apply(transaction, &new.id, &Change::running(), now)?;
            transaction.execute(
                "UPDATE root SET host = ?2, pid = ?3, boot = ?4, nonce = ?5, lease_until = ?6
                 WHERE id = ?1",
                params![
                    new.id,
                    owner.host,
                    owner.pid,
                    owner.boot,
                    owner.nonce,
                    sql_millis(now.saturating_add(LEASE_MS))
                ],
            )?;
            Ok(Ok(Lease { root: new.id.clone(), owner: owner.clone() }))
        })?;
        if let Err(error) = self.empty_log() {
            // The caller is told that nothing began: the run must not stay closed to the next.
            let _runs_out = self.release(&lease);
            return Err(error);
        }
        Ok(lease)
    }

    fn renew(&self, lease: &Lease, now: Millis) -> StoreResult<()> {
        self.leased(lease, |transaction| {
            transaction.execute(
                "UPDATE root SET lease_until = ?2 WHERE id = ?1",
                params![lease.root, sql_millis(now.saturating_add(LEASE_MS))],
            )?;
            Ok(())
        })
    }

    fn release(&self, lease: &Lease) -> StoreResult<()> {
        let released = self.leased(lease, |transaction| {
            transaction.execute("UPDATE root SET nonce = NULL WHERE id = ?1", [&lease.root])?;
            Ok(())
        });
        match released {
            Err(StoreError::Fenced(_)) => Ok(()),
            other => other,
        }
    }

    fn put(&self, lease: &Lease, record: &Record, mode: Mode) -> StoreResult<Put> {
        self.leased(lease, |transaction| {
            if mode == Mode::Replace {
                transaction
                    .prepare_cached(
                        "DELETE FROM record WHERE root = ?1 AND key = ?2 AND kind = ?3",
                    )?
                    .execute(params![lease.root, record.key, record.kind.as_str()])?;
            }
            if insert(transaction, &lease.root, record)? == 0
                && let Some(old) = find(transaction, &lease.root, record.kind, &record.key)?
            {
                return Ok(Put::Existing(Box::new(old)));
            }
            touch(transaction, &lease.root, record.at)?;
            Ok(Put::Stored)
        })
    }

    fn set(&self, lease: &Lease, change: &Change, now: Millis) -> StoreResult<()> {
        self.leased(lease, |transaction| {
            apply(transaction, &lease.root, change, now)?;
            Ok(())
        })
    }

    fn get(&self, root: &str, kind: Kind, key: &str) -> StoreResult<Option<Record>> {
        self.read(|connection| find(connection, root, kind, key))
    }

    fn records(&self, root: &str) -> StoreResult<Vec<Record>> {
        self.read(|connection| {
            connection.prepare_cached(rows::ALL_RECORDS)?.query_map([root], read_record)?.collect()
        })
    }

    fn root(&self, id: &str) -> StoreResult<Option<Root>> {
        self.read(|connection| head(connection, id))
    }

    fn roots(&self) -> StoreResult<Vec<Root>> {
        self.read(|connection| {
            connection.prepare_cached(rows::ALL_ROOTS)?.query_map([], read_root)?.collect()
        })
    }

    fn kill(&self, id: &str, now: Millis) -> StoreResult<bool> {
        self.write(|transaction| {
            let Some(root) = head(transaction, id)? else {
                return Ok(Err(StoreError::Unknown(id.to_owned())));
            };
            if root.is_terminal() {
                return Ok(Ok(false));
            }
            apply(transaction, id, &Change::to(Status::Cancelled, false), now)?;
            transaction.execute("UPDATE root SET nonce = NULL WHERE id = ?1", [id])?;
            Ok(Ok(true))
        })
    }

    fn answer(&self, root: &str, key: &str, answer: &Value, now: Millis) -> StoreResult<bool> {
        self.write(|transaction| {
            let Some(asked) = find(transaction, root, Kind::Asked, key)? else {
                return Ok(Err(StoreError::Unknown(format!("{root}, question {key}"))));
            };
            let stored = insert(transaction, root, &answer_record(asked, answer, now))? > 0;
            touch(transaction, root, now)?;
            Ok(Ok(stored))
        })
    }

    fn prune(&self, before: Millis) -> StoreResult<usize> {
        const OVER: &str = "updated < ?1 AND (status IN ('completed', 'cancelled')
                            OR (status IN ('failed', 'blocked') AND resumable = 0))";
        self.write(|transaction| {
            let before = sql_millis(before);
            transaction.execute(
                &format!("DELETE FROM record WHERE root IN (SELECT id FROM root WHERE {OVER})"),
                [before],
            )?;
            Ok(Ok(transaction.execute(&format!("DELETE FROM root WHERE {OVER}"), [before])?))
        })
    }
}
