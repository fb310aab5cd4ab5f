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
    assert!(show.contains("waits: publish: Publish it? [h"), "{show}");
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
    assert_eq!((&last["type"], &last["status"]), (&"result".into(), &"completed".into()));
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

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

/// The commands of a text that shows some, each without `agentwire workflow`.
fn commands(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().split("&&"))
        .filter_map(|command| command.trim().strip_prefix("agentwire workflow "))
        .map(|command| command.split_whitespace().map(str::to_owned).collect())
        .collect()
}

#[test]
fn the_examples_of_the_help_and_of_the_readme_do_what_they_say() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
    let readme = readme.unwrap();
    let readme = readme.split("## Durable workflows").nth(1).unwrap();
    for (place, shown) in [
        ("help", text(&workflow(Path::new("."), &["--help"]).stdout)),
        ("README", readme.split("\n## ").next().unwrap().to_owned()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("review.toml"), PIPELINE).unwrap();
        let mut ran = Vec::new();
        for mut command in commands(&shown) {
            let verb = command[0].clone();
            if verb == "run" {
                // An id as the next commands have it; otherwise it is drawn.
                command.extend(["--id".into(), "3f2a0000-1".into()]);
            }
            let args: Vec<&str> = command.iter().map(String::as_str).collect();
            let done = workflow(dir.path(), &args);
            let expected = if verb == "run" { 4 } else { 0 };
            let stderr = text(&done.stderr);
            assert_eq!(done.status.code(), Some(expected), "{place}: {command:?}: {stderr}");
            ran.push(verb);
        }
        assert!(
            ran.starts_with(&["run", "list", "answer", "resume"].map(str::to_owned)),
            "{ran:?}"
        );
    }
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

#[test]
fn another_model_on_resume_is_noticed_and_the_run_s_own_is_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let more =
        "[[stage]]\nname = \"more\"\nprompt = \"Go on.\"\nafter = [\"publish\"]\n\n[outputs]\n";
    let file = PIPELINE.replace("[outputs]\n", &format!("{more}more = \"{{stages.more}}\"\n"));
    std::fs::write(at.join("review.toml"), file).unwrap();
    for (id, args, code, models) in [
        ("none", &[][..], 0, Some(["claude-4.5-haiku"; 2])),
        ("same", &["--model", "claude-4.5-haiku"], 0, Some(["claude-4.5-haiku"; 2])),
        ("refuse", &["--model", "composer-2"], 1, None),
        (
            "accept",
            &["--model", "composer-2", "--changed", "accept"],
            0,
            Some(["claude-4.5-haiku", "composer-2"]),
        ),
        ("rerun", &["--model", "composer-2", "--changed", "rerun"], 0, Some(["composer-2"; 2])),
    ] {
        let run = ["run", "review.toml", "--local", "--input", "topic=x", "--id", id];
        let first = workflow(at, &[&run[..], &["--model", "claude-4.5-haiku"]].concat());
        assert_eq!(first.status.code(), Some(4), "{}", text_of(&first));
        assert_eq!(workflow(at, &["answer", id, "Publish it?", "yes"]).status.code(), Some(0));
        let done = workflow(at, &[&["resume", id, "--local", "--json"], args].concat());
        assert_eq!(done.status.code(), Some(code), "{id}: {}", text_of(&done));
        let out = text(&done.stdout);
        let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        let Some(models) = models else {
            let why = last["failure"]["message"].as_str().unwrap();
            let said = "recorded with the model claude-4.5-haiku, and the run has composer-2 now";
            assert!(why.contains(said), "{why}");
            assert_eq!(last["report"]["changed"][0]["models"]["now"][0], "composer-2");
            // Its own model again, and it goes on.
            assert_eq!(workflow(at, &["resume", id, "--local"]).status.code(), Some(0));
            continue;
        };
        for (output, model) in ["text", "more"].into_iter().zip(models) {
            let said = last["outputs"][output].as_str().unwrap();
            assert!(said.contains(&format!("I am {model},")), "{id}: {output}: {said}");
        }
        assert_eq!(workflow(at, &["verify", id]).status.code(), Some(0), "{id}");
    }
}

