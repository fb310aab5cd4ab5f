//! Rows of the fault matrix that need a whole client and a peer that misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentwire::error::Kind;
use agentwire::run::Event;
use agentwire::transport::{Client, Run};
use tokio::sync::mpsc;

use super::peer::{Call, Peer};

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

/// A claim of 4 GiB and a peer that would send it all: no more is taken than a window.
#[tokio::test]
async fn m08_a_claim_that_is_fed_is_not_read_on() {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let (tell, mut over) = mpsc::unbounded_channel();
    let peer = Peer::cleartext(move |mut call: Call| {
        let (taken, tell) = (Arc::clone(&count), tell.clone());
        async move {
            call.next().await;
            call.accept();
            call.text("before").await;
            call.raw(vec![0, 0xff, 0xff, 0xff, 0xff]).await;
            let piece = bytes::Bytes::from(vec![0; 64 << 10]);
            while call.raw(piece.clone()).await {
                taken.fetch_add(piece.len(), Ordering::SeqCst);
            }
            let _ = tell.send(());
        }
    })
    .await;
    let client = Client::builder().endpoint(peer.url()).build().unwrap();
    let run = client.prompt("x").model("m").start().await.unwrap();
    let (text, error) = failure(run).await;
    assert_eq!(text, "before");
    assert_eq!(error.kind(), &Kind::LimitExceeded, "{error}");
    over.recv().await;
    // The stream's window here, and what the peer's own side holds of it.
    assert!(taken.load(Ordering::SeqCst) <= 8 << 20, "{taken:?}");
}
