//! A run over more than one stream: what is about sockets, tasks and files of it. The rules are in
//! `tests/turn/`.

use std::sync::Arc;
use std::time::Duration;

use agentwire::context::ToolResult;
use agentwire::conversation::{Conversation, ConversationStore, DiskStore};
use agentwire::error::{Error, Kind};
use agentwire::proto::agent_client_message::Message as FromClient;
use agentwire::proto::conversation_action::Action;
use agentwire::run::{Ended, Event, Notice};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, Run};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::clock::Links;
use super::peer::Call;

/// Text and notices of a run up to its end.
async fn read(run: &mut Run) -> (String, Vec<Notice>, Ended) {
    let (mut text, mut notices) = (String::new(), Vec::new());
    while let Some(event) = run.next().await {
        match event {
            Event::Text(delta) => text.push_str(&delta),
            Event::Notice(notice) => notices.push(notice),
            Event::Ended(ended) => return (text, notices, ended),
            _ => {}
        }
    }
    panic!("the run ended without saying so")
}

async fn serve(addr: Option<std::net::SocketAddr>, steps: &str) -> Server {
    let script = Script::from_json(&format!(r#"{{"rules": [{steps}]}}"#)).unwrap();
    let start = || Server::builder().script(script.clone()).cleartext();
    let Some(addr) = addr else { return start().bind().await.unwrap() };
    // The one before it lets go of its address when its task has ended.
    let bound = async {
        loop {
            match start().addr(addr).bind().await {
                Ok(server) => return server,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), bound).await.expect("the address is free")
}

const FIRST: &str = r#"{"when": {"action": "user"}, "steps":
    [{"text": "One, "}, {"checkpoint": {"used_tokens": 5}}, {"text": "two, "}, "silence"]}"#;
const THEN: &str = r#"{"when": {"action": "resume", "used_tokens": 5}, "steps":
    ["history", {"text": "two, three."}, {"turn_end": {}}]}"#;

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_and_started_again_goes_on() {
    let server = serve(None, FIRST).await;
    let addr = server.local_addr();
    let client = Client::builder().endpoint(server.url()).build().unwrap();
    let mut run = client.prompt("count").model("composer-2").start().await.unwrap();
    let mut text = String::new();
    while text != "One, two, " {
        match run.next().await {
            Some(Event::Text(delta)) => text.push_str(&delta),
            Some(Event::Ended(end)) => panic!("{end:?}"),
            _ => {}
        }
    }
    drop(server);
    let again = serve(Some(addr), THEN).await;
    let (rest, notices, ended) = read(&mut run).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(rest, "three.", "nothing is said twice");
    assert!(matches!(notices[..], [Notice::Retrying { .. }, ..]), "{notices:?}");
    let (_, conversation) = run.finish().await;
    assert!(conversation.id().is_some());
    let report = again.shutdown().await;
    assert_eq!((report.violation_count, report.unanswered), (0, 0), "{report:?}");
}

/// A client over links in memory, on the virtual clock, and the calls that arrive.
fn linked() -> (Client, mpsc::UnboundedReceiver<Call>) {
    let (give, calls) = mpsc::unbounded_channel();
    (Client::builder().connector(Links(give, 2 << 20)).build().unwrap(), calls)
}

async fn wait_for(run: &mut Run, wanted: impl Fn(&Event) -> bool) {
    while let Some(event) = run.next().await {
        if wanted(&event) {
            return;
        }
        assert!(!matches!(event, Event::Ended(_)), "{event:?}");
    }
}

async fn action(call: &mut Call) -> Option<Action> {
    match call.next().await {
        Some(FromClient::RunRequest(request)) => request.action.and_then(|action| action.action),
        other => panic!("a run request was expected: {}", other.is_some()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_in_back_off_ends_the_run_at_once() {
    let (client, mut calls) = linked();
    let mut run = client.prompt("x").model("m").start().await.unwrap();
    let mut call = calls.recv().await.unwrap();
    call.next().await;
    call.reset(2);
    wait_for(&mut run, |event| matches!(event, Event::Notice(Notice::Retrying { .. }))).await;
    let start = Instant::now();
    run.cancel();
    let (_, _, ended) = read(&mut run).await;
    assert_eq!(ended.unwrap_err().kind(), &Kind::Cancelled);
    assert!(start.elapsed() < Duration::from_millis(50));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(calls.try_recv().is_err(), "nothing is asked after that");
}

#[tokio::test(start_paused = true)]
async fn a_pause_beyond_its_limit_goes_on_when_the_answer_comes() {
    let (client, mut calls) = linked();
    let mut run = client.prompt("x").model("m").start().await.unwrap();
    let mut call = calls.recv().await.unwrap();
    call.next().await;
    call.accept();
    call.tool_call(1, "c1", "ls").await;
    wait_for(&mut run, |event| matches!(event, Event::ToolCalls(_))).await;
    let start = Instant::now();
    wait_for(&mut run, |event| *event == Event::Notice(Notice::Parked)).await;
    assert_eq!(start.elapsed().as_secs(), 300);
    while call.next().await.is_some() {}
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    run.answer(vec![ToolResult::text("c1", "ls", "a.rs")]).await.unwrap();
    let mut call = calls.recv().await.unwrap();
    assert!(matches!(action(&mut call).await, Some(Action::ResumeAction(_))));
    let talking = tokio::spawn(async move { call.complete("It has a.rs.").await });
    let (text, notices, ended) = read(&mut run).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!((text.as_str(), &notices[..]), ("It has a.rs.", &[Notice::Resuming][..]));
    talking.await.unwrap();
}

/// The consumer is behind when the stream breaks: what it has not read is not lost, and the run goes
/// on when it reads again.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_behind_gets_everything_over_both_streams() {
    let (client, mut calls) = linked();
    let mut run = client.prompt("x").model("m").start().await.unwrap();
    let piece = "x".repeat(64 << 10);
    let mut call = calls.recv().await.unwrap();
    call.next().await;
    call.accept();
    let said = piece.clone();
    let talking = tokio::spawn(async move {
        for _ in 0..60 {
            call.text(&said).await;
        }
        call.reset(2);
        let mut call = calls.recv().await.unwrap();
        call.next().await;
        call.accept();
        for _ in 0..100 {
            call.text(&said).await;
        }
        call.turn_ended().await;
        call.end("{}").await;
        call.linger().await;
        calls
    });
    tokio::time::sleep(Duration::from_secs(100)).await;
    let (text, notices, ended) = read(&mut run).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text.len(), 100 * piece.len());
    assert!(matches!(notices[..], [Notice::Retrying { .. }]), "{notices:?}");
    drop(talking.await.unwrap());
}

#[tokio::test]
async fn a_restarted_process_goes_on_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(DiskStore::new(folder.path()));
    let rules = r#"{"when": {"action": "user"}, "steps":
            [{"text": "Look. "}, {"checkpoint": {}}, {"call": {"tool": "ls", "id": "c1"}}, {"turn_end": {}}]},
        {"when": {"action": "resume"}, "steps":
            ["history", {"text": "It has {{result}}."}, {"turn_end": {}}]}"#;
    let server = serve(None, rules).await;
    let client = || Client::builder().endpoint(server.url()).build().unwrap();
    let ask = |client: &Client, conversation: Conversation| {
        let run = client.prompt("what is here?").model("composer-2").conversation(conversation);
        run.store(Arc::clone(&store) as Arc<dyn ConversationStore>).start()
    };
    let mut first = ask(&client(), Conversation::with_id("conv")).await.unwrap();
    wait_for(&mut first, |event| matches!(event, Event::ToolCalls(_))).await;
    // The process ends. Nobody said stop.
    drop(first);
    let open = |store: &DiskStore| {
        let kept = store.load("conv").unwrap();
        kept.and_then(|kept| kept.open_turn().map(|open| open.pending().len()))
    };
    super::peer::until("the turn is on the disk", || open(&store) == Some(1)).await;

    let kept = store.load("conv").unwrap().unwrap();
    let mut second = ask(&client(), kept).await.unwrap();
    wait_for(&mut second, |event| matches!(event, Event::ToolCalls(_))).await;
    second.answer(vec![ToolResult::text("c1", "ls", "a.rs")]).await.unwrap();
    let (text, _, ended) = read(&mut second).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(text, "It has a.rs.");
    assert!(second.finish().await.0.is_ok());
    assert_eq!(open(&store), None, "the turn is complete, and that is kept");
    assert_eq!(store.list().unwrap(), ["conv"]);
}

