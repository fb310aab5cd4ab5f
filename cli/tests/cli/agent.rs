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
fn a_damaged_session_is_listed_and_forked_before_the_damage() {
    let place = Place::new();
    place.run(&["agent", "--local", "--session", "bad", "one"]).expect(0);
    let path = place.0.path().join("sessions/bad.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    // The header, what was asked, and the answer, which cannot be read.
    lines[2] = "?";
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    let words = "line 3 of ";
    let way_out = "is damaged; a fork of the session at record 1, ";
    for args in [&["agent", "--local", "--session", "bad", "two"][..], &["sessions", "show", "bad"]]
    {
        let done = place.run(args).expect(1);
        assert!(done.stderr.contains(words) && done.stderr.contains(way_out), "{}", done.stderr);
    }
    let show = place.run(&["sessions", "show", "bad"]).expect(1);
    assert_eq!(show.stdout(), "    1  user: one\n");
    let list = place.run(&["sessions", "list"]).expect(0);
    assert!(list.stdout().ends_with("     1  damaged     one\n"), "{}", list.stdout());
    assert!(list.stderr.starts_with("note: line 3 of "), "{}", list.stderr);
    let list = place.run(&["sessions", "list", "--json"]).expect(0);
    assert!(list.lines()[0]["damage"].as_str().unwrap().contains(way_out), "{}", list.stdout());
    place.run(&["sessions", "fork", "bad", "late", "--at", "2"]).expect(1);
    place.run(&["sessions", "fork", "bad", "good", "--at", "1"]).expect(0);
    let done = place.run(&["agent", "--local", "--session", "good", "--continue"]).expect(0);
    assert!(done.stdout().contains("You asked: one"), "{}", done.stdout());
}

#[test]
fn a_session_that_grows_is_summarised() {
    let place = Place::new();
    let long = "word ".repeat(400);
    let ask = |session: &str, budget: &[&str]| {
        let args = ["agent", "--local", "--session", session, &long];
        place.run(&[&args, budget].concat()).expect(0)
    };
    for n in 0..3 {
        let done = ask("s", &["--context-budget", "900"]);
        assert_eq!(done.stderr.contains("were summarised to make room"), n > 0, "{}", done.stderr);
        ask("t", &["--context-budget", "0"]);
    }
    assert!(kinds(&place.log("s")).contains(&"compaction"));
    assert!(!kinds(&place.log("t")).contains(&"compaction"));
}

#[test]
fn without_a_budget_a_session_is_summarised_by_the_model_s_window() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let script = json!({"rules": [{"steps": ["history", {"text": "turn {{turn}}"},
        {"checkpoint": {"used_tokens": 800, "max_tokens": 1000}}, {"turn_end": {}}]}]});
    let script = Script::from_json(&script.to_string()).unwrap();
    let server = Server::builder().script(script).cleartext().bind();
    let server = runtime.block_on(server).unwrap();
    let place = Place::new();
    let long = "word ".repeat(400);
    for (n, budget) in [&[][..], &["--context-budget", "0"], &[]].into_iter().enumerate() {
        let mut command = agentwire(["agent", "--endpoint", &server.url(), "--session", "s"]);
        command.env("AGENTWIRE_SESSIONS", place.0.path().join("sessions"));
        command.args(budget).arg(&long).env("AGENTWIRE_TOKEN", "tok-1");
        let done = finish(command.spawn().unwrap()).expect(0);
        assert_eq!(done.stderr.contains("were summarised to make room"), n == 2, "{}", done.stderr);
    }
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

/// An MCP server in a few lines of shell, and a model that calls its tools.
#[cfg(unix)]
struct Tools {
    place: Place,
    server: Server,
    _runtime: tokio::runtime::Runtime,
}

#[cfg(unix)]
impl Tools {
    const SERVER: &'static str = r#"
tools='{"tools":[{"name":"write","inputSchema":{"type":"object"}},
  {"name":"bad","inputSchema":{"type":"object","properties":3}}]}'
info='"capabilities":{"tools":{}},"serverInfo":{"name":"t","version":"1"}'
while read -r line; do
  number=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *'"initialize"'*) result="{\"protocolVersion\":\"2025-06-18\",$info}" ;;
    *'"tools/list"'*) result=$(printf '%s' "$tools" | tr -d '\n') ;;
    *'"tools/call"'*) echo called >> calls; result='{"content":[{"type":"text","text":"written"}]}' ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$number" "$result"
