//! A client that breaks the rules of HTTP/2 against our server's side (FAULTS M96, M99).

use std::time::Duration;

use agentwire::rpc::http2::{Http2Config, Lost, LostCause, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::http2::LINK;
use crate::raw::{self, Raw, frame, headers, literal};

/// `POST http /`, and the authority.
fn post() -> Vec<u8> {
    [&[0x83, 0x86, 0x84][..], &literal(b":authority", b"x")].concat()
}

/// A server that keeps what it accepts and says how many requests that were when it ends.
fn serve(io: DuplexStream) -> JoinHandle<(usize, Lost)> {
    tokio::spawn(async move {
        let mut server = match ServerConnection::handshake(io, Http2Config::server()).await {
            Ok(server) => server,
            Err(lost) => return (0, lost),
        };
        let mut kept = Vec::new();
        loop {
            match server.accept().await {
                Ok(accepted) => kept.push(accepted),
                Err(lost) => return (kept.len(), lost),
            }
        }
    })
}

/// A client that has greeted.
async fn greeted() -> (Raw, JoinHandle<(usize, Lost)>) {
    let (near, far) = duplex(LINK);
    let server = serve(far);
    let mut client = Raw { io: near };
    client.io.write_all(raw::PREFACE).await.unwrap();
    client.write(raw::SETTINGS, 0, 0, &[]).await;
    (client, server)
}

/// Writes `bytes` and reads what the server answers, until it closes.
async fn answer(mut client: Raw, bytes: &[u8]) -> Vec<raw::Frame> {
    let _ = client.io.write_all(bytes).await;
    let mut seen = Vec::new();
    while let Some(frame) = client.next().await {
        seen.push(frame);
    }
    seen
}

#[tokio::test]
async fn m96_breaches_end_the_connection_with_their_code() {
    let cases: [(&str, Vec<u8>, u32); 9] = [
        ("data on stream 0", frame(raw::DATA, 0, 0, b"x"), 1),
        ("data on an idle stream", frame(raw::DATA, 0, 9, b"x"), 1),
        ("a stream with an even id", headers(0, 2, &post()), 1),
        ("frame too large", frame(raw::DATA, 0, 1, &[0; 16_385]), 6),
        // PROTOCOL_ERROR where RFC 9113 has codes of their own: h2's choice.
        ("broken HPACK", frame(raw::HEADERS, 4, 1, &[0xbe]), 1),
        ("half a setting", frame(raw::SETTINGS, 0, 0, &[0; 5]), 1),
        ("window overflow", frame(raw::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]), 3),
        ("a push from a client", frame(raw::PUSH_PROMISE, 4, 1, &[0, 0, 0, 2, 0x82]), 1),
        ("CONTINUATION from nowhere", frame(raw::CONTINUATION, 4, 1, &[0x83]), 1),
    ];
    for (what, bytes, code) in cases {
        let (client, server) = greeted().await;
        let seen = timeout(Duration::from_secs(20), answer(client, &bytes)).await.unwrap();
        let goaway = seen.iter().rev().find(|frame| frame.kind == raw::GOAWAY);
        let told = goaway.map(|frame| frame.payload[4..8].to_vec());
        assert_eq!(told, Some(code.to_be_bytes().to_vec()), "{what}: {seen:?}");
        let (_, lost) = server.await.unwrap();
        assert_eq!(lost.cause(), LostCause::GoAway { code, local: true }, "{what}");
    }
}

#[tokio::test]
async fn m96_requests_that_are_malformed_are_reset_alone() {
    let cases = [
        ("no path", [&[0x83, 0x86][..], &literal(b":authority", b"x")].concat()),
        ("connection", [post(), literal(b"connection", b"close")].concat()),
        ("a response's status", [post(), literal(b":status", b"200")].concat()),
    ];
    for (what, block) in cases {
        let (mut client, server) = greeted().await;
        client.io.write_all(&headers(raw::END_STREAM, 1, &block)).await.unwrap();
        let reset = client.expect(raw::RST_STREAM).await;
        assert_eq!((reset.stream, reset.payload), (1, 1_u32.to_be_bytes().to_vec()), "{what}");
        // The next one is taken.
        client.io.write_all(&headers(raw::END_STREAM, 3, &post())).await.unwrap();
        client.write(raw::PING, 0, 0, &[1; 8]).await;
        client.expect(raw::PING).await;
        drop(client);
        assert_eq!(server.await.unwrap().0, 1, "{what}");
    }
}

