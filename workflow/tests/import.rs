//! State files of the reference are read, and refused when they are not whole.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

use agentwire_workflow::error::StoreError;
use agentwire_workflow::import::read;
use agentwire_workflow::key::{Key, Kind};
use agentwire_workflow::store::{MemoryStore, Store, current_owner};
use serde_json::{Value, json};

/// The reference's own 28 records as one of its files.
fn file() -> String {
    let vectors: Value = serde_json::from_str(include_str!("data/vectors.json")).unwrap();
    let checkpoints = vectors["checkpoints_in_record_order"].clone();
    let handle = json!({
        "workflowId": "wf-golden", "name": "Golden", "inputs": {"a": 1}, "status": "failed",
        "createdAt": 1_700_000_000_000.5, "updatedAt": 1_700_000_009_000_u64, "resumable": true,
    });
    let entry = json!({"handle": handle, "checkpoints": checkpoints});
    json!({"version": 1, "workflows": [entry]}).to_string()
}

#[test]
fn a_run_of_the_reference_is_read_with_all_its_records() {
    let runs = read(&file()).unwrap();
    let store = MemoryStore::new();
    runs[0].copy_into(&store, &current_owner(uuid::Uuid::nil())).unwrap();
    let root = store.root("wf-golden").unwrap().unwrap();
    assert_eq!((root.records, root.created), (28, 1_700_000_000_000));
    assert!(root.is_resumable());
    let records = store.records("wf-golden").unwrap();
    let count = |kind| records.iter().filter(|record| record.kind == kind).count();
    assert_eq!(
        [Kind::Stage, Kind::Task, Kind::Tool, Kind::Ask, Kind::Child].map(count),
        [9, 6, 4, 7, 2]
    );
    let child = "workflow:workflow:kid-flow:2";
    let tool = Key::tool("kt", &json!({"n": 1}), 1).scoped(child);
    let found = store.get("wf-golden", Kind::Tool, &tool.key).unwrap().unwrap();
    assert_eq!((found.value, found.scope.as_str()), (Some(json!("kv")), child));
    // Null is an answer, not an absence.
    let fetch = Key::tool("fetch", &json!({"url": "u"}), 2);
    let found = store.get("wf-golden", Kind::Tool, &fetch.key).unwrap().unwrap();
    assert_eq!(found.value, Some(Value::Null));
}

#[test]
fn sessions_are_read_and_files_that_are_not_whole_refused() {
    let session = json!({
        "kind": "stage", "checkpointId": "stage-session:stage:plan:1:h0", "name": "plan",
        "replayKey": "stage:plan:1", "sessionFile": "/tmp/a.jsonl", "completedAt": 5,
    });
    let handle = json!({"workflowId": "w", "name": "W", "status": "running"});
    let text = json!({"version": 1, "workflows": [{"handle": handle, "checkpoints": [session]}]});
    let text = text.to_string();
    let record = read(&text).unwrap().remove(0).records.remove(0);
    assert_eq!(
        (record.kind, record.key.as_str()),
        (Kind::Session, "stage-session:stage:plan:1:h0")
    );
    assert_eq!(record.detail.unwrap()["session"]["path"], "/tmp/a.jsonl");
    for length in 0..text.len() {
        assert!(read(&text[..length]).is_err(), "cut at {length}");
    }
    let newer = read(r#"{"version": 2, "workflows": []}"#);
    assert_eq!(newer, Err(StoreError::Newer { found: 2, known: 1 }));
}
