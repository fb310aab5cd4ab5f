//! Connections and byte streams (`rpc::http2`).

use std::future::poll_fn;
use std::time::Duration;

use agentwire::rpc::http2::{
    BodyReceiver, ClientConnection, Http2Config, Lost, LostCause, OpenStream, SendError,
    ServerConnection,
};
use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::raw::{self, Raw};

pub(crate) const LINK: usize = 1 << 20;

pub(crate) fn request() -> Request<()> {
    Request::post("http://peer.test/x").body(()).unwrap()
}

pub(crate) async fn connect(io: DuplexStream) -> (ClientConnection, JoinHandle<Lost>) {
    connect_with(io, Http2Config::default()).await
}

pub(crate) async fn connect_with(
    io: DuplexStream,
    config: Http2Config,
) -> (ClientConnection, JoinHandle<Lost>) {
    let (connection, driver) = ClientConnection::handshake(io, config).await.unwrap();
    (connection, tokio::spawn(driver))
}

pub(crate) async fn read_all(body: &mut BodyReceiver) -> Result<Vec<u8>, Lost> {
    let mut all = Vec::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

/// A server that echoes every body, after the whole of it when `late`.
pub(crate) fn echo(io: DuplexStream) -> JoinHandle<Lost> {
    tokio::spawn(async move {
        let mut server = ServerConnection::handshake(io, Http2Config::server()).await.unwrap();
        loop {
            let mut accepted = match server.accept().await {
                Ok(accepted) => accepted,
                Err(lost) => return lost,
            };
            tokio::spawn(async move {
                let mut send = accepted.respond.send_head(Response::new(()), false).unwrap();
                while let Some(Ok(chunk)) = accepted.body.next().await {
                    send.send(chunk).await.unwrap();
                }
                send.finish().await.unwrap();
            });
        }
    })
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_connection_ends_with_its_last_handle() {
    let (near, far) = duplex(LINK);
    let server = echo(far);
    let (connection, driver) = connect(near).await;
    let big = Bytes::from((0..3_000_000_u32).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>());
    let OpenStream { mut body, mut send } =
        connection.open(request(), Some(Bytes::from_static(b"first ")), false).unwrap();
    let (sent, echoed) = tokio::join!(
        async {
            send.send(big.clone()).await?;
            send.finish().await
        },
        async {
            let head = body.head().await?;
            assert_eq!(head.status, 200);
            read_all(&mut body).await
        }
    );
    sent.unwrap();
    let echoed = echoed.unwrap();
    assert_eq!(echoed.len(), big.len() + 6);
    assert!(echoed.starts_with(b"first ") && echoed.ends_with(&big));
    assert_eq!(connection.active(), 1);
    drop((body, send));
    assert_eq!(connection.active(), 0);
    drop(connection);
    assert_eq!(driver.await.unwrap().cause(), LostCause::GoAway { code: 0, local: false });
    assert_eq!(server.await.unwrap().cause(), LostCause::GoAway { code: 0, local: false });
}

#[tokio::test]
async fn the_first_bytes_leave_with_the_headers_before_anything_came_back() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw { io: far };
    let mut preface = [0; 24];
    peer.io.read_exact(&mut preface).await.unwrap();
    let _open = connection.open(request(), Some(Bytes::from_static(b"hello")), false).unwrap();
    let headers = peer.expect(raw::HEADERS).await;
    let data = peer.next().await.unwrap();
    assert_eq!((data.kind, data.stream), (raw::DATA, headers.stream));
    assert_eq!(data.payload, b"hello");
}

/// FAULTS finding 1, M71; PERFORMANCE goal 14.
#[tokio::test]
async fn sixty_thousand_unread_frames_leave_the_connection_and_other_streams_alone() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut stalled = connection.open(request(), None, true).unwrap();
    let stalled_id = peer.expect(raw::HEADERS).await.stream;
    let mut other = connection.open(request(), None, true).unwrap();
    let other_id = peer.expect(raw::HEADERS).await.stream;
    peer.head(stalled_id).await;
    peer.head(other_id).await;
    let frame = raw::frame(raw::DATA, 0, stalled_id, &[7; 31]);
    for _ in 0..600 {
        peer.io.write_all(&frame.repeat(100)).await.unwrap();
    }
    peer.write(raw::DATA, raw::END_STREAM, stalled_id, b"end").await;
    peer.write(raw::DATA, raw::END_STREAM, other_id, b"other").await;
    // The other stream answers while nobody reads the first.
    other.body.head().await.unwrap();
    assert_eq!(read_all(&mut other.body).await.unwrap(), b"other");
    assert!(!connection.is_closed());
    stalled.body.head().await.unwrap();
    let all = read_all(&mut stalled.body).await.unwrap();
    assert_eq!(all.len(), 60_000 * 31 + 3);
}