#[test]
fn runs_of_a_state_file_are_taken_over_to_look_at() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let handle = serde_json::json!({
        "workflowId": "w-1", "name": "Old", "status": "completed", "inputs": {},
        "createdAt": 1, "updatedAt": 2,
    });
    let step = serde_json::json!({
        "kind": "stage", "checkpointId": "stage:stage:plan:1", "name": "plan",
        "replayKey": "stage:plan:1", "output": "done", "completedAt": 2,
    });
    let entry = serde_json::json!({"handle": handle, "checkpoints": [step]});
    let file = serde_json::json!({"version": 1, "workflows": [entry]}).to_string();
    std::fs::write(at.join("state.json"), &file).unwrap();
    let import = workflow(at, &["import", "state.json"]);
    assert_eq!(import.status.code(), Some(0), "{}", text(&import.stderr));
    assert_eq!(std::fs::read_to_string(at.join("state.json")).unwrap(), file);
    // It was over long ago, and is there all the same.
    let show = text(&workflow(at, &["show", "w-1"]).stdout);
    assert!(show.contains("completed Old, 1 record") && show.contains("stage plan"), "{show}");
    let again = text(&workflow(at, &["import", "state.json"]).stdout);
    assert!(again.contains("is here already"), "{again}");
    for verb in ["resume", "verify"] {
        let refused = workflow(at, &[verb, "w-1"]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains("was imported"), "{}", text(&refused.stderr));
    }
    std::fs::write(at.join("cut.json"), &file[..file.len() / 2]).unwrap();
    assert_eq!(workflow(at, &["import", "cut.json"]).status.code(), Some(2));
}

#[test]
fn runs_that_are_over_go_with_their_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let asks = PIPELINE.replace("[[stage]]\nname = \"publish\"", "[[stage]]\nname = \"p\"");
    std::fs::write(at.join("review.toml"), asks).unwrap();
    let run = |id| {
        let args = ["run", "review.toml", "--local", "--input", "topic=x", "--id", id];
        assert_eq!(workflow(at, &args).status.code(), Some(4));
    };
    let sessions = || {
        let files = std::fs::read_dir(at.join("state/sessions")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".jsonl") || name.ends_with(".state")).count()
    };
    run("over");
    let of_one = sessions();
    assert!(of_one >= 1);
    run("waits");
    assert_eq!(workflow(at, &["kill", "over"]).status.code(), Some(0));
    assert_eq!(text(&workflow(at, &["list"]).stdout).lines().count(), 2, "kept for 30 days");
    assert_eq!(workflow(at, &["list", "--keep-days", "x"]).status.code(), Some(2));
    let list = text(&workflow(at, &["list", "--keep-days", "0"]).stdout);
    assert!(list.starts_with("waits ") && list.lines().count() == 1, "{list}");
    assert_eq!(sessions(), of_one, "those of the run that waits are left");
}

#[test]
fn every_json_line_has_its_type_and_the_members_of_the_manual() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    std::fs::write(at.join("review.toml"), PIPELINE).unwrap();
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CLI.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let manual = manual.split("## Workflows").nth(1).unwrap();
    // A row of the table: the name, then its members.
    let row = |name: &str| {
        let row = manual.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in the manual"));
        let ticks = row.split('`').skip(3).step_by(2);
        ticks.map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
    };
    let check = |name: &str, line: &serde_json::Value| {
        let members = line.as_object().unwrap().keys().filter(|key| *key != "type").cloned();
        assert_eq!(row(name), members.collect(), "{name}");
    };
    let args = ["run", "review.toml", "--local", "--input", "topic=x", "--id", "r", "--json"];
    let out = text(&workflow(at, &args).stdout);
    let mut seen = std::collections::BTreeSet::new();
    for line in out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = line["type"].as_str().unwrap();
        check(name, &line);
        seen.insert(name.to_owned());
    }
    assert!(
        seen.iter().eq(["ended", "result", "started", "step_ended", "step_started"]),
        "{seen:?}"
    );
    for name in ["step_replayed", "session_lost", "retrying", "blocked"] {
        row(name);
    }
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&text(&workflow(at, args).stdout)).unwrap()
    };
    check("list", &json(&["list", "--json"]));
    let show = json(&["show", "r", "--json"]);
    check("show", &show);
    check("list", &show["run"]);
    check("record", &show["records"][0]);
    check("verify", &json(&["verify", "r", "--json"]));
}