done
"#;

    /// A model that calls the tool so often and says what came back.
    fn called(times: usize) -> Self {
        let place = Place::new();
        fs::write(place.0.path().join("server.sh"), Self::SERVER).unwrap();
        let call = |n| json!({"call": {"tool": "files_write", "args": {"n": n}}});
        let steps = (0..times).flat_map(|n| [call(n), json!({"text": "<{{result}}>\n"})]);
        let steps: Vec<_> = steps.chain([json!({"turn_end": {}})]).collect();
        let script = json!({"rules": [{"steps": steps}]});
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let script = Script::from_json(&script.to_string()).unwrap();
        let server = Server::builder().script(script).cleartext().bind();
        let server = runtime.block_on(server).unwrap();
        Self { place, server, _runtime: runtime }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = agentwire(["agent", "--endpoint", &self.server.url()]);
        command.args(["--mcp", "files=sh server.sh"]).args(args).arg("go");
        command.env("AGENTWIRE_TOKEN", "tok-1").current_dir(self.place.0.path());
        command
    }

    /// How often the server's tool was really called since the last time.
    fn calls(&self) -> usize {
        let path = self.place.0.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default().lines().count();
        fs::write(path, "").unwrap();
        calls
    }
}

#[cfg(unix)]
#[test]
fn tools_of_an_mcp_server_need_leave_where_nobody_can_be_asked() {
    let tools = Tools::called(2);
    let run = |args: &[&str]| finish(tools.command(args).spawn().unwrap()).expect(0);
    let done = run(&[]);
    assert_eq!(tools.calls(), 0);
    assert_eq!(done.stdout().matches("nobody can be asked here").count(), 2, "{}", done.stdout());
    assert!(done.stdout().contains("`--allow-tool files_write`"), "{}", done.stdout());
    assert!(done.stderr.contains("tool: files_write {\"n\":0}: failed ("), "{}", done.stderr);
    assert!(done.stderr.contains("is left out: the schema of the tool `files_bad`"));

    for allowed in ["files_write", "all"] {
        let done = run(&["--allow-tool", allowed]);
        assert_eq!((tools.calls(), done.stdout()), (2, "<written>\n<written>\n"));
    }
    let done = run(&["--allow-tool", "files_write", "--json"]);
    let lines = done.lines();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("tool_started")[1]["call"]["arguments"], json!({"n": 1}));
    let finished = of("tool_finished");
    assert_eq!((finished.len(), &finished[0]["status"]), (2, &json!("ok")));
    assert_eq!(finished[0]["result"]["content"][0]["text"], "written");

    let mut wrong = agentwire(["agent", "--endpoint", &tools.server.url(), "--mcp", "false", "go"]);
    let done = finish(wrong.env("AGENTWIRE_TOKEN", "tok-1").spawn().unwrap()).expect(1);
    assert!(done.stderr.contains("the MCP server `false` does not speak MCP"), "{}", done.stderr);
}

#[cfg(unix)]
#[test]
fn at_a_terminal_each_tool_is_a_line_and_the_person_is_asked_before() {
    let tools = Tools::called(3);
    for (answers, questions, calls) in
        [(&["y", "n", "y"][..], 3, 2), (&["a"], 1, 3), (&["what", "n", "n", "n"], 4, 0)]
    {
        let (screen, said) = crate::support::at_terminal(tools.command(&[]), answers);
        assert_eq!(tools.calls(), calls, "{answers:?}: {screen}");
        assert_eq!(screen.matches("Allow? ").count(), questions, "{screen}");
        assert!(screen.contains("The model wants to call files_write with"), "{screen}");
        assert!(screen.contains("[a]lways (every call of files_write)"), "{screen}");
        let ends = |mark: &str| {
            let is = |line: &&str| line.contains("tool: files_write {") && line.contains(mark);
            screen.lines().filter(is).count()
        };
        assert_eq!((ends("}: ok ("), ends("}: failed (")), (calls, 3 - calls), "{screen}");
        assert_eq!(said.matches("<written>").count(), calls, "{said}");
        assert_eq!(said.matches("the person was asked and said no").count(), 3 - calls, "{said}");
    }
}
