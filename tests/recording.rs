//! A run is written down while it is under way, and played back with the same events.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on; a replay begins at some time"
)]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agentwire::context::{Tool, ToolResult};
use agentwire::error::Kind;
use agentwire::exec::{Effects, ExecCall, ExecHandler, Refusal, Served};
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::{ReadArgs, ReadResult, ReadSuccess, read_result};
use agentwire::recording::{Record, Recorder, Recording, What, Writer};
use agentwire::run::{Event, Notice, Options};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, RunBuilder};
use serde_json::json;

const TOKEN: &str = "tok-5f2c-Zq81-kk77";

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    /// Begins the file anew.
    fn recorder(&self) -> Arc<dyn Recorder> {
        self.0.lock().unwrap().clear();
        Arc::new(Writer::new(self.clone(), u64::MAX).unwrap())
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    fn recording(&self) -> Recording {
        Recording::read(&*self.bytes()).unwrap()
    }
}

/// Serves files, of which there is one.
struct OneFile;

impl ExecHandler for OneFile {
    fn serves(&self, case: &Case) -> bool {
        matches!(case, Case::ReadArgs(_))
    }

    fn effects(&self, _: &Case) -> Effects {
        Effects::ReadOnly
    }

    fn read<'a>(&'a self, _: &'a ExecCall, args: ReadArgs) -> Served<'a, ReadResult> {
        let read = match args.path.as_str() {
            "a" => {
                let success = ReadSuccess { path: args.path, ..ReadSuccess::default() };
                let result = Some(read_result::Result::Success(success));
                Ok(ReadResult { result })
            }
            _ => Err(Refusal::because("there is one file only")),
        };
        Box::pin(std::future::ready(read))
    }
}

/// What stands in the place of the pause before another attempt: a part of it is random.
fn without_delays(events: Vec<Event>) -> Vec<Event> {
    let plain = |event| match event {
        Event::Notice(Notice::Retrying { attempt, why, .. }) => {
            Event::Notice(Notice::Retrying { attempt, delay_ms: 0, why })
        }
        other => other,
    };
    events.into_iter().map(plain).collect()
}

fn joined(events: &[Event]) -> String {
    events
        .iter()
        .filter_map(|e| if let Event::Text(t) = e { Some(t.as_str()) } else { None })
        .collect()
}

fn replayed(recording: &Recording, run: u32) -> Vec<Event> {
    let mut events = Vec::new();
    recording.replay(run, Instant::now(), |event| events.push(event.to_event())).unwrap();
    events
}

/// Answers every tool call, and gives all events.
async fn all(run: RunBuilder) -> Vec<Event> {
    let mut run = run.start().await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = run.next().await {
        if let Event::ToolCalls(calls) = &event {
            let answer = |call: &agentwire::context::ToolCall| {
                ToolResult::text(&*call.id, &*call.name, "one file")
            };
            run.answer(calls.iter().map(answer).collect()).await.unwrap();
        }
        events.push(event);
    }
    let _ended = run.finish().await;
    events
}

async fn served(script: &str) -> (Server, Client, Sink) {
    let script = Script::from_toml(script).unwrap();
    let server = Server::builder().script(script).token(TOKEN).cleartext().bind().await.unwrap();
    let sink = Sink::default();
    let client = Client::builder().endpoint(server.url()).token(TOKEN).build().unwrap();
    let client = client.recorded(sink.recorder());
    (server, client, sink)
}

fn tool() -> Tool {
    Tool {
        name: "ls".to_owned(),
        description: "List a folder".to_owned(),
        parameters: json!({"type": "object"}),
    }
}

const EVERYTHING: &str = r#"
[[rules]]
when = { action = "user" }
steps = [
  "context", "history",
  { thinking = "Let me see." },
  { text = "First, the files. " },
  { calls = [ { tool = "ls", args = { path = "." } }, { tool = "ls", args = { path = "b" } } ] },
  { ask = { exec = "read_args", args = { path = "a" } } },
  { ask = { exec = "read_args", args = { path = "b" } } },
  { ask = { exec = "fetch_args", args = { url = "https://example.com" } } },
  { ask = { exec_field = 99, hex = "0a00" } },
  { set_blob = "state" },
  { checkpoint = { used_tokens = 5, max_tokens = 100 } },
  { text = "Two of them" },
  "cut",
]
[[rules]]
steps = ["history", { text = "Two of them, it says." }, { turn_end = { input_tokens = 3, output_tokens = 4 } }]
"#;

/// Tools, execs that are served, refused and not known, a cut connection and the attempt after it.
#[tokio::test]
async fn a_replay_gives_the_events_of_the_run() {
    let (server, client, sink) = served(EVERYTHING).await;
    // A connection of its own: the cut of one run is not the other's.
    let other = Client::builder().endpoint(server.url()).token(TOKEN).build().unwrap();
    let recorder = sink.recorder();
    let clients = [client.recorded(recorder.clone()), other.recorded(recorder)];
    let run = |client: &Client, id: &str| {
        let run = client.prompt("what is here?").model("m").tool(tool());
        let id = id.to_owned();
        run.execs(Arc::new(OneFile)).configure(|request| request.request_id = id)
    };
    let (first, second) =
        tokio::join!(all(run(&clients[0], "first")), all(run(&clients[1], "second")));
    let recording = sink.recording();
    assert_eq!(recording.runs().len(), 2);
    let number = |id: &str| {
        let is = |record: &&Record| matches!(&record.what, What::Run { request_id, .. } if request_id == id);
        recording.records.iter().find(is).unwrap().run
    };
    for (number, live) in [(number("first"), first), (number("second"), second)] {
        assert!(matches!(live.last(), Some(Event::Ended(Ok(_)))), "{live:?}");
        assert_eq!(joined(&live), "First, the files. Two of them, it says.");
        let kinds = |event: &&Event| matches!(event, Event::Notice(Notice::Retrying { .. }));
        assert_eq!(live.iter().filter(kinds).count(), 1, "{live:?}");
        let again = without_delays(replayed(&recording, number));
        assert_eq!(again, without_delays(live), "run {number}");
    }
    drop((client, clients, other));
    assert_eq!(server.shutdown().await.violation_count, 0);
}

