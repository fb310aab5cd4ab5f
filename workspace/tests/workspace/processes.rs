//! Commands really end, with all they started: on time, on abort, and when the run is gone.
#![cfg(target_os = "linux")]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use agentwire::codec::Model;
use agentwire::context::Context;
use agentwire::exec::ExecHandler;
use agentwire::proto::{ShellArgs, shell_result};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::Client;
use agentwire_workspace::{Access, Limits, Workspace};
use serde_json::json;

use crate::support::{Events, call, folder, until};

/// Commands that hold on to life, each in its own way. `MARK` is what their processes are known by.
const STUBBORN: [&str; 7] = [
    // Deaf to the polite signal, as is its child.
    "trap '' TERM HUP INT; (trap '' TERM; sleep MARK) & echo up >&2; sleep MARK; sleep MARK",
    // A child that ignores the end of its parent.
    "nohup sleep MARK >/dev/null 2>&1 & disown; echo up >&2; sleep MARK",
    // A session of its own, deaf.
    "setsid bash -c \"trap '' TERM; sleep MARK; sleep MARK\" & echo up >&2; wait",
    // A session of its own, and nothing of our environment.
    "setsid env -i /bin/sleep MARK & sleep 0.3; echo up >&2; wait",
    // The same with a child of its own, which stays when the parent goes.
    "setsid env -i /bin/sh -c '/bin/sleep MARK & /bin/sleep MARK' & sleep 0.3; echo up >&2; wait",
    // A daemon: its parent has ended, its group and session are its own.
    "setsid bash -c 'setsid sleep MARK >/dev/null 2>&1 </dev/null & exit' & sleep 0.3; echo up >&2; sleep MARK",
    // More and more of them.
    "for i in 1 2 3 4 5 6 7 8; do (trap '' TERM; while :; do sleep MARK & wait; done) & done; echo up >&2; wait",
];

/// Whether a process is there whose command line holds this; dead ones do not count.
fn runs(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(mark))
}

/// A length of sleep that no other test has.
fn mark(test: u32, number: usize) -> String {
    format!("98{:07}{test}{number:02}", std::process::id())
}

fn workspace(folder: &tempfile::TempDir) -> Workspace {
    let mut limits = Limits::default();
    limits.shell_grace = Duration::from_millis(100);
    Workspace::builder(folder.path()).allow(Access::Shell).limits(limits).build().unwrap()
}

fn args(command: &str, mark: &str) -> ShellArgs {
    ShellArgs { command: command.replace("MARK", mark), ..ShellArgs::default() }
}

#[tokio::test]
async fn at_the_time_limit_all_of_it_ends_before_the_answer() {
    let folder = folder();
    let workspace = Arc::new(workspace(&folder));
    let mut all = tokio::task::JoinSet::new();
    for (number, command) in STUBBORN.iter().enumerate() {
        let workspace = Arc::clone(&workspace);
        all.spawn(async move {
            let mark = mark(1, number);
            let args = ShellArgs { timeout: 1_500, ..args(command, &mark) };
            let ended = workspace.shell(&call(), args).await.unwrap().result;
            let Some(shell_result::Result::Failure(failure)) = ended else { panic!("{ended:?}") };
            assert!(failure.aborted && failure.stderr.contains("up"), "{command}: {failure:?}");
            assert!(!runs(&mark), "{command}");
        });
    }
    all.join_all().await;
}

/// An abort of the service drops the future.
#[tokio::test]
async fn when_it_is_dropped_all_of_it_ends() {
    let folder = folder();
    let workspace = workspace(&folder);
    for (number, command) in STUBBORN.iter().enumerate() {
        let mark = mark(2, number);
        let mut sink = Up::default();
        let up = Arc::clone(&sink.up);
        let mut running = Box::pin(async {
            let call = call();
            workspace.shell_stream(&call, args(command, &mark), &mut sink).await
        });
        tokio::select! {
            ended = &mut running => panic!("{command}: {ended:?}"),
            () = up.notified() => {}
        }
        assert!(runs(&mark), "{command}");
        drop(running);
        until(command, || !runs(&mark)).await;
    }
}

/// Tells when the command says that it is up.
#[derive(Default)]
struct Up {
    up: Arc<tokio::sync::Notify>,
    events: Events,
}

impl agentwire::exec::ShellSink for Up {
    fn send(
        &mut self,
        event: agentwire::proto::shell_stream::Event,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        if matches!(event, agentwire::proto::shell_stream::Event::Stderr(_)) {
            self.up.notify_one();
        }
        self.events.send(event)
    }
}

