//! No token in anything that a run tells or keeps, whatever its provider repeats: the detector of the
//! library, held against this crate (FAULTS M88, M89).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on")]

use std::sync::{Arc, Mutex};

use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::Client;
use agentwire_agent::Agent;
use agentwire_agent::session::Store as Sessions;
use agentwire_workflow::event::Event;
use agentwire_workflow::record::Status;
use agentwire_workflow::store::{SqliteStore, Store};
use agentwire_workflow::{AutoResume, Control, Engine, Workflow};
use serde_json::{Map, Value, json};

#[path = "../../tests/secrets/detector.rs"]
mod detector;

use detector::{ACCESS, Capture, check, check_debug, failures};

async fn agent(steps: &Value, dir: &std::path::Path) -> (Server, Arc<Agent>) {
    let script = json!({"rules": [{"steps": steps}]}).to_string();
    let script = Script::from_json(&script).unwrap();
    let server = Server::builder().cleartext().script(script).bind().await.unwrap();
    let client = Client::builder().endpoint(server.url()).token(ACCESS).retries(0).build().unwrap();
    let agent = Agent::builder(client).model("composer-2").sessions(Sessions::new(dir));
    (server, Arc::new(agent.build().unwrap()))
}

fn talk() -> Workflow {
    let talk = Workflow::builder("talk").output("said");
    talk.body(|ctx, _inputs: Map<String, Value>| async move {
        let said = ctx.stage("talk").prompt("hi").await?;
        Ok(json!({"said": said.value}))
    })
    .unwrap()
}

/// All files below a folder, as text.
fn files(dir: &std::path::Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            found.push((path.display().to_string(), text));
        }
    }
    found
}

#[tokio::test]
async fn m88_m89_no_token_in_anything_that_a_run_says_or_keeps() {
    let capture = Capture::begin();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(dir.path().join("flow.db")).unwrap());
    for (n, steps) in failures(ACCESS).iter().enumerate() {
        let (_server, agent) = agent(steps, &dir.path().join("sessions")).await;
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let engine = Engine::builder(store.clone(), agent)
            .auto_resume(AutoResume::never())
            .observer(move |event: &Event| heard.lock().unwrap().push(format!("{event:?}")))
            .build();
        let (what, id) = (format!("run {n}"), format!("r{n}"));
        let ended = engine.run_as(&id, &talk(), &Map::new(), &Control::new()).await.unwrap();
        assert_ne!(ended.status, Status::Completed, "{what}: {ended:?}");
        check_debug(&what, &ended);
        let failure = ended.failure.unwrap();
        check(&what, &serde_json::to_string(&failure).unwrap());
        if let Some(error) = ended.error {
            check(&what, &error.to_string());
        }
        let events = std::mem::take(&mut *events.lock().unwrap());
        assert!(events.len() > 2, "{what}: {events:?}");
        events.iter().for_each(|event| check(&what, event));
        check_debug(&what, &(store.records(&id).unwrap(), store.root(&id).unwrap()));
        let error = engine.resume(&id, &talk(), &Control::new()).await;
        check_debug(&what, &error);
    }
    let files = files(dir.path());
    for kept in ["flow.db", ".jsonl"] {
        assert!(files.iter().any(|(name, _)| name.ends_with(kept)), "{kept} is looked through");
    }
    for (name, text) in files {
        check(&name, &text);
    }
    capture.check(&["h2", "agentwire::transport"]);
}
