//! What time does to a run, on a virtual clock: an in-memory link instead of a socket.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use agentwire::error::{Kind, NetworkFault};
use agentwire::exec::{Effects, ExecCall, ExecHandler, Refusal, Served, ShellSink};
use agentwire::proto::agent_client_message::Message as FromClient;
use agentwire::proto::agent_server_message::Message as FromServer;
use agentwire::proto::exec_client_control_message::Message as Control;
use agentwire::proto::exec_client_message::Message as Reply;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::{
    ExecServerMessage, GrepArgs, GrepError, GrepResult, ReadArgs, ReadResult, ShellArgs,
    ShellStreamStdout, grep_result, shell_stream,
};
use agentwire::rpc::http2::{Http2Config, ServerConnection};
use agentwire::run::Event;
use agentwire::transport::{BoxIo, Client, Connecting, Connector, Endpoint, QueueLimits, Run};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::peer::Call;

/// Hands every call to the test. Its peers have this window for each stream.
pub(crate) struct Links(pub(crate) mpsc::UnboundedSender<Call>, pub(crate) u32);

impl Connector for Links {
    fn connect<'a>(&'a self, _: &'a Endpoint) -> Connecting<'a> {
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(1 << 20);
            let (calls, window) = (self.0.clone(), self.1);
            tokio::spawn(async move {
                let mut config = Http2Config::server();
                // A peer of endless patience: what gives up in these tests is this side.
                config.write_stall = Duration::from_secs(100_000);
                config.stream_window = window;
                let mut connection = ServerConnection::handshake(far, config).await.unwrap();
                while let Ok(accepted) = connection.accept().await {
                    let _ = calls.send(Call::new(accepted));
                }
            });
            let io: BoxIo = Box::new(near);
            Ok(io)
        })
    }
}

async fn run(client: &Client, calls: &mut mpsc::UnboundedReceiver<Call>) -> (Run, Call) {
    let run = client.prompt("hello").model("composer-2").start().await.unwrap();
    let call = calls.recv().await.unwrap();
    (run, call)
}

fn client() -> (Client, mpsc::UnboundedReceiver<Call>) {
    client_of(2 << 20)
}

fn client_of(window: u32) -> (Client, mpsc::UnboundedReceiver<Call>) {
    let (give, calls) = mpsc::unbounded_channel();
    (Client::builder().connector(Links(give, window)).retries(0).build().unwrap(), calls)
}