/// What is sent again and again; how many requests the server may have taken up meanwhile.
async fn flood(piece: impl Fn(u32) -> Vec<u8>, times: u32) -> (Vec<raw::Frame>, usize, Lost) {
    let (near, far) = duplex(LINK);
    let server = serve(far);
    let (mut read, mut write) = tokio::io::split(near);
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let mut space = vec![0; 64 << 10];
        while let Ok(count) = read.read(&mut space).await {
            if count == 0 {
                break;
            }
            all.extend_from_slice(&space[..count]);
        }
        all
    });
    let writing = async {
        write.write_all(raw::PREFACE).await?;
        write.write_all(&frame(raw::SETTINGS, 0, 0, &[])).await?;
        for n in 0..times {
            write.write_all(&piece(n)).await?;
        }
        write.shutdown().await
    };
    // Broken off when the server closes.
    let _ = timeout(Duration::from_secs(30), writing).await.expect("a flood is over in time");
    let (taken, lost) = server.await.unwrap();
    drop(write);
    let mut rest = Raw { io: std::io::Cursor::new(reading.await.unwrap()) };
    let mut seen = Vec::new();
    while let Some(frame) = rest.next().await {
        seen.push(frame);
    }
    (seen, taken, lost)
}

fn calm() -> LostCause {
    LostCause::GoAway { code: 11, local: true }
}

#[tokio::test]
async fn m99_rapid_reset_is_ended() {
    let piece = |n: u32| {
        let id = 2 * n + 1;
        [headers(0, id, &post()), frame(raw::RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
    };
    let (_, taken, lost) = flood(piece, 100_000).await;
    assert_eq!(lost.cause(), calm(), "{lost}");
    assert!(taken < 1_000, "{taken} of 100,000 were taken up");
}

#[tokio::test]
async fn m99_continuations_without_end_are_ended() {
    let piece = |n: u32| {
        let first = if n == 0 { frame(raw::HEADERS, 0, 1, &post()) } else { Vec::new() };
        [first, frame(raw::CONTINUATION, 0, 1, &[]).repeat(1_000)].concat()
    };
    let (_, taken, lost) = flood(piece, 100).await;
    assert_eq!((taken, lost.cause()), (0, calm()), "{lost}");
}

#[tokio::test]
async fn m99_settings_and_pings_are_answered_and_cost_nothing_else() {
    for (kind, payload) in [(raw::SETTINGS, &[][..]), (raw::PING, &[1; 8])] {
        let piece = |_| frame(kind, 0, 0, payload).repeat(1_000);
        let (seen, taken, lost) = flood(piece, 100).await;
        assert_eq!(taken, 0);
        assert!(
            matches!(lost.cause(), LostCause::Cut | LostCause::GoAway { code: 0, .. }),
            "{lost}"
        );
        let answered = seen.iter().filter(|frame| frame.kind == kind).count();
        assert!(answered > 50_000, "{answered}");
    }
}

/// Headers that never end are no stream: the connection is idle and goes.
#[tokio::test(start_paused = true)]
async fn m99_slow_headers_are_an_idle_connection() {
    let (mut client, server) = greeted().await;
    let start = Instant::now();
    client.io.write_all(&frame(raw::HEADERS, 0, 1, &post())).await.unwrap();
    let mut bytes = 0;
    // A byte of the next header a second.
    let slow = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if client.io.write_all(&frame(raw::CONTINUATION, 0, 1, &[0])).await.is_err() {
                return;
            }
            bytes += 1;
        }
    };
    let (taken, lost) = tokio::select! {
        () = slow => panic!("the server went without a word"),
        ended = server => ended.unwrap(),
    };
    assert_eq!(taken, 0);
    assert!(start.elapsed() <= Duration::from_secs(122), "{lost} {bytes}");
}
