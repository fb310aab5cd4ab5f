//! Runs over real sockets: streaming, answering tools, every way to end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agentwire::context::{Context, Tool, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::error::{Blame, Kind, NetworkFault};
use agentwire::proto::agent_client_message::Message as FromClient;
use agentwire::proto::conversation_action::Action;
use agentwire::proto::exec_client_control_message::Message as Control;
use agentwire::rpc::http2::{Http2Config, LostCause};
use agentwire::run::{Ended, Event, EventRef, Options};
use agentwire::transport::{Client, PoolOptions, Roots, Run, RunBuilder};
use agentwire::{Error, codec::RunRequest};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_stream::StreamExt;

use super::peer::{Authority, Call, Peer, Seen, text_envelope, until};

/// One attempt, whatever comes of it.
fn client(peer: &Peer) -> Client {
    Client::builder().endpoint(peer.url()).token("tok-123456789").retries(0).build().unwrap()
}

fn hello(client: &Client) -> RunBuilder {
    client.prompt("hello").model("composer-2")
}

/// Reads a run to its end: the text, and how it ended.
async fn read(run: &mut Run) -> (String, Ended) {
    let mut text = String::new();
    while let Some(event) = run.next().await {
        match event {
            Event::Text(delta) => text.push_str(&delta),
            Event::Ended(ended) => return (text, ended),
            _ => {}
        }
    }
    panic!("the run ended without saying so")
}

async fn failure(run: &mut Run) -> Error {
    read(run).await.1.expect_err("the run fails")
}

async fn say_hello(mut call: Call) {
    assert!(matches!(call.next().await, Some(FromClient::RunRequest(_))));
    call.complete("hello").await;
}

#[tokio::test]
async fn a_completion_streams_over_tls_and_in_clear_text() {
    let authority = Authority::new("good");
    let tls = Peer::tls(authority.server("localhost", &["h2"], |_| {}), say_hello).await;
    let clear = Peer::cleartext(say_hello).await;
    let over_tls = Client::builder()
        .endpoint(tls.tls_url())
        .roots(Roots::OnlyAdded)
        .ca_pem(authority.pem())
        .build()
        .unwrap();
    for client in [over_tls, client(&clear)] {
        let mut run = hello(&client).start().await.unwrap();
        let (text, ended) = read(&mut run).await;
        assert_eq!(text, "hello");
        assert!(ended.is_ok(), "{ended:?}");
        assert!(run.next().await.is_none());
        let (ended, conversation) = run.finish().await;
        assert!(ended.is_ok());
        // The conversation goes on: it has the blobs of the first turn.
        let next = hello(&client).conversation(conversation).start().await.unwrap();
        assert!(next.finish().await.0.is_ok());
    }
    assert_eq!((tls.connections(), clear.connections()), (1, 1));
}

/// The names of a part of `headers.json` that are missing or have another value. The request id is
/// chosen for each call.
fn differing(headers: &http::HeaderMap, expected: &serde_json::Map<String, Value>) -> Vec<String> {
    let as_expected = |(name, value): &(&String, &Value)| {
        let given: Vec<_> = headers.get_all(*name).iter().collect();
        match name.as_str() {
            "x-request-id" => given.len() == 1 && !given[0].is_empty(),
            _ => given == [value.as_str().unwrap()],
        }
    };
    expected.iter().filter(|header| !as_expected(header)).map(|(name, _)| name.clone()).collect()
}

/// The headers of the reference are in ours, and one byte more or less in any would be noticed.
pub(crate) fn contains(headers: &http::HeaderMap, part: &str) {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vectors");
    let folder = std::env::var("AGENTWIRE_VECTORS").unwrap_or_else(|_| ours.to_owned());
    let file = std::fs::read(std::path::Path::new(&folder).join("headers.json")).unwrap();
    let vectors: Value = serde_json::from_slice(&file).unwrap();
    let expected = vectors[part].as_object().unwrap();
    assert_eq!(differing(headers, expected), [""; 0]);
    for name in expected.keys().filter(|name| *name != "x-request-id") {
        let mut changed = expected.clone();
        changed[name] = format!("{}x", changed[name].as_str().unwrap()).into();
        assert_eq!(differing(headers, &changed), [name.as_str()]);
        let value = changed.remove(name).unwrap();
        changed.insert(format!("{name}x"), value);
        assert_eq!(differing(headers, &changed), [format!("{name}x")]);
    }
}

