//! A real process, killed with `kill -9` at every boundary; what it acknowledged is there, and a
//! resume repeats what was under way and nothing else.
#![allow(clippy::disallowed_methods, reason = "real time is what these tests measure")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]
#![cfg(unix)]

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agentwire_workflow::error::StoreError;
use agentwire_workflow::event::Event;
use agentwire_workflow::record::Status;
use agentwire_workflow::store::{Fault, FaultStore, SqliteStore, Store};
use agentwire_workflow::{Control, Engine, Error};
use common::none;
use shapes::{Ledger, STEPS, Shape, assert_counts, recorded};

const ID: &str = "swept";

/// Where the process stops and waits to be killed.
#[derive(Debug, Clone, Copy)]
enum Hold {
    /// Before the n-th write, counted from 1: the step's body is done, its record is not there.
    Write(u64),
    /// In the n-th body, before its effect: what came before is recorded and acknowledged.
    Body(u64),
}

impl Hold {
    fn words(self) -> String {
        match self {
            Self::Write(n) => format!("write {n}"),
            Self::Body(n) => format!("body {n}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (what, n) = text.split_once(' ')?;
        let n = n.parse().ok()?;
        match what {
            "write" => Some(Self::Write(n)),
            "body" => Some(Self::Body(n)),
            _ => None,
        }
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{line}").unwrap();
    out.flush().unwrap();
}

fn hold() -> ! {
    say("hold");
    loop {
        std::thread::park();
    }
}

fn append(ledger: &Path, name: &str) {
    let mut file = fs::OpenOptions::new().append(true).create(true).open(ledger).unwrap();
    // One write of one line: whole or not at all.
    file.write_all(format!("{name}\n").as_bytes()).unwrap();
}

fn read_ledger(path: &Path) -> Ledger {
    let mut ledger = Ledger::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        *ledger.entry(line.to_owned()).or_default() += 1;
    }
    ledger
}

#[test]
#[ignore = "one of the processes of the tests below"]
fn worker() {
    let dir = std::path::PathBuf::from(std::env::var_os("FLOW_DIR").unwrap());
    let shape = Shape::parse(&std::env::var("FLOW_SHAPE").unwrap());
    let stop = std::env::var("FLOW_HOLD").ok().as_deref().and_then(Hold::parse);
    let bodies = AtomicU64::new(0);
    let ledger = dir.join("ledger");
    let touch: shapes::Touch = Arc::new(move |name| {
        let body = bodies.fetch_add(1, Ordering::SeqCst) + 1;
        if matches!(stop, Some(Hold::Body(n)) if body >= n) {
            hold();
        }
        if stop.is_none() && body == 1 {
            // One of two processes that resume: says that it runs, and goes on when told to.
            say("runs");
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        append(&ledger, name);
    });
    let store = SqliteStore::open(dir.join("flow.db")).unwrap();
    let store = FaultStore::new(Arc::new(store), move |write| {
        if matches!(stop, Some(Hold::Write(n)) if write >= n) {
            hold();
        }
        Fault::None
    });
    let engine = Engine::builder(Arc::new(store), Arc::new(Shape::runner(touch.clone())))
        .observer(|event: &Event| {
            if let Event::StepEnded { done: true, name, .. } = event {
                say(&format!("ack {name}"));
            }
        })
        .build();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let workflow = shape.workflow(touch);
    match runtime.block_on(engine.run_as(ID, &workflow, &none(), &Control::new())) {
        Ok(outcome) => say(&format!("ended {}", outcome.status.as_str())),
        Err(Error::Store(StoreError::Busy(_))) => say("busy"),
        Err(error) => say(&format!("failed {error}")),
    }
}

/// Starts a worker.
fn start(dir: &Path, shape: Shape, hold: Option<Hold>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "worker", "--ignored", "--nocapture"])
        .env("FLOW_DIR", dir)
        .env("FLOW_SHAPE", format!("{shape:?}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    match hold {
        Some(hold) => command.env("FLOW_HOLD", hold.words()),
        None => command.env_remove("FLOW_HOLD"),
    };
    command.spawn().unwrap()
}

/// The lines a worker says, without the harness's own.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).filter_map(|line| line.strip_prefix('@').map(str::to_owned))
}

/// Runs a worker up to its hold and kills it. Gives what it acknowledged; `None`: it ended first.
fn killed_at(dir: &Path, shape: Shape, at: Hold) -> Option<Vec<String>> {
    let mut child = start(dir, shape, Some(at));
    let mut acknowledged = Vec::new();
    let mut held = false;
    for line in lines(&mut child) {
        if line == "hold" {
            held = true;
            break;
        }
        acknowledged.extend(line.strip_prefix("ack ").map(str::to_owned));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    held.then_some(acknowledged)
}

/// Kills at every boundary of one kind; gives the number of them.
fn sweep(shape: Shape, boundary: impl Fn(u64) -> Hold) -> u64 {
    for n in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let at = boundary(n);
        let what = format!("{shape:?} {at:?}");
        let Some(acknowledged) = killed_at(dir.path(), shape, at) else {
            return n - 1;
        };
        let path = dir.path().join("ledger");
        let before = read_ledger(&path);
        let store = Arc::new(SqliteStore::open(dir.path().join("flow.db")).unwrap());
        let there = recorded(&store.records(ID).unwrap());
        for name in &acknowledged {
            assert!(there.contains(name) || *name == "workflow:kid", "{what}: {name} was lost");
        }
        let ledger = path.clone();
        let touch: shapes::Touch = Arc::new(move |name| append(&ledger, name));
        let engine = Engine::builder(store.clone(), Arc::new(Shape::runner(touch.clone()))).build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let workflow = shape.workflow(touch);
        let outcome =
            runtime.block_on(engine.run_as(ID, &workflow, &none(), &Control::new())).unwrap();
        assert_eq!(outcome.status, Status::Completed, "{what}");
        assert!(outcome.report.is_clean(), "{what}: {:?}", outcome.report);
        assert_eq!(outcome.outputs.unwrap()["out"], shape.expected(), "{what}");
        assert_counts(&before, &there, &read_ledger(&path), &what);
        assert_eq!(store.root(ID).unwrap().unwrap().status, Status::Completed);
    }
    unreachable!()
}

#[test]
fn killed_before_every_record_of_a_run() {
    // Ten tools with one write, ten stages with two (session, result), and the end.
    assert_eq!(sweep(Shape::Root, Hold::Write), 31);
    assert_eq!(sweep(Shape::Root, Hold::Body), STEPS as u64);
}

#[test]
fn killed_before_every_record_of_a_child() {
    assert_eq!(sweep(Shape::Child, Hold::Write), 32);
    assert_eq!(sweep(Shape::Child, Hold::Body), STEPS as u64);
}

#[test]
fn killed_before_every_record_of_parallel_groups() {
    assert_eq!(sweep(Shape::Parallel, Hold::Write), 41);
    assert_eq!(sweep(Shape::Parallel, Hold::Body), STEPS as u64);
}

#[test]
fn of_two_processes_that_resume_one_run_exactly_one_runs_it() {
    for round in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        killed_at(dir.path(), Shape::Root, Hold::Body(6 + round)).unwrap();
        let before = read_ledger(&dir.path().join("ledger"));
        let there = {
            let store = SqliteStore::open(dir.path().join("flow.db")).unwrap();
            recorded(&store.records(ID).unwrap())
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut workers: Vec<Child> =
            (0..2).map(|_| start(dir.path(), Shape::Root, None)).collect();
        let (sender, first) = std::sync::mpsc::channel();
        let readers: Vec<_> = workers
            .iter_mut()
            .enumerate()
            .map(|(index, worker)| {
                let (lines, said, sender) = (lines(worker), said.clone(), sender.clone());
                std::thread::spawn(move || {
                    for line in lines.filter(|line| !line.starts_with("ack ")) {
                        said.lock().unwrap().push((index, line.clone()));
                        sender.send((index, line)).unwrap();
                    }
                })
            })
            .collect();
        drop(sender);
        let mut first: Vec<_> =
            (0..2).map(|_| first.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
        first.sort_by_key(|(_, line)| line.clone());
        assert_eq!((first[0].1.as_str(), first[1].1.as_str()), ("busy", "runs"));
        let winner = first[1].0;
        workers[winner].stdin.take().unwrap().write_all(b"go\n").unwrap();
        for worker in &mut workers {
            worker.wait().unwrap();
        }
        for reader in readers {
            reader.join().unwrap();
        }
        assert!(said.lock().unwrap().contains(&(winner, "ended completed".into())));
        assert_counts(&before, &there, &read_ledger(&dir.path().join("ledger")), "two resumes");
    }
}

#[test]
fn a_resume_on_the_same_host_waits_for_nothing() {
    let mut worst = Duration::ZERO;
    for n in [2, 11, 20] {
        let dir = tempfile::tempdir().unwrap();
        killed_at(dir.path(), Shape::Root, Hold::Body(n)).unwrap();
        let killed = Instant::now();
        let resumed = Arc::new(Mutex::new(None));
        let seen = resumed.clone();
        let touch: shapes::Touch = Arc::new(move |_| {
            seen.lock().unwrap().get_or_insert_with(|| killed.elapsed());
        });
        let store = Arc::new(SqliteStore::open(dir.path().join("flow.db")).unwrap());
        let engine = Engine::builder(store, Arc::new(Shape::runner(touch.clone()))).build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let workflow = Shape::Root.workflow(touch);
        runtime.block_on(engine.run_as(ID, &workflow, &none(), &Control::new())).unwrap();
        worst = worst.max(resumed.lock().unwrap().unwrap());
    }
    println!("from the kill to the next body, worst of 3: {worst:?}");
    // The target is 0.1 s; ten times that on a busy machine.
    assert!(worst < Duration::from_secs(1), "{worst:?}");
}
