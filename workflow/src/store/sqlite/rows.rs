//! Rows to values and back.

use rusqlite::Row;
use rusqlite::types::Type;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::key::Kind;
use crate::record::{Owner, Record, Root, Status};

pub(super) const ONE_RECORD: &str =
    "SELECT kind, key, name, seq, print, present, value, detail, at, scope FROM record
     WHERE root = ?1 AND key = ?2 AND kind = ?3";

pub(super) const ALL_RECORDS: &str =
    "SELECT kind, key, name, seq, print, present, value, detail, at, scope FROM record
     WHERE root = ?1 ORDER BY at, seq, key";

pub(super) const ONE_ROOT: &str = concat!(
    "SELECT id, name, inputs, status, resumable, created, updated, code, result, failure, retry_at,
            host, pid, boot, nonce, lease_until,
            (SELECT count(*) FROM record WHERE root = root.id AND kind NOT IN ('asked', 'session')),
            (SELECT count(*) FROM record AS q WHERE q.root = root.id AND q.kind = 'asked'
                AND NOT EXISTS (SELECT 1 FROM record AS a
                                WHERE a.root = q.root AND a.key = q.key AND a.kind = 'ask'))
     FROM root",
    " WHERE id = ?1"
);

pub(super) const ALL_ROOTS: &str =
    "SELECT id, name, inputs, status, resumable, created, updated, code, result, failure, retry_at,
            host, pid, boot, nonce, lease_until,
            (SELECT count(*) FROM record WHERE root = root.id AND kind NOT IN ('asked', 'session')),
            (SELECT count(*) FROM record AS q WHERE q.root = root.id AND q.kind = 'asked'
                AND NOT EXISTS (SELECT 1 FROM record AS a
                                WHERE a.root = q.root AND a.key = q.key AND a.kind = 'ask'))
     FROM root ORDER BY updated DESC, id";

/// A time or a count as SQLite keeps it; what does not fit becomes the largest number.
pub(super) fn sql_millis(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn json(value: Option<&Value>) -> Option<String> {
    value.map(Value::to_string)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

fn parsed<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get::<_, Option<String>>(column)? else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|_| unreadable(column, "JSON"))
}

/// Something in a row is not what it should be. The value itself is not repeated.
fn unreadable(column: usize, what: &'static str) -> rusqlite::Error {
    let problem = format!("column {column} does not hold {what}");
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, problem.into())
}

pub(super) fn read_record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let kind = Kind::parse(&row.get::<_, String>(0)?).ok_or_else(|| unreadable(0, "a kind"))?;
    let present: bool = row.get(5)?;
    Ok(Record {
        kind,
        key: row.get(1)?,
        name: row.get(2)?,
        seq: unsigned(row, 3)?,
        print: row.get(4)?,
        value: if present { parsed(row, 6)?.or(Some(Value::Null)) } else { None },
        detail: parsed(row, 7)?,
        at: unsigned(row, 8)?,
        scope: row.get(9)?,
    })
}

pub(super) fn read_root(row: &Row<'_>) -> rusqlite::Result<Root> {
    let status =
        Status::parse(&row.get::<_, String>(3)?).ok_or_else(|| unreadable(3, "a status"))?;
    let nonce: Option<String> = row.get(14)?;
    let owner = match nonce {
        Some(nonce) => {
            Some(Owner { host: row.get(11)?, pid: row.get(12)?, boot: row.get(13)?, nonce })
        }
        None => None,
    };
    Ok(Root {
        id: row.get(0)?,
        name: row.get(1)?,
        inputs: parsed(row, 2)?.unwrap_or_default(),
        status,
        resumable: row.get(4)?,
        created: unsigned(row, 5)?,
        updated: unsigned(row, 6)?,
        code: row.get(7)?,
        result: parsed(row, 8)?,
        failure: parsed(row, 9)?,
        retry_at: row.get::<_, Option<i64>>(10)?.and_then(|at| u64::try_from(at).ok()),
        owner,
        lease_until: unsigned(row, 15)?,
        records: unsigned(row, 16)?,
        pending: unsigned(row, 17)?,
    })
}