#[tokio::test]
async fn the_request_has_the_protocols_headers() {
    let seen: Seen<http::request::Parts> = Arc::default();
    let keep = Arc::clone(&seen);
    let peer = Peer::cleartext(move |mut call| {
        *keep.lock().unwrap() = Some(call.head.clone());
        async move { call.complete("x").await }
    })
    .await;
    let client = Client::builder()
        .endpoint(peer.url())
        .token("tok")
        .header("X-Team", "blue")
        .header("TE", "mine")
        .build()
        .unwrap();
    let run = hello(&client).start().await.unwrap();
    let id = run.request_id().to_owned();
    assert!(run.finish().await.0.is_ok());
    let head = seen.lock().unwrap().take().unwrap();
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/agent.v1.AgentService/Run"));
    assert_eq!(head.headers["x-request-id"], id.as_str());
    contains(&head.headers, "stream");
    assert_eq!(head.headers["connect-accept-encoding"], "gzip");
    assert_eq!(head.headers["x-team"], "blue");
}

#[tokio::test]
async fn one_connection_carries_many_runs_at_once() {
    let peer = Peer::cleartext(say_hello).await;
    let client = client(&peer);
    let mut runs = Vec::new();
    for _ in 0..60 {
        runs.push(hello(&client).start().await.unwrap());
    }
    for run in &mut runs {
        assert_eq!(read(run).await.0, "hello");
    }
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn a_second_connection_is_made_when_the_peer_takes_no_more_streams() {
    let gate = Arc::new(Notify::new());
    let waiting = Arc::clone(&gate);
    let mut http2 = Http2Config::server();
    http2.max_concurrent_streams = 4;
    let peer = Peer::listen(None, http2, move |mut call| {
        let gate = Arc::clone(&waiting);
        async move {
            call.next().await;
            gate.notified().await;
            call.complete("done").await;
        }
    })
    .await;
    let client = client(&peer);
    // From cold: the limit is not known yet when they start.
    let mut runs = Vec::new();
    for _ in 0..10 {
        runs.push(hello(&client).start().await.unwrap());
    }
    until("three connections", || peer.connections() == 3).await;
    for _ in 0..10 {
        gate.notify_one();
    }
    for run in &mut runs {
        let answer = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                gate.notify_one();
                tokio::select! {
                    (text, _) = read(run) => break text,
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
        });
        assert_eq!(answer.await.unwrap(), "done");
    }
}

async fn ask_for_two_tools(mut call: Call) {
    call.next().await;
    call.accept();
    call.text("let me see").await;
    call.tool_call(1, "call_a", "ls").await;
    call.tool_call(2, "call_b", "cat").await;
    let mut results = Vec::new();
    let mut closed = Vec::new();
    while closed.len() < 2 {
        match call.next().await {
            Some(FromClient::ExecClientMessage(result)) => {
                results.push((result.id, result.exec_id));
            }
            Some(FromClient::ExecClientControlMessage(control)) => match control.message {
                Some(Control::StreamClose(close)) => closed.push(close.id),
                Some(Control::Heartbeat(_)) => {}
                _ => panic!("neither a close nor a heartbeat"),
            },
            _ => panic!("the answers were awaited"),
        }
    }
    assert_eq!(results, [(1, "exec-1".to_owned()), (2, "exec-2".to_owned())]);
    assert_eq!(closed, [1, 2]);
    call.text(", done").await;
    call.turn_ended().await;
    call.end("{}").await;
    call.linger().await;
}

#[tokio::test]
async fn a_turn_with_tools_is_answered_on_the_same_stream() {
    let peer = Peer::cleartext(ask_for_two_tools).await;
    let tool = |name: &str| Tool {
        name: name.to_owned(),
        description: String::new(),
        parameters: json!({"type": "object"}),
    };
    let run = hello(&client(&peer)).tool(tool("ls")).tool(tool("cat")).start().await.unwrap();
    let answers = run.handle();
    let mut text = String::new();
    // The owned stream, as an embedder would use it.
    let mut events = run;
    while let Some(event) = StreamExt::next(&mut events).await {
        match event {
            Event::Text(delta) => text.push_str(&delta),
            Event::ToolCalls(calls) => {
                let unknown = vec![ToolResult::text("call_z", "ls", "?")];
                let error = answers.answer_some(unknown).await.unwrap_err();
                assert_eq!(error.kind(), &Kind::InvalidRequest, "{error}");
                let results = calls
                    .iter()
                    .map(|call| ToolResult::text(&*call.id, &*call.name, "content"))
                    .collect();
                answers.answer(results).await.unwrap();
            }
            Event::Ended(ended) => assert!(ended.is_ok(), "{ended:?}"),
            _ => {}
        }
    }
    assert_eq!(text, "let me see, done");
    let late = answers.answer(vec![ToolResult::text("call_a", "ls", "?")]).await.unwrap_err();
    assert!(late.message().contains("over"), "{late}");
}

