//! Many runs at once over a way that fails at random: cut, delayed, re-chunked, reset, half-closed.
//!
//! Every run ends in the right answer or in a typed error, nothing with side effects happens twice,
//! and in the end no task and no socket is left. The seeds are fixed, and what they came to is printed.
//!
//! `AGENTWIRE_CHAOS_RUNS` sets how many run at once (40), `AGENTWIRE_CHAOS_SEEDS` how many seeds are
//! tried (3); `.ci/full.d/chaos` runs the full number.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on; times are printed"
)]

#[path = "chaos/proxy.rs"]
mod proxy;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agentwire::Error;
use agentwire::context::{Tool, ToolResult};
use agentwire::error::Kind;
use agentwire::exec::{ExecCall, ExecHandler, Served};
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::{WriteArgs, WriteResult, WriteSuccess, write_result};
use agentwire::rpc::http2::Http2Config;
use agentwire::run::{Event, Notice, Options};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, PoolOptions, RunBuilder};
use serde_json::json;
use tokio::task::JoinSet;

use proxy::Proxy;

/// Two tool calls, an exec that writes, checkpoints between them, and enough text to be cut in.
///
/// A turn that is resumed goes on from the checkpoint it names. A call that was made since is in its
/// history then, with its result, and is not made again.
const SCRIPT: &str = r#"
delta = 5

[[rules]]
when = { action = "user" }
steps = [
  { text = "I look at what there is for run <{{prompt}}>. " },
  { checkpoint = { used_tokens = 1 } },
  { call = { tool = "note", id = "first", args = { of = "{{prompt}}" } } },
  { text = "It says: {{result}}. " },
  { checkpoint = { used_tokens = 2 } },
  { ask = { exec = "write_args", args = { path = "notes.md", file_text = "hello" } } },
  { text = "It is written. " },
  { checkpoint = { used_tokens = 3 } },
  { call = { tool = "note", id = "second", args = { of = "{{prompt}}" } } },
  { text = "And now: {{result}}." },
  { turn_end = {} },
]

[[rules]]
when = { action = "resume", used_tokens = 0 }
steps = [
  "history",
  { text = "I look at what there is for run <{{prompt}}>. " },
  { checkpoint = { used_tokens = 1 } },
  { call = { tool = "note", id = "first", args = { of = "{{prompt}}" } } },
  { text = "It says: {{result}}. " },
  { checkpoint = { used_tokens = 2 } },
  { ask = { exec = "write_args", args = { path = "notes.md", file_text = "hello" } } },
  { text = "It is written. " },
  { checkpoint = { used_tokens = 3 } },
  { call = { tool = "note", id = "second", args = { of = "{{prompt}}" } } },
  { text = "And now: {{result}}." },
  { turn_end = {} },
]

[[rules]]
when = { action = "resume", used_tokens = 1 }
steps = [
  "history",
  { if = { results = false, then = [ { call = { tool = "note", id = "first", args = { of = "{{prompt}}" } } } ] } },
  { text = "It says: {{result}}. " },
  { checkpoint = { used_tokens = 2 } },
  { ask = { exec = "write_args", args = { path = "notes.md", file_text = "hello" } } },
  { text = "It is written. " },
  { checkpoint = { used_tokens = 3 } },
  { call = { tool = "note", id = "second", args = { of = "{{prompt}}" } } },
  { text = "And now: {{result}}." },
  { turn_end = {} },
]

[[rules]]
when = { action = "resume", used_tokens = 2 }
steps = [
  "history",
  { ask = { exec = "write_args", args = { path = "notes.md", file_text = "hello" } } },
  { text = "It is written. " },
  { checkpoint = { used_tokens = 3 } },
  { call = { tool = "note", id = "second", args = { of = "{{prompt}}" } } },
  { text = "And now: {{result}}." },
  { turn_end = {} },
]

[[rules]]
when = { action = "resume", used_tokens = 3 }
steps = [
  "history",
  { if = { results = false, then = [ { call = { tool = "note", id = "second", args = { of = "{{prompt}}" } } } ] } },
  { text = "And now: {{result}}." },
  { turn_end = {} },
]
"#;

/// What was done to the world, by run: the calls of its tool, and the files written.
#[derive(Default)]
struct World {
    called: Mutex<HashMap<(String, String), u32>>,
    written: Mutex<HashMap<String, u32>>,
}

/// Writes the file of one run.
struct Writes {
    run: String,
    world: Arc<World>,
}

impl ExecHandler for Writes {
    fn serves(&self, case: &Case) -> bool {
        matches!(case, Case::WriteArgs(_))
    }

    fn write<'a>(&'a self, _: &'a ExecCall, args: WriteArgs) -> Served<'a, WriteResult> {
        *self.world.written.lock().unwrap().entry(self.run.clone()).or_default() += 1;
        let success = WriteSuccess { path: args.path, ..WriteSuccess::default() };
        let result = Some(write_result::Result::Success(success));
        Box::pin(std::future::ready(Ok(WriteResult { result })))
    }
}

/// How a run came out.
struct Outcome {
    name: String,
    text: String,
    ended: Result<(), Error>,
    retries: u32,
}

fn answer(run: &str, call: &str) -> String {
    format!("{call} of {run}")
}

fn expected(run: &str) -> String {
    format!(
        "I look at what there is for run <{run}>. It says: {}. It is written. And now: {}.",
        answer(run, "first"),
        answer(run, "second"),
    )
}

