//! Calls of all shapes, client against server (`rpc::client`, `rpc::server`), and each of them
//! against a peer of raw frames where the other would not misbehave.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentwire::connect::{Code, Limits, gzip, put_envelope};
use agentwire::error::{Detail, Kind};
use agentwire::rpc::client::{Call, CallOptions, RpcClient};
use agentwire::rpc::http2::{ClientConnection, Http2Config, Lost, LostCause};
use agentwire::rpc::server::{Router, ServerOptions, StreamCall, serve_connection};
use agentwire::rpc::{Gzip, Metadata, Reply};
use agentwire::{Error, Result};
use bytes::Bytes;
use tokio::io::duplex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::raw::{self, Raw};

const BASE: &str = "http://peer.test";

fn pairs(list: &[(&str, &str)]) -> Metadata {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn value<'a>(metadata: &'a Metadata, name: &str) -> Vec<&'a str> {
    metadata.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
}

/// A client on a connection to `router`.
async fn served(router: Router) -> (RpcClient, JoinHandle<Lost>) {
    let (near, far) = duplex(1 << 20);
    let server = tokio::spawn(async move {
        let handler = move |accepted| router.clone().serve(accepted);
        serve_connection(far, Http2Config::server(), handler, pending()).await
    });
    (client(near).await, server)
}

async fn client(io: tokio::io::DuplexStream) -> RpcClient {
    let (connection, driver) =
        ClientConnection::handshake(io, Http2Config::default()).await.unwrap();
    tokio::spawn(driver);
    RpcClient::new(connection, BASE).unwrap()
}

/// Echoes messages; the first byte of one says what else to do.
async fn echo(call: &mut StreamCall) -> Result<()> {
    call.headers = pairs(&[("x-head", "1"), ("x-head", "2")]);
    call.trailers = pairs(&[("x-trail", "3")]);
    while let Some(message) = call.next().await? {
        match message.first() {
            Some(b'!') => {
                let detail = Detail {
                    type_name: "test.Detail".to_owned(),
                    value: Bytes::from_static(b"\x01\x02"),
                    debug: None,
                };
                return Err(Error::new(Kind::Rejected, "stated")
                    .with_code(Code::OutOfRange)
                    .with_details(vec![detail])
                    .with_metadata(pairs(&[("x-error", "4")])));
            }
            Some(b'~') => sleep(Duration::from_secs(3600)).await,
            _ => call.send(&message).await?,
        }
    }
    Ok(())
}

fn router() -> Router {
    Router::new(ServerOptions::default())
        .stream("/t/Echo", |call| Box::pin(echo(call)))
        .stream("/t/One", |call| {
            Box::pin(async move {
                let message = call.one().await?;
                call.send(&message).await
            })
        })
        .unary("/t/Unary", |request, message| async move {
            let mut reply = Reply::new(Ok(message.clone()));
            reply.headers = pairs(&[("x-head", "1")]);
            reply.trailers = pairs(&[("x-trail", "3")]);
            if message.starts_with(b"!") {
                reply.result = Err(Error::new(Kind::Rejected, "stated").with_code(Code::Aborted));
            }
            if message.starts_with(b"~") {
                sleep(Duration::from_secs(3600)).await;
            }
            if message.starts_with(b"?") {
                let seen = value(&request.headers, "x-asked").join(",");
                reply.result = Ok(Bytes::from(seen));
            }
            reply
        })
}

fn options(change: impl FnOnce(&mut CallOptions)) -> CallOptions {
    let mut options = CallOptions::default();
    change(&mut options);
    options
}

#[tokio::test]
async fn unary_with_headers_and_trailers_both_ways() {
    let (client, _server) = served(router()).await;
    let call = Call::new("/t/Unary").with_headers(pairs(&[("X-Asked", "a"), ("x-asked", "b")]));
    let reply = client.unary(call, Bytes::from_static(b"?")).await;
    assert_eq!(reply.result.unwrap(), "a,b");
    assert_eq!(reply.status, Some(200));
    assert_eq!(value(&reply.headers, "x-head"), ["1"]);
    assert_eq!(value(&reply.trailers, "x-trail"), ["3"]);
    let reply = client.unary(Call::new("/t/Unary"), Bytes::from_static(b"!")).await;
    let error = reply.result.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Aborted, "stated"));
    assert_eq!(reply.status, Some(409));
    assert_eq!(value(&reply.trailers, "x-trail"), ["3"]);
}

