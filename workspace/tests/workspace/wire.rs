//! Every exec and every query of the tables, and some that are in none, asked by a script over a
//! real connection: HTTP/2 on the loopback. The server's ledger says whether each got exactly one
//! answer, of its own case and with its own ids, and each exec exactly one close.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentwire::codec::Model;
use agentwire::context::{Context, ToolResult};
use agentwire::exec::ExecHandler;
use agentwire::run::{Event, Notice};
use agentwire::server::Script;
use agentwire::server::serve::{Report, Server};
use agentwire::transport::Client;
use agentwire_workspace::{Access, Workspace};
use serde_json::{Map, Value, json};

use crate::support::folder;

/// One line of the table of fields: message, number, name, type, oneof.
struct Field {
    number: u32,
    name: String,
    kind: String,
    oneof: String,
}

/// The tables, by message.
struct Tables(BTreeMap<String, Vec<Field>>);

impl Tables {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/data/protocol/agent_v1_fields.tsv");
        let text = fs::read_to_string(path).unwrap();
        let mut messages: BTreeMap<String, Vec<Field>> = BTreeMap::new();
        for line in text.lines().skip(1) {
            let cells: Vec<_> = line.split('\t').collect();
            let [message, number, name, kind, oneof, ..] = cells[..] else { panic!("{line}") };
            let fields = messages.entry(message.to_owned()).or_default();
            // A message without members has one line without any.
            if let Ok(number) = number.parse() {
                let [name, kind, oneof] = [name, kind, oneof].map(str::to_owned);
                fields.push(Field { number, name, kind, oneof });
            }
        }
        Self(messages)
    }

    /// The cases of the one oneof of a message.
    fn cases(&self, message: &str) -> impl Iterator<Item = &Field> {
        self.0[message].iter().filter(|field| !field.oneof.is_empty())
    }

    /// A message with something in every member that scripts can say by itself: text, numbers,
    /// messages to a depth; of each oneof the first case.
    fn sample(&self, message: &str, depth: u32) -> Value {
        let mut json = Map::new();
        let mut oneofs = BTreeSet::new();
        for field in self.0.get(message).into_iter().flatten() {
            if !field.oneof.is_empty() && !oneofs.insert(&field.oneof) {
                continue;
            }
            let kind = field.kind.trim_start_matches("optional ");
            let (one, repeated) = match kind.strip_prefix("repeated ") {
                Some(one) => (one, true),
                None => (kind, false),
            };
            let value = match one {
                "string" => json!("x"),
                "bytes" => json!("eA=="),
                "bool" => json!(true),
                "float" | "double" => json!(1.5),
                "int32" | "uint32" | "int64" | "uint64" | "sint32" | "fixed32" => json!(1),
                nested if depth > 0 && self.0.contains_key(nested) => {
                    self.sample(nested, depth - 1)
                }
                _ => continue,
            };
            json.insert(field.name.clone(), if repeated { json!([value]) } else { value });
        }
        Value::Object(json)
    }
}

/// Arguments with which a workspace can serve a case, where it serves it.
fn served(case: &str) -> Option<Value> {
    Some(match case {
        "read_args" | "pi_read_args" => json!({"path": "a.txt", "offset": 1, "limit": 2}),
        "ls_args" | "pi_ls_args" => json!({"path": "."}),
        "grep_args" | "pi_grep_args" => json!({"pattern": "two", "path": "."}),
        "pi_find_args" => json!({"pattern": "*.txt"}),
        "write_args" => json!({"path": "by-write", "file_text": "x"}),
        "pi_write_args" => json!({"path": "by-pi-write", "content": "x"}),
        "pi_edit_args" => {
            json!({"path": "a.txt", "edits": [{"old_text": "one", "new_text": "edited"}]})
        }
        "delete_args" => json!({"path": "sub/b.txt"}),
        "shell_args" => json!({"command": "echo x > by-shell"}),
        "shell_stream_args" => json!({"command": "echo x > by-stream; echo out; echo err >&2"}),
        "mini_swe_agent_bash_args" => json!({"command": "echo x > by-mini"}),
        "pi_bash_args" => json!({"command": "echo x > by-pi-bash"}),
        _ => return None,
    })
}

