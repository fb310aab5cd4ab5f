//! Script files: what they may say, and what is wrong with those that may not.

use agentwire::server::Script;
use agentwire::server::script::Step;

#[test]
fn the_example_files_load_and_the_assistant_is_the_built_in_one() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/scripts");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let script = Script::from_toml(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        // What is written is read again as the same.
        let json = serde_json::to_string(&script).unwrap();
        assert_eq!(Script::from_json(&json).unwrap(), script, "{path:?}");
        if path.file_name().unwrap() == "assistant.toml" {
            assert_eq!(script, Script::assistant());
        }
        if path.file_name().unwrap() == "workspace.toml" {
            assert_eq!(script, Script::assistant_in_workspace());
        }
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn faults_are_named_with_their_place() {
    for (text, part) in [
        ("{", "script:"),
        (r#"{"pase_ms": 3}"#, "pase_ms"),
        (r#"{"rules": [{"steps": [{"txt": "x"}]}]}"#, "txt"),
        (r#"{"rules": [{"steps": [{"text": {"text": "x", "size": 3}}]}]}"#, "size"),
        (r#"{"rules": [{"steps": [{"text": 3}]}]}"#, "a text or a table"),
        (
            r#"{"rules": [{"steps": ["end", {"get_blob": "0x"}]}]}"#,
            "rule 1, step 2: not a hex digit",
        ),
        (
            r#"{"rules": [{"steps": []}, {"steps": [{"ask": {}}]}]}"#,
            "rule 2, step 1: exactly one of",
        ),
        (r#"{"rules": [{"steps": [{"ask": {"exec": "no_args"}}]}]}"#, "no_args"),
        (
            r#"{"rules": [{"steps": [{"ask": {"exec": "shell_args", "args": {"comand": "ls"}}}]}]}"#,
            "comand",
        ),
        (r#"{"rules": [{"steps": [{"update": {"text_delta": {"text": 3}}}]}]}"#, "rule 1, step 1"),
        (
            r#"{"rules": [{"steps": [{"repeat": {"steps": [{"bytes": {"hex": "0"}}]}}]}]}"#,
            "rule 1, step 1, step 1",
        ),
        (r#"{"rules": [{"steps": [{"status": {"status": 99}}]}]}"#, "200 to 599"),
        (r#"{"rules": [{"steps": [{"head": {"headers": {"Content-Type": "x"}}}]}]}"#, "lower case"),
        (
            r#"{"rules": [{"steps": [{"head": {"headers": {"a": "b\r\nc: d"}}}]}]}"#,
            "control characters",
        ),
        (r#"{"unary": {"usable_models": {"base64": "?"}}}"#, "unary.usable_models"),
    ] {
        let error = Script::from_json(text).unwrap_err();
        assert!(error.message().contains(part), "{text}: {error}");
        assert_eq!(error.message().lines().count(), 1, "{error}");
    }
}

#[test]
fn depth_is_bounded() {
    let nest = |depth: usize| {
        let mut steps = "[]".to_owned();
        for _ in 0..depth {
            steps = format!(r#"[{{"repeat": {{"times": 1, "steps": {steps}}}}}]"#);
        }
        format!(r#"{{"rules": [{{"steps": {steps}}}]}}"#)
    };
    assert!(Script::from_json(&nest(20)).is_ok());
    assert!(Script::from_json(&nest(40)).is_err());
    // Deeper than the JSON parser goes: an error, not the end of the stack.
    assert!(Script::from_json(&nest(20_000)).is_err());
}

#[test]
fn bare_strings_and_tables_are_the_same() {
    let read = |json: &str| serde_json::from_str::<Step>(json).unwrap();
    assert_eq!(read(r#"{"text": "x"}"#), read(r#"{"text": {"text": "x"}}"#));
    assert_eq!(read(r#"{"error": "internal"}"#), read(r#"{"error": {"code": "internal"}}"#));
    assert_eq!(read(r#"{"reset": 8}"#), read(r#"{"reset": {"code": 8}}"#));
    assert_eq!(read(r#"{"wait_for": "action"}"#), read(r#"{"wait_for": {"event": "action"}}"#));
}