#[tokio::test]
async fn bidi_goes_back_and_forth_and_ends_with_trailers() {
    let (client, _server) = served(router()).await;
    let (mut send, mut recv) = client.stream(Call::new("/t/Echo"), None).unwrap();
    for round in 0..100_u32 {
        let message = round.to_string().repeat(round as usize);
        send.send(message.as_bytes()).await.unwrap();
        assert_eq!(recv.next().await.unwrap().unwrap(), message);
    }
    send.close().await.unwrap();
    assert_eq!(recv.next().await.unwrap(), None);
    assert_eq!(value(recv.headers().await.unwrap(), "x-head"), ["1", "2"]);
    assert_eq!(value(recv.trailers(), "x-trail"), ["3"]);
    assert_eq!(recv.next().await.unwrap(), None);
}

#[tokio::test]
async fn an_error_after_messages_keeps_them_and_says_all_it_knows() {
    let (client, _server) = served(router()).await;
    let (mut send, mut recv) = client.stream(Call::new("/t/Echo"), Some(b"one")).unwrap();
    send.send(b"!").await.unwrap();
    assert_eq!(recv.next().await.unwrap().unwrap(), "one");
    let error = recv.next().await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::OutOfRange, "stated"));
    assert_eq!(error.details()[0].type_name, "test.Detail");
    assert_eq!(error.details()[0].value, &b"\x01\x02"[..]);
    assert_eq!(value(recv.trailers(), "x-trail"), ["3"]);
    assert_eq!(value(recv.trailers(), "x-error"), ["4"]);
    assert_eq!(recv.next().await.unwrap_err().code(), Code::OutOfRange);
    // The other half learns of the end too (M77).
    let late = timeout(Duration::from_secs(5), async { while send.send(b"x").await.is_ok() {} });
    late.await.unwrap();
}

#[tokio::test]
async fn a_request_or_an_answer_with_one_message_has_one() {
    let (client, _server) = served(router()).await;
    let mut recv = client.server_stream(Call::new("/t/One"), b"only").await.unwrap();
    assert_eq!(recv.one().await.unwrap(), "only");
    for messages in [0, 2] {
        let (mut send, mut recv) = client.stream(Call::new("/t/One"), None).unwrap();
        for _ in 0..messages {
            send.send(b"m").await.unwrap();
        }
        send.close().await.unwrap();
        assert_eq!(recv.one().await.unwrap_err().code(), Code::Unimplemented, "{messages}");
    }
    for messages in [0, 2] {
        let (mut send, mut recv) = client.stream(Call::new("/t/Echo"), None).unwrap();
        for _ in 0..messages {
            send.send(b"m").await.unwrap();
        }
        send.close().await.unwrap();
        assert_eq!(recv.one().await.unwrap_err().code(), Code::Unimplemented, "{messages}");
    }
}

#[tokio::test]
async fn gzip_both_ways_and_large_messages() {
    let (client, _server) = served(router()).await;
    let big = vec![b'z'; 3 << 20];
    for send_gzip in [None, Some(Gzip::default())] {
        for accept_gzip in [false, true] {
            let options = options(|options| {
                options.send_gzip = send_gzip;
                options.accept_gzip = accept_gzip;
            });
            let call = Call::new("/t/Unary").with_options(options.clone());
            let reply = client.unary(call, Bytes::from(big.clone())).await;
            assert_eq!(reply.result.unwrap(), big);
            let encoded = value(&reply.headers, "content-encoding");
            assert_eq!(encoded, if accept_gzip { vec!["gzip"] } else { vec![] });
            let call = Call::new("/t/Echo").with_options(options);
            let (mut send, mut recv) = client.stream(call, Some(&big)).unwrap();
            let (closed, message) = tokio::join!(send.close(), recv.next());
            closed.unwrap();
            assert_eq!(message.unwrap().unwrap(), big);
            assert_eq!(recv.next().await.unwrap(), None);
        }
    }
}