async fn ended(mut run: Run) -> agentwire::Error {
    while let Some(event) = run.next().await {
        if let Event::Ended(ended) = event {
            return ended.unwrap_err();
        }
    }
    panic!("no end")
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_out_every_five_seconds_while_the_consumer_sleeps() {
    let (client, mut calls) = client();
    let (run, mut call) = run(&client, &mut calls).await;
    call.next().await;
    call.accept();
    let start = Instant::now();
    // A service that is alive sends heartbeats too; nobody reads the events of this run.
    let mut ours = Vec::new();
    while ours.len() < 12 {
        tokio::select! {
            () = call.heartbeat_came() => ours.push(start.elapsed().as_secs_f64()),
            () = tokio::time::sleep(Duration::from_secs(10)) => panic!("no heartbeat: {ours:?}"),
        }
        call.text("still here").await;
    }
    for pair in ours.windows(2) {
        assert!((4.0..=6.0).contains(&(pair[1] - pair[0])), "{ours:?}");
    }
    drop(run);
}

/// The service talks and takes nothing: the consumer gets an error and not an end.
#[tokio::test(start_paused = true)]
async fn m66_a_heartbeat_that_cannot_be_written_is_an_error() {
    // The request leaves before the peer's SETTINGS come; after them there is no window.
    let (client, mut calls) = client_of(1);
    let (run, mut call) = run(&client, &mut calls).await;
    call.accept();
    let start = Instant::now();
    let talking = tokio::spawn(async move {
        loop {
            call.text("talking").await;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    let error = ended(run).await;
    talking.abort();
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Stalled), "{error}");
    assert!(error.message().contains("takes no data"), "{error}");
    let took = start.elapsed().as_secs();
    assert!((30..=36).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_run_after_its_limit_and_not_before() {
    let (client, mut calls) = client();
    let (run, mut call) = run(&client, &mut calls).await;
    call.next().await;
    call.accept();
    call.text("then nothing").await;
    let start = Instant::now();
    let error = ended(run).await;
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Stalled), "{error}");
    let took = start.elapsed().as_secs();
    assert!((119..=121).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_begins_ends_a_run() {
    let (client, mut calls) = client();
    let start = Instant::now();
    let (run, _call) = run(&client, &mut calls).await;
    let error = ended(run).await;
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Stalled), "{error}");
    let took = start.elapsed().as_secs();
    assert!((59..=61).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_counts_from_the_start_whatever_happens() {
    let (client, mut calls) = client();
    let start = Instant::now();
    let prompt = client.prompt("hello").model("m").deadline(Duration::from_secs(20));
    let run = prompt.start().await.unwrap();
    let mut call = calls.recv().await.unwrap();
    let talking = tokio::spawn(async move {
        call.accept();
        loop {
            call.text("more").await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let error = ended(run).await;
    talking.abort();
    assert_eq!(error.kind(), &Kind::DeadlineExceeded, "{error}");
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_sleeps_is_not_the_services_silence() {
    let (client, mut calls) = client();
    let (mut run, mut call) = run(&client, &mut calls).await;
    call.next().await;
    call.accept();
    // More than may wait anywhere on this side: the service is held up.
    let talking = tokio::spawn(async move {
        for _ in 0..200 {
            call.text(&"x".repeat(64 << 10)).await;
        }
        call.turn_ended().await;
        call.end("{}").await;
        call.linger().await;
    });
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let mut text = 0;
    while let Some(event) = run.next().await {
        match event {
            Event::Text(delta) => text += delta.len(),
            Event::Ended(ended) => assert!(ended.is_ok(), "{ended:?}"),
            _ => {}
        }
    }
    assert_eq!(text, 200 * (64 << 10));
    talking.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_takes_its_time_can_be_cancelled() {
    struct Never;
    impl Connector for Never {
        fn connect<'a>(&'a self, _: &'a Endpoint) -> Connecting<'a> {
            Box::pin(std::future::pending())
        }
    }
    let client = Client::builder().connector(Never).retries(0).build().unwrap();
    let run = client.prompt("x").model("m").start().await.unwrap();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    run.cancel();
    let (ended, _) = run.finish().await;
    assert_eq!(ended.unwrap_err().kind(), &Kind::Cancelled);
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    // And one that nobody cancels ends with the limit for the first byte.
    let run = client.prompt("x").model("m").start().await.unwrap();
    let start = Instant::now();
    let error = ended_error(run.finish().await.0);
    assert_eq!(error.kind(), &Kind::Network(NetworkFault::Stalled), "{error}");
    assert_eq!(start.elapsed().as_secs(), 60);
}

fn ended_error(ended: agentwire::run::Ended) -> agentwire::Error {
    ended.expect_err("no connection, no answer")
}

/// Panics when it decides, and when it is asked.
struct Clumsy;

impl ExecHandler for Clumsy {
    fn serves(&self, case: &Case) -> bool {
        assert!(!matches!(case, Case::LsArgs(_)), "a handler's own mistake");
        true
    }

    fn effects(&self, case: &Case) -> Effects {
        assert!(!matches!(case, Case::WriteArgs(_)), "a handler's own mistake");
        Effects::Changes
    }

    fn read<'a>(&'a self, _: &'a ExecCall, _: ReadArgs) -> Served<'a, ReadResult> {
        panic!("a handler's own mistake")
    }

    fn grep<'a>(&'a self, _: &'a ExecCall, _: GrepArgs) -> Served<'a, GrepResult> {
        Box::pin(async {
            tokio::task::yield_now().await;
            panic!("a handler's own mistake")
        })
    }
}

/// With nothing else under way, an answer that waited for the next timer would take seconds.
#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_answered_for_at_once() {
    let cases = [
        Case::ReadArgs(Box::default()),
        Case::GrepArgs(Box::default()),
        Case::LsArgs(Box::default()),
        Case::WriteArgs(Box::default()),
    ];
    for case in cases {
        let (client, mut calls) = client();
        let run = client.prompt("hello").model("m").execs(Arc::new(Clumsy)).start().await.unwrap();
        let mut call = calls.recv().await.unwrap();
        call.next().await;
        call.accept();
        let start = Instant::now();
        let exec = ExecServerMessage { id: 1, message: Some(case), ..Default::default() };
        call.say(FromServer::ExecServerMessage(Box::new(exec))).await;
        assert!(matches!(call.next().await, Some(FromClient::ExecClientMessage(_))));
        assert!(matches!(call.next().await, Some(FromClient::ExecClientControlMessage(_))));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        drop(run);
    }
}

/// By the id of the exec: at once, later, a refusal, a panic, a shell that prints, or never.
struct Moody;

impl ExecHandler for Moody {
    fn grep<'a>(&'a self, call: &'a ExecCall, _: GrepArgs) -> Served<'a, GrepResult> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(u64::from(call.id * 7_919 % 9_000))).await;
            match call.id % 5 {
                0 => panic!("a handler's own mistake"),
                1 => Err(Refusal::because("not now")),
                2 => std::future::pending().await,
                _ => {
                    let error = GrepError { error: "none".into() };
                    Ok(GrepResult { result: Some(grep_result::Result::Error(error)) })
                }
            }
        })
    }

    fn shell_stream<'a>(
        &'a self,
        call: &'a ExecCall,
        _: ShellArgs,
        sink: &'a mut dyn ShellSink,
    ) -> Served<'a, ()> {
        Box::pin(async move {
            for _ in 0..call.id % 40 {
                let out = ShellStreamStdout { data: "line".into() };
                sink.send(shell_stream::Event::Stdout(out)).await;
            }
            assert!(!call.id.is_multiple_of(3), "a handler's own mistake");
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn every_exec_is_answered_and_closed_once_whatever_its_handler_does() {
    const EXECS: u32 = 300;
    let (client, mut calls) = client();
    let mut options = agentwire::run::Options::default();
    options.exec_limit = Duration::from_secs(60);
    options.serve_waiting = 400;
    let run = client.prompt("hello").model("m").execs(Arc::new(Moody)).options(options);
    let run = run.start().await.unwrap();
    let mut call = calls.recv().await.unwrap();
    call.next().await;
    call.accept();
    for id in 1..=EXECS {
        let case = match id % 4 {
            0 => Case::ShellStreamArgs(Box::default()),
            _ => Case::GrepArgs(Box::default()),
        };
        let exec = ExecServerMessage { id, message: Some(case), ..Default::default() };
        call.say(FromServer::ExecServerMessage(Box::new(exec))).await;
    }
    let (mut answered, mut closed) = (BTreeSet::new(), BTreeSet::new());
    while closed.len() < EXECS as usize {
        match call.next().await.expect("the run goes on") {
            FromClient::ExecClientMessage(exec) => {
                let first = answered.insert(exec.id);
                let streams = matches!(exec.message, Some(Reply::ShellStream(_)));
                assert!(first || streams, "{} is answered twice", exec.id);
                assert!(!closed.contains(&exec.id), "{} was closed", exec.id);
            }
            FromClient::ExecClientControlMessage(control) => match control.message.unwrap() {
                Control::StreamClose(close) => {
                    assert!(answered.contains(&close.id), "{} has no answer", close.id);
                    assert!(closed.insert(close.id), "{} is closed twice", close.id);
                }
                Control::Heartbeat(beat) => assert!(!closed.contains(&beat.id)),
                Control::Throw(throw) => panic!("{} has a typed answer", throw.id),
            },
            _ => {}
        }
    }
    drop(run);
}

/// What comes while a consumer sleeps is there when it wakes: all of it, at once, although nothing
/// further comes that would wake the run.
#[tokio::test(start_paused = true)]
async fn what_came_while_the_consumer_slept_is_not_left_lying() {
    let (give, mut calls) = mpsc::unbounded_channel();
    let mut queue = QueueLimits::default();
    queue.bytes = 1;
    let client = Client::builder().connector(Links(give, 2 << 20)).retries(0).queue_limits(queue);
    let (mut run, mut call) = run(&client.build().unwrap(), &mut calls).await;
    call.next().await;
    call.accept();
    for piece in ["one ", "two ", "three ", "four"] {
        call.text(piece).await;
        // All that it leads to has happened when the clock moves.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    call.turn_ended().await;
    call.end("{}").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    let (mut text, mut ended) = (String::new(), None);
    while let Some(event) = run.next().await {
        match event {
            Event::Text(piece) => text.push_str(&piece),
            Event::Ended(end) => ended = Some(end.map(drop)),
            _ => {}
        }
    }
    assert_eq!((text.as_str(), ended), ("one two three four", Some(Ok(()))));
    assert_eq!(start.elapsed(), Duration::ZERO);
}
