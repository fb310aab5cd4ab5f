//! A stage over the real transport, whose server dies after each frame of the model's turn: the
//! run is blocked, and under the same id the same conversation is gone on with. One in which a
//! command ran has failed instead.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentwire::exec::{ExecCall, ExecHandler, Served};
use agentwire::proto::{ShellArgs, ShellResult};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, Roots};
use agentwire_agent::model::Hosted;
use agentwire_agent::session::Store as Sessions;
use agentwire_agent::tool::tool;
use agentwire_agent::{Agent, Model};
use agentwire_workflow::event::Event;
use agentwire_workflow::failure::Code;
use agentwire_workflow::key::Kind;
use agentwire_workflow::record::Status;
use agentwire_workflow::store::{MemoryStore, Store};
use agentwire_workflow::{AutoResume, Control, Engine, Workflow};
use serde_json::{Map, Value, json};

/// The turn, one frame (or one question and its answer) at a time.
const TURN: [&str; 7] = [
    r#"{ text = { text = "one ", delta = 10, tokens = false } }"#,
    r#"{ tokens = 3 }"#,
    r#"{ call = { tool = "note", args = {} } }"#,
    r#"{ text = { text = "two ", delta = 10, tokens = false } }"#,
    r#"{ checkpoint = { used_tokens = 5 } }"#,
    r#"{ text = { text = "three", delta = 10, tokens = false } }"#,
    r#"{ turn_end = { input_tokens = 1, output_tokens = 2 } }"#,
];

/// Where in the turn the tool is called, and where the checkpoint comes.
const CALL: usize = 2;
const CHECKPOINT: usize = 4;

/// What the next server says. A model that finds the note in its history takes no other.
const ANSWER: [&str; 2] = [r#"{ text = "{{conversation}}" }"#, r#"{ turn_end = {} }"#];

async fn server(when: &str, steps: &[&str]) -> (Client, Server) {
    let script = format!("[[rules]]\nwhen = {{ {when} }}\nsteps = [{}]", steps.join(",\n"));
    let script = Script::from_toml(&script).unwrap();
    let server = Server::builder().script(script).bind().await.unwrap();
    let certificate = server.certificate_pem().unwrap().to_owned();
    // The engine's resume is what is shown here, not the client's own.
    let builder = Client::builder().endpoint(server.url()).roots(Roots::OnlyAdded).retries(0);
    (builder.ca_pem(certificate).build().unwrap(), server)
}

fn engine(
    store: &MemoryStore,
    model: impl Model + 'static,
    dir: &Path,
    notes: &Arc<AtomicUsize>,
) -> Engine {
    let notes = notes.clone();
    let note = tool("note", "Takes a note", move |_, _arguments: Map<String, Value>| {
        notes.fetch_add(1, Ordering::SeqCst);
        async { Ok("noted") }
    });
    let agent = Agent::builder(model).model("composer-2").tool(note).sessions(Sessions::new(dir));
    let agent = Arc::new(agent.build().unwrap());
    Engine::builder(Arc::new(store.clone()), agent).auto_resume(AutoResume::never()).build()
}

fn talk() -> Workflow {
    let talk = Workflow::builder("talk").output("said");
    talk.body(|ctx, _inputs: Map<String, Value>| async move {
        let said = ctx.stage("talk").prompt("Count").await?;
        Ok(json!({"said": said.value}))
    })
    .unwrap()
}

/// A shell that only counts its commands.
#[derive(Default)]
struct Counting(AtomicUsize);

impl ExecHandler for Counting {
    fn shell<'a>(&'a self, _: &'a ExecCall, _: ShellArgs) -> Served<'a, ShellResult> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Ok(ShellResult::default()) })
    }
}

