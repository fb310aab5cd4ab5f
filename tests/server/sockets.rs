//! Real sockets on loopback: what is about TLS, HTTP versions, cuts and ends.

use std::sync::Arc;
use std::time::Duration;

use agentwire::connect::{Decoder, Envelope, Limits};
use agentwire::proto::{self, agent_client_message as ask, agent_server_message as said};
use agentwire::rpc::http2::{ClientConnection, Http2Config, Lost, LostCause, OpenStream};
use agentwire::server::Script;
use agentwire::server::script::Step;
use agentwire::server::serve::{Server, Tls};
use bytes::Bytes;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::run;

const RUN: &str = "/agent.v1.AgentService/Run";

/// No test may hang.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}

async fn connect<T>(io: T) -> ClientConnection
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (connection, driver) =
        ClientConnection::handshake(io, Http2Config::default()).await.unwrap();
    tokio::spawn(driver);
    connection
}

async fn cleartext(server: &Server) -> ClientConnection {
    connect(TcpStream::connect(server.local_addr()).await.unwrap()).await
}

/// A TLS connection, and the protocol that was agreed on.
async fn tls(
    server: &Server,
    alpn: &[&str],
) -> (tokio_rustls::client::TlsStream<TcpStream>, Option<Vec<u8>>) {
    let mut roots = RootCertStore::empty();
    let pem = server.certificate_pem().unwrap();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    (stream, agreed)
}

fn request(path: &str, content_type: &str, token: &str) -> http::Request<()> {
    http::Request::post(format!("http://localhost{path}"))
        .header("content-type", content_type)
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .unwrap()
}

fn envelope(message: ask::Message) -> Bytes {
    let message = proto::AgentClientMessage { message: Some(message) };
    let mut out = Vec::new();
    agentwire::connect::put_envelope(&mut out, 0, &message.encode_to_vec());
    out.into()
}

fn open(connection: &ClientConnection, prompt: &str) -> OpenStream {
    let first = envelope(run(prompt, Default::default()));
    connection.open(request(RUN, "application/connect+proto", "tok"), Some(first), false).unwrap()
}

/// What a run gave: text, whether it ended with an end-stream envelope, how it was lost.
#[derive(Default, Debug)]
struct Got {
    status: u16,
    text: String,
    ended: bool,
    code: Option<String>,
    lost: Option<Lost>,
}

/// Reads a run to its end, answering nothing.
async fn read(mut stream: OpenStream) -> Got {
    let mut got = Got::default();
    match stream.body.head().await {
        Ok(head) => got.status = head.status.as_u16(),
        Err(lost) => return Got { lost: Some(lost), ..got },
    }
    let mut decoder = Decoder::new(Limits::default(), Default::default());
    while let Some(chunk) = stream.body.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(lost) => return Got { lost: Some(lost), ..got },
        };
        let mut rest = chunk.as_ref();
        while let Ok(Some(envelope)) = decoder.next(&mut rest) {
            match envelope {
                Envelope::Message(payload) => got.text.push_str(&text_of(payload)),
                Envelope::EndStream(end) => {
                    got.ended = true;
                    got.code = end.error.map(|error| error.code().as_str().to_owned());
                }
            }
        }
    }
    got
}

fn text_of(payload: &[u8]) -> String {
    use proto::interaction_update::Message as U;
    let message = proto::AgentServerMessage::decode(payload).unwrap().message;
    match message {
        Some(said::Message::InteractionUpdate(update)) => match update.message {
            Some(U::TextDelta(delta)) => delta.text,
            _ => String::new(),
        },
        _ => String::new(),
    }
}

fn says(text: &str) -> Script {
    Script::of([Step::text(text)])
}

#[tokio::test]
async fn a_run_over_tls_and_over_cleartext() {
    for clear in [false, true] {
        let builder = Server::builder().script(says("hello over the wire"));
        let builder = if clear { builder.cleartext() } else { builder };
        let server = builder.bind().await.unwrap();
        assert!(server.local_addr().ip().is_loopback());
        assert!(server.url().starts_with(if clear {
            "http://127.0.0.1:"
        } else {
            "https://127.0.0.1:"
        }));
        let connection = if clear {
            cleartext(&server).await
        } else {
            let (stream, agreed) = tls(&server, &["h2", "http/1.1"]).await;
            assert_eq!(agreed.as_deref(), Some(b"h2".as_slice()));
            connect(stream).await
        };
        // Several at once on one connection.
        let runs: Vec<_> = (0..5).map(|_| tokio::spawn(read(open(&connection, "hi")))).collect();
        for run in runs {
            let got = soon(run).await.unwrap();
            assert_eq!(
                (got.status, got.text.as_str(), got.ended),
                (200, "hello over the wire", true)
            );
            assert!(got.lost.is_none() && got.code.is_none(), "{got:?}");
        }
        soon(server.shutdown()).await;
    }
}