/// M9, M28, M30: the limit counts on the wire and after decompression, on both sides.
#[tokio::test]
async fn limits_hold_on_both_sides() {
    let small = Limits { message: 1000, decompressed: 1000, ..Limits::default() };
    let mut server_options = ServerOptions::default();
    server_options.limits = small;
    server_options.gzip = Some(Gzip { min: 0 });
    let router = Router::new(server_options)
        .unary("/t/Unary", |_, message| async move { Reply::new(Ok(message)) })
        .unary("/t/Big", |_, _| async move { Reply::new(Ok(Bytes::from(vec![0; 1001]))) })
        .stream("/t/Echo", |call| Box::pin(echo(call)));
    let (client, _server) = served(router).await;
    for gzip in [None, Some(Gzip { min: 0 })] {
        let options = options(|options| {
            options.send_gzip = gzip;
            options.limits = small;
        });
        for (size, expected) in [(1000, None), (1001, Some(Code::ResourceExhausted))] {
            let message = vec![0; size];
            let call = Call::new("/t/Unary").with_options(options.clone());
            let reply = client.unary(call, Bytes::from(message.clone())).await;
            assert_eq!(reply.result.err().map(|error| error.code()), expected, "{size}");
            let call = Call::new("/t/Echo").with_options(options.clone());
            let (_send, mut recv) = client.stream(call, Some(&message)).unwrap();
            assert_eq!(recv.next().await.err().map(|error| error.code()), expected, "{size}");
        }
        let call = Call::new("/t/Big").with_options(options);
        let reply = client.unary(call, Bytes::new()).await;
        assert_eq!(reply.result.unwrap_err().code(), Code::ResourceExhausted);
    }
}