/// Refused by a workspace in its own words, not by the run.
const REFUSED_BY_HANDLER: [&str; 2] = ["background_shell_spawn_args", "redacted_read_args"];

/// The run's own business, or the caller's.
const INTERNAL: [&str; 2] = ["request_context_args", "mcp_args"];

/// All questions, as steps. `empty`: with empty messages; else typed ones.
fn questions(tables: &Tables, empty: bool, wait: bool) -> (Vec<Value>, BTreeSet<String>) {
    let (mut steps, mut names) = (Vec::new(), BTreeSet::new());
    for (channel, message) in [("exec", "ExecServerMessage"), ("query", "InteractionQuery")] {
        for case in tables.cases(message) {
            let args = served(&case.name).unwrap_or_else(|| tables.sample(&case.kind, 2));
            let mut ask = json!({ channel: case.name, "wait": wait });
            if !empty {
                ask["args"] = args;
            }
            steps.push(json!({ "ask": ask }));
            names.insert(case.name.clone());
        }
        // Numbers that no case has: beside the known ones, and far away.
        let known: BTreeSet<_> = tables.0[message].iter().map(|field| field.number).collect();
        for number in (2..70).chain([999, 536_870_911]).filter(|number| !known.contains(number)) {
            let field = format!("{channel}_field");
            steps.push(json!({"ask": {field: number, "hex": "0a0178", "wait": wait}}));
        }
    }
    steps.push(json!("answers"));
    steps.push(json!({"text": "all answered"}));
    steps.push(json!({"turn_end": {}}));
    (steps, names)
}

/// Plays the steps; gives what the run refused by itself, and what the server saw.
async fn play(
    steps: Vec<Value>,
    handler: Option<Arc<dyn ExecHandler>>,
) -> (String, BTreeSet<String>, Report) {
    let script = json!({"answer_ms": 60_000, "rules": [{"steps": steps}]});
    let script = Script::from_json(&script.to_string()).unwrap();
    let server = Server::builder().script(script).cleartext().bind().await.unwrap();
    let client = Client::builder().endpoint(server.url()).token("any").build().unwrap();
    let mut ask = client.ask(Context::prompt("ask me")).model(Model::new("m"));
    if let Some(handler) = handler {
        ask = ask.execs(handler);
    }
    let mut run = ask.start().await.unwrap();
    let (mut refused, mut text) = (BTreeSet::new(), String::new());
    let done = async {
        loop {
            match run.next().await.unwrap() {
                Event::Text(piece) => text += &piece,
                Event::Notice(Notice::Refused { what }) => {
                    refused.insert(what);
                }
                Event::ToolCalls(calls) => {
                    let results =
                        calls.iter().map(|call| ToolResult::text(&call.id, &call.name, "x"));
                    run.answer_some(results.collect()).await.unwrap();
                }
                Event::Ended(ended) => break ended.map(drop),
                _ => {}
            }
        }
    };
    // A guard against a hang, ten times what it takes.
    tokio::time::timeout(Duration::from_secs(90), done).await.unwrap().unwrap();
    drop(run);
    (text, refused, server.shutdown().await)
}

fn assert_clean(report: &Report) {
    assert_eq!(report.violations, [], "each question one answer, each exec one close");
    assert_eq!((report.unanswered, report.requests), (0, 1));
}

#[tokio::test]
async fn every_question_is_answered_when_nothing_is_served() {
    let tables = Tables::read();
    assert_eq!(tables.cases("ExecServerMessage").count(), 40);
    assert_eq!(tables.cases("InteractionQuery").count(), 7);
    for (empty, wait) in [(false, true), (false, false), (true, false)] {
        let (steps, names) = questions(&tables, empty, wait);
        let (text, refused, report) = play(steps, None).await;
        assert_clean(&report);
        assert_eq!(text, "all answered");
        for name in names.iter().filter(|name| !INTERNAL.contains(&name.as_str())) {
            assert!(refused.contains(name), "{name} was refused without a word");
        }
    }
}