/// M71: credit is withheld until the consumer took the bytes, and then comes back.
#[tokio::test]
async fn window_credit_is_withheld_in_bytes_until_they_are_taken() {
    let (near, far) = duplex(LINK);
    let mut config = Http2Config::default();
    config.stream_window = 100_000;
    let (connection, _driver) = connect_with(near, config).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, true).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    peer.head(id).await;
    for _ in 0..10 {
        peer.write(raw::DATA, 0, id, &[0; 10_000]).await;
    }
    // All of it is here, and the peer has got no credit: what follows its own PING is the answer.
    peer.write(raw::PING, 0, 0, b"12345678").await;
    loop {
        let frame = peer.next().await.unwrap();
        assert_ne!((frame.kind, frame.stream), (raw::WINDOW_UPDATE, id));
        if frame.kind == raw::PING {
            break;
        }
    }
    open.body.head().await.unwrap();
    let mut taken = 0;
    while taken < 100_000 {
        taken += open.body.chunk().await.unwrap().unwrap().len();
    }
    open.body.release(taken);
    let update = peer.expect(raw::WINDOW_UPDATE).await;
    assert_eq!((update.stream, update.payload), (id, 100_000_u32.to_be_bytes().to_vec()));
}

/// FAULTS finding 3.
#[tokio::test]
async fn a_cancel_message_leaves_before_the_reset() {
    let (near, far) = duplex(64);
    let (connection, _driver) = connect(near).await;
    let reader = tokio::spawn(async move {
        let mut peer = Raw::server(far).await;
        let mut seen = Vec::new();
        loop {
            let frame = peer.next().await.unwrap();
            match frame.kind {
                raw::DATA => seen.extend(frame.payload),
                raw::RST_STREAM => return (seen, frame.payload),
                _ => {}
            }
        }
    });
    let mut open = connection.open(request(), None, false).unwrap();
    let message = Bytes::from(vec![9; 20_000]);
    open.send.push(message.clone()).unwrap();
    open.send.flush_then_reset(8, Duration::from_secs(1)).await;
    let (seen, code) = reader.await.unwrap();
    assert_eq!(seen, message);
    assert_eq!(code, 8_u32.to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn the_reset_comes_after_a_second_even_if_nothing_can_leave() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    // No window at all.
    let mut peer = Raw::server_with(far, &[(4, 0)]).await;
    peer.expect(raw::SETTINGS).await;
    let mut open = connection.open(request(), None, false).unwrap();
    peer.expect(raw::HEADERS).await;
    open.send.push(Bytes::from_static(b"cancel")).unwrap();
    let start = Instant::now();
    open.send.flush_then_reset(8, Duration::from_secs(1)).await;
    assert_eq!(start.elapsed().as_secs(), 1);
    assert_eq!(peer.expect(raw::RST_STREAM).await.payload, 8_u32.to_be_bytes());
}

/// M69, M70: the queue is bounded, the wait has an end, and progress renews it.
#[tokio::test(start_paused = true)]
async fn writes_are_bounded_and_give_up_without_window() {
    let (near, far) = duplex(LINK);
    let mut config = Http2Config::default();
    config.send_queue = 1000;
    let (connection, _driver) = connect_with(near, config).await;
    let mut peer = Raw::server_with(far, &[(4, 10)]).await;
    peer.expect(raw::SETTINGS).await;
    let mut open = connection.open(request(), None, false).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    open.send.push(Bytes::from(vec![0; 900])).unwrap();
    assert_eq!(open.send.push(Bytes::from(vec![0; 200])), Err(SendError::Full));
    let start = Instant::now();
    let grow = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        peer.write(raw::WINDOW_UPDATE, 0, id, &10_u32.to_be_bytes()).await;
    };
    let (result, ()) = tokio::join!(poll_fn(|cx| open.send.poll_sent(cx)), grow);
    assert_eq!(result, Err(SendError::Stalled), "{:?} {:?}", start.elapsed(), connection.death());
    assert_eq!(start.elapsed().as_secs(), 20 + 30);
    assert_eq!(open.send.queued(), 880);
}

