//! Reads runs of the reference from its state files (version 1). The files are never written.
//!
//! An imported run can be listed, shown and verified like one of ours. Its records have no
//! fingerprints, so replaying it takes [`Policy::Accept`](crate::Policy::Accept).

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::StoreError;
use crate::key::{Kind, join};
use crate::record::{Change, Millis, Owner, Record, Status};
use crate::store::{Mode, NewRoot, Store, StoreResult};

/// What an imported run was made from: its code is not here, so it can be looked at and no more.
pub const CODE: &str = "imported";

/// The version of the format that is read.
const VERSION: u64 = 1;

#[derive(Deserialize)]
struct File {
    version: u64,
    workflows: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    handle: Handle,
    #[serde(default)]
    checkpoints: Vec<Checkpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Handle {
    workflow_id: String,
    name: String,
    #[serde(default)]
    inputs: Map<String, Value>,
    #[serde(default)]
    created_at: f64,
    #[serde(default)]
    updated_at: f64,
    status: String,
    resumable: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Checkpoint {
    kind: String,
    checkpoint_id: String,
    #[serde(default)]
    name: String,
    args_hash: Option<String>,
    prompt_hash: Option<String>,
    prompt_kind: Option<String>,
    replay_key: Option<String>,
    #[serde(default, deserialize_with = "present")]
    output: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    response: Option<Value>,
    session_id: Option<String>,
    session_file: Option<String>,
    #[serde(default)]
    completed_at: f64,
}

/// `null` is a value; only a missing member is none.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// A run that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Id, name and inputs.
    pub root: NewRoot,
    /// Where it stood.
    pub status: Status,
    /// Whether it could be resumed.
    pub resumable: bool,
    /// When it began.
    pub created: Millis,
    /// When it was last written.
    pub updated: Millis,
    /// Its records, in the order of the file.
    pub records: Vec<Record>,
}

/// The runs of a state file.
///
/// # Errors
/// [`StoreError::Newer`] for another version, [`StoreError::Io`] for what is no state file. A
/// damaged file is refused as a whole, never read as empty.
pub fn read(text: &str) -> StoreResult<Vec<Imported>> {
    let unreadable = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        StoreError::Io(format!(
            "it is no state file of version {VERSION} (line {line}, column {column})"
        ))
    };
    let value: Value = serde_json::from_str(text).map_err(unreadable)?;
    if let Some(found) = value["version"].as_u64().filter(|found| *found != VERSION) {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(StoreError::Newer { found, known: 1 });
    }
    let file: File = serde_json::from_value(value).map_err(unreadable)?;
    debug_assert_eq!(file.version, VERSION);
    Ok(file.workflows.into_iter().map(Entry::import).collect())
}

impl Entry {
    fn import(self) -> Imported {
        let Self { handle, checkpoints } = self;
        let status = Status::parse(&handle.status).unwrap_or(Status::Failed);
        let records = checkpoints.into_iter().zip(1..).filter_map(|(one, seq)| one.record(seq));
        Imported {
            status,
            resumable: handle.resumable != Some(false),
            created: millis(handle.created_at),
            updated: millis(handle.updated_at),
            records: records.collect(),
            root: NewRoot {
                id: handle.workflow_id,
                name: handle.name,
                inputs: handle.inputs,
                code: CODE.into(),
            },
        }
    }
}

/// Whole milliseconds of a JavaScript time.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped by `as`")]
fn millis(time: f64) -> Millis {
    time.max(0.0) as Millis
}

impl Checkpoint {
    fn record(self, seq: u64) -> Option<Record> {
        let key = self.replay_key.or(self.args_hash).or(self.prompt_hash)?;
        let (scope, kind) = place(&self.kind, &self.checkpoint_id, &key)?;
        let session = self.session_id.is_some() || self.session_file.is_some();
        let detail = session.then(|| {
            serde_json::json!({"session": {
                "id": self.session_id.clone().unwrap_or_default(),
                "conversation_id": "",
                "path": self.session_file.clone(),
            }})
        });
        Some(Record {
            kind,
            key: if kind == Kind::Session { self.checkpoint_id } else { key },
            scope,
            name: self.prompt_kind.unwrap_or(self.name),
            seq,
            print: String::new(),
            value: self.output.or(self.response),
            detail,
            at: millis(self.completed_at),
        })
    }
}

/// The scope and the kind of a checkpoint: its id is the scope, a word, and the rest of its key.
fn place(kind: &str, id: &str, key: &str) -> Option<(String, Kind)> {
    let words: &[(&str, Kind)] = match kind {
        "tool" => &[("tool:", Kind::Tool)],
        "ui" => &[("ui:", Kind::Ask)],
        _ => &[("stage:", Kind::Stage), ("task:", Kind::Task), ("workflow:", Kind::Child)],
    };
    let ends = std::iter::once(0).chain(key.match_indices(':').map(|(at, _)| at));
    for end in ends {
        let scope = &key[..end];
        let local = key[end..].trim_start_matches(':');
        for (word, kind) in words {
            if id == join(scope, &format!("{word}{local}")) {
                return Some((scope.to_owned(), *kind));
            }
        }
        if id.starts_with(&join(scope, &format!("stage-session:{local}:"))) {
            return Some((scope.to_owned(), Kind::Session));
        }
    }
    None
}

impl Imported {
    /// Copies the run into a store under its own id.
    ///
    /// # Errors
    /// When the store has a run of this id that is over or that somebody runs, or fails.
    pub fn copy_into(&self, store: &dyn Store, owner: &Owner) -> StoreResult<()> {
        let lease = store.begin(&self.root, owner, self.created)?;
        for record in &self.records {
            store.put(&lease, record, Mode::IfAbsent)?;
        }
        store.set(&lease, &Change::to(self.status, self.resumable), self.updated)?;
        store.release(&lease)
    }
}