/// H: the deadline ends every wait at both sides, to the millisecond.
#[tokio::test(start_paused = true)]
async fn deadlines_end_the_call_on_both_sides() {
    let (client, _server) = served(router()).await;
    let limited = options(|options| options.timeout = Some(Duration::from_millis(200)));
    let start = Instant::now();
    let call = Call::new("/t/Unary").with_options(limited.clone());
    let reply = client.unary(call, Bytes::from_static(b"~")).await;
    assert_eq!(reply.result.unwrap_err().code(), Code::DeadlineExceeded);
    let call = Call::new("/t/Echo").with_options(limited);
    let (mut send, mut recv) = client.stream(call, Some(b"first")).unwrap();
    send.send(b"~").await.unwrap();
    assert_eq!(recv.next().await.unwrap().unwrap(), "first");
    assert_eq!(recv.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(start.elapsed() <= Duration::from_millis(402), "{:?}", start.elapsed());

    // The server alone: the caller has no clock, only the header.
    let asked = Call::new("/t/Echo").with_headers(pairs(&[("connect-timeout-ms", "200")]));
    let (_send, mut recv) = client.stream(asked, Some(b"~")).unwrap();
    // The protocol's own header is not the caller's to set; so this one waits for ever.
    assert!(timeout(Duration::from_secs(1000), recv.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_limit_ends_a_call_of_a_patient_caller() {
    let mut server_options = ServerOptions::default();
    server_options.max_timeout = Some(Duration::from_secs(2));
    let router = Router::new(server_options).stream("/t/Echo", |call| Box::pin(echo(call)));
    let (client, _server) = served(router).await;
    let start = Instant::now();
    let (_send, mut recv) = client.stream(Call::new("/t/Echo"), Some(b"~")).unwrap();
    let error = recv.next().await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(start.elapsed().as_secs(), 2);
    // It came in order, with headers and trailers.
    assert_eq!(value(recv.trailers(), "x-trail"), ["3"]);
}

struct Gone(Arc<AtomicUsize>, Option<oneshot::Sender<()>>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        if let Some(told) = self.1.take() {
            let _ = told.send(());
        }
    }
}

/// M74, M75: a dropped call is cancelled, and the server drops its handler, whatever it waits for.
#[tokio::test]
async fn a_dropped_call_ends_its_handler() {
    let gone = Arc::new(AtomicUsize::new(0));
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let (count, count_unary, told_unary) = (gone.clone(), gone.clone(), told.clone());
    let router = Router::new(ServerOptions::default())
        .stream("/t/Stuck", move |call| {
            let (tell, told, count) = (told.clone(), told.clone(), count.clone());
            Box::pin(async move {
                call.send(b"begun").await?;
                let (sender, receiver) = oneshot::channel();
                tokio::spawn(async move { receiver.await.map(|()| told.send(())) });
                let _guard = Gone(count, Some(sender));
                let _ = tell;
                pending().await
            })
        })
        .unary("/t/Unary", move |_, _| {
            let (told, count) = (told_unary.clone(), count_unary.clone());
            async move {
                let (sender, receiver) = oneshot::channel();
                tokio::spawn(async move { receiver.await.map(|()| told.send(())) });
                let _guard = Gone(count, Some(sender));
                pending().await
            }
        });
    let (client, _server) = served(router).await;
    let (mut send, mut recv) = client.stream(Call::new("/t/Stuck"), None).unwrap();
    send.close().await.unwrap();
    assert_eq!(recv.next().await.unwrap().unwrap(), "begun");
    drop((send, recv));
    ended.recv().await.unwrap();
    let unary = client.unary(Call::new("/t/Unary"), Bytes::new());
    assert!(timeout(Duration::from_millis(50), unary).await.is_err());
    ended.recv().await.unwrap();
    assert_eq!(gone.load(Ordering::SeqCst), 2);
    assert_eq!(client.connection().active(), 0);
}

/// M100: what is refused, and how.
#[tokio::test]
async fn bad_requests_get_the_status_or_the_error_that_says_so() {
    let (near, far) = duplex(1 << 20);
    let router = router();
    tokio::spawn(async move {
        let handler = move |accepted| router.clone().serve(accepted);
        serve_connection(far, Http2Config::server(), handler, pending()).await
    });
    let (mut connection, driver) =
        ClientConnection::handshake(near, Http2Config::default()).await.unwrap();
    tokio::spawn(driver);
    let mut bomb = Vec::new();
    put_envelope(&mut bomb, 1, &gzip::compress(&vec![0; 17 << 20]));
    let (unary, stream) = ("application/proto", "application/connect+proto");
    // Method, path, headers, body; the status; a word of the body.
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);
    let cases: &[Case<'_>] = &[
        ("POST", "/t/None", &[("content-type", unary)], b"", 404, ""),
        ("GET", "/t/Unary", &[("content-type", unary)], b"", 405, ""),
        ("POST", "/t/Unary", &[], b"", 415, ""),
        ("POST", "/t/Unary", &[("content-type", stream)], b"", 415, ""),
        ("POST", "/t/Echo", &[("content-type", unary)], b"", 415, ""),
        (
            "POST",
            "/t/Unary",
            &[("content-type", unary), ("content-encoding", "lz4")],
            b"",
            501,
            "unimplemented",
        ),
        (
            "POST",
            "/t/Unary",
            &[("content-type", unary), ("content-encoding", "gzip")],
            b"no gzip",
            500,
            "internal",
        ),
        (
            "POST",
            "/t/Unary",
            &[("content-type", unary), ("connect-timeout-ms", "soon")],
            b"",
            400,
            "invalid_argument",
        ),
        (
            "POST",
            "/t/Unary",
            &[("content-type", unary), ("connect-protocol-version", "2")],
            b"",
            400,
            "invalid_argument",
        ),
        ("POST", "/t/Echo", &[("content-type", stream)], b"\0\0\0", 200, "internal"),
        ("POST", "/t/Echo", &[("content-type", stream)], b"\0\0\0\0\x05ab", 200, "internal"),
        (
            "POST",
            "/t/Echo",
            &[("content-type", stream)],
            b"\0\xff\xff\xff\xff",
            200,
            "resource_exhausted",
        ),
        ("POST", "/t/Echo", &[("content-type", stream)], b"\x01\0\0\0\x01a", 200, "internal"),
        ("POST", "/t/Echo", &[("content-type", stream)], b"\x04\0\0\0\x01a", 200, "internal"),
        ("POST", "/t/Echo", &[("content-type", stream)], b"\x02\0\0\0\x02{}", 200, "invalid"),
        (
            "POST",
            "/t/Echo",
            &[("content-type", stream), ("connect-content-encoding", "br")],
            b"",
            200,
            "unimplemented",
        ),
        (
            "POST",
            "/t/Echo",
            &[("content-type", stream), ("connect-content-encoding", "gzip")],
            &bomb,
            200,
            "resource_exhausted",
        ),
        ("POST", "/t/One", &[("content-type", stream)], b"", 200, "unimplemented"),
        (
            "POST",
            "/t/One",
            &[("content-type", stream)],
            b"\0\0\0\0\0\0\0\0\0\0",
            200,
            "unimplemented",
        ),
    ];
    for (method, path, headers, body, status, word) in cases {
        let mut request = http::Request::builder().method(*method).uri(format!("{BASE}{path}"));
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let body = Bytes::copy_from_slice(body);
        let mut open = connection.open(request.body(()).unwrap(), Some(body), true).unwrap();
        let head = open.body.head().await.unwrap();
        assert_eq!(head.status.as_u16(), *status, "{method} {path} {headers:?}");
        let mut text = Vec::new();
        while let Some(chunk) = open.body.next().await {
            text.extend_from_slice(&chunk.unwrap());
        }
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains(word), "{method} {path} {headers:?}: {text}");
    }
    assert!(!connection.is_draining());
}

/// A peer that answers every call with these bytes.
async fn canned(head: Vec<u8>, frames: Vec<Vec<u8>>) -> RpcClient {
    let (near, far) = duplex(1 << 20);
    tokio::spawn(async move {
        let mut peer = Raw::server(far).await;
        loop {
            let id = peer.expect(raw::HEADERS).await.stream;
            peer.write(raw::HEADERS, raw::END_HEADERS, id, &head).await;
            let last = frames.len();
            for (at, data) in frames.iter().enumerate() {
                let flags = if at + 1 == last { raw::END_STREAM } else { 0 };
                peer.write(raw::DATA, flags, id, data).await;
            }
        }
    });
    client(near).await
}

/// `:status` and `content-type`, as HPACK literals.
fn head(status: &str, kind: &str) -> Vec<u8> {
    let mut block = vec![0x08, 3];
    block.extend(status.bytes());
    block.extend([0x0f, 16, u8::try_from(kind.len()).unwrap()]);
    block.extend(kind.bytes());
    block
}

/// M5, M6, M11, M12, M39, M41.
#[tokio::test]
async fn answers_that_break_the_rules() {
    let stream = "application/connect+proto";
    let message = b"\0\0\0\0\x02ok".to_vec();
    let end = b"\x02\0\0\0\x02{}".to_vec();
    // Status, content type, body; the messages in it; the code of the end.
    type Case<'a> = (&'a str, &'a str, Vec<u8>, usize, Option<Code>);
    let cases: &[Case<'_>] = &[
        ("200", stream, [&message[..], &end].concat(), 1, None),
        ("200", stream, message.clone(), 1, Some(Code::Internal)),
        ("200", stream, [&message[..], b"\0\0\0"].concat(), 1, Some(Code::Internal)),
        ("200", stream, [&message[..], b"\0\0\0\0\x05ab"].concat(), 1, Some(Code::Internal)),
        ("200", stream, [&end[..], &message].concat(), 0, Some(Code::Internal)),
        ("200", stream, [&end[..], &end].concat(), 0, Some(Code::Internal)),
        ("200", "text/html", b"<html>".to_vec(), 0, Some(Code::Unknown)),
        ("500", stream, [&message[..], &end].concat(), 0, Some(Code::Unknown)),
        ("302", "text/html", b"x".to_vec(), 0, Some(Code::Unknown)),
        (
            "401",
            "application/json",
            br#"{"code":"unauthenticated","message":"no"}"#.to_vec(),
            0,
            Some(Code::Unauthenticated),
        ),
    ];
    for (status, kind, body, messages, expected) in cases {
        let client = canned(head(status, kind), vec![body.clone()]).await;
        let (_send, mut recv) = client.stream(Call::new("/x"), None).unwrap();
        for _ in 0..*messages {
            assert_eq!(recv.next().await.unwrap().unwrap(), "ok");
        }
        match recv.next().await {
            Ok(None) => assert_eq!(*expected, None),
            Ok(Some(message)) => panic!("{message:?}"),
            Err(error) => assert_eq!(Some(error.code()), *expected, "{error}"),
        }
    }
}

/// M13: done at once; our unfinished side is reset with NO_ERROR.
#[tokio::test]
async fn an_end_without_end_stream_is_the_end() {
    let (near, far) = duplex(1 << 20);
    let client = client(near).await;
    let mut peer = Raw::server(far).await;
    let (send, mut recv) = client.stream(Call::new("/x"), Some(b"m")).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    let block = head("200", "application/connect+proto");
    peer.write(raw::HEADERS, raw::END_HEADERS, id, &block).await;
    peer.write(raw::DATA, 0, id, b"\x02\0\0\0\x02{}").await;
    assert_eq!(recv.next().await.unwrap(), None);
    drop((send, recv));
    assert_eq!(peer.expect(raw::RST_STREAM).await.payload, 0_u32.to_be_bytes());
}

/// M39, M45: an endless body ends at its limit, and the stream is reset.
#[tokio::test]
async fn endless_bodies_are_cut() {
    for (status, limit, code) in
        [("500", 64 << 10, Code::Unknown), ("200", 5000, Code::ResourceExhausted)]
    {
        let (near, far) = duplex(1 << 20);
        let client = client(near).await;
        let peer = tokio::spawn(async move {
            let mut peer = Raw::server(far).await;
            let id = peer.expect(raw::HEADERS).await.stream;
            let block = head(status, "application/proto");
            peer.write(raw::HEADERS, raw::END_HEADERS, id, &block).await;
            // More than any limit, less than the window; never an end.
            for _ in 0..100 {
                peer.write(raw::DATA, 0, id, &[b'x'; 1000]).await;
            }
            peer.expect(raw::RST_STREAM).await
        });
        let options = options(|options| options.limits.message = 5000);
        let reply = client.unary(Call::new("/x").with_options(options), Bytes::new()).await;
        let error = reply.result.unwrap_err();
        assert_eq!(error.code(), code, "{limit}: {error}");
        assert_eq!(peer.await.unwrap().payload, 8_u32.to_be_bytes());
    }
}

/// PROTOCOL 1, M45: a unary answer inside an envelope, where that is allowed.
#[tokio::test]
async fn enveloped_unary_answers_are_read_where_allowed() {
    let enveloped = b"\0\0\0\0\x02\x08\x01".to_vec();
    let with_end = [&enveloped[..], b"\x02\0\0\0\x02{}"].concat();
    let failed = [&enveloped[..], b"\x02\0\0\0\x1c{\"error\":{\"code\":\"aborted\"}}"].concat();
    let allowed = options(|options| options.accept_enveloped = true);
    for kind in ["application/proto", "application/connect+proto"] {
        for (body, expected) in [
            (enveloped.clone(), Ok(b"\x08\x01".to_vec())),
            (with_end.clone(), Ok(b"\x08\x01".to_vec())),
            (failed.clone(), Err(Code::Aborted)),
            (b"\0\0\0\0\x09\x08".to_vec(), Err(Code::Internal)),
        ] {
            let client = canned(head("200", kind), vec![body]).await;
            let call = Call::new("/x").with_options(allowed.clone());
            let reply = client.unary(call, Bytes::new()).await;
            let result = reply.result.map(Vec::from).map_err(|error| error.code());
            assert_eq!(result, expected, "{kind}");
        }
    }
    // A bare message, or an empty one, stays what it is.
    for bare in [b"\x08\x01".to_vec(), Vec::new()] {
        let client = canned(head("200", "application/proto"), vec![bare.clone()]).await;
        let call = Call::new("/x").with_options(allowed.clone());
        assert_eq!(client.unary(call, Bytes::new()).await.result.unwrap(), bare);
    }
    let client = canned(head("200", "application/connect+proto"), vec![enveloped]).await;
    let reply = client.unary(Call::new("/x"), Bytes::new()).await;
    assert_eq!(reply.result.unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_anything_is_written() {
    let (client, _server) = served(router()).await;
    for (name, header) in [("x-a", "a\r\nb"), ("host", "x"), ("x-b", "\u{e4}")] {
        let call = Call::new("/t/Unary").with_headers(pairs(&[(name, header)]));
        let error = client.unary(call, Bytes::new()).await.result.unwrap_err();
        assert_eq!(error.kind(), &Kind::InvalidRequest);
    }
    assert_eq!(client.connection().active(), 0);
    for base in ["peer.test", "http://", "http://u:p@peer.test", "http://peer.test/?q", ""] {
        assert!(RpcClient::new(client.connection().clone(), base).is_err(), "{base}");
    }
}

/// A graceful shutdown finishes what is open and takes nothing new.
#[tokio::test]
async fn shutdown_drains() {
    let (near, far) = duplex(1 << 20);
    let (stop, stopped) = oneshot::channel::<()>();
    let router = router();
    let server = tokio::spawn(async move {
        let handler = move |accepted| router.clone().serve(accepted);
        let shutdown = async { stopped.await.unwrap_or_default() };
        serve_connection(far, Http2Config::server(), handler, shutdown).await
    });
    let client = client(near).await;
    let (mut send, mut recv) = client.stream(Call::new("/t/Echo"), Some(b"a")).unwrap();
    assert_eq!(recv.next().await.unwrap().unwrap(), "a");
    stop.send(()).unwrap();
    send.send(b"b").await.unwrap();
    assert_eq!(recv.next().await.unwrap().unwrap(), "b");
    let refused = client.unary(Call::new("/t/Unary"), Bytes::new()).await.result;
    if let Err(error) = refused {
        assert_eq!(error.code(), Code::Unavailable, "{error}");
    }
    send.close().await.unwrap();
    assert_eq!(recv.next().await.unwrap(), None);
    drop((send, recv));
    let lost = timeout(Duration::from_secs(5), server).await.unwrap().unwrap();
    assert_eq!(lost.cause(), LostCause::GoAway { code: 0, local: false });
}

/// M72: one connection, many calls at once, one of them stalled.
#[tokio::test]
async fn a_stalled_call_does_not_hold_the_others() {
    let mut server_options = ServerOptions::default();
    server_options.gzip = None;
    let router = Router::new(server_options).stream("/t/Echo", |call| Box::pin(echo(call))).stream(
        "/t/Flood",
        |call| {
            Box::pin(async move {
                loop {
                    call.send(&[0; 50_000]).await?;
                }
            })
        },
    );
    let (client, _server) = served(router).await;
    let mut stalled = Vec::new();
    for _ in 0..10 {
        stalled.push(client.stream(Call::new("/t/Flood"), None).unwrap());
    }
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        calls.spawn(async move {
            let (mut send, mut recv) = client.stream(Call::new("/t/Echo"), None).unwrap();
            for _ in 0..20 {
                send.send(b"ping").await.unwrap();
                assert_eq!(recv.next().await.unwrap().unwrap(), "ping");
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    assert_eq!(client.connection().active(), 10);
}