#[tokio::test]
async fn every_question_is_answered_when_a_workspace_serves() {
    let tables = Tables::read();
    for (empty, wait) in [(false, true), (false, false), (true, false)] {
        let folder = folder();
        let workspace = Workspace::builder(folder.path())
            .allow(Access::Write)
            .allow(Access::Shell)
            .build()
            .unwrap();
        let (steps, names) = questions(&tables, empty, wait);
        let (text, refused, report) = play(steps, Some(Arc::new(workspace))).await;
        assert_clean(&report);
        assert_eq!(text, "all answered");
        for name in &names {
            let own = served(name).is_some() || INTERNAL.contains(&name.as_str());
            let by_handler = REFUSED_BY_HANDLER.contains(&name.as_str());
            assert!(refused.contains(name) != own || by_handler, "{name}: {refused:?}");
        }
        if empty {
            continue;
        }
        for made in ["by-write", "by-pi-write", "by-shell", "by-stream", "by-mini", "by-pi-bash"] {
            let text = fs::read_to_string(folder.path().join(made)).unwrap();
            assert_eq!(text.trim(), "x", "{made}");
        }
        assert!(!folder.path().join("sub/b.txt").exists());
        let edited = fs::read_to_string(folder.path().join("a.txt")).unwrap();
        assert_eq!(edited, "edited\ntwo\nthree\n");
    }
}

/// The document for those who write scripts names every case, and its examples can be played.
#[test]
fn the_document_names_every_question() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SCRIPTS.md");
    let text = fs::read_to_string(path).unwrap();
    let tables = Tables::read();
    for message in ["ExecServerMessage", "InteractionQuery"] {
        for case in tables.cases(message) {
            assert!(text.contains(&format!("`{}`", case.name)), "{} is not named", case.name);
        }
    }
    let steps: String = text
        .lines()
        .filter(|line| line.starts_with("{ ask = "))
        .fold(String::new(), |all, line| all + line);
    let script = Script::from_toml(&format!("[[rules]]\nsteps = [{steps}]")).unwrap();
    assert_eq!(script.rules[0].steps.len(), 5);
}

/// What was answered can be said by the script that asked.
#[tokio::test]
async fn answers_can_be_said() {
    let folder = folder();
    let ask = |exec: &str, args: Value| json!({"ask": {"exec": exec, "args": args}});
    let asks = [
        (ask("read_args", json!({"path": "sub/b.txt"})), "two more"),
        (ask("ls_args", json!({"path": "."})), "sub/b.txt"),
        (ask("read_args", json!({"path": "../x"})), "leads out of the workspace"),
        (ask("shell_args", json!({"command": "echo whole"})), "whole"),
        (ask("shell_stream_args", json!({"command": "echo one; sleep 0.1; echo two"})), "one\ntwo"),
        (ask("pi_grep_args", json!({"pattern": "more"})), "sub/b.txt:1: two more"),
        (ask("git_diff_request", json!({})), "does not serve"),
        (json!({"ask": {"query": "web_search_request_query"}}), "web_search_request_response"),
    ];
    let mut steps = Vec::new();
    let mut expected = Vec::new();
    for (ask, part) in asks {
        steps.extend([ask, json!({"text": "{{answer}}\u{1}"})]);
        expected.push(part);
    }
    steps.extend([
        json!("use_workspace"),
        json!({"text": "{{results}}\u{1}"}),
        json!({"turn_end": {}}),
    ]);
    expected.push("ls answered: a.txt\nsub/\nsub/b.txt\nread answered: one\ntwo\nthree");
    let workspace = Workspace::builder(folder.path()).allow(Access::Shell).build().unwrap();
    let (text, _, report) = play(steps, Some(Arc::new(workspace))).await;
    assert_clean(&report);
    let said: Vec<_> = text.split('\u{1}').collect();
    for (said, expected) in said.iter().zip(&expected) {
        assert!(said.contains(expected), "{expected:?} is not in {said:?}");
    }
    assert_eq!(said.len(), expected.len() + 1);
}
