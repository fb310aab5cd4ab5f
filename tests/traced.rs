//! What is traced of a connection, and what never is (FAULTS M88). A process of its own: a subscriber
//! that is set for one thread misses events while other threads trace without one.

#![cfg(feature = "client")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentwire::run::Event;
use agentwire::transport::{Client, Run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[allow(dead_code, reason = "shared with tests that use more of it")]
#[path = "rpc/raw.rs"]
mod raw;

use raw::Raw;

async fn failure(mut run: Run) -> (String, agentwire::Error) {
    let mut text = String::new();
    while let Some(event) = run.next().await {
        match event {
            Event::Text(delta) => text.push_str(&delta),
            Event::Ended(ended) => return (text, ended.expect_err("the run fails")),
            _ => {}
        }
    }
    panic!("the run ended without saying so")
}

/// Everything this crate traces, as text.
#[derive(Clone, Default)]
struct Traced(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Traced {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Traced {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn begin(&self) {
        let sink = self.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || sink.clone());
        let ours = Targets::new().with_target("agentwire", LevelFilter::TRACE);
        tracing_subscriber::registry().with(lines).with(ours).init();
    }
}

/// The debug data of a GOAWAY is the peer's text like any other.
#[tokio::test]
async fn m88_a_goaway_that_repeats_the_token() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let peer = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut peer = Raw::server(socket).await;
        let id = peer.expect(raw::HEADERS).await.stream;
        let kind = raw::literal(b"content-type", b"application/connect+proto");
        let head = raw::headers(0, id, &[&[0x88][..], &kind].concat());
        peer.io.write_all(&head).await.unwrap();
        let debug = b"who is Bearer tok-123456789-zz9?";
        let goaway = [&id.to_be_bytes()[..], &11_u32.to_be_bytes(), debug].concat();
        peer.write(raw::GOAWAY, 0, 0, &goaway).await;
        peer.io.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = peer.io.read_to_end(&mut rest).await;
    });
    let traced = Traced::default();
    traced.begin();
    let builder = Client::builder().endpoint(url).token("tok-123456789-zz9");
    let client = builder.retries(0).build().unwrap();
    let run = client.prompt("x").model("m").start().await.unwrap();
    let (_, error) = failure(run).await;
    assert!(error.message().contains("ENHANCE_YOUR_CALM"), "{error}");
    peer.await.unwrap();
    drop(client);
    let closed = async {
        while !traced.text().contains("connection closed") {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("its end is traced");
    let text = traced.text();
    for step in ["connected", "connection opened", "call placed", "call ended"] {
        assert!(text.contains(step), "{step}: {text}");
    }
    let shown = format!("{error} {error:?} {text}");
    assert!(!shown.contains("zz9") && !shown.contains("123456789"), "{shown}");
}
