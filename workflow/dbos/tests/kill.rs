//! A worker killed with `SIGKILL` at every boundary of a workflow of two stages, and another that
//! goes on: the same run, the same conversation, and nothing that was recorded is done again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]
#![cfg(unix)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use agentwire::server::Script;
use agentwire::server::serve::{Report, Server};
use agentwire_agent::{SessionRef, StageOutcome};
use common::postgres::Cluster;
use common::worker::{End, Job, Point};
use dbos::{Client, ClientConfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The first stage's turn.
const DRAFT: [&str; 6] = [
    r#"{ text = { text = "one ", delta = 10, tokens = false } }"#,
    r#"{ call = { tool = "note", args = {} } }"#,
    r#"{ text = { text = "two ", delta = 10, tokens = false } }"#,
    r#"{ tokens = 3 }"#,
    r#"{ text = { text = "of {{conversation}}", delta = 99, tokens = false } }"#,
    r#"{ turn_end = { input_tokens = 1, output_tokens = 2 } }"#,
];
/// How a model that finds the note in its history ends the turn.
const REST: [&str; 2] = [DRAFT[4], DRAFT[5]];
const VERDICT: [&str; 2] =
    [r#"{ text = { text = "good: {{conversation}}", delta = 99, tokens = false } }"#, DRAFT[5]];

#[test]
#[ignore = "one of the processes of the tests below"]
fn worker() {
    common::worker::work();
}

/// A server whose verdicts are asked for by name, and which says `draft` to everything else.
fn serve(runtime: &Runtime, draft: &[&str]) -> Server {
    let script = format!(
        "[[rules]]\nwhen = {{ prompt = \"judge this\" }}\nsteps = [{}]\n\n[[rules]]\nsteps = [{}]\n",
        VERDICT.join(",\n"),
        draft.join(",\n"),
    );
    let script = Script::from_toml(&script).unwrap();
    runtime.block_on(Server::builder().script(script).bind()).unwrap()
}

/// The run's steps as DBOS has them: name and output.
fn steps(runtime: &Runtime, database: &str, id: &str) -> Vec<(String, Value)> {
    runtime.block_on(async {
        let client = Client::connect(ClientConfig::new(database)).await.unwrap();
        let steps = client.list_workflow_steps(id).await.unwrap();
        client.close().await;
        let output = |json: Option<String>| serde_json::from_str(&json.unwrap()).unwrap();
        steps.into_iter().map(|step| (step.step_name, output(step.output))).collect()
    })
}

fn session_of(step: &(String, Value)) -> SessionRef {
    serde_json::from_value(step.1.clone()).unwrap()
}

fn notes(folder: &Path) -> usize {
    fs::read_to_string(folder.join("ledger")).unwrap_or_default().lines().count()
}

/// The log of a session, without its header: whether the note is in it.
fn has_note(session: &SessionRef) -> bool {
    fs::read_to_string(session.path.as_ref().unwrap()).unwrap().contains("noted")
}

/// What one run left, killed at a point and gone on with.
struct Swept {
    /// Steps when it was killed.
    before: Vec<(String, Value)>,
    /// Requests of the second worker.
    second: Report,
}

/// Kills a worker at the `n`-th passing of a point, lets another go on, and checks what holds
/// wherever it was. `None`: the run ended before that point.
fn killed_at(runtime: &Runtime, database: &str, point: Point, n: u32) -> Option<Swept> {
    let what = format!("{point:?} {n}");
    let folder = tempfile::tempdir().unwrap();
    let id = format!("swept-{what}");
    let server = serve(runtime, &DRAFT);
    let mut job = Job {
        folder: folder.path(),
        database: database.to_owned(),
        server: &server,
        id: &id,
        topic: "tides",
        workflow: "review",
        stop: Some((point, n)),
    };
    if let End::Done(done) = job.run() {
        assert_eq!(notes(folder.path()), 1, "{what}: {done:?}");
        return None;
    }
    let before = steps(runtime, database, &id);
    // The last session that is on record is the one a stage may be in the middle of.
    let noted = before.first().map(session_of).is_some_and(|session| has_note(&session));
    let taken = notes(folder.path());
    assert_eq!(taken, usize::from(noted), "{what}: a note that the log does not know");

    let after = serve(runtime, if noted { &REST } else { &DRAFT });
    (job.server, job.stop) = (&after, None);
    let End::Done(said) = job.run() else { panic!("{what}: the second worker failed") };
    let second = runtime.block_on(after.shutdown());
    let all = steps(runtime, database, &id);
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    let [first, "draft", third, "verdict"] = names.as_slice() else { panic!("{what}: {names:?}") };
    assert!(first.starts_with("draft session ") && third.starts_with("verdict session "));
    assert_eq!(all[..before.len()], before, "{what}: what was recorded became another");

    // Each conversation is the one that was on record before its first byte.
    for (at, text) in [(0, &said[0]), (2, &said[1])] {
        let text = text.as_str().unwrap();
        let session = session_of(&all[at]);
        assert!(text.ends_with(&session.conversation_id), "{what}: {text}: {session:?}");
        let outcome: StageOutcome = serde_json::from_value(all[at + 1].1.clone()).unwrap();
        assert_eq!((outcome.text(), &outcome.session), (text, &session), "{what}");
    }
    assert_eq!(notes(folder.path()), 1, "{what}: the note was taken again");
    assert!(second.violations.is_empty(), "{what}: {:?}", second.violations);
    Some(Swept { before, second })
}

#[test]
fn a_worker_killed_at_every_boundary_is_gone_on_from() {
    let Some(cluster) = Cluster::start() else { return };
    let database = cluster.url("swept");
    let runtime = Runtime::new().unwrap();
    let at = |point, n| killed_at(&runtime, &database, point, n);

    // Steps on record when it is killed, and requests that the next worker makes.
    for (point, n, recorded, requests) in [
        (Point::Open, 1, 0, 2),
        (Point::Ready, 1, 1, 2),
        (Point::Tool, 1, 1, 2),
        // The answer is in the session's log: it is not asked for again.
        (Point::Answered, 1, 1, 1),
        (Point::Between, 1, 2, 1),
        (Point::Open, 2, 2, 1),
        (Point::Ready, 2, 3, 1),
        (Point::Answered, 2, 3, 0),
    ] {
        let swept = at(point, n).unwrap();
        let got = (swept.before.len(), swept.second.requests);
        assert_eq!(got, (recorded, requests), "{point:?} {n}");
    }
    for (point, n) in [(Point::Open, 3), (Point::Between, 2)] {
        assert!(at(point, n).is_none(), "{point:?} {n}: there are two stages");
    }

    // In the middle of the stream, at each event of both turns.
    let mut recorded = BTreeSet::new();
    let mut frames = 0;
    while let Some(swept) = at(Point::Frame, frames + 1) {
        frames += 1;
        recorded.insert(swept.before.len());
        let requests = swept.second.requests;
        assert!((1..=2).contains(&requests) || swept.before.len() == 3, "{frames}: {requests}");
    }
    assert!(frames >= 8, "the turns have more events than {frames}");
    assert_eq!(recorded, BTreeSet::from([1, 3]), "in a stream, its session is what is recorded");
    println!("{frames} events");
}

#[test]
fn stages_side_by_side_keep_their_places_whoever_is_done_first() {
    let Some(cluster) = Cluster::start() else { return };
    let runtime = Runtime::new().unwrap();
    // How often two stages open a session, are ready, get an event and have an answer.
    for (point, n) in [
        (Point::Open, 1),
        (Point::Open, 2),
        (Point::Ready, 1),
        (Point::Ready, 2),
        (Point::Frame, 1),
        (Point::Frame, 4),
        (Point::Answered, 1),
        (Point::Answered, 2),
    ] {
        let what = format!("{point:?} {n}");
        let folder = tempfile::tempdir().unwrap();
        let server = serve(&runtime, &REST);
        let mut job = Job {
            folder: folder.path(),
            database: cluster.url("both"),
            server: &server,
            id: &what,
            topic: "tides",
            workflow: "both",
            stop: Some((point, n)),
        };
        assert!(matches!(job.run(), End::Killed), "{what}");
        let before = steps(&runtime, &job.database, job.id);
        job.stop = None;
        let End::Done(said) = job.run() else { panic!("{what}: the second worker failed") };
        let all = steps(&runtime, &job.database, job.id);
        let names: Vec<_> = all.iter().map(|(name, _)| name.split(' ').next().unwrap()).collect();
        assert_eq!(names, ["prose", "prose", "song", "song"], "{what}: {all:?}");
        assert!(before.iter().all(|step| all.contains(step)), "{what}: a record became another");
        for (at, text) in [(0, &said[0]), (2, &said[1])] {
            let conversation = session_of(&all[at]).conversation_id;
            assert!(text.as_str().unwrap().ends_with(&conversation), "{what}: {text}");
        }
    }
}

#[test]
fn a_changed_prompt_is_refused_and_the_run_waits_for_its_own_code() {
    let Some(cluster) = Cluster::start() else { return };
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&runtime, &DRAFT);
    let mut job = Job {
        folder: folder.path(),
        database: cluster.url("changed"),
        server: &server,
        id: "changed",
        topic: "tides",
        workflow: "review",
        stop: Some((Point::Between, 1)),
    };
    assert!(matches!(job.run(), End::Killed));
    let recorded = steps(&runtime, &job.database, job.id);

    (job.topic, job.stop) = ("winds", None);
    let End::Left(log) = job.run() else { panic!("another prompt's answer was taken") };
    assert_eq!(log.matches("draft session ").count(), 2, "both are named: {log}");
    assert_eq!(steps(&runtime, &job.database, job.id), recorded);

    job.topic = "tides";
    let End::Done(said) = job.run() else { panic!("its own code cannot go on") };
    assert_eq!(said[0], json!(recorded[1].1["outcome"]["text"]));
    assert_eq!(notes(folder.path()), 1);
}

#[test]
fn a_worker_without_the_session_leaves_the_run_to_another() {
    let Some(cluster) = Cluster::start() else { return };
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&runtime, &DRAFT);
    let mut job = Job {
        folder: folder.path(),
        database: cluster.url("away"),
        server: &server,
        id: "away",
        topic: "tides",
        workflow: "review",
        stop: Some((Point::Ready, 1)),
    };
    assert!(matches!(job.run(), End::Killed));
    let sessions = folder.path().join("sessions");
    let away = folder.path().join("away");
    fs::rename(&sessions, &away).unwrap();

    job.stop = None;
    let End::Left(log) = job.run() else { panic!("it went on without its session") };
    assert!(log.contains("is not on this machine"), "{log}");
    assert_eq!(steps(&runtime, &job.database, job.id).len(), 1, "no failure is on record");

    fs::rename(&away, &sessions).unwrap();
    let End::Done(said) = job.run() else { panic!("it does not go on with its session") };
    let session = session_of(&steps(&runtime, &job.database, job.id)[0]);
    assert!(said[0].as_str().unwrap().ends_with(&session.conversation_id));
}
