//! The public Connect conformance suite, played against `rpc/`: every case, none skipped, no list
//! of known failures.
//!
//! The programs under test are those of `examples/`, run here in the test's process over pipes and
//! the runner's protocol, with real sockets between client and server. The peer of the client is
//! the suite's service, which for cases with a raw answer plays that; the peer of the server is the
//! client, or the raw request of the case.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "conformance/cases.rs"]
mod cases;
#[path = "conformance/check.rs"]
mod check;
#[path = "../examples/conformance/client.rs"]
mod client;
#[path = "../examples/conformance/proto.rs"]
#[allow(dead_code, unreachable_pub, reason = "generated: the suite's whole schema")]
#[allow(clippy::all, missing_docs, reason = "generated")]
#[rustfmt::skip]
mod proto;
#[path = "conformance/raw.rs"]
mod raw;
#[path = "conformance/schema.rs"]
mod schema;
#[path = "../examples/conformance/server.rs"]
mod server;
#[path = "../examples/conformance/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use agentwire::rpc::http2::{Accepted, ClientConnection, Http2Config};
use agentwire::rpc::server::{Router, serve_connection};
use prost::Message;
use proto::client_compat_response::Result as Outcome;
use proto::{
    BidiStreamRequest, ClientCompatResponse, ClientResponseResult, ClientStreamRequest, Header,
    Protocol, RawHttpResponse, ServerCompatRequest, ServerCompatResponse, ServerStreamRequest,
    TestCase, UnaryRequest,
};
use tokio::io::{DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Names the case to the peer, which has to know about raw answers before it reads messages.
const CASE: &str = "x-test-case-name";
/// The suite's receive limit of a server.
const SERVER_LIMIT: u32 = 200 << 10;
/// No case takes longer than this unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Fails with all that is wrong with all cases.
fn report(cases: &[TestCase], results: &HashMap<String, ClientResponseResult>) {
    let mut failures = Vec::new();
    for case in cases {
        let name = &case.request.as_ref().unwrap().test_name;
        let wrong = match results.get(name) {
            Some(result) => check::check(case, result),
            None => vec!["no result".to_owned()],
        };
        if !wrong.is_empty() {
            failures.push(format!("{name}\n    {}", wrong.join("\n    ")));
        }
    }
    // The comparison itself: any expectation, changed, must show.
    for case in cases {
        let name = &case.request.as_ref().unwrap().test_name;
        let changed = changed(case);
        assert!(results.get(name).is_none_or(|result| !check::check(&changed, result).is_empty()));
    }
    let passed = cases.len() - failures.len();
    assert!(failures.is_empty(), "{passed} of {}\n{}", cases.len(), failures.join("\n"));
}

/// The same case with another expectation.
fn changed(case: &TestCase) -> TestCase {
    let mut case = case.clone();
    case.other_allowed_error_codes.clear();
    let expected = case.expected_response.get_or_insert_default();
    match &mut expected.error {
        Some(error) => error.code = error.code % 16 + 1,
        None => expected.payloads.push(proto::ConformancePayload::default()),
    }
    case
}

/// The raw answer that a case asks of the server.
fn raw_response(case: &TestCase) -> Option<RawHttpResponse> {
    let any = case.request.as_ref()?.request_messages.first()?;
    let bytes = &any.value[..];
    match any.type_url.rsplit('.').next()? {
        "UnaryRequest" => UnaryRequest::decode(bytes).ok()?.response_definition?.raw_response,
        "ClientStreamRequest" => {
            ClientStreamRequest::decode(bytes).ok()?.response_definition?.raw_response
        }
        "ServerStreamRequest" => {
            ServerStreamRequest::decode(bytes).ok()?.response_definition?.raw_response
        }
        "BidiStreamRequest" => {
            BidiStreamRequest::decode(bytes).ok()?.response_definition?.raw_response
        }
        _ => None,
    }
}

/// The peer of a client: the service, and raw answers by the name of the case.
async fn peer(
    listener: TcpListener,
    creds: Option<proto::TlsCreds>,
    raws: Arc<HashMap<String, RawHttpResponse>>,
) {
    let acceptor = creds.map(|creds| server::acceptor(&creds).unwrap());
    let router = server::router(0);
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, router, raws) = (acceptor.clone(), router.clone(), Arc::clone(&raws));
        connections.spawn(async move {
            let handler = move |accepted| answer(accepted, router.clone(), Arc::clone(&raws));
            let config = Http2Config::server();
            let never = std::future::pending();
            match acceptor {
                Some(acceptor) => {
                    let tls = acceptor.accept(tcp).await.unwrap();
                    serve_connection(tls, config, handler, never).await
                }
                None => serve_connection(tcp, config, handler, never).await,
            }
        });
    }
}

