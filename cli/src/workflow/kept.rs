//! How long runs that are over are kept, and what goes with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentwire_workflow::key::Kind;
use agentwire_workflow::record::{Record, Root};
use agentwire_workflow::store::{SqliteStore, Store as _};

use super::{failed, folder, now, sessions};
use crate::failure::Failure;

/// The variable that says for how many days.
const KEEP: &str = "AGENTWIRE_WORKFLOW_KEEP_DAYS";
/// A month: long enough to ask what a run of the last sprint did.
const DAYS: u32 = 30;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// The runs of this user, opened when they are needed.
pub(super) struct Runs {
    days: u32,
}

impl Runs {
    /// Runs that are over go after so many days; else after those of the variable, else 30.
    pub(super) fn kept(days: Option<u32>) -> Result<Self, Failure> {
        let set = std::env::var(KEEP).ok().filter(|value| !value.is_empty());
        let days = match (days, set) {
            (Some(days), _) => days,
            (None, Some(value)) => value.parse().map_err(|_| {
                Failure::usage(format!("{KEEP} is `{value}`: it must be a whole number of days"))
            })?,
            (None, None) => DAYS,
        };
        Ok(Self { days })
    }

    /// Opens the database; what was over long ago is removed.
    pub(super) fn open(&self) -> Result<Arc<SqliteStore>, Failure> {
        let store = SqliteStore::open(folder()?.join("workflow.db")).map_err(failed)?;
        let before = now().saturating_sub(u64::from(self.days) * DAY_MS);
        let is_old = |root: &Root| root.is_terminal() && root.updated < before;
        let old = store.roots().map_err(failed)?.into_iter().filter(is_old);
        // The files first: a process that dies in between leaves a run to find the rest by.
        for root in old {
            remove_sessions(&store.records(&root.id).map_err(failed)?, &sessions()?);
        }
        store.prune(before).map_err(failed)?;
        Ok(Arc::new(store))
    }
}

/// The model that the run had for stages that name none, when it last began one; `None`: it made no
/// such stage yet.
pub(super) fn model_of(store: &SqliteStore, run: &str) -> Result<Option<String>, Failure> {
    let records = store.records(run).map_err(failed)?;
    Ok(records.iter().rev().find_map(|record| record.models().into_iter().next()))
}

/// Removes the logs and states of sessions that these records name, where they lie in `folder`:
/// a record may name a file of somebody else's.
fn remove_sessions(records: &[Record], folder: &Path) {
    let Ok(folder) = fs::canonicalize(folder) else { return };
    let named = records.iter().filter(|record| record.kind == Kind::Session);
    let paths = named.filter_map(|record| record.detail.as_ref()?["session"]["path"].as_str());
    for path in paths.map(PathBuf::from) {
        let lies_there = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
        let Some(name) = path.file_name().filter(|_| lies_there.as_ref() == Some(&folder)) else {
            continue;
        };
        let log = folder.join(name);
        if log.extension().is_some_and(|extension| extension == "jsonl") {
            // What cannot be removed is in nobody's way.
            let _gone = fs::remove_file(&log);
            let _gone = fs::remove_file(log.with_extension("state"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn session(path: &Path) -> Record {
        let record = json!({
            "session": {"id": "s", "conversation_id": "c", "path": path},
        });
        Record {
            kind: Kind::Session,
            key: "k".into(),
            scope: String::new(),
            name: "s".into(),
            seq: 1,
            print: String::new(),
            value: Some(Value::Null),
            detail: Some(record),
            at: 0,
        }
    }

    #[test]
    fn only_sessions_in_the_folder_are_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("sessions");
        fs::create_dir_all(folder.join("deeper")).expect("a folder");
        let file = |name: &str| {
            let path = folder.join(name);
            fs::write(&path, "x").expect("a file");
            path
        };
        let theirs =
            [file("../a.jsonl"), file("deeper/b.jsonl"), file("notes.txt"), file("other.jsonl")];
        let ours = [file("s.jsonl"), file("s.state"), file("deeper/../t.jsonl")];
        let named = [&theirs[0], &theirs[1], &theirs[2], &ours[0], &ours[2]];
        let mut records: Vec<Record> = named.into_iter().map(|path| session(path)).collect();
        records.push(session(&folder.join("gone.jsonl")));
        records.push(session(Path::new("/")));
        remove_sessions(&records, &folder);
        assert!(theirs.iter().all(|path| path.exists()), "something else was removed");
        assert!(ours.iter().all(|path| !path.exists()), "something was left");
    }
}