#[tokio::test]
async fn certificates_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let server = Server::builder().tls(Tls::Files { certificate, key }).bind().await.unwrap();
    let (_, agreed) = soon(tls(&server, &["h2"])).await;
    assert_eq!(agreed.as_deref(), Some(b"h2".as_slice()));
}

#[tokio::test]
async fn http1_gets_json_calls_and_no_runs() {
    let server = Server::builder().bind().await.unwrap();
    for (request, status) in [
        ("GET /auth/nothing HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("POST /agent.v1.AgentService/Run HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "464"),
        (
            "POST /agent.v1.AgentService/GetUsableModels HTTP/1.1\r\nhost: x\r\n\
             content-type: application/proto\r\ncontent-length: 0\r\n\r\n",
            "200",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let (mut stream, agreed) = tls(&server, &["http/1.1"]).await;
        assert_eq!(agreed.as_deref(), Some(b"http/1.1".as_slice()));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The peer closes without a close_notify after a bad request: what came counts.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        assert!(line.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {line}");
    }
    // In cleartext the first bytes decide.
    let server = Server::builder().cleartext().bind().await.unwrap();
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    for piece in ["P", "OST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn the_token_is_checked_on_every_call() {
    let server =
        Server::builder().cleartext().token("tok").script(says("in")).bind().await.unwrap();
    let connection = cleartext(&server).await;
    assert_eq!(soon(read(open(&connection, "hi"))).await.text, "in");
    for path in [RUN, "/agent.v1.AgentService/GetUsableModels"] {
        let kind = if path == RUN { "application/connect+proto" } else { "application/proto" };
        let stream = connection.open(request(path, kind, "other"), None, true).unwrap();
        assert_eq!(soon(read(stream)).await.status, 401);
    }
}

#[tokio::test]
async fn broken_streams_break_on_the_wire() {
    type Check = fn(&Got) -> bool;
    let table: [(serde_json::Value, Check); 6] = [
        (serde_json::json!([{"text": "a"}, {"reset": 8}]), |got| {
            matches!(got.lost.as_ref().map(Lost::cause), Some(LostCause::Reset { code: 8, .. }))
        }),
        (serde_json::json!([{"reset": 7}]), |got| {
            got.lost.as_ref().is_some_and(Lost::is_unprocessed)
        }),
        (serde_json::json!([{"text": "a"}, "close"]), |got| !got.ended && got.lost.is_none()),
        (serde_json::json!([{"text": "a"}, "cut"]), |got| !got.ended && got.lost.is_some()),
        (serde_json::json!([{"goaway": 0}, {"text": "a"}]), |got| got.ended && got.lost.is_none()),
        (serde_json::json!([{"text": "a"}, {"error": "unavailable"}]), |got| {
            got.code.as_deref() == Some("unavailable")
        }),
    ];
    for (steps, check) in table {
        let text = serde_json::json!({"rules": [{"steps": steps}]}).to_string();
        let server = Server::builder()
            .cleartext()
            .script(Script::from_json(&text).unwrap())
            .bind()
            .await
            .unwrap();
        let connection = cleartext(&server).await;
        let got = soon(read(open(&connection, "hi"))).await;
        assert!(check(&got), "{steps}: {got:?}");
        // What was said before a fault arrives, unless the fault comes first.
        if steps[0].get("text").is_some() {
            assert_eq!(got.text, "a", "{steps}");
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_run_and_is_written_down() {
    let text =
        serde_json::json!({"rules": [{"steps": ["context", {"text": "never"}]}]}).to_string();
    let server = Server::builder()
        .cleartext()
        .script(Script::from_json(&text).unwrap())
        .bind()
        .await
        .unwrap();
    let connection = cleartext(&server).await;
    let mut stream = open(&connection, "hi");
    soon(stream.body.head()).await.unwrap();
    soon(stream.body.chunk()).await.unwrap().unwrap();
    stream.send.reset(8);
    drop(stream);
    soon(async {
        while server.report().requests == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let report = server.report();
    assert_eq!((report.unanswered, report.violation_count), (1, 0));
}

/// A second run request on one stream, and another: both are breaches.
#[tokio::test]
async fn how_many_breaches_a_report_names_can_be_set() {
    for (most, named) in [(1_024, 2), (1, 1)] {
        let builder = Server::builder().cleartext().max_reported(most);
        let server = builder.script(Script::of([Step::Silence])).bind().await.unwrap();
        let connection = cleartext(&server).await;
        let mut stream = open(&connection, "hi");
        for _ in 0..2 {
            stream.send.push(envelope(run("again", Default::default()))).unwrap();
        }
        stream.send.finish().await.unwrap();
        soon(stream.body.head()).await.unwrap();
        let report = soon(async {
            loop {
                let report = server.report();
                if report.requests > 0 {
                    return report;
                }
                // Whoever asks and is gone: the run ends, and is written down.
                stream.send.reset(8);
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!((report.violation_count, report.violations.len()), (2, named));
    }
}

/// What a stranger sends and how long, over HTTP/1.1.
#[tokio::test]
async fn a_unary_call_has_limits_of_its_own() {
    let answer = async |server: &Server, length: usize, body: &[u8]| {
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        let head = format!(
            "POST /agent.v1.AgentService/GetUsableModels HTTP/1.1\r\nhost: x\r\n\
             content-type: application/proto\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        // The server may hang up on a body that is on its way.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let server = Server::builder().cleartext().max_unary_body(10).bind().await.unwrap();
    let got = answer(&server, 11, &[0; 11]).await;
    assert!(got.contains("larger than 10 bytes"), "{got}");

    let mut http2 = Http2Config::server();
    http2.max_header_list = 8 << 10;
    for (server, fits) in [(Server::builder(), true), (Server::builder().http2(http2), false)] {
        let server = server.cleartext().bind().await.unwrap();
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        let head = format!("GET /x HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(16 << 10));
        // Whoever has read enough hangs up.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.starts_with("HTTP/1.1 404"), fits, "{answer}");
    }

    // Both are far below their defaults, and those above what `soon` waits.
    let short = Duration::from_millis(50);
    let server = Server::builder().cleartext().unary_timeout(short).bind().await.unwrap();
    let got = answer(&server, 5, b"").await;
    assert!(got.contains("did not arrive"), "{got}");
    let server = Server::builder().cleartext().http1_timeout(short).bind().await.unwrap();
    let got = answer(&server, 5, b"").await;
    assert_eq!(got, "", "hung up without a word");
}

/// Only lower bounds are looked at: they hold on a busy machine, too.
#[tokio::test]
async fn how_long_a_server_listens_after_its_last_word_and_waits_at_its_end_can_be_set() {
    let longer = Duration::from_millis(1_600);
    let lingering = async {
        let server =
            Server::builder().cleartext().linger(longer).script(says("a")).bind().await.unwrap();
        let connection = cleartext(&server).await;
        let mut stream = open(&connection, "hi");
        let start = tokio::time::Instant::now();
        soon(stream.body.head()).await.unwrap();
        soon(async {
            while server.report().requests == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        drop(stream);
        start.elapsed()
    };
    let waiting = async {
        let builder = Server::builder().cleartext().shutdown_grace(longer);
        let server = builder.script(Script::of([Step::Silence])).bind().await.unwrap();
        let connection = cleartext(&server).await;
        let mut stream = open(&connection, "hi");
        soon(stream.body.head()).await.unwrap();
        let start = tokio::time::Instant::now();
        soon(server.shutdown()).await;
        start.elapsed()
    };
    let (lingered, waited) = tokio::join!(lingering, waiting);
    let bound = Duration::from_millis(1_500);
    assert!(lingered > bound, "{lingered:?}");
    assert!(waited > bound, "{waited:?}");
}

#[tokio::test]
async fn dropping_the_server_ends_everything() {
    let server =
        Server::builder().cleartext().script(Script::of([Step::Silence])).bind().await.unwrap();
    let addr = server.local_addr();
    let connection = cleartext(&server).await;
    let mut stream = open(&connection, "hi");
    soon(stream.body.head()).await.unwrap();
    drop(server);
    let got = soon(read_rest(stream)).await;
    assert!(got.is_some(), "the run is lost");
    soon(async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn read_rest(mut stream: OpenStream) -> Option<Lost> {
    loop {
        match stream.body.next().await {
            Some(Ok(_)) => {}
            Some(Err(lost)) => return Some(lost),
            None => return None,
        }
    }
}

#[tokio::test]
async fn shutdown_lets_open_runs_end() {
    let steps = serde_json::json!([{"wait_ms": 200}, {"text": "to the end"}]);
    let text = serde_json::json!({"rules": [{"steps": steps}]}).to_string();
    let server = Server::builder()
        .cleartext()
        .script(Script::from_json(&text).unwrap())
        .bind()
        .await
        .unwrap();
    let connection = cleartext(&server).await;
    let mut stream = open(&connection, "hi");
    soon(stream.body.head()).await.unwrap();
    let reading = tokio::spawn(read(open(&connection, "hi")));
    let first = tokio::spawn(read_rest(stream));
    soon(server.shutdown()).await;
    assert!(soon(first).await.unwrap().is_none());
    let got = soon(reading).await.unwrap();
    // The second run was opened before the GOAWAY or after it: whole, or certainly not processed.
    assert!(got.text == "to the end" || got.lost.is_some_and(|lost| lost.is_unprocessed()));
}

#[tokio::test]
async fn connections_are_limited() {
    let server =
        Server::builder().cleartext().max_connections(1).script(says("one")).bind().await.unwrap();
    let connection = cleartext(&server).await;
    assert_eq!(soon(read(open(&connection, "hi"))).await.text, "one");
    let mut second = TcpStream::connect(server.local_addr()).await.unwrap();
    // Closed or reset without a byte.
    let mut answer = Vec::new();
    let _ = soon(second.read_to_end(&mut answer)).await;
    assert!(answer.is_empty());
    assert_eq!(soon(read(open(&connection, "hi"))).await.text, "one");
}

#[tokio::test]
async fn connections_that_say_nothing_are_closed_and_others_are_served() {
    for clear in [false, true] {
        let builder =
            Server::builder().script(says("served")).handshake_timeout(Duration::from_millis(50));
        let builder = if clear { builder.cleartext() } else { builder };
        let server = builder.bind().await.unwrap();
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(server.local_addr()).await.unwrap());
        }
        // Half of them begin with something and stop there.
        for stream in silent.iter_mut().step_by(2) {
            stream.write_all(if clear { b"PR" } else { b"\x16\x03\x01" }).await.unwrap();
        }
        let connection = if clear {
            cleartext(&server).await
        } else {
            connect(tls(&server, &["h2"]).await.0).await
        };
        assert_eq!(soon(read(open(&connection, "hi"))).await.text, "served");
        for mut stream in silent {
            let mut rest = Vec::new();
            let _ = soon(stream.read_to_end(&mut rest)).await;
        }
    }
}

#[tokio::test]
async fn a_run_that_nobody_reads_holds_up_no_other_and_arrives_whole() {
    // Far more than the windows take: it is made as it is read.
    let steps = serde_json::json!([{"repeat": {"times": 64, "steps": [{"bytes": {"zeros": 1 << 20}}]}}, "close"]);
    let rules = serde_json::json!([
        {"when": {"prompt": "short"}, "steps": [{"text": "short"}]}, {"steps": steps}]);
    let text = serde_json::json!({ "rules": rules }).to_string();
    let server = Server::builder()
        .cleartext()
        .script(Script::from_json(&text).unwrap())
        .bind()
        .await
        .unwrap();
    let connection = cleartext(&server).await;
    let mut stream = open(&connection, "hi");
    soon(stream.body.head()).await.unwrap();
    assert_eq!(soon(read(open(&connection, "short"))).await.text, "short");
    let mut received = 0;
    soon(async {
        while let Some(chunk) = stream.body.next().await {
            received += chunk.unwrap().len();
        }
    })
    .await;
    assert_eq!(received, 64 << 20);
}

#[tokio::test]
async fn a_client_that_resets_in_the_middle_of_a_message_is_gone_and_broke_no_rule() {
    for code in [0x0, 0x8] {
        let server = Server::builder().cleartext().script(says("hi")).bind().await.unwrap();
        let connection = cleartext(&server).await;
        let whole = envelope(run("hello", Default::default()));
        let request = request(RUN, "application/connect+proto", "tok");
        let mut stream = connection.open(request, Some(whole.slice(..9)), false).unwrap();
        soon(stream.send.sent()).await.unwrap();
        stream.send.reset(code);
        // The answer to a second run on the same connection: the server has seen the reset before.
        assert!(soon(read(open(&connection, "after it"))).await.ended);
        drop((stream, connection));
        let report = soon(server.shutdown()).await;
        assert_eq!((report.requests, report.violations), (2, vec![]), "code {code}");
    }
}