struct Full;

impl ConversationStore for Full {
    fn load(&self, _: &str) -> agentwire::Result<Option<Conversation>> {
        Ok(None)
    }
    fn save(&self, _: &Conversation) -> agentwire::Result<()> {
        Err(Error::invalid("the disk is full"))
    }
    fn remove(&self, _: &str) -> agentwire::Result<()> {
        Ok(())
    }
    fn list(&self) -> agentwire::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_store_that_fails_is_a_notice() {
    let rules = r#"{"steps": [{"checkpoint": {}}, {"call": {"tool": "ls", "id": "c1"}}, {"turn_end": {}}]}"#;
    let server = serve(None, rules).await;
    let client = Client::builder().endpoint(server.url()).build().unwrap();
    let run = client.prompt("x").model("composer-2").store(Arc::new(Full));
    let mut run = run.start().await.unwrap();
    let not_kept = Event::Notice(Notice::NotKept { why: "the disk is full".into() });
    let (mut told, mut asked) = (false, false);
    while !(told && asked) {
        let event = run.next().await.expect("the run goes on");
        told |= event == not_kept;
        asked |= matches!(event, Event::ToolCalls(_));
    }
    run.answer(vec![ToolResult::text("c1", "ls", "x")]).await.unwrap();
    assert!(read(&mut run).await.2.is_ok());
}