/// Waiting does not help where a command ran: the run does not wait, it has failed, and nothing
/// makes it again unasked.
#[tokio::test]
async fn a_stage_whose_command_ran_before_the_break_has_failed_and_is_not_made_again() {
    let command = r#"{ ask = { exec = "shell_args", args = { command = "echo x >> eff.txt" } } }"#;
    let dir = tempfile::tempdir().unwrap();
    let (store, notes) = (MemoryStore::new(), Arc::new(AtomicUsize::new(0)));
    let (client, _server) = server("", &[command, TURN[0], r#""cut""#]).await;
    let effects = Arc::new(Counting::default());
    let model = Hosted::new(client).execs(effects.clone());
    let engine = engine(&store, model, dir.path(), &notes);
    let failed = engine.run_as("r", &talk(), &Map::new(), &Control::new()).await.unwrap();
    assert_eq!(failed.status, Status::Failed, "{:?}", failed.failure);
    let why = failed.failure.unwrap().message;
    assert!(why.contains("what shell_args did before you ask again"), "{why}");
    assert_eq!(effects.0.load(Ordering::SeqCst), 1, "the command's effect");
}

#[tokio::test]
async fn a_conversation_goes_on_after_its_server_died_at_each_frame() {
    let workflow = talk();
    let none = Map::new();
    for frames in 0..TURN.len() {
        let dir = tempfile::tempdir().unwrap();
        let (store, notes) = (MemoryStore::new(), Arc::new(AtomicUsize::new(0)));
        let mut steps = TURN[..frames].to_vec();
        steps.push(r#""cut""#);
        let (client, dying) = server("", &steps).await;
        let first = engine(&store, client, dir.path(), &notes);
        let blocked = first.run_as("r", &workflow, &none, &Control::new()).await.unwrap();
        drop(dying);
        assert_eq!(blocked.status, Status::Blocked, "{frames} frames: {:?}", blocked.failure);
        let sessions = sessions_of(&store);
        assert_eq!(sessions.len(), 1, "{frames} frames: it was on record before the first byte");

        assert_eq!(notes.load(Ordering::SeqCst), usize::from(frames > CALL), "{frames} frames");

        // Another server knows nothing; what the client brings is all there is.
        let next = if frames > CALL { &ANSWER[..] } else { &[TURN[CALL], ANSWER[0], ANSWER[1]] };
        // Without a byte of the answer it is asked again; else it goes on, from the checkpoint where
        // one came. Another request is not answered.
        let action = if frames == 0 { "user" } else { "resume" };
        let used = if frames > CHECKPOINT { 5 } else { 0 };
        let when = format!("action = '{action}', used_tokens = {used}");
        let (client, _server) = server(&when, next).await;
        let second = engine(&store, client, dir.path(), &notes);
        let done = second.resume("r", &workflow, &Control::new()).await.unwrap();
        assert_eq!(done.status, Status::Completed, "{frames} frames: {:?}", done.failure);
        let said = done.outputs.unwrap()["said"].as_str().unwrap().to_owned();
        let conversation = sessions[0]["conversation_id"].as_str().unwrap();
        assert!(said.contains(conversation), "{frames} frames: another conversation: {said}");
        assert_eq!(sessions_of(&store), sessions, "{frames} frames: another session");
        // The note was taken once, and the transcript that was gone on with has it.
        assert_eq!(notes.load(Ordering::SeqCst), 1, "{frames} frames: the tool's effect");
        let log = std::fs::read_to_string(sessions[0]["path"].as_str().unwrap()).unwrap();
        assert_eq!(log.matches("noted").count(), 1, "{frames} frames: {log}");
    }
}

/// A run of one stage that is blocked in the middle of its conversation, and its session's log.
async fn blocked(store: &MemoryStore, dir: &Path) -> std::path::PathBuf {
    let (client, _dying) = server("", &[TURN[0], r#""cut""#]).await;
    let engine = engine(store, client, dir, &Arc::default());
    let blocked = engine.run_as("r", &talk(), &Map::new(), &Control::new()).await.unwrap();
    assert_eq!(blocked.status, Status::Blocked, "{:?}", blocked.failure);
    sessions_of(store)[0]["path"].as_str().unwrap().into()
}

#[tokio::test]
async fn a_stage_whose_session_is_gone_begins_another_and_says_so() {
    let gone: [fn(&Path); 3] = [
        |log| std::fs::remove_file(log).unwrap(),
        // As a process leaves it that died before its first line was written.
        |log| std::fs::write(log, "").unwrap(),
        // Somebody else's under that name.
        |log| {
            std::fs::remove_file(log).unwrap();
            drop(agentwire_agent::session::Session::open(log).unwrap());
        },
    ];
    for (n, lose) in gone.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::new();
        let log = blocked(&store, dir.path()).await;
        lose(&log);
        let left = std::fs::read(&log).ok();
        let (client, _server) = server("", &ANSWER).await;
        let lost = Arc::new(AtomicUsize::new(0));
        let seen = lost.clone();
        let agent = Agent::builder(client).model("composer-2").sessions(Sessions::new(dir.path()));
        let engine = Engine::builder(Arc::new(store.clone()), Arc::new(agent.build().unwrap()))
            .observer(move |event: &Event| {
                let one = matches!(event, Event::SessionLost { name, .. } if name == "talk");
                seen.fetch_add(usize::from(one), Ordering::SeqCst);
            })
            .build();
        let done = engine.resume("r", &talk(), &Control::new()).await.unwrap();
        assert_eq!(done.status, Status::Completed, "{n}: {:?}", done.failure);
        assert_eq!(lost.load(Ordering::SeqCst), 1, "{n}");
        let sessions = sessions_of(&store);
        assert_eq!(sessions.len(), 2, "{n}: the new one is on record too");
        assert_eq!(std::fs::read(&log).ok(), left, "{n}: what is in its place was touched");
    }
}

#[tokio::test]
async fn a_session_that_is_in_use_blocks_the_run_until_it_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let log = blocked(&store, dir.path()).await;
    let elsewhere = agentwire_agent::session::Session::open(&log).unwrap();
    let (client, _server) = server("", &ANSWER).await;
    let engine = engine(&store, client, dir.path(), &Arc::default());
    let waits = engine.resume("r", &talk(), &Control::new()).await.unwrap();
    assert_eq!((waits.status, waits.resumable), (Status::Blocked, true));
    let failure = waits.failure.unwrap();
    assert_eq!(failure.code, Code::SessionInUse);
    assert!(failure.message.contains("in use"), "{failure:?}");
    drop(elsewhere);
    let done = engine.resume("r", &talk(), &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Completed, "{:?}", done.failure);
    assert_eq!(sessions_of(&store).len(), 1, "it is the same conversation");
}

/// The sessions on record.
fn sessions_of(store: &MemoryStore) -> Vec<Value> {
    let records = store.records("r").unwrap();
    let sessions = records.into_iter().filter(|record| record.kind == Kind::Session);
    sessions.map(|record| record.detail.unwrap()["session"].clone()).collect()
}