/// A peer that streams until the client stops it, and reports what it heard last.
async fn until_cancelled() -> (Peer, mpsc::UnboundedReceiver<(bool, Option<LostCause>)>) {
    let (tell, heard) = mpsc::unbounded_channel();
    let peer = Peer::cleartext(move |mut call| {
        let tell = tell.clone();
        async move {
            call.next().await;
            call.accept();
            call.text("going on").await;
            let mut cancelled = false;
            while let Some(message) = call.next().await {
                if let FromClient::ConversationAction(action) = message {
                    cancelled = matches!(action.action, Some(Action::CancelAction(_)));
                }
            }
            let end = call.ended.take().and_then(Result::err).map(|lost| lost.cause());
            let _ = tell.send((cancelled, end));
        }
    })
    .await;
    (peer, heard)
}

const CANCELLED: (bool, Option<LostCause>) =
    (true, Some(LostCause::Reset { code: 8, local: false }));

#[tokio::test]
async fn cancel_tells_the_service_first_and_resets_then() {
    let (peer, mut heard) = until_cancelled().await;
    let client = client(&peer);
    let mut run = hello(&client).start().await.unwrap();
    assert_eq!(run.next().await, Some(Event::Text("going on".to_owned())));
    let asked = Instant::now();
    run.cancel();
    run.cancel();
    assert_eq!(failure(&mut run).await.kind(), &Kind::Cancelled);
    assert!(asked.elapsed() < Duration::from_millis(500), "released at once");
    assert_eq!(heard.recv().await, Some(CANCELLED));
    run.cancel();
    let (ended, _) = run.finish().await;
    assert_eq!(ended.unwrap_err().kind(), &Kind::Cancelled);
    // The connection survives.
    let again = hello(&client).start().await.unwrap();
    again.cancel();
    again.finish().await.0.unwrap_err();
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn dropping_a_run_cancels_it_and_leaves_no_task() {
    let (peer, mut heard) = until_cancelled().await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let client = client(&peer);
    let mut run = hello(&client).start().await.unwrap();
    run.next().await;
    drop(run);
    assert_eq!(heard.recv().await, Some(CANCELLED));
    drop(client);
    until("the connection closed", || peer.open.load(std::sync::atomic::Ordering::SeqCst) == 0)
        .await;
    until("every task ended", || metrics.num_alive_tasks() <= before).await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_there_is_a_connection_ends_at_once() {
    // A port that accepts and says nothing: HTTP/2 waits for its SETTINGS.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let client = Client::builder().endpoint(url).build().unwrap();
    let run = hello(&client).start().await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let asked = Instant::now();
    run.cancel();
    assert_eq!(run.finish().await.0.unwrap_err().kind(), &Kind::Cancelled);
    assert!(asked.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn a_refused_connection_is_the_runs_last_event_and_the_conversation_comes_back() {
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client =
        Client::builder().endpoint(format!("http://{refused}")).retries(0).build().unwrap();
    let mut run = hello(&client).start().await.unwrap();
    assert_eq!(failure(&mut run).await.kind(), &Kind::Network(NetworkFault::Connect));
    let (_, conversation) = run.finish().await;
    assert!(!conversation.blobs().is_empty(), "what was encoded is kept");
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_never_starts() {
    let client = Client::builder().endpoint("http://127.0.0.1:1").build().unwrap();
    let request = |model: &str| RunRequest {
        model: model.into(),
        context: Context::prompt("x"),
        ..RunRequest::default()
    };
    let refused = client.run(request("bad\r\nmodel"), Conversation::default()).await.unwrap_err();
    assert_eq!(refused.error.kind(), &Kind::InvalidRequest);
    let error: Error = refused.into();
    assert!(!error.to_string().contains("bad"), "{error}");
    let mut bad_id = request("composer-2");
    bad_id.request_id = "a\nb".to_owned();
    assert!(client.run(bad_id, Conversation::default()).await.is_err());
}

#[tokio::test]
async fn answers_that_are_no_stream_say_what_they_are() {
    type Answer = (u16, &'static [(&'static str, &'static str)], &'static str);
    let cases: [(Answer, Kind, &str); 3] = [
        (
            (200, &[("content-type", "text/html")], "<html>sign in to the wifi</html>"),
            Kind::Protocol,
            "text/html",
        ),
        (
            (
                401,
                &[("content-type", "application/json")],
                r#"{"code":"unauthenticated","message":"token tok-123456789 has expired"}"#,
            ),
            Kind::Unauthenticated,
            "has expired",
        ),
        (
            (503, &[("retry-after", "7"), ("content-type", "text/plain")], "later"),
            Kind::Overloaded { retry_after: Some(Duration::from_secs(7)) },
            "503",
        ),
    ];
    for ((status, headers, body), kind, words) in cases {
        let peer = Peer::cleartext(move |mut call| async move {
            call.next().await;
            call.respond(status, headers);
            call.raw(body).await;
            call.finish().await;
            call.linger().await;
        })
        .await;
        let mut run = hello(&client(&peer)).start().await.unwrap();
        let error = failure(&mut run).await;
        assert_eq!(error.kind(), &kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error:?}").contains("tok-123456789"), "{error:?}");
    }
}

#[tokio::test]
async fn an_error_stated_at_the_end_wins_over_the_turn() {
    let peer = Peer::cleartext(|mut call| async move {
        call.next().await;
        call.accept();
        call.text("half").await;
        call.turn_ended().await;
        call.end(r#"{"error":{"code":"unavailable","message":"sorry"}}"#).await;
        call.linger().await;
    })
    .await;
    let mut run = hello(&client(&peer)).start().await.unwrap();
    let (text, ended) = read(&mut run).await;
    assert_eq!(text, "half");
    assert!(ended.unwrap_err().to_string().contains("sorry"));
}

#[tokio::test]
async fn a_service_that_leaves_the_stream_open_after_the_turn_is_let_go() {
    let (tell, mut heard) = mpsc::unbounded_channel();
    let peer = Peer::cleartext(move |mut call| {
        let tell = tell.clone();
        async move {
            call.next().await;
            call.accept();
            call.text("all").await;
            call.turn_ended().await;
            call.linger().await;
            let _ = tell.send(call.ended.take());
        }
    })
    .await;
    let mut run = hello(&client(&peer)).start().await.unwrap();
    let (text, ended) = read(&mut run).await;
    assert_eq!((text.as_str(), ended.is_ok()), ("all", true));
    assert_eq!(heard.recv().await, Some(Some(Ok(()))), "our side ended in good order");
}

#[tokio::test]
async fn a_stream_that_is_reset_or_cut_says_so() {
    let peer = Peer::cleartext(|mut call| async move {
        call.next().await;
        call.accept();
        call.text("half").await;
        call.reset(11);
    })
    .await;
    let mut run = hello(&client(&peer)).start().await.unwrap();
    let (text, ended) = read(&mut run).await;
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Reset(11)), "{error}");
    assert!(text.is_empty() || text == "half");

    let cut = Peer::cleartext(|mut call| async move {
        call.next().await;
        call.accept();
        call.text("half").await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut run = hello(&client(&cut)).start().await.unwrap();
    assert_eq!(run.next().await, Some(Event::Text("half".to_owned())));
    drop(cut);
    let error = failure(&mut run).await;
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Cut), "{error}");
}

#[tokio::test]
async fn a_service_that_stalls_is_given_up() {
    let peer = Peer::cleartext(|mut call| async move {
        call.next().await;
        call.accept();
        call.text("then nothing").await;
        call.linger().await;
    })
    .await;
    let mut options = Options::default();
    options.silence = Duration::from_millis(100);
    let mut run = hello(&client(&peer)).options(options).retries(0).start().await.unwrap();
    let (text, ended) = read(&mut run).await;
    assert_eq!(text, "then nothing");
    assert_eq!(ended.unwrap_err().kind(), &Kind::Network(NetworkFault::Stalled));
}

#[tokio::test]
async fn a_peer_that_takes_no_data_is_given_up() {
    let peer = Peer::cleartext(|mut call| async move {
        call.accept();
        std::future::pending::<()>().await;
    })
    .await;
    let mut pool = PoolOptions::default();
    pool.http2.write_stall = Duration::from_millis(200);
    let client = Client::builder().endpoint(peer.url()).pool(pool).retries(0).build().unwrap();
    // More than the peer's window, which is 2 MiB for a stream.
    let mut run = client.prompt("x".repeat(8 << 20)).model("composer-2").start().await.unwrap();
    let error = failure(&mut run).await;
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Stalled), "{error}");
}

#[tokio::test]
async fn a_large_request_arrives_whole() {
    let peer = Peer::cleartext(|mut call| async move {
        let Some(FromClient::RunRequest(_)) = call.next().await else { panic!("no request") };
        call.complete("read").await;
    })
    .await;
    let client = client(&peer);
    let mut run = client.prompt("x".repeat(5 << 20)).model("composer-2").start().await.unwrap();
    assert_eq!(read(&mut run).await.0, "read");
}

const FRAMES: usize = 60_000;

#[tokio::test]
async fn sixty_thousand_small_frames_wait_for_a_consumer_that_sleeps() {
    let sent = Arc::new(Notify::new());
    let all = Arc::clone(&sent);
    let peer = Peer::cleartext(move |mut call| {
        let sent = Arc::clone(&all);
        async move {
            let Some(FromClient::RunRequest(request)) = call.next().await else { return };
            let small = request.model_details.is_some_and(|model| model.model_id == "small");
            if small {
                return call.complete("beside").await;
            }
            call.accept();
            let frame = text_envelope("nineteen characters");
            for _ in 0..FRAMES {
                call.raw(frame.clone()).await;
            }
            sent.notify_one();
            call.turn_ended().await;
            call.end("{}").await;
            call.linger().await;
        }
    })
    .await;
    let client = client(&peer);
    let mut run = hello(&client).start().await.unwrap();
    sent.notified().await;
    let mut beside = client.prompt("x").model("small").start().await.unwrap();
    assert_eq!(read(&mut beside).await.0, "beside");
    let (mut texts, mut ended) = (0, None);
    let sink = |event: EventRef<'_>| match event {
        EventRef::Text(text) => {
            assert_eq!(text, "nineteen characters");
            texts += 1;
        }
        EventRef::Other(event) => {
            if let Event::Ended(end) = *event {
                ended = Some(end);
            }
        }
        _ => {}
    };
    let mut sink = sink;
    while run.next_batch(&mut sink).await.is_some() {}
    assert_eq!((texts, ended.map(|end| end.is_ok())), (FRAMES, Some(true)));
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn a_slow_consumer_slows_the_service_and_gets_everything() {
    const PIECES: usize = 400;
    let written = Arc::new(Mutex::new(0));
    let count = Arc::clone(&written);
    let peer = Peer::cleartext(move |mut call| {
        let count = Arc::clone(&count);
        async move {
            call.next().await;
            call.accept();
            let piece = text_envelope(&"x".repeat(64 << 10));
            for _ in 0..PIECES {
                call.raw(piece.clone()).await;
                *count.lock().unwrap() += 1;
            }
            call.turn_ended().await;
            call.end("{}").await;
            call.linger().await;
        }
    })
    .await;
    let mut run = hello(&client(&peer)).start().await.unwrap();
    assert!(run.next().await.is_some());
    // 25 MiB are on offer; what a sleeping consumer lets through is bounded.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = *written.lock().unwrap();
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before * (64 << 10) < 14 << 20, "{before} pieces of 64 KiB were taken");
    let (text, ended) = read(&mut run).await;
    assert!(ended.is_ok());
    assert_eq!(text.len(), (PIECES - 1) * (64 << 10));
}

#[test]
fn a_runtime_that_ends_under_a_run_leaves_nobody_waiting() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let (run, peer) = first.block_on(async {
        let (peer, _) = until_cancelled().await;
        let mut run = hello(&client(&peer)).start().await.unwrap();
        run.next().await;
        (run, peer)
    });
    drop((first, peer));
    let handle = run.handle();
    runtime().block_on(async {
        assert!(handle.answer(Vec::new()).await.is_err());
        let error = run.finish().await.0.unwrap_err();
        assert_eq!(error.blame(), Blame::Local, "{error}");
    });
}
