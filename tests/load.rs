//! Many runs in one process against the local server (FAULTS M72, M73).
//!
//! `AGENTWIRE_RUNS` sets how many run one after the other; `.ci/full.d/load` runs the full number.

#![cfg(all(feature = "client", feature = "server"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on; times are printed"
)]

use std::time::{Duration, Instant};

use agentwire::context::{Tool, ToolResult};
use agentwire::run::{Event, Options};
use agentwire::server::{Script, serve::Server};
use agentwire::transport::{Client, Run};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// One test at a time: what the process holds in memory is asked for.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Resident memory of this process in bytes, where the system says.
fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4_096)
}

fn shown(bytes: Option<usize>) -> String {
    bytes.map_or_else(|| "an unknown number of bytes".to_owned(), |bytes| format!("{bytes} bytes"))
}

/// One text, one tool call that is waited for, more text.
const SCRIPT: &str = r#"
[[rules]]
when = { tools = true }
steps = [
  { text = "Let me look at what there is. " },
  { call = { tool = "ls", args = { path = "." } } },
  { text = "{{results}}" },
  { turn_end = {} },
]
[[rules]]
steps = [{ text = "Hello." }, { turn_end = {} }]
"#;

async fn server_and_client() -> (Server, Client) {
    let script = Script::from_toml(SCRIPT).unwrap();
    let server = Server::builder().script(script).cleartext().bind().await.unwrap();
    let client = Client::builder().endpoint(server.url()).token("tok").build().unwrap();
    (server, client)
}

/// Reads until the tools are asked for, with all of the run open.
async fn until_call(run: &mut Run) -> ToolResult {
    loop {
        match run.next().await {
            Some(Event::ToolCalls(calls)) => {
                let call = &calls[0];
                return ToolResult::text(&*call.id, &*call.name, "one file");
            }
            Some(Event::Ended(ended)) => panic!("{ended:?}"),
            Some(_) => {}
            None => panic!("no end"),
        }
    }
}

async fn rest(mut run: Run) -> String {
    let mut text = String::new();
    while let Some(event) = run.next().await {
        match event {
            Event::Text(delta) => text.push_str(&delta),
            Event::Ended(ended) => {
                assert!(ended.is_ok(), "{ended:?}");
            }
            _ => {}
        }
    }
    text
}

/// Waits for what other tasks bring about, with a limit.
async fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    let waiting = async {
        while !true_now() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(10), waiting).await.is_ok(),
        "in vain: {what}"
    );
}

/// All of them are open at the same time: none gets its answer before the last has asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m72_a_thousand_runs_at_once_all_finish() {
    let _alone = ALONE.lock().await;
    let runs = 1_000;
    let (server, client) = server_and_client().await;
    // Everything that is made once.
    client.prewarm().await.unwrap();
    rest(client.prompt("warm").model("m").start().await.unwrap()).await;
    let (start, before) = (Instant::now(), resident());
    let tool = Tool {
        name: "ls".to_owned(),
        description: "List a folder".to_owned(),
        parameters: json!({"type": "object"}),
    };
    // A tool's answer is not due while the other runs start.
    let mut options = Options::default();
    options.paused_turn = Duration::from_secs(3_600);
    let mut starting = JoinSet::new();
    for n in 0..runs {
        let prompt = client.prompt(format!("run {n}")).model("m").tool(tool.clone());
        let prompt = prompt.options(options.clone());
        starting.spawn(async move {
            let mut run = prompt.start().await.unwrap();
            let result = until_call(&mut run).await;
            (run, result)
        });
    }
    let open = starting.join_all().await;
    assert_eq!(open.len(), runs);
    let (opened, peak) = (start.elapsed(), resident());
    let mut finishing = JoinSet::new();
    for (run, result) in open {
        finishing.spawn(async move {
            run.handle().answer(vec![result]).await.unwrap();
            rest(run).await
        });
    }
    for text in finishing.join_all().await {
        assert!(text.contains("one file"), "{text}");
    }
    let per_run = before.zip(peak).map(|(before, peak)| peak.saturating_sub(before) / runs);
    println!(
        "{runs} runs open at once after {opened:.1?}, all done after {:.1?}; memory of a run, both \
         sides: {}",
        start.elapsed(),
        shown(per_run)
    );
    // Windows are promises, not memory: a run that waits holds little.
    assert!(per_run.is_none_or(|bytes| bytes < 512 << 10), "{per_run:?}");
    drop(client);
    assert_eq!(server.shutdown().await.violation_count, 0);
}

#[tokio::test]
async fn m73_run_after_run_leaves_nothing_behind() {
    let _alone = ALONE.lock().await;
    let asked = std::env::var("AGENTWIRE_RUNS").ok();
    let runs: usize = asked.map_or(300, |runs| runs.parse().unwrap());
    let (server, client) = server_and_client().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let mut tasks = 0;
    let mut after_a_third = None;
    for n in 0..runs {
        rest(client.prompt(format!("run {n}")).model("m").start().await.unwrap()).await;
        if n == runs / 3 {
            until("the runs' tasks ended", || {
                tasks = metrics.num_alive_tasks();
                tasks <= 8
            })
            .await;
            after_a_third = resident();
        }
    }
    until("the runs' tasks ended", || metrics.num_alive_tasks() <= tasks).await;
    let grown = after_a_third.zip(resident()).map(|(then, now)| now.saturating_sub(then));
    let by = shown(grown);
    println!("{runs} runs one after the other; grown by {by} in the last two thirds");
    assert!(grown.is_none_or(|bytes| bytes < 8 << 20), "{grown:?}");
    drop(client);
    assert_eq!(server.shutdown().await.requests, runs as u64);
}