/// A refusal over HTTP, a stated error, a broken envelope, a cancel: the same last event.
#[tokio::test]
async fn every_end_comes_back() {
    let ends = [
        r#"{ status = { status = 401, body = "who are you?" } }"#,
        r#"{ error = { code = "unavailable", message = "come back later" } }"#,
        r#"{ bytes = { hex = "ff 00 00 00 01" } }"#,
        r#"{ reset = 8 }"#,
        r#""close""#,
    ];
    for end in ends {
        let (server, client, sink) = served(&format!("[[rules]]\nsteps = [{end}]")).await;
        let live = all(client.prompt("x").model("m").retries(0)).await;
        let again = replayed(&sink.recording(), 1);
        assert!(matches!(live.last(), Some(Event::Ended(Err(_)))), "{end}: {live:?}");
        assert_eq!(again, live, "{end}");
        drop((client, server));
    }
    let (_server, client, sink) =
        served("[[rules]]\nsteps = [{ text = \"a\" }, \"silence\"]").await;
    let mut run = client.prompt("x").model("m").start().await.unwrap();
    while !matches!(run.next().await, Some(Event::Text(_))) {}
    run.cancel();
    let _ended = run.finish().await;
    let Some(Event::Ended(Err(error))) = replayed(&sink.recording(), 1).pop() else { panic!() };
    assert_eq!(*error.kind(), Kind::Cancelled);
}

/// Nothing at all comes, and the clock of the replay does not wait for it.
#[tokio::test]
async fn a_stall_is_met_again_at_once() {
    let (_server, client, sink) = served("[[rules]]\nsteps = [\"silence\"]").await;
    let mut options = Options::default();
    options.retry.retries = 0;
    options.deadline = Some(Duration::from_millis(30));
    let live = all(client.prompt("x").model("m").options(options)).await;
    assert!(
        matches!(live.last(), Some(Event::Ended(Err(e))) if *e.kind() == Kind::DeadlineExceeded)
    );
    let mut recording = sink.recording();
    assert_eq!(replayed(&recording, 1), live);
    // As a caller with more patience would have recorded it.
    recording
        .records
        .retain(|record| !matches!(record.what, What::Client { .. } | What::Reset { .. }));
    for record in &mut recording.records {
        if let What::Run { deadline_us, .. } = &mut record.what {
            *deadline_us = None;
        }
    }
    let last = recording.records.last().unwrap().clone();
    let later = Record { at_us: 400_000_000, what: What::Say, ..last };
    recording.records.push(later);
    let began = Instant::now();
    let Some(Event::Ended(Err(error))) = replayed(&recording, 1).pop() else { panic!() };
    assert!(error.message().contains("nothing came for 120s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn the_token_is_in_no_recording_whoever_repeats_it() {
    let script = format!(
        r#"[[rules]]
steps = [
  {{ head = {{ headers = {{ "x-echo" = "Bearer {TOKEN}", "set-cookie" = "a=b" }} }} }},
  {{ text = {{ text = "you are {TOKEN}, it seems", delta = 1000 }} }},
  {{ error = {{ code = "internal", message = "token {TOKEN}", metadata = {{ "x-t" = ["{TOKEN}"] }} }} }},
]"#
    );
    let (_server, client, sink) = served(&script).await;
    let live = all(client.prompt("x").model("m").retries(0)).await;
    assert_eq!(joined(&live), format!("you are {TOKEN}, it seems"));
    let file = String::from_utf8(sink.bytes()).unwrap();
    assert!(!file.contains("Zq81") && !file.contains("authorization") && !file.contains("a=b"));
    let recording = sink.recording();
    let mut bodies = 0;
    for record in &recording.records {
        if let What::Server { bytes } | What::Client { bytes } = &record.what {
            bodies += bytes.len();
            assert!(!String::from_utf8_lossy(bytes).contains("Zq81"), "{record:?}");
        }
    }
    assert!(bodies > 100);
    let again = replayed(&recording, 1);
    assert_eq!(joined(&again), format!("you are {}, it seems", "*".repeat(TOKEN.len())));
    assert!(matches!(again.last(), Some(Event::Ended(Err(_)))));
}

/// The process was killed, or the file was as long as it may be.
#[tokio::test]
async fn a_recording_that_ends_early_ends_the_replay_with_an_error() {
    let (_server, client, sink) =
        served("[[rules]]\nsteps = [{ text = \"abc\" }, { turn_end = {} }]").await;
    let live = all(client.prompt("x").model("m")).await;
    assert!(matches!(live.last(), Some(Event::Ended(Ok(_)))));
    let recording = sink.recording();
    for kept in 1..recording.records.len() {
        let mut cut = recording.clone();
        cut.records.truncate(kept);
        let events = replayed(&cut, 1);
        let ends = events.iter().filter(|event| matches!(event, Event::Ended(_))).count();
        assert!(ends == 1 && matches!(events.last(), Some(Event::Ended(_))), "{kept}: {events:?}");
    }
    let mut cut = recording.clone();
    cut.records.truncate(2);
    let Some(Event::Ended(Err(error))) = replayed(&cut, 1).pop() else { panic!() };
    assert!(error.message().contains("the recording ends"), "{error}");
    assert!(recording.replay(9, Instant::now(), |_| {}).is_err());
}
