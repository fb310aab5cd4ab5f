//! `agent` and `sessions`, offline against the local server.

use std::fs;

use agentwire::server::Script;
use agentwire::server::serve::Server;
use serde_json::{Value, json};

use crate::support::{Done, agentwire, finish};

/// A folder of files, and one of sessions.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("files")).unwrap();
        fs::write(folder.path().join("files/README.md"), "# A project\n\nTwo lines.\n").unwrap();
        Self(folder)
    }

    fn run(&self, args: &[&str]) -> Done {
        let mut command = agentwire(args);
        command.env("AGENTWIRE_SESSIONS", self.0.path().join("sessions"));
        command.current_dir(self.0.path());
        finish(command.spawn().unwrap())
    }

    fn log(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.0.path().join(format!("sessions/{name}.jsonl")));
        text.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["type"].as_str().unwrap()).collect()
}

#[test]
fn a_task_in_a_workspace_offline() {
    let place = Place::new();
    let done = place.run(&["agent", "--local", "--workspace", "files", "What is in README.md?"]);
    let done = done.expect(0);
    assert!(done.stdout().contains("# A project"), "{}", done.stdout());
    assert!(done.stderr.contains("workspace: list"), "{}", done.stderr);
    assert!(done.stderr.contains("workspace: read README.md: 3 lines"), "{}", done.stderr);
    assert!(done.stderr.contains("1 turn, 2 tools, "), "{}", done.stderr);
    assert!(!done.stderr.contains('\u{1b}') && !done.stderr.contains('\r'), "{}", done.stderr);
}

#[test]
fn json_is_a_line_for_each_event_and_ends_with_the_outcome() {
    let place = Place::new();
    let done = place.run(&["agent", "--local", "--json", "hello"]).expect(0);
    let lines = done.lines();
    assert_eq!(lines[0], json!({"type": "started", "model": "composer-2"}));
    let last = lines.last().unwrap();
    assert_eq!(last["type"], "finished");
    assert_eq!(last["outcome"]["stop"], "completed");
    let text: String =
        lines.iter().filter(|l| l["type"] == "text").filter_map(|l| l["text"].as_str()).collect();
    assert_eq!(last["outcome"]["text"], text);
}

#[test]
fn a_session_goes_on_and_is_looked_at() {
    let place = Place::new();
    let first = place.run(&["agent", "--local", "--session", "s", "one"]).expect(0);
    assert!(first.stdout().contains("turn 1"), "{}", first.stdout());
    let second = place.run(&["agent", "--local", "--session", "s", "two\nlines"]).expect(0);
    assert!(second.stdout().contains("turn 2"), "{}", second.stdout());
    let log = place.log("s");
    assert_eq!(kinds(&log), ["session", "user", "assistant", "end", "user", "assistant", "end"]);

    let list = place.run(&["sessions", "list"]).expect(0);
    assert!(list.stdout().starts_with("s "), "{}", list.stdout());
    assert!(list.stdout().ends_with(" 6  done        two\n"), "{}", list.stdout());
    let show = place.run(&["sessions", "show", "s"]).expect(0);
    let lines: Vec<_> = show.stdout().lines().collect();
    assert_eq!((lines[0], lines[2]), ("    1  user: one", "    3  end: completed"));
    assert_eq!(lines[3], "    4  user: two ...");

    place.run(&["sessions", "fork", "s", "t", "--at", "3"]).expect(0);
    let third = place.run(&["agent", "--local", "--session", "t", "other"]).expect(0);
    assert!(third.stdout().contains("turn 2"), "{}", third.stdout());
    let text = place.run(&["sessions", "export", "t"]).expect(0);
    assert!(text.stdout().starts_with("# t\n\n## User\n\none\n"), "{}", text.stdout());
    place.run(&["sessions", "export", "t", "--output", "t.md"]).expect(0);
    assert_eq!(fs::read_to_string(place.0.path().join("t.md")).unwrap(), text.stdout());

    place.run(&["sessions", "rm", "s", "t"]).expect(0);
    assert_eq!(place.run(&["sessions", "list", "--json"]).expect(0).stdout(), "");
    assert_eq!(fs::read_dir(place.0.path().join("sessions")).unwrap().count(), 0);
}

#[test]
fn a_task_that_broke_off_is_gone_on_with() {
    let place = Place::new();
    place.run(&["agent", "--local", "--session", "s", "one"]).expect(0);
    // The process died before it had the answer.
    let path = place.0.path().join("sessions/s.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let kept: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(&path, kept + "{\"v\":1,\"at\":17").unwrap();
    let done = place.run(&["agent", "--local", "--session", "s", "--continue"]).expect(0);
    assert!(done.stdout().contains("You asked: one"), "{}", done.stdout());
    assert!(done.stderr.contains("last line (3) was not whole"), "{}", done.stderr);
    assert_eq!(kinds(&place.log("s")), ["session", "user", "assistant", "end"]);
    // It has its answer now, which is not asked for again.
    let again = place.run(&["agent", "--local", "--session", "s", "--continue"]).expect(0);
    assert!(again.stderr.contains("0 turns"), "{}", again.stderr);
}

#[test]
fn wrong_usage_is_said_and_nothing_is_made() {
    let place = Place::new();
    for (args, words) in [
        (vec!["agent", "--local"], "TASK"),
        (vec!["agent", "--local", "--continue"], "--session"),
        (vec!["agent", "--local", "--session", "a/b", "x"], "cannot name a session"),
        (vec!["agent", "--local", "--context", "c.json", "x"], "no --context"),
        (vec!["sessions", "show", "none"], "no session `none`"),
        (vec!["sessions", "rm", "none"], "no session `none`"),
    ] {
        let done = place.run(&args).expect(2);
        assert!(done.stderr.contains(words), "{args:?}: {}", done.stderr);
    }
}

#[test]
fn a_failure_and_a_limit_are_said_and_have_their_codes() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |script: Value, args: &[&str]| {
        let script = Script::from_json(&script.to_string()).unwrap();
        let server = Server::builder().script(script).cleartext().bind();
        let server = runtime.block_on(server).unwrap();
        let mut command = agentwire(["agent", "--endpoint", &server.url()]);
        command.args(args).arg("go").env("AGENTWIRE_TOKEN", "tok-1");
        let done = finish(command.spawn().unwrap());
        drop(server);
        done
    };
    let error = json!({"rules": [{"steps": [
        {"error": {"code": "unauthenticated", "message": "who are you"}}]}]});
    let done = run(error, &[]).expect(3);
    assert!(done.stderr.contains("agentwire: "), "{}", done.stderr);
    assert!(done.stderr.contains("1 turn, 0 tools"), "{}", done.stderr);

    let silent = json!({"rules": [{"steps": [{"text": "half"}, "silence"]}]});
    let done = run(silent, &["--timeout", "0.3"]).expect(1);
    assert_eq!(done.stdout(), "half\n");
    assert!(done.stderr.contains("stopped at the limit of wall"), "{}", done.stderr);
}

#[test]
fn help_names_the_folder_of_sessions() {
    let done = Place::new().run(&["sessions", "--help"]).expect(0);
    assert!(done.stdout().contains("AGENTWIRE_SESSIONS"));
}
