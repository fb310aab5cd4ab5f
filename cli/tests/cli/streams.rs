//! `decode` and `encode`: streams as JSON lines and back.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{run, run_with};
use serde_json::Value;

fn vectors(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/vectors").join(file);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags];
    bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Every server message of the vectors that is protobuf, as one stream with its end.
fn server_stream() -> Vec<u8> {
    let mut bytes = Vec::new();
    for case in vectors("server-messages.json").as_array().unwrap() {
        let message = hex(case["data"].as_str().unwrap());
        // Those that no decoder takes are not what a capture of a healthy stream holds.
        if case.get("error").is_none() {
            bytes.extend(envelope(0, &message));
        }
    }
    bytes.extend(envelope(2, b"{}"));
    bytes
}

/// Every run request of the vectors, as one stream.
fn client_stream() -> Vec<u8> {
    let requests = vectors("run-requests.json");
    let outputs = requests.as_array().unwrap().iter().filter_map(|case| case["output"].as_object());
    outputs.flat_map(|output| envelope(0, &hex(output["request"].as_str().unwrap()))).collect()
}

#[test]
fn the_vectors_go_to_json_and_back_to_the_same_bytes() {
    // One server message holds a string that is not UTF-8: it is shown, and counted as damage.
    for (side, bytes, code) in [("server", server_stream(), 1), ("client", client_stream(), 0)] {
        assert!(bytes.len() > 3_000, "{side}");
        let decoded = run_with(["decode", "--from", side, "-"], &bytes).expect(code);
        let encoded =
            run_with(["encode", "--from", side, "--json", "-"], &decoded.stdout).expect(0);
        assert!(encoded.stdout == bytes, "{side}");
        // Tools that sort the members do not break it.
        let sorted: String = decoded.lines().iter().map(|line| sorted(line) + "\n").collect();
        let encoded =
            run_with(["encode", "--from", side, "--json", "-"], sorted.as_bytes()).expect(0);
        assert!(encoded.stdout == bytes, "{side}, sorted");
    }
}

fn sorted(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            let members: Vec<_> = members
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), sorted(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

#[test]
fn a_line_has_offset_flags_length_and_the_message_by_its_names() {
    let mut bytes = envelope(0, b"\x0a\x06\x0a\x04\x0a\x02hi");
    bytes.extend(envelope(0, b"\x98\x06\x05"));
    bytes.extend(envelope(2, br#"{"error":{"code":"internal"}}"#));
    let done = run_with(["decode", "--from", "server"], &bytes).expect(0);
    let lines = done.lines();
    assert_eq!(lines[0]["offset"], 0);
    assert_eq!(lines[0]["flags"], 0);
    assert_eq!(lines[0]["length"], 8);
    assert_eq!(lines[0]["message"]["interaction_update"]["text_delta"]["text"], "hi");
    assert_eq!(lines[1]["message"]["99"]["value"], "5", "an unknown field is kept by number");
    assert_eq!(lines[2]["flags"], 2);
    assert_eq!(lines[2]["end_stream"]["error"]["code"], "internal");
    assert!(done.stderr.is_empty());
}

#[test]
fn a_damaged_stream_prints_what_came_before_and_the_offset() {
    let good = envelope(0, b"\x0a\x06\x0a\x04\x0a\x02hi");
    let table: &[(&str, Vec<u8>, usize)] = &[
        ("cut in a payload", good[..good.len() - 1].to_vec(), good.len()),
        ("cut in a header", vec![0, 0, 0], good.len()),
        ("reserved flags", envelope(0x10, b""), good.len()),
        ("too long", b"\0\xff\xff\xff\xff".to_vec(), good.len()),
        ("no protobuf", envelope(0, b"\x0a\xff"), good.len() + 5),
        ("no gzip", envelope(1, b"abc"), good.len() + 5),
    ];
    for (name, damage, offset) in table {
        let bytes = [&good[..], damage].concat();
        let done = run_with(["decode", "--from", "server", "-"], &bytes).expect(1);
        assert_eq!(done.lines().len(), 1, "{name}: {}", done.stdout());
        assert!(done.stderr.contains(&format!("at byte {offset}")), "{name}: {}", done.stderr);
    }
}

#[test]
fn something_after_the_end_is_damage() {
    let bytes = [envelope(2, b"{}"), envelope(0, b"")].concat();
    let done = run_with(["decode", "--from", "server", "-"], &bytes).expect(1);
    assert_eq!(done.lines().len(), 1);
    assert!(done.stderr.contains("at byte 7"), "{}", done.stderr);
}

#[test]
fn damage_inside_a_message_is_shown_and_the_rest_goes_on() {
    let bytes =
        [envelope(0, b"\x0a\x05\x0a\x03\x0a\x01\xff"), envelope(0, b"\x0a\x02\x6a\x00")].concat();
    let done = run_with(["decode", "--from", "server", "-"], &bytes).expect(1);
    assert_eq!(done.lines().len(), 2);
    assert!(done.stderr.contains("at byte "), "{}", done.stderr);
    let encoded = run_with(["encode", "--from", "server", "--json", "-"], &done.stdout).expect(0);
    assert_eq!(encoded.stdout, bytes);
}

#[test]
fn a_bad_line_of_json_is_named() {
    let table = [
        ("{}\n{\"flags\":9}\n", 1),
        ("{\"flags\":0,\"message\":{}}\nnot json\n", 2),
        ("\n{\"flags\":0,\"message\":{\"nope\":1}}\n", 2),
    ];
    for (json, line) in table {
        let done =
            run_with(["encode", "--from", "server", "--json", "-"], json.as_bytes()).expect(1);
        assert!(done.stderr.contains(&format!("line {line}")), "{}", done.stderr);
    }
}

#[test]
fn run_requests_in_legacy_mode_are_the_vectors_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("context.json");
    let mut compared = 0;
    for case in vectors("run-requests.json").as_array().unwrap().iter().take(12) {
        let (Some(expected), input) = (case["output"]["request"].as_str(), &case["input"]) else {
            continue;
        };
        fs::write(&file, input["context"].to_string()).unwrap();
        let mut args = vec!["encode", "--context", file.to_str().unwrap(), "--history", "legacy"];
        args.extend(["--fixed-ids", "--model", input["modelId"].as_str().unwrap()]);
        if let Some(id) = input["conversationId"].as_str() {
            args.extend(["--conversation", id]);
        }
        let done = run(args).expect(0);
        assert!(done.stdout == envelope(0, &hex(expected)), "{}", case["name"]);
        compared += 1;
    }
    assert!(compared >= 8, "{compared}");
}

#[test]
fn a_request_in_full_mode_is_the_same_every_time_with_fixed_ids() {
    let folder = tempfile::tempdir().unwrap();
    let file = context(folder.path());
    let encode = || run(["encode", "--fixed-ids", "--context", file.to_str().unwrap()]).expect(0);
    let (first, second) = (encode(), encode());
    assert_eq!(first.stdout, second.stdout);
    let decoded = run_with(["decode", "--from", "client"], &first.stdout).expect(0);
    let line = &decoded.lines()[0];
    assert!(line["message"]["run_request"].is_object(), "{line}");
    let random = run(["encode", "--context", file.to_str().unwrap()]).expect(0);
    assert_ne!(random.stdout, first.stdout);
}

fn context(folder: &Path) -> PathBuf {
    let file = folder.join("context.json");
    let text = r#"{"systemPrompt": "be brief", "messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
        {"role": "user", "content": "again"}]}"#;
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn files_that_cannot_be_used_are_named_without_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.json");
    let done = run(["encode", "--context", missing.to_str().unwrap()]).expect(2);
    assert!(done.stderr.contains("missing.json"), "{}", done.stderr);
    let bad = folder.path().join("bad.json");
    fs::write(&bad, r#"{"messages": "my secret plan"}"#).unwrap();
    let done = run(["encode", "--context", bad.to_str().unwrap()]).expect(2);
    assert!(done.stderr.contains("bad.json") && !done.stderr.contains("secret"), "{}", done.stderr);
    let done = run(["decode", "--from", "server", missing.to_str().unwrap()]).expect(2);
    assert!(done.stderr.contains("missing.json"), "{}", done.stderr);
}