/// M51: the stream's error is the connection's, with its debug data escaped and cut.
#[tokio::test]
async fn goaway_with_an_error_names_code_and_debug_data() {
    let (near, far) = duplex(LINK);
    let (connection, driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, true).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    peer.head(id).await;
    peer.write(raw::DATA, 0, id, b"before").await;
    let mut goaway = id.to_be_bytes().to_vec();
    goaway.extend(11_u32.to_be_bytes());
    goaway.extend(b"too \x1b[31mmany".repeat(1000));
    peer.write(raw::GOAWAY, 0, 0, &goaway).await;
    drop(peer);
    open.body.head().await.unwrap();
    assert_eq!(open.body.next().await.unwrap().unwrap(), "before");
    let lost = open.body.next().await.unwrap().unwrap_err();
    assert_eq!(lost.cause(), LostCause::GoAway { code: 11, local: false });
    assert!(lost.detail().starts_with(r#""too \x1b[31mmany"#), "{lost}");
    assert!(lost.detail().len() <= 200);
    assert!(!lost.is_unprocessed());
    assert_eq!(driver.await.unwrap().cause(), lost.cause());
    assert!(connection.is_closed());
}

/// M49, M50.
#[tokio::test]
async fn a_draining_connection_finishes_old_streams_and_refuses_new_ones() {
    let (near, far) = duplex(LINK);
    let (mut connection, _driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut kept = connection.open(request(), None, true).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    let mut refused = connection.open(request(), None, true).unwrap();
    peer.expect(raw::HEADERS).await;
    let mut goaway = id.to_be_bytes().to_vec();
    goaway.extend(0_u32.to_be_bytes());
    peer.write(raw::GOAWAY, 0, 0, &goaway).await;
    let lost = refused.body.head().await.unwrap_err();
    assert!(lost.is_unprocessed(), "{lost}");
    assert!(connection.is_draining() && !connection.is_closed());
    assert!(connection.open(request(), None, true).is_err_and(|lost| lost.is_unprocessed()));
    peer.head(id).await;
    peer.write(raw::DATA, raw::END_STREAM, id, b"done").await;
    kept.body.head().await.unwrap();
    assert_eq!(read_all(&mut kept.body).await.unwrap(), b"done");
}

/// M46, M47, M48.
#[tokio::test]
async fn resets_keep_what_came_before_and_name_their_code() {
    for code in [0, 1, 2, 3, 5, 7, 8, 11, 13, 99_u32] {
        let (near, far) = duplex(LINK);
        let (mut connection, _driver) = connect(near).await;
        let mut peer = Raw::server(far).await;
        let mut open = connection.open(request(), None, false).unwrap();
        let id = peer.expect(raw::HEADERS).await.stream;
        peer.head(id).await;
        peer.write(raw::DATA, 0, id, b"part").await;
        peer.write(raw::RST_STREAM, 0, id, &code.to_be_bytes()).await;
        open.body.head().await.unwrap();
        assert_eq!(open.body.next().await.unwrap().unwrap(), "part");
        match open.body.next().await {
            None => assert_eq!(code, 0),
            Some(Err(lost)) if code == 7 => {
                assert_eq!(lost.cause(), LostCause::Refused);
                assert!(!lost.is_unprocessed());
            }
            Some(Err(lost)) => assert_eq!(lost.cause(), LostCause::Reset { code, local: false }),
            Some(Ok(bytes)) => panic!("{bytes:?}"),
        }
        assert!(!connection.is_draining());
    }
}

#[tokio::test]
async fn refused_before_the_answer_is_unprocessed() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, false).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    peer.write(raw::RST_STREAM, 0, id, &7_u32.to_be_bytes()).await;
    assert!(open.body.head().await.unwrap_err().is_unprocessed());
}

/// M52.
#[tokio::test]
async fn a_cut_connection_is_cut_for_every_stream() {
    let (near, far) = duplex(LINK);
    let (connection, driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut one = connection.open(request(), None, false).unwrap();
    let mut two = connection.open(request(), None, false).unwrap();
    peer.expect(raw::HEADERS).await;
    drop(peer);
    for body in [&mut one.body, &mut two.body] {
        let lost = body.head().await.unwrap_err();
        assert!(
            matches!(lost.cause(), LostCause::Cut | LostCause::GoAway { code: 0, .. }),
            "{lost}"
        );
    }
    assert_eq!(one.send.send(Bytes::from_static(b"x")).await, Err(SendError::Ended));
    driver.await.unwrap();
}

/// M53: our side ends the connection; the others get the same reason.
#[tokio::test]
async fn a_breach_of_http2_ends_the_connection_with_its_code() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, false).unwrap();
    peer.expect(raw::HEADERS).await;
    peer.write(raw::DATA, 0, 0, b"on stream zero").await;
    let lost = open.body.head().await.unwrap_err();
    assert_eq!(lost.cause(), LostCause::GoAway { code: 1, local: true });
}