/// A command that ends by itself takes with it what it left in the background.
#[tokio::test]
async fn nothing_is_left_in_the_background() {
    let folder = folder();
    let workspace = workspace(&folder);
    for (number, command) in [
        "sleep MARK & echo started",
        "nohup setsid sleep MARK >/dev/null 2>&1 </dev/null & echo started",
        "(trap '' TERM; setsid sleep MARK) >/dev/null 2>&1 & disown; echo started",
    ]
    .iter()
    .enumerate()
    {
        let mark = mark(3, number);
        let ended = workspace.shell(&call(), args(command, &mark)).await.unwrap().result;
        let Some(shell_result::Result::Success(success)) = ended else { panic!("{ended:?}") };
        assert_eq!(success.stdout, "started\n");
        assert!(!runs(&mark), "{command}");
    }
}

/// For a program that exits without dropping anything.
#[tokio::test]
async fn all_commands_can_be_ended_at_once() {
    let folder = folder();
    let workspace = Arc::new(workspace(&folder));
    let mut commands = tokio::task::JoinSet::new();
    let marks: Vec<_> = (0..3).map(|number| mark(6, number)).collect();
    for (mark, command) in marks.iter().zip(STUBBORN) {
        let (workspace, args) = (Arc::clone(&workspace), args(command, mark));
        commands.spawn(async move { workspace.shell(&call(), args).await.unwrap().result });
    }
    until("all run", || marks.iter().all(|mark| runs(mark))).await;
    workspace.commands().kill();
    while let Some(ended) = commands.join_next().await {
        let Some(shell_result::Result::Failure(failure)) = ended.unwrap() else { panic!() };
        assert_eq!((failure.signal.as_str(), failure.aborted), ("SIGKILL", false));
    }
    assert!(!marks.iter().any(|mark| runs(mark)));
    // The next one is not affected.
    let next = workspace.shell(&call(), args("true", "")).await.unwrap().result;
    assert!(matches!(next, Some(shell_result::Result::Success(_))), "{next:?}");
}

/// They are given time to end when the workspace is gone already; a program need not wait for that.
#[tokio::test]
async fn commands_that_outlive_their_workspace_can_be_ended_at_once() {
    let folder = folder();
    let mut limits = Limits::default();
    limits.shell_grace = Duration::from_secs(3_600);
    let workspace = Workspace::builder(folder.path()).allow(Access::Shell).limits(limits);
    let workspace = Arc::new(workspace.build().unwrap());
    let (commands, mark) = (workspace.commands(), mark(7, 0));
    let (served, args) = (Arc::clone(&workspace), args(STUBBORN[0], &mark));
    let mut run = tokio::task::JoinSet::new();
    run.spawn(async move { served.shell(&call(), args).await.map(drop) });
    until("it runs", || runs(&mark)).await;
    run.shutdown().await;
    assert_eq!(Arc::strong_count(&workspace), 1);
    drop(workspace);
    assert!(runs(&mark));
    commands.kill();
    until("it is gone", || !runs(&mark)).await;
}

/// The runtime that would see to it is gone with the run.
#[test]
fn when_the_runtime_ends_all_of_it_ends() {
    let folder = folder();
    let workspace = Arc::new(workspace(&folder));
    let mark = mark(4, 0);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (shared, command) = (Arc::clone(&workspace), args(STUBBORN[0], &mark));
    runtime.block_on(async {
        tokio::spawn(async move { shared.shell(&call(), command).await.map(drop) });
        until("it runs", || runs(&mark)).await;
    });
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(until("it has ended", || !runs(&mark)));
}

/// Over the wire: the service aborts, and the client lets go of the run.
#[tokio::test]
async fn an_abort_and_the_end_of_a_run_end_it_too() {
    let folder = folder();
    let (aborted, left) = (mark(5, 0), mark(5, 1));
    let shell = |mark: &str, more: serde_json::Value| {
        let mut ask = json!({
            "exec": "shell_args",
            "args": {"command": STUBBORN[0].replace("MARK", mark)},
        });
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "ask": ask })
    };
    let script = json!({"rules": [{"steps": [
        shell(&aborted, json!({"abort_after_ms": 500})),
        {"text": "aborted"},
        shell(&left, json!({})),
    ]}]});
    let script = Script::from_json(&script.to_string()).unwrap();
    let server = Server::builder().script(script).cleartext().bind().await.unwrap();
    let client = Client::builder().endpoint(server.url()).token("any").build().unwrap();
    let handler = Arc::new(workspace(&folder));
    let mut run = client
        .ask(Context::prompt("go"))
        .model(Model::new("m"))
        .execs(handler)
        .start()
        .await
        .unwrap();
    // The second command comes after the first was given up.
    while run.next().await.is_some_and(
        |event| !matches!(event, agentwire::run::Event::Text(text) if text.contains("aborted")),
    ) {}
    until("the second command runs", || runs(&left)).await;
    until("what was aborted has ended", || !runs(&aborted)).await;
    drop(run);
    until("what the run left has ended", || !runs(&left)).await;
    let report = server.shutdown().await;
    assert_eq!(report.violations, []);
}