async fn answer(accepted: Accepted, router: Router, raws: Arc<HashMap<String, RawHttpResponse>>) {
    let name = accepted.head.headers.get(CASE).and_then(|name| name.to_str().ok());
    match name.and_then(|name| raws.get(name)).cloned() {
        Some(raw) => raw::respond(accepted, raw).await,
        None => router.serve(accepted).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_cases() {
    let cases = cases::read("ours.client.jsonl.xz");
    assert_eq!(cases.len(), 510);
    let raws = cases
        .iter()
        .filter_map(|case| Some((case.request.as_ref()?.test_name.clone(), raw_response(case)?)));
    let raws: Arc<HashMap<_, _>> = Arc::new(raws.collect());
    let mut peers = JoinSet::new();
    let creds = server::creds(None).unwrap();
    let mut ports = Vec::new();
    for creds in [None, Some(creds.clone())] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ports.push(listener.local_addr().unwrap().port());
        peers.spawn(peer(listener, creds, Arc::clone(&raws)));
    }
    let (ours, theirs) = duplex(1 << 16);
    let (input, output) = split(theirs);
    let program = tokio::spawn(client::run(input, output));
    let (mut from, mut to) = split(ours);
    let requests: Vec<_> = cases.iter().map(|case| case.request.clone().unwrap()).collect();
    let ask = async move {
        for mut request in requests {
            let tls = !request.server_tls_cert.is_empty();
            if tls {
                request.server_tls_cert = creds.cert.clone();
            }
            request.host = "127.0.0.1".to_owned();
            request.port = ports[usize::from(tls)].into();
            let value = vec![request.test_name.clone()];
            request.request_headers.push(Header { name: CASE.to_owned(), value });
            wire::write(&mut to, &request).await.unwrap();
        }
        to
    };
    let mut results = HashMap::new();
    let total = cases.len();
    let hear = async {
        while results.len() < total {
            let response = timeout(PATIENCE, wire::read::<ClientCompatResponse>(&mut from)).await;
            let Some(response) = response.expect("a case hangs").unwrap() else { break };
            match response.result {
                Some(Outcome::Response(result)) => {
                    assert!(results.insert(response.test_name, result).is_none());
                }
                other => panic!("{}: {other:?}", response.test_name),
            }
        }
    };
    let (to, ()) = tokio::join!(ask, hear);
    report(&cases, &results);
    // The end of its input is the end of the program.
    drop((to, from));
    timeout(PATIENCE, program).await.unwrap().unwrap().unwrap();
}

/// A server program that runs, and what it said about itself.
async fn start(use_tls: bool) -> (DuplexStream, ServerCompatResponse) {
    let (mut ours, theirs) = duplex(1 << 16);
    let (input, output) = split(theirs);
    tokio::spawn(server::run(input, output));
    let request = ServerCompatRequest {
        protocol: Protocol::Connect.into(),
        http_version: proto::HttpVersion::HttpVersion2.into(),
        use_tls,
        message_receive_limit: SERVER_LIMIT,
        ..ServerCompatRequest::default()
    };
    wire::write(&mut ours, &request).await.unwrap();
    let response = wire::read(&mut ours).await.unwrap().unwrap();
    (ours, response)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_cases() {
    let cases = cases::read("ours.server.jsonl.xz");
    assert_eq!(cases.len(), 456);
    let servers = [start(false).await, start(true).await];
    assert!(servers[0].1.pem_cert.is_empty() && !servers[1].1.pem_cert.is_empty());
    let slots = Arc::new(Semaphore::new(16));
    let mut calls = JoinSet::new();
    for case in &cases {
        let mut request = case.request.clone().unwrap();
        let tls = !request.server_tls_cert.is_empty();
        let said = &servers[usize::from(tls)].1;
        (request.host, request.port) = (said.host.clone(), said.port);
        request.server_tls_cert.clone_from(&said.pem_cert);
        let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
        calls.spawn(async move {
            let name = request.test_name.clone();
            let result = match request.raw_request.clone() {
                None => client::call(request).await.unwrap(),
                Some(raw) => {
                    let connection = connect(&request).await;
                    let scheme = if tls { "https" } else { "http" };
                    let base = format!("{scheme}://{}:{}", request.host, request.port);
                    raw::request(&connection, &base, &raw).await
                }
            };
            drop(slot);
            (name, result)
        });
    }
    let mut results = HashMap::new();
    while let Some(done) = timeout(PATIENCE, calls.join_next()).await.expect("a case hangs") {
        results.extend([done.unwrap()]);
    }
    report(&cases, &results);
}

async fn connect(request: &proto::ClientCompatRequest) -> ClientConnection {
    let tcp = TcpStream::connect((request.host.as_str(), u16::try_from(request.port).unwrap()));
    client::connect(tcp.await.unwrap(), request).await.unwrap()
}