/// M57.
#[tokio::test(start_paused = true)]
async fn a_peer_without_settings_or_with_http1_is_told_apart() {
    let (near, _far) = duplex(LINK);
    let (connection, driver) = connect(near).await;
    let mut open = connection.open(request(), None, false).unwrap();
    let start = Instant::now();
    assert_eq!(open.body.head().await.unwrap_err().cause(), LostCause::NoSettings);
    assert_eq!(start.elapsed().as_secs(), 10);
    driver.await.unwrap();

    let (near, mut far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut open = connection.open(request(), None, false).unwrap();
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    assert_eq!(open.body.head().await.unwrap_err().cause(), LostCause::Http1);
}

/// M65: 30 s of silence, then 20 s for an answer.
#[tokio::test(start_paused = true)]
async fn an_unanswered_ping_ends_the_connection_in_fifty_seconds() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, false).unwrap();
    peer.expect(raw::HEADERS).await;
    let start = Instant::now();
    assert_eq!(open.body.head().await.unwrap_err().cause(), LostCause::NoPong);
    assert_eq!(start.elapsed().as_secs(), 50);
    let mut pings = 0;
    while let Some(frame) = peer.next().await {
        pings += u32::from(frame.kind == raw::PING);
    }
    assert_eq!(pings, 1);
}

#[tokio::test(start_paused = true)]
async fn answered_pings_keep_a_silent_stream_alive() {
    let (near, far) = duplex(LINK);
    let server = tokio::spawn(async move {
        let mut server = ServerConnection::handshake(far, Http2Config::server()).await.unwrap();
        let accepted = server.accept().await.unwrap();
        // Held open; the connection goes on being driven.
        let _ = timeout(Duration::from_secs(3600), server.accept()).await;
        drop(accepted);
    });
    let (connection, _driver) = connect(near).await;
    let mut open = connection.open(request(), None, false).unwrap();
    assert!(timeout(Duration::from_secs(3000), open.body.head()).await.is_err());
    assert!(!connection.is_closed());
    server.abort();
}

/// M75, M77b: nobody hangs when the driver is gone.
#[tokio::test]
async fn a_dropped_driver_ends_every_stream() {
    let (near, far) = duplex(LINK);
    let (connection, driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, false).unwrap();
    peer.expect(raw::HEADERS).await;
    driver.abort();
    assert_eq!(open.body.head().await.unwrap_err().cause(), LostCause::Abandoned);
    assert!(connection.open(request(), None, false).is_err());
}

/// M74, M75: dropping the stream is a cancel that the peer sees, and the connection lives on.
#[tokio::test]
async fn a_dropped_stream_is_cancelled() {
    let (near, far) = duplex(LINK);
    let (mut connection, _driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let open = connection.open(request(), Some(Bytes::from_static(b"x")), false).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    peer.expect(raw::DATA).await;
    drop(open);
    let reset = peer.expect(raw::RST_STREAM).await;
    assert_eq!((reset.stream, reset.payload), (id, 8_u32.to_be_bytes().to_vec()));
    assert!(!connection.is_draining());
    assert_eq!(connection.active(), 0);
}

/// M42: informational heads are skipped, however many.
#[tokio::test]
async fn informational_heads_are_skipped() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, true).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    // Literal without indexing, name 8 (`:status`), "103".
    let info = raw::frame(raw::HEADERS, raw::END_HEADERS, id, b"\x08\x03103");
    for _ in 0..50 {
        peer.io.write_all(&info.repeat(1000)).await.unwrap();
    }
    peer.head(id).await;
    assert_eq!(open.body.head().await.unwrap().status, 200);
}

#[tokio::test]
async fn the_server_sees_a_cancel_before_and_after_its_head() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut server = ServerConnection::handshake(far, Http2Config::server()).await.unwrap();
    let one = connection.open(request(), None, true).unwrap();
    let two = connection.open(request(), None, true).unwrap();
    let mut first = server.accept().await.unwrap();
    let second = server.accept().await.unwrap();
    let mut sender = second.respond.send_head(Response::new(()), false).unwrap();
    let drive = tokio::spawn(async move { server.accept().await.map(|_| ()) });
    drop((one, two));
    assert_eq!(poll_fn(|cx| first.respond.poll_cancelled(cx)).await, 8);
    assert_eq!(poll_fn(|cx| sender.poll_cancelled(cx)).await, 8);
    drop(connection);
    drop((first, second.body, sender));
    assert!(drive.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_server_closes_an_idle_connection_and_one_without_preface() {
    let (near, far) = duplex(LINK);
    let (connection, driver) = connect(near).await;
    let mut server = ServerConnection::handshake(far, Http2Config::server()).await.unwrap();
    let start = Instant::now();
    assert!(server.accept().await.is_err());
    assert_eq!(start.elapsed().as_secs(), 120);
    driver.await.unwrap();
    assert!(connection.is_closed());

    let (_near, far) = duplex(LINK);
    let lost = ServerConnection::handshake(far, Http2Config::server()).await.err().unwrap();
    assert_eq!(lost.cause(), LostCause::NoSettings);
}
