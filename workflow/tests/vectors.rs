//! Keys and hashes are those of the reference, byte for byte (`tests/data/vectors.json`: 33 hashes
//! and the 28 records of one run, in record order).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

use agentwire_workflow::hash::{canonical, durable_hash, hash_text};
use agentwire_workflow::key::{Key, Ordinals, graph_id, join, session_id};
use serde_json::{Value, json};

const VECTORS: &str = include_str!("data/vectors.json");

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

#[test]
fn the_33_hashes() {
    let vectors = vectors();
    let hashes = vectors["durable_hash"].as_array().unwrap();
    assert_eq!(hashes.len(), 33);
    let mut from_values = 0;
    for vector in hashes {
        let expected = vector["hash"].as_str().unwrap();
        // A Rust string holds no lone surrogate, and JSON has no `undefined`: these two are
        // compared from their canonical text.
        let Some(text) = vector["json_text"].as_str() else {
            assert_eq!(hash_text(r#"{"u":undefined}"#), expected);
            continue;
        };
        if text.contains("ud800") {
            assert_eq!(hash_text("\"\\u0000\\u001f\u{7f}\\ud800\""), expected);
            continue;
        }
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(durable_hash(&value), expected, "{text} printed as {}", canonical(&value));
        from_values += 1;
    }
    assert_eq!(from_values, 31);
}

#[test]
fn a_hash_is_h_and_32_digits_and_depends_on_the_last_character() {
    let (a, b) = (json!("x".repeat(70_000)), json!("x".repeat(69_999) + "y"));
    let hash = durable_hash(&a);
    assert_eq!(hash, durable_hash(&a));
    assert_ne!(hash, durable_hash(&b));
    let digits = hash.strip_prefix('h').unwrap();
    assert_eq!(digits.len(), 32);
    assert!(digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)));
}

#[test]
fn keys_are_sorted_by_utf_16_and_numbers_print_as_in_ecmascript() {
    assert_eq!(canonical(&json!({"\u{ffff}": 2, "\u{1f600}": 1})), "{\"😀\":1,\"\u{ffff}\":2}");
    for (text, printed) in [
        ("1e21", "1e+21"),
        ("1e20", "100000000000000000000"),
        ("1e-7", "1e-7"),
        ("5e-324", "5e-324"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1.0", "1"),
        ("9007199254740993", "9007199254740992"),
        // Without serde_json's `float_roundtrip` this one is read one unit off.
        ("123456789012345680000", "123456789012345680000"),
    ] {
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(canonical(&value), printed);
    }
}

/// The calls of the run that the 28 records come from, made on the key functions alone.
#[test]
fn the_28_ids() {
    let mut ids: Vec<String> = Vec::new();
    let mut add = |scope: &str, key: Key| ids.push(key.checkpoint_id(scope));
    // The reference files a second, shadow record of every task under the task's name alone.
    let shadow = |name: &str| Key { key: format!("stage:{name}"), ..Key::stage(name, 1) };
    let mut root = Ordinals::default();
    add("", root.stage("plan"));
    add("", root.stage("plan"));
    add("", shadow("review"));
    add("", root.task("review"));
    add("", root.task("review"));
    for name in ["c1", "c2"] {
        add("", shadow(name));
        add("", root.task(name));
    }
    add("", shadow("p1"));
    add("", shadow("p2"));
    add("", root.task("p1"));
    add("", root.task("p2"));
    add("", root.tool("fetch", &json!({"url": "u"})));
    add("", root.tool("fetch", &json!({"url": "u"})));
    add("", root.ask("input", "Name?", &Value::Null));
    add("", root.ask("confirm", "OK?", &Value::Null));
    add("", root.ask("select", "Pick", &json!(["a", "b"])));
    add("", root.ask("editor", "init", &json!("init")));
    add("", root.ask("editor", "", &Value::Null));
    for _ in 0..2 {
        let boundary = root.child("workflow:kid-flow");
        let mut child = Ordinals::default();
        add(&boundary.key, child.stage("ks"));
        add(&boundary.key, child.tool("kt", &json!({"n": 1})));
        add(&boundary.key, child.ask("input", "kq", &Value::Null));
        add("", boundary);
    }

    let vectors = vectors();
    let expected: Vec<&str> = vectors["checkpoints_in_record_order"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["checkpointId"].as_str().unwrap())
        .collect();
    assert_eq!(expected.len(), 28);
    assert_eq!(ids, expected);
}

/// The keys under which the records are found: what the reference calls replay key, arguments hash
/// or prompt hash.
#[test]
fn replay_keys_carry_the_scope_too() {
    for record in vectors()["checkpoints_in_record_order"].as_array().unwrap() {
        let id = record["checkpointId"].as_str().unwrap();
        let key = ["replayKey", "argsHash", "promptHash"]
            .iter()
            .find_map(|field| record[*field].as_str())
            .unwrap();
        // Within a child both begin with the child's key.
        for scope in ["workflow:workflow:kid-flow:1:", "workflow:workflow:kid-flow:2:"] {
            assert_eq!(key.starts_with(scope), id.starts_with(scope), "{id}");
        }
    }
    assert_eq!(
        Key::tool("kt", &json!({"n": 1}), 1).scoped("workflow:workflow:kid-flow:1").key,
        "workflow:workflow:kid-flow:1:h811171f52f5154c4cbdc6462edee9295"
    );
    assert_eq!(join("workflow:a:1", "workflow:b:2"), "workflow:a:1:workflow:b:2");
}

#[test]
fn ids_of_sessions_and_of_replayed_stages() {
    assert_eq!(
        session_id("stage:plan:2", None, Some("/tmp/a.jsonl")),
        "stage-session:stage:plan:2:h978fc2c8a285d7045e3c8b57113cb2d6"
    );
    assert_eq!(graph_id("r1", "stage:a:1"), "durable-hde6fa122b1ebb11254b8205a1ef311e5");
}
