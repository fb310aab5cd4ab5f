//! Both sides of the Connect protocol and of `agent.v1` against an independent implementation:
//! `@connectrpc/connect-node` on Node. Not part of a plain `cargo test`, which needs no network:
//! `tests/interop/run` fetches the peer and runs this.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "interop/echo.rs"]
mod echo;
#[path = "interop/node.rs"]
mod node;
#[path = "interop/socket.rs"]
mod socket;

use std::time::Duration;

use agentwire::connect::Code;
use agentwire::context::Context;
use agentwire::rpc::client::{Call, CallOptions, RpcClient};
use agentwire::rpc::{Gzip, Metadata};
use agentwire::run::Event;
use agentwire::server::serve::{Server, Tls};
use agentwire::transport::{Client, Roots};
use prost::Message as _;
use tokio::time::timeout;

use echo::{EchoRequest, EchoResponse, Trouble};
use node::Node;
use socket::Identity;

/// Ten times what the slowest of these takes.
const GUARD: Duration = Duration::from_secs(60);
/// Beyond the 1,024 bytes from which on the peer compresses.
const LONG: &str = "all work and no play ";

#[tokio::test]
async fn the_peers_client_against_our_server_in_clear_text() {
    timeout(GUARD, peers_client(None)).await.unwrap();
}

#[tokio::test]
async fn the_peers_client_against_our_server_over_tls() {
    timeout(GUARD, peers_client(Some(Identity::make()))).await.unwrap();
}