/// Runs to the end as a host does: answers tools, takes back what no longer holds.
async fn to_the_end(name: String, run: RunBuilder, world: Arc<World>) -> Outcome {
    let mut run = run.start().await.unwrap();
    let (mut text, mut retries, mut ended) = (String::new(), 0, None);
    while let Some(event) = run.next().await {
        match event {
            Event::Text(delta) => text.push_str(&delta),
            Event::Notice(Notice::Restarted { text: bytes, .. }) => {
                text.truncate(text.len() - bytes);
            }
            Event::Notice(Notice::Retrying { .. }) => retries += 1,
            Event::ToolCalls(calls) => {
                let mut results = Vec::new();
                for call in calls {
                    let key = (name.clone(), call.id.clone());
                    *world.called.lock().unwrap().entry(key).or_default() += 1;
                    results.push(ToolResult::text(&*call.id, &*call.name, answer(&name, &call.id)));
                }
                // Refused when the run ended meanwhile: its last event says how.
                let _late = run.answer_some(results).await;
            }
            Event::Ended(end) => ended = Some(end.map(drop)),
            _ => {}
        }
    }
    let _conversation = run.finish().await;
    Outcome { name, text, ended: ended.expect("a last event"), retries }
}

/// Default retries; what would make a test wait for the sake of politeness is shorter.
fn options() -> Options {
    let mut options = Options::default();
    options.retry.first_delay = Duration::from_millis(5);
    options.tool_batch = Duration::from_millis(2);
    options.first_byte = Duration::from_secs(5);
    options.retry.silence = Duration::from_secs(5);
    options
}

fn client(proxy: &Proxy) -> Client {
    let mut http2 = Http2Config::default();
    http2.ping_interval = Some(Duration::from_secs(2));
    http2.ping_timeout = Duration::from_secs(2);
    http2.settings_timeout = Duration::from_secs(2);
    // Few calls on a connection, so that one fault is not everybody's.
    let mut pool = PoolOptions::default();
    (pool.max_streams, pool.max_connections, pool.http2) = (4, 64, http2);
    Client::builder().endpoint(proxy.url()).pool(pool).run_options(options()).build().unwrap()
}

/// Open sockets of this process, where the system says.
fn sockets() -> Option<usize> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?;
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    Some(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
}

/// Lets other tasks go on until this holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(30), waiting).await.is_ok(),
        "in vain: {what}"
    );
}

async fn storm(seed: u64, runs: usize) {
    let start = Instant::now();
    let script = Script::from_toml(SCRIPT).unwrap();
    let server = Server::builder().script(script).cleartext().bind().await.unwrap();
    let proxy = Proxy::start(server.local_addr(), seed).await;
    let client = client(&proxy);
    let world = Arc::new(World::default());
    let tool = Tool {
        name: "note".to_owned(),
        description: "Makes a note".to_owned(),
        parameters: json!({"type": "object", "properties": {"of": {"type": "string"}}}),
    };
    let mut at_work = JoinSet::new();
    for n in 0..runs {
        let name = format!("{seed}-{n}");
        let writes = Writes { run: name.clone(), world: Arc::clone(&world) };
        let run = client.prompt(&*name).model("m").tool(tool.clone()).execs(Arc::new(writes));
        at_work.spawn(to_the_end(name, run, Arc::clone(&world)));
    }
    let outcomes = tokio::time::timeout(Duration::from_secs(240), at_work.join_all()).await;
    let outcomes = outcomes.unwrap_or_else(|_| panic!("seed {seed}: some runs never end"));

    let mut errors: BTreeMap<String, u32> = BTreeMap::new();
    let (mut complete, mut retries) = (0, 0);
    for Outcome { name, text, ended, retries: tried } in outcomes {
        retries += tried;
        match ended {
            Ok(()) => {
                assert_eq!(text, expected(&name), "seed {seed}");
                complete += 1;
            }
            Err(error) => {
                let typed = matches!(error.kind(), Kind::Network(_) | Kind::Interrupted);
                assert!(typed, "seed {seed}, run {name}: {error:?}");
                assert!(expected(&name).starts_with(&text), "seed {seed}, run {name}: {text}");
                *errors.entry(format!("{:?}", error.kind())).or_default() += 1;
            }
        }
    }
    for (call, times) in world.called.lock().unwrap().iter() {
        assert_eq!(*times, 1, "seed {seed}: {call:?} was called {times} times");
    }
    for (run, times) in world.written.lock().unwrap().iter() {
        assert_eq!(*times, 1, "seed {seed}: {run} wrote {times} times");
    }
    let faults = proxy.faults();
    println!(
        "seed {seed}: {complete} of {runs} runs complete after {retries} retries, the others \
         {errors:?}; faults {faults:?}; {:.1?}",
        start.elapsed()
    );
    assert!(complete * 5 >= runs, "seed {seed}: a storm that nothing survives shows nothing");
    assert!(retries > 0 && faults.values().sum::<u32>() > 0, "seed {seed}: there was no storm");
    drop(client);
    proxy.stop().await;
    // A connection that was cut leaves its runs without their answers; no rule is broken by it.
    let report = server.shutdown().await;
    assert_eq!(report.violation_count, 0, "seed {seed}: {:?}", report.violations);
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_in_a_storm_end_well_or_typed_and_leave_nothing() {
    let runs = number("AGENTWIRE_CHAOS_RUNS", 40);
    let seeds = number("AGENTWIRE_CHAOS_SEEDS", 3);
    let metrics = tokio::runtime::Handle::current().metrics();
    let (tasks, open) = (metrics.num_alive_tasks(), sockets());
    for seed in 1..=seeds as u64 {
        storm(seed, runs).await;
        until("every task ended", || metrics.num_alive_tasks() <= tasks).await;
        until("every socket is closed", || sockets() <= open).await;
    }
}
