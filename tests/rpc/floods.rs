//! A server that floods its client with frames that are each legal (FAULTS M42, M51, M55): the
//! connection ends or the flood is ignored, in bounded time, and nothing waits for ever.

use std::time::Duration;

use agentwire::rpc::http2::LostCause;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use crate::http2::{LINK, connect, read_all, request};
use crate::raw::{self, Raw, frame};

/// How a flood ended.
#[derive(Debug, PartialEq, Eq)]
enum After {
    /// The stream was answered after it.
    Ignored,
    /// The connection ended; with this code where this side ended it.
    Ended(LostCause),
}

const FLOOD: usize = 100_000;

/// The peer opens with `before`, writes `piece` a hundred thousand times, then answers.
async fn flooded(before: fn(u32) -> Vec<u8>, piece: fn(u32) -> Vec<u8>) -> After {
    let (near, far) = duplex(LINK);
    let (connection, _driver) = connect(near).await;
    let mut peer = Raw::server(far).await;
    let mut open = connection.open(request(), None, true).unwrap();
    let id = peer.expect(raw::HEADERS).await.stream;
    let (mut read, mut write) = tokio::io::split(peer.io);
    // Whatever is answered to a flood is read, so that the flood goes on.
    let reading = tokio::spawn(async move {
        let mut space = vec![0; 64 << 10];
        while read.read(&mut space).await.is_ok_and(|count| count > 0) {}
    });
    let flood = async {
        let thousand = piece(id).repeat(1_000);
        write.write_all(&before(id)).await?;
        for _ in 0..FLOOD / 1_000 {
            write.write_all(&thousand).await?;
        }
        write.write_all(&frame(raw::HEADERS, raw::END_HEADERS, id, &[0x88])).await?;
        write.write_all(&frame(raw::DATA, raw::END_STREAM, id, b"done")).await
    };
    let answer = async {
        open.body.head().await?;
        read_all(&mut open.body).await
    };
    // Broken off when the connection is closed under it.
    let (_, answer) = timeout(Duration::from_secs(30), async { tokio::join!(flood, answer) })
        .await
        .expect("a flood is over in time");
    reading.abort();
    match answer {
        Ok(body) => {
            assert_eq!(body, b"done");
            After::Ignored
        }
        Err(lost) => After::Ended(lost.cause()),
    }
}

fn calm() -> After {
    After::Ended(LostCause::GoAway { code: 11, local: true })
}

fn nothing(_: u32) -> Vec<u8> {
    Vec::new()
}

#[tokio::test]
async fn m55_settings() {
    assert_eq!(flooded(nothing, |_| frame(raw::SETTINGS, 0, 0, &[])).await, After::Ignored);
}

#[tokio::test]
async fn m55_pings() {
    assert_eq!(flooded(nothing, |_| frame(raw::PING, 0, 0, &[7; 8])).await, After::Ignored);
}

#[tokio::test]
async fn m55_window_updates() {
    let one = |_| frame(raw::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    assert_eq!(flooded(nothing, one).await, After::Ignored);
}

#[tokio::test]
async fn m55_empty_data() {
    let head = |id| frame(raw::HEADERS, raw::END_HEADERS, id, &[0x88]);
    assert_eq!(flooded(head, |id| frame(raw::DATA, 0, id, &[])).await, calm());
}

#[tokio::test]
async fn m43_m55_continuations() {
    let head = |id| frame(raw::HEADERS, 0, id, &[0x88]);
    assert_eq!(flooded(head, |id| frame(raw::CONTINUATION, 0, id, &[])).await, calm());
}

#[tokio::test]
async fn m55_resets() {
    let reset = |id| frame(raw::RST_STREAM, 0, id, &[0, 0, 0, 8]);
    let after = flooded(nothing, reset).await;
    assert_eq!(after, After::Ended(LostCause::Reset { code: 8, local: false }));
}

#[tokio::test]
async fn m51_goaways() {
    let goaway = |_| frame(raw::GOAWAY, 0, 0, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(flooded(nothing, goaway).await, After::Ignored);
}