async fn peers_client(identity: Option<Identity>) {
    let echo = socket::serve(echo::router(), identity.as_ref()).await;
    let tls = identity.as_ref().map_or(Tls::Off, |identity| Tls::Files {
        certificate: identity.certificate_file(),
        key: identity.key_file(),
    });
    let agent = Server::builder().tls(tls).bind().await.unwrap();
    let lines = node::run_client(&echo, &agent.url(), identity.as_ref()).await;
    let failed: Vec<_> = lines.iter().filter(|line| line.error.is_some()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(lines.len(), 9, "{lines:?}");
    let report = agent.report();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}

#[tokio::test]
async fn our_client_against_the_peers_server_in_clear_text() {
    timeout(GUARD, our_client(None)).await.unwrap();
}

#[tokio::test]
async fn our_client_against_the_peers_server_over_tls() {
    timeout(GUARD, our_client(Some(Identity::make()))).await.unwrap();
}

async fn our_client(identity: Option<Identity>) {
    let node = Node::serve(identity.as_ref()).await;
    let client = socket::connect(&node.url, identity.as_ref()).await;
    unary(&client).await;
    unary_errors(&client).await;
    bidi(&client).await;
    bidi_error(&client).await;
    cancel(&client).await;
    agent_run(&node, identity.as_ref()).await;
}

const UNARY: &str = "/agentwire.interop.v1.EchoService/Unary";
const BIDI: &str = "/agentwire.interop.v1.EchoService/Bidi";

fn call(path: &str, change: impl FnOnce(&mut CallOptions)) -> Call {
    let mut options = CallOptions::default();
    options.send_gzip = Some(Gzip::default());
    change(&mut options);
    Call::new(path)
        .with_options(options)
        .with_headers(vec![("x-asked".to_owned(), "so".to_owned())])
}

fn value<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    metadata.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn text(text: impl Into<String>) -> EchoRequest {
    EchoRequest { text: text.into(), ..EchoRequest::default() }
}

async fn unary(client: &RpcClient) {
    for asked in ["short".to_owned(), LONG.repeat(4_000)] {
        let reply = client.unary(call(UNARY, |_| {}), text(&asked).encode_to_vec().into()).await;
        let answer = EchoResponse::decode(reply.result.unwrap()).unwrap();
        assert_eq!((answer.text, answer.asked.as_str()), (asked, "so"));
        assert_eq!(value(&reply.headers, "x-head"), Some("1"));
        assert_eq!(value(&reply.trailers, "x-trail"), Some("3"));
    }
}

async fn unary_errors(client: &RpcClient) {
    let request = EchoRequest { fail: 11, ..EchoRequest::default() };
    let reply = client.unary(call(UNARY, |_| {}), request.encode_to_vec().into()).await;
    assert_eq!(value(&reply.headers, "x-error"), Some("4"));
    judge(&reply.result.unwrap_err());

    let request = EchoRequest { hang: true, ..EchoRequest::default() };
    let brief = call(UNARY, |options| options.timeout = Some(Duration::from_millis(200)));
    let reply = client.unary(brief, request.encode_to_vec().into()).await;
    assert_eq!(reply.result.unwrap_err().code(), Code::DeadlineExceeded);

    let reply = client.unary(call("/agentwire.interop.v1.EchoService/No", |_| {}), "".into()).await;
    assert_eq!(reply.result.unwrap_err().code(), Code::Unimplemented);
}

/// What the peer states when it is told to fail.
fn judge(error: &agentwire::Error) {
    assert_eq!((error.code(), error.message()), (Code::OutOfRange, "stated"));
    let [detail] = error.details() else { panic!("{error:?}") };
    assert_eq!(detail.type_name, "agentwire.interop.v1.Trouble");
    let trouble = Trouble::decode(detail.value.clone()).unwrap();
    assert_eq!((trouble.what.as_str(), trouble.number), ("told", -7));
}

async fn bidi(client: &RpcClient) {
    let (mut send, mut receive) = client.stream(call(BIDI, |_| {}), None).unwrap();
    for round in 0..100 {
        let asked = if round % 10 == 0 { LONG.repeat(4_000) } else { round.to_string() };
        send.send(&text(&asked).encode_to_vec()).await.unwrap();
        let answer = receive.next().await.unwrap().unwrap();
        assert_eq!(EchoResponse::decode(answer).unwrap().text, asked, "round {round}");
    }
    send.close().await.unwrap();
    assert_eq!(receive.next().await.unwrap(), None);
    assert_eq!(value(receive.received_headers(), "x-head"), Some("1"));
    assert_eq!(value(receive.trailers(), "x-trail"), Some("3"));
}

async fn bidi_error(client: &RpcClient) {
    let first = EchoRequest { text: "first".to_owned(), fail: 11, hang: false }.encode_to_vec();
    let (_send, mut receive) = client.stream(call(BIDI, |_| {}), Some(&first)).unwrap();
    let answer = receive.next().await.unwrap().unwrap();
    assert_eq!(EchoResponse::decode(answer).unwrap().text, "first");
    judge(&receive.next().await.unwrap_err());
    assert_eq!(value(receive.trailers(), "x-error"), Some("4"));
}

async fn cancel(client: &RpcClient) {
    let before = gave_up(client).await;
    let first = EchoRequest { text: "first".to_owned(), fail: 0, hang: true }.encode_to_vec();
    let (send, mut receive) = client.stream(call(BIDI, |_| {}), Some(&first)).unwrap();
    receive.next().await.unwrap().unwrap();
    send.cancel();
    drop(receive);
    // Asks until the peer has seen the other stream go; the guard is the test's.
    while gave_up(client).await == before {}
}

/// How many calls the peer has seen cancelled.
async fn gave_up(client: &RpcClient) -> u32 {
    let asked = text("how many gave up?").encode_to_vec();
    let reply = client.unary(call(UNARY, |_| {}), asked.into()).await;
    EchoResponse::decode(reply.result.unwrap()).unwrap().text.parse().unwrap()
}

/// A turn of `agent.v1` in which the peer asks for the request context, judges the answer, and
/// then says what it was asked.
async fn agent_run(node: &Node, identity: Option<&Identity>) {
    let builder = Client::builder().endpoint(&node.url).roots(Roots::OnlyAdded);
    let builder = match identity {
        Some(identity) => builder.ca_pem(identity.certificate_pem.clone()),
        None => builder,
    };
    let client = builder.token("interop").build().unwrap();
    let context = Context::prompt("what was that?").system("Be brief.");
    let mut run = client.ask(context).model("composer-2").start().await.unwrap();
    let (mut said, mut thought) = (String::new(), String::new());
    let mut usage = None;
    while let Some(event) = run.next().await {
        match event {
            Event::Text(text) => said.push_str(&text),
            Event::Thinking(text) => thought.push_str(&text),
            Event::Ended(end) => usage = Some(end.unwrap().usage),
            _ => {}
        }
    }
    assert_eq!(said, format!("You said what was that?. {}", LONG.repeat(4_000)));
    assert_eq!(thought, "hm");
    let usage = usage.unwrap();
    assert_eq!((usage.input, usage.output), (Some(11), 5));
    assert_eq!(client.name_agent("what was that?").await.unwrap(), "Interop");
}
