//! Kill -9 at every step boundary of a task of twenty steps, then the same session again: the same
//! answer, and each effect happens once.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentwire::context::{Message, Part};
use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::record::Record;
use agentwire_agent::session::Store;
use agentwire_agent::tool::{Effect, tool};
use agentwire_agent::{Agent, ModelRequest, ToolStatus};
use serde_json::{Value, json};

const STEPS: u64 = 20;
const FOLDER: &str = "AGENTWIRE_TEST_FOLDER";
const GATE: &str = "AGENTWIRE_TEST_GATE";

/// Stops for good when it is passed for the n-th time, after it has said so.
#[derive(Clone)]
struct Gate {
    passed: Arc<AtomicUsize>,
    stop_at: usize,
}

impl Gate {
    fn pass(&self) {
        if self.passed.fetch_add(1, Ordering::SeqCst) + 1 == self.stop_at {
            println!("\nhere");
            std::io::stdout().flush().expect("said");
            loop {
                std::thread::park();
            }
        }
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Write {
    n: u64,
}

/// A model with a task, as a function of what was said: write 1 to 20. When it cannot know whether
/// a number was written it looks.
fn next(request: &ModelRequest) -> Reply {
    let messages = &request.context.messages;
    let id = format!("c{}", messages.len());
    let go_on = |written: u64| {
        if written == STEPS {
            Reply::new().text(format!("{written} numbers are written"))
        } else {
            Reply::new().text("On. ").call(&id, "write", json!({"n": written + 1}))
        }
    };
    match messages.last().map(|last| &**last) {
        Some(Message::ToolResult(result)) if result.is_error => {
            Reply::new().call(&id, "count", json!({}))
        }
        Some(Message::ToolResult(result)) => match result.content.first() {
            Some(Part::Text { text }) => go_on(text.parse().expect("a number")),
            _ => unreachable!("tools here give text"),
        },
        Some(Message::User { .. }) => go_on(0),
        _ => unreachable!("nobody asks after the answer"),
    }
}

fn agent(effects: &Path, gate: &Gate) -> Agent {
    let (model_gate, write_gate) = (gate.clone(), gate.clone());
    let model = Scripted::new(move |request| {
        model_gate.pass();
        next(request)
    });
    let (file, read) = (effects.to_owned(), effects.to_owned());
    let write = tool("write", "Writes a number", move |_, Write { n }| {
        write_gate.pass();
        let mut file =
            fs::OpenOptions::new().append(true).create(true).open(&file).expect("the file");
        file.write_all(format!("{n}\n").as_bytes()).expect("written");
        write_gate.pass();
        std::future::ready(Ok(n.to_string()))
    });
    let count = tool("count", "Counts the numbers", move |_, _: Value| {
        let text = fs::read_to_string(&read).unwrap_or_default();
        std::future::ready(Ok(text.lines().count().to_string()))
    });
    let count = count.effect(Effect::ReadOnly);
    Agent::builder(model).model("m").tool(write).tool(count).build().expect("an agent")
}

#[tokio::test]
#[ignore = "one of the processes of kill_9_at_every_step"]
async fn process() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let stop_at = std::env::var(GATE).expect("a gate").parse().expect("a number");
    let gate = Gate { passed: Arc::default(), stop_at };
    let agent = agent(&folder.join("effects"), &gate);
    let session = Store::new(&folder).open("task").expect("it opens");
    let task = if session.messages().is_empty() {
        agent.prompt("Write the numbers").session(session)
    } else {
        agent.resume(session)
    };
    let answer = task.final_text().await.expect("an answer");
    gate.pass();
    println!("\nanswer {answer} after {} gates", gate.passed.load(Ordering::SeqCst));
}

/// Runs the task in a process of its own, up to a gate or to its end; gives its last word.
fn run(folder: &Path, gate: usize) -> String {
    let mut process = Command::new(std::env::current_exe().expect("this test"))
        .args(["--ignored", "--exact", "process", "--nocapture"])
        .env(FOLDER, folder)
        .env(GATE, gate.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let lines = BufReader::new(process.stdout.take().expect("its output")).lines();
    let word = lines
        .map(|line| line.expect("text"))
        .find(|line| line == "here" || line.starts_with("answer"))
        .expect("a last word");
    // SIGKILL.
    process.kill().expect("killed");
    process.wait().expect("gone");
    word
}

#[test]
fn kill_9_at_every_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = run(folder.path(), usize::MAX);
    let (answer, gates) = whole.split_once(" after ").expect("an answer");
    let gates: usize = gates.trim_end_matches(" gates").parse().expect("a number");
    // Asked, about to write, written: for each step; asked for the answer, and after it.
    assert_eq!(gates as u64, 3 * STEPS + 2);
    for gate in 1..=gates {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(run(folder.path(), gate), "here");
        let again = run(folder.path(), usize::MAX);
        assert_eq!(again.split_once(" after ").expect("an answer").0, answer, "gate {gate}");
        check(folder.path(), gate);
    }
}

fn check(folder: &Path, gate: usize) {
    let effects = fs::read_to_string(folder.join("effects")).expect("effects");
    let once: String = (1..=STEPS).map(|n| format!("{n}\n")).collect();
    assert_eq!(effects, once, "gate {gate}: an effect is missing or happened twice");
    let (_, entries, torn) = Store::new(folder).read("task").expect("it reads");
    assert_eq!(torn, None);
    let unclear = entries.iter().filter(|entry| match &entry.record {
        Record::ToolResult { status, .. } => *status == ToolStatus::Interrupted,
        _ => false,
    });
    // At most the one that ran when the process died.
    assert!(unclear.count() <= 1, "gate {gate}");
}
