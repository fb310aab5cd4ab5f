//! A server that breaks the rules of HTTP/2, frame by frame (FAULTS, section F).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use agentwire::rpc::http2::{ClientConnection, Http2Config, Lost, LostCause, OpenStream};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Duration, timeout};

use crate::http2::{LINK, connect, connect_with, echo, read_all, request};
use crate::raw::{self, Raw, frame, headers, literal};

/// Two open streams at a peer that has read both requests and answered the second.
struct Two {
    connection: ClientConnection,
    driver: JoinHandle<Lost>,
    peer: Raw,
    one: OpenStream,
    other: OpenStream,
    id: u32,
    other_id: u32,
}

impl Two {
    async fn open(config: Http2Config) -> Self {
        let (near, far) = duplex(LINK);
        let (connection, driver) = connect_with(near, config).await;
        let mut peer = Raw::server(far).await;
        let one = connection.open(request(), None, false).unwrap();
        let id = peer.expect(raw::HEADERS).await.stream;
        let mut other = connection.open(request(), None, false).unwrap();
        let other_id = peer.expect(raw::HEADERS).await.stream;
        peer.head(other_id).await;
        peer.write(raw::DATA, 0, other_id, b"before").await;
        other.body.head().await.unwrap();
        Self { connection, driver, peer, one, other, id, other_id }
    }

    /// The peer writes `bytes`; how the first stream ends, and how the connection, if it does.
    async fn after(mut self, bytes: &[u8]) -> (LostCause, Option<LostCause>) {
        self.peer.io.write_all(bytes).await.unwrap();
        let first = match self.one.body.head().await {
            Ok(_) => self.one.body.next().await.unwrap().unwrap_err(),
            Err(lost) => lost,
        };
        // What came before is there, whatever happened afterwards.
        assert_eq!(self.other.body.next().await.unwrap().unwrap(), "before");
        if !self.connection.is_closed() && !self.connection.is_draining() {
            // The other stream goes on.
            self.peer.write(raw::DATA, raw::END_STREAM, self.other_id, b"after").await;
            assert_eq!(self.other.body.next().await.unwrap().unwrap(), "after");
            return (first.cause(), None);
        }
        let other = self.other.body.next().await.unwrap().unwrap_err();
        let death = self.driver.await.unwrap().cause();
        assert_eq!(other.cause(), death, "everybody learns the same reason");
        (first.cause(), Some(death))
    }
}

async fn outcome(bytes: impl FnOnce(u32) -> Vec<u8>) -> (LostCause, Option<LostCause>) {
    let two = Two::open(Http2Config::default()).await;
    let bytes = bytes(two.id);
    timeout(Duration::from_secs(20), two.after(&bytes)).await.expect("prompt")
}

fn ours(code: u32) -> LostCause {
    LostCause::GoAway { code, local: true }
}

