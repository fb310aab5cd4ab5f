//! `agentwire workflow` from the file to the answer, against the server inside the process.

use std::path::Path;
use std::process::{Command, Output};

const PIPELINE: &str = r#"
name = "review"

[inputs.topic]

[[stage]]
name = "draft"
prompt = "Write about {inputs.topic}."

[[stage]]
name = "publish"
ask = "confirm"
prompt = "Publish it?"
after = ["draft"]

[outputs]
text = "{stages.draft}"
"#;

fn workflow(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentwire"));
    command.arg("workflow").args(args).current_dir(dir);
    command.env("AGENTWIRE_WORKFLOWS", dir.join("state")).env_remove("AGENTWIRE_TOKEN");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_run_waits_is_answered_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    std::fs::write(at.join("review.toml"), PIPELINE).unwrap();
    let wrong = workflow(at, &["run", "review.toml", "--local"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("topic: is required"), "{}", text(&wrong.stderr));
    let empty = workflow(at, &["list"]);
    assert!(text(&empty.stderr).contains("there are no workflow runs"));

    let run = ["run", "review.toml", "--local", "--input", "topic=tides", "--id", "abcdef-1"];
    let first = workflow(at, &run);
    assert_eq!(first.status.code(), Some(4), "{}", text(&first.stderr));
    assert!(text(&first.stderr).contains("workflow resume abcdef-1"));
    let list = text(&workflow(at, &["list"]).stdout);
    assert_eq!(list, "abcdef-1 paused    review, 1 record, waits for an answer\n");
    let show = text(&workflow(at, &["show", "abc"]).stdout);
    assert!(show.contains("task draft (composer-2, 1 attempt, "), "{show}");
    assert!(show.contains("waits: Publish it? [h"), "{show}");
    let json = text(&workflow(at, &["show", "abc", "--json"]).stdout);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["run"]["pending"], 1);

    assert_eq!(workflow(at, &["answer", "abc", "Publish it?", "perhaps"]).status.code(), Some(2));
    assert_eq!(workflow(at, &["answer", "abc", "Publish it?", "yes"]).status.code(), Some(0));
    assert_eq!(workflow(at, &["answer", "abc", "Publish it?", "no"]).status.code(), Some(2));
    let done = workflow(at, &["resume", "abc", "--local", "--json"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let out = text(&done.stdout);
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["status"]), (&"result".into(), &"completed".into()));
    assert!(last["outputs"]["text"].as_str().unwrap().contains("tides"));
    assert!(!out.contains("step_started"), "a step was made again: {out}");

    assert_eq!(workflow(at, &["verify", "abc"]).status.code(), Some(0));
    std::fs::write(at.join("review.toml"), PIPELINE.replace("Write", "Sing")).unwrap();
    let changed = workflow(at, &["verify", "abc"]);
    assert_eq!(changed.status.code(), Some(1));
    assert!(text(&changed.stdout).contains("changed: task stage:task:draft:1"));
    assert_eq!(workflow(at, &["resume", "abc", "--local"]).status.code(), Some(2));
    assert_eq!(workflow(at, &["kill", "abc"]).status.code(), Some(2), "it is over");
    assert_eq!(workflow(at, &["show", "nope"]).status.code(), Some(2));
}

#[test]
fn a_run_that_waits_is_killed_by_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    std::fs::create_dir_all(at.join(".agentwire/workflows")).unwrap();
    std::fs::write(at.join(".agentwire/workflows/review.toml"), PIPELINE).unwrap();
    let run = ["run", "review", "--local", "--input", "topic=x", "--id", "k"];
    assert_eq!(workflow(at, &run).status.code(), Some(4), "found by its name");
    assert_eq!(workflow(at, &["kill", "k"]).status.code(), Some(0));
    assert!(text(&workflow(at, &["list"]).stdout).starts_with("k cancelled"));
    assert_eq!(workflow(at, &["resume", "k", "--local"]).status.code(), Some(2));
}

#[test]
fn what_is_wrong_with_a_file_is_said_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let stage = "name = \"review\"\n\n[[stage]]\nname = \"draft\"\n";
    for (file, said) in [
        // The table that lacks it begins on the third line.
        (stage.to_owned(), "line 3, column 1: missing field `prompt`"),
        (format!("{stage}pompt = 1\n"), "line 5, column 1: unknown field `pompt`, expected one of"),
        (format!("{stage}prompt = \"ümlaut\" x\n"), "line 5, column 19: "),
        (format!("{stage}prompt = 4"), "line 5, column 10: invalid type: integer `4`, expected a"),
        ("= 1".to_owned(), "line 1, column 1: "),
    ] {
        std::fs::write(at.join("r.toml"), file).unwrap();
        let wrong = workflow(at, &["run", "r.toml", "--local"]);
        assert_eq!(wrong.status.code(), Some(2));
        let stderr = text(&wrong.stderr);
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(
            stderr.contains(&format!("r.toml: the workflow's definition is wrong: {said}")),
            "{stderr}"
        );
        assert!(
            stderr.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{fffd}')),
            "{stderr}"
        );
    }
}