type Breach = (&'static str, fn(u32) -> Vec<u8>, u32);

/// Each ends the connection, with this code, and nothing that came before is lost.
///
/// Where RFC 9113 has a code of its own (FRAME_SIZE_ERROR, COMPRESSION_ERROR, FLOW_CONTROL_ERROR),
/// h2 says PROTOCOL_ERROR for some frames; what counts is that the connection ends and says why.
async fn connection_errors(breaches: &[Breach]) {
    let (mut seen, mut expected) = (Vec::new(), Vec::new());
    for (what, bytes, code) in breaches {
        seen.push((*what, outcome(bytes).await));
        expected.push((*what, (ours(*code), Some(ours(*code)))));
    }
    assert_eq!(seen, expected);
}

const MORE: u32 = 0x7fff_ffff;

#[tokio::test]
async fn m53_frames_out_of_order_end_the_connection() {
    connection_errors(&[
        ("no increment", |_| frame(raw::WINDOW_UPDATE, 0, 0, &[0; 4]), 1),
        ("window overflow", |_| frame(raw::WINDOW_UPDATE, 0, 0, &MORE.to_be_bytes()), 3),
        ("data on stream 0", |_| frame(raw::DATA, 0, 0, b"x"), 1),
        ("data on an idle stream", |id| frame(raw::DATA, 0, id + 100, b"x"), 1),
        ("more padding than frame", |id| frame(raw::DATA, raw::PADDED, id, &[9, 0, 0]), 1),
        ("frame too large", |id| frame(raw::DATA, 0, id, &[0; 16_385]), 6),
        (
            "a frame between HEADERS and CONTINUATION",
            |id| {
                let block = frame(raw::HEADERS, 0, id, &[0x88]);
                [block, frame(raw::PING, 0, 0, &[0; 8])].concat()
            },
            1,
        ),
        ("CONTINUATION from nowhere", |id| frame(raw::CONTINUATION, 4, id, &[0x88]), 1),
        ("PING of a wrong length", |_| frame(raw::PING, 0, 0, &[0; 7]), 1),
        ("RST_STREAM on stream 0", |_| frame(raw::RST_STREAM, 0, 0, &[0; 4]), 1),
    ])
    .await;
}

#[tokio::test]
async fn m53_a_window_broken_on_one_stream_ends_that_one() {
    let (first, death) = outcome(|id| frame(raw::WINDOW_UPDATE, 0, id, &MORE.to_be_bytes())).await;
    assert_eq!((first, death), (LostCause::Reset { code: 3, local: true }, None));
    // More data than the window takes.
    let mut config = Http2Config::default();
    config.stream_window = 100;
    let two = Two::open(config).await;
    let id = two.id;
    let bytes = [frame(raw::HEADERS, 4, id, &[0x88]), frame(raw::DATA, 0, id, &[0; 101])].concat();
    assert_eq!(two.after(&bytes).await, (LostCause::Reset { code: 3, local: true }, None));
}

#[tokio::test]
async fn m54_broken_hpack_ends_the_connection() {
    connection_errors(&[
        ("no such index", |id| frame(raw::HEADERS, 4, id, &[0x88, 0xbe]), 1),
        ("index 0", |id| frame(raw::HEADERS, 4, id, &[0x80]), 1),
        (
            "an integer without end",
            |id| frame(raw::HEADERS, 4, id, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            1,
        ),
        (
            "bad Huffman padding",
            |id| frame(raw::HEADERS, 4, id, &[0x88, 0, 0x84, 0xff, 0xff, 0xff, 0xff, 1, b'a']),
            1,
        ),
        ("a table beyond its limit", |id| frame(raw::HEADERS, 4, id, &[0x3f, 0xe1, 0xff, 3]), 1),
        ("a literal cut short", |id| frame(raw::HEADERS, 4, id, &[0x88, 0, 9, b'a']), 1),
    ])
    .await;
}

/// A block of 12 KB that stands for 48 MB of headers.
fn bomb() -> Vec<u8> {
    let mut block = vec![0x88];
    let mut entry = literal(b"a", &[b'x'; 4_000]);
    entry[0] = 0x40;
    block.extend(entry);
    block.extend([0xbe; 12_000]);
    block
}

#[tokio::test]
async fn m43_m54_header_lists_beyond_the_limit_are_refused() {
    let (first, death) = outcome(|id| headers(0, id, &bomb())).await;
    assert_eq!((first, death), (ours(11), Some(ours(11))));
    let one_mebibyte = |id| {
        let header = literal(b"a", &[b'x'; 16_000]);
        headers(0, id, &[&[0x88][..], &header.repeat(64)].concat())
    };
    let (first, death) = outcome(one_mebibyte).await;
    assert_eq!((first, death), (ours(11), Some(ours(11))));
}

#[tokio::test]
async fn m43_forty_eight_kibibytes_of_headers_are_read() {
    let mut two = Two::open(Http2Config::default()).await;
    let header = literal(b"a", &[b'x'; 16_000]);
    let block = [&[0x88][..], &header.repeat(3)].concat();
    two.peer.io.write_all(&headers(0, two.id, &block)).await.unwrap();
    let head = two.one.body.head().await.unwrap();
    assert_eq!(head.headers.get_all("a").iter().map(http::HeaderValue::len).sum::<usize>(), 48_000);
}

#[tokio::test]
async fn m56_headers_that_http2_forbids_end_their_stream() {
    // The last: whether it takes the connection with it.
    let cases: [(&str, Vec<u8>, bool); 7] = [
        ("upper case", [&[0x88][..], &literal(b"Abc", b"x")].concat(), true),
        ("connection", [&[0x88][..], &literal(b"connection", b"close")].concat(), false),
        ("transfer-encoding", [&[0x88][..], &literal(b"transfer-encoding", b"x")].concat(), false),
        ("line break in a value", [&[0x88][..], &literal(b"a", b"x\r\ny")].concat(), true),
        ("no status", literal(b"a", b"x"), false),
        ("a status that is none", literal(b":status", b"abc"), true),
        ("status after a header", [&literal(b"a", b"x")[..], &[0x88]].concat(), false),
    ];
    let (mut seen, mut expected) = (Vec::new(), Vec::new());
    for (what, block, whole) in cases {
        let two = Two::open(Http2Config::default()).await;
        let bytes = headers(0, two.id, &block);
        seen.push((what, two.after(&bytes).await));
        let reset = (LostCause::Reset { code: 1, local: true }, None);
        expected.push((what, if whole { (ours(1), Some(ours(1))) } else { reset }));
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn m57_settings_and_frames_that_make_no_sense_end_the_connection() {
    fn setting(id: u16, value: u32) -> Vec<u8> {
        let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        frame(raw::SETTINGS, 0, 0, &payload)
    }
    connection_errors(&[
        ("push neither on nor off", |_| setting(2, 2), 1),
        ("window over 2^31", |_| setting(4, 1 << 31), 1),
        ("frame size under 16 KiB", |_| setting(5, 100), 1),
        ("half a setting", |_| frame(raw::SETTINGS, 0, 0, &[0; 5]), 1),
        ("settings on a stream", |id| frame(raw::SETTINGS, 0, id, &[]), 1),
        (
            "push, which is off",
            |id| frame(raw::PUSH_PROMISE, 4, id, &[0, 0, 0, 2, 0x82, 0x87, 0x84]),
            1,
        ),
    ])
    .await;
}

#[tokio::test]
async fn m57_unknown_frames_and_settings_are_ignored_and_ours_need_no_answer() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server_with(far, &[(0xfafa, 7)]).await;
    let mut open = connection.open(request(), None, true).unwrap();
    // Read, and never acknowledged.
    let id = loop {
        let frame = peer.next().await.unwrap();
        if frame.kind == raw::HEADERS {
            break frame.stream;
        }
    };
    peer.write(0xbb, 0xff, id, b"what is this").await;
    peer.write(0xbc, 0, 0, &[0; 100]).await;
    peer.head(id).await;
    peer.write(raw::DATA, raw::END_STREAM, id, b"done").await;
    open.body.head().await.unwrap();
    assert_eq!(read_all(&mut open.body).await.unwrap(), b"done");
}

#[tokio::test]
async fn m57_garbage_instead_of_http2_is_an_error_at_once() {
    for garbage in [&[0xff; 64][..], b"SSH-2.0-OpenSSH_9.6\r\nand so on, and so on", &[0; 64]] {
        let (near, mut far) = duplex(LINK);
        let (connection, driver) = connect(near).await;
        let mut open = connection.open(request(), None, false).unwrap();
        far.write_all(garbage).await.unwrap();
        let lost = timeout(Duration::from_secs(5), open.body.head()).await.unwrap().unwrap_err();
        assert!(matches!(lost.cause(), LostCause::GoAway { local: true, .. }), "{lost}");
        driver.await.unwrap();
    }
}

/// A limit of one stream: the second waits, and goes when the first is done.
#[tokio::test]
async fn m57_a_stream_beyond_the_peers_limit_waits_for_its_turn() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server_with(far, &[(3, 1)]).await;
    let mut first = connection.open(request(), None, true).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    let mut second = connection.open(request(), None, true).unwrap();
    peer.head(id).await;
    first.body.head().await.unwrap();
    assert_eq!(connection.slots(), 0);
    peer.write(raw::DATA, raw::END_STREAM, id, b"1").await;
    assert_eq!(read_all(&mut first.body).await.unwrap(), b"1");
    drop(first);
    let id = peer.expect(raw::HEADERS).await.stream;
    peer.head(id).await;
    peer.write(raw::DATA, raw::END_STREAM, id, b"2").await;
    second.body.head().await.unwrap();
    assert_eq!(read_all(&mut second.body).await.unwrap(), b"2");
}

/// A link of which every read gives one byte.
struct OneByte(DuplexStream);

impl AsyncRead for OneByte {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut space = [0];
        let mut byte = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut byte))?;
        buf.put_slice(byte.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for OneByte {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn m01_one_byte_at_a_time_on_the_wire_and_in_frames() {
    let (near, far) = duplex(LINK);
    echo(far);
    let (connection, driver) =
        ClientConnection::handshake(OneByte(near), Http2Config::default()).await.unwrap();
    tokio::spawn(driver);
    let sent: Vec<u8> = (0..5_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut open = connection.open(request(), Some(Bytes::from(sent.clone())), true).unwrap();
    open.body.head().await.unwrap();
    assert_eq!(read_all(&mut open.body).await.unwrap(), sent);
    // Frames of one byte.
    let mut two = Two::open(Http2Config::default()).await;
    two.peer.head(two.id).await;
    let frames: Vec<u8> =
        sent.iter().flat_map(|byte| frame(raw::DATA, 0, two.id, &[*byte])).collect();
    two.peer.io.write_all(&frames).await.unwrap();
    two.peer.write(raw::DATA, raw::END_STREAM, two.id, &[]).await;
    two.one.body.head().await.unwrap();
    assert_eq!(read_all(&mut two.one.body).await.unwrap(), sent);
}

#[tokio::test]
async fn m03_empty_frames_between_change_nothing() {
    let mut two = Two::open(Http2Config::default()).await;
    two.peer.head(two.id).await;
    // h2 ends a connection after a hundred empty frames in its life, so there are not more.
    for n in 0..1_000 {
        if n % 10 == 0 {
            two.peer.write(raw::DATA, 0, two.id, &[]).await;
        }
        two.peer.write(raw::DATA, raw::PADDED, two.id, b"\x03abc\0\0\0").await;
    }
    two.peer.write(raw::DATA, raw::END_STREAM, two.id, &[]).await;
    two.one.body.head().await.unwrap();
    assert_eq!(read_all(&mut two.one.body).await.unwrap(), b"abc".repeat(1_000));
}

#[tokio::test]
async fn m44_trailers_are_read_and_a_wrong_length_is_an_error() {
    let mut two = Two::open(Http2Config::default()).await;
    two.peer.head(two.id).await;
    two.peer.write(raw::DATA, 0, two.id, b"body").await;
    let trailers = headers(raw::END_STREAM, two.id, &literal(b"a", b"x"));
    two.peer.io.write_all(&trailers).await.unwrap();
    two.one.body.head().await.unwrap();
    assert_eq!(read_all(&mut two.one.body).await.unwrap(), b"body");
    assert_eq!(two.one.body.trailers().unwrap()["a"], "x");
    // Once more, on a stream that has ended: the answer stands.
    two.peer.io.write_all(&trailers).await.unwrap();
    let ended = two.driver.await;
    assert!(ended.is_ok(), "no panic");

    for (claimed, body) in [("4", &b"longer"[..]), ("40", b"short")] {
        let two = Two::open(Http2Config::default()).await;
        let block = [&[0x88][..], &literal(b"content-length", claimed.as_bytes())].concat();
        let bytes =
            [headers(0, two.id, &block), frame(raw::DATA, raw::END_STREAM, two.id, body)].concat();
        let (first, death) = two.after(&bytes).await;
        assert_eq!((first, death), (LostCause::Reset { code: 1, local: true }, None));
    }
}

#[tokio::test]
async fn m48_no_error_after_a_whole_answer_is_success() {
    let mut two = Two::open(Http2Config::default()).await;
    two.peer.head(two.id).await;
    two.peer.write(raw::DATA, raw::END_STREAM, two.id, b"whole").await;
    two.peer.write(raw::RST_STREAM, 0, two.id, &[0; 4]).await;
    two.one.body.head().await.unwrap();
    assert_eq!(read_all(&mut two.one.body).await.unwrap(), b"whole");
    assert!(!two.connection.is_draining());
}

fn goaway(last: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    frame(raw::GOAWAY, 0, 0, &[&last.to_be_bytes()[..], &code.to_be_bytes(), debug].concat())
}

#[tokio::test]
async fn m50_a_connection_refused_at_once_did_nothing_for_anybody() {
    let (near, far) = duplex(LINK);
    let (connection, driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, false).unwrap();
    peer.io.write_all(&goaway(0, 0, b"")).await.unwrap();
    let lost = open.body.head().await.unwrap_err();
    assert!(lost.is_unprocessed(), "{lost}");
    let late = connection.open(request(), None, false).err().expect("draining");
    assert!(late.is_unprocessed(), "{late}");
    drop((open, connection));
    driver.await.unwrap();
}

#[tokio::test]
async fn m51_goaways_of_every_kind() {
    // In the middle of an answer, then the end: both streams were taken up, both learn the code.
    let mut two = Two::open(Http2Config::default()).await;
    two.peer.io.write_all(&goaway(two.other_id, 2, b"internal")).await.unwrap();
    drop(two.peer);
    let theirs = LostCause::GoAway { code: 2, local: false };
    assert_eq!(two.one.body.head().await.unwrap_err().cause(), theirs);
    assert_eq!(two.other.body.next().await.unwrap().unwrap(), "before");
    assert_eq!(two.other.body.next().await.unwrap().unwrap_err().cause(), theirs);
    assert_eq!(two.driver.await.unwrap().cause(), theirs);
    // A last id that grows: a peer that cannot count.
    let growing = |id| [goaway(id + 2, 0, b""), goaway(id + 50, 0, b"")].concat();
    assert_eq!(outcome(growing).await, (ours(1), Some(ours(1))));
}

/// At each of these places the peer is gone.
#[tokio::test]
async fn m52_a_peer_that_hangs_up_anywhere() {
    let cut = |lost: &Lost| {
        assert!(
            matches!(lost.cause(), LostCause::Cut | LostCause::GoAway { code: 0, .. }),
            "{lost}"
        );
    };
    // Before its SETTINGS; after them; in the middle of a frame.
    for sent in [&[][..], &frame(raw::SETTINGS, 0, 0, &[]), &[0, 0, 40, 0, 0]] {
        let (near, mut far) = duplex(LINK);
        let (connection, _driver) = connect(near).await;
        let mut open = connection.open(request(), None, false).unwrap();
        far.write_all(sent).await.unwrap();
        drop(far);
        cut(&open.body.head().await.unwrap_err());
    }
    // In the middle of a DATA frame: what is whole is delivered.
    let mut two = Two::open(Http2Config::default()).await;
    two.peer.head(two.id).await;
    two.peer.write(raw::DATA, 0, two.id, b"whole").await;
    let half = frame(raw::DATA, 0, two.id, &[0; 100]);
    two.peer.io.write_all(&half[..50]).await.unwrap();
    drop(two.peer);
    two.one.body.head().await.unwrap();
    assert_eq!(two.one.body.next().await.unwrap().unwrap(), "whole");
    cut(&two.one.body.next().await.unwrap().unwrap_err());
}

/// M69: no window, then a byte at a time: everything arrives, in order.
#[tokio::test]
async fn m69_a_window_of_one_byte_at_a_time_is_enough() {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server_with(far, &[(4, 0)]).await;
    peer.expect(raw::SETTINGS).await;
    let mut open = connection.open(request(), None, false).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    let body: Vec<u8> = (0..500_u32).map(|i| i.to_le_bytes()[0]).collect();
    open.send.push(Bytes::from(body.clone())).unwrap();
    open.send.push_finish();
    let reading = async {
        let mut got = Vec::new();
        while got.len() < body.len() {
            peer.write(raw::WINDOW_UPDATE, 0, id, &1_u32.to_be_bytes()).await;
            let data = peer.expect(raw::DATA).await;
            assert!(data.payload.len() <= 1);
            got.extend(data.payload);
        }
        got
    };
    let (sent, got) = tokio::join!(open.send.sent(), reading);
    sent.unwrap();
    assert_eq!(got, body);
}
