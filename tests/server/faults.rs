//! Clients that break the rules, beside one that does not (FAULTS M96, M99).

use std::time::Duration;

use agentwire::server::Script;
use agentwire::server::script::{Step, TurnEnd};
use agentwire::server::serve::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::raw::{self, frame, headers, literal};

/// `POST http /` to an authority.
fn post() -> Vec<u8> {
    [&[0x83, 0x86, 0x84][..], &literal(b":authority", b"x")].concat()
}

fn hostile() -> [(&'static str, Vec<u8>); 7] {
    let greeting = [&raw::PREFACE[..], &frame(raw::SETTINGS, 0, 0, &[])].concat();
    let after = |rest: Vec<u8>| [greeting.clone(), rest].concat();
    let resets = |n: u32| {
        let id = 2 * n + 1;
        [headers(0, id, &post()), frame(raw::RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
    };
    let continuations =
        [frame(raw::HEADERS, 0, 1, &post()), frame(raw::CONTINUATION, 0, 1, &[]).repeat(100_000)];
    [
        ("garbage", vec![0xff; 4_096]),
        ("half a preface", raw::PREFACE[..20].to_vec()),
        ("a breach", after(frame(raw::DATA, 0, 0, b"x"))),
        ("broken HPACK", after(frame(raw::HEADERS, 4, 1, &[0xbe]))),
        ("rapid reset", after((0..20_000).flat_map(resets).collect())),
        ("continuations", after(continuations.concat())),
        ("a request that stops", after(headers(0, 1, &post()))),
    ]
}

#[tokio::test]
async fn m96_m99_a_hostile_client_harms_nobody_else() {
    let script = Script::of([Step::text("all is well"), Step::TurnEnd(TurnEnd::default())]);
    let server = Server::builder().script(script).cleartext().bind().await.unwrap();
    let good = agentwire::transport::Client::builder().endpoint(server.url()).build().unwrap();
    let mut attacks = JoinSet::new();
    let mut held = Vec::new();
    for (what, bytes) in hostile() {
        let (mut read, mut write) =
            TcpStream::connect(server.local_addr()).await.unwrap().into_split();
        attacks.spawn(async move {
            // Broken off where the server closes.
            let _ = write.write_all(&bytes).await;
            write
        });
        held.push((
            what,
            tokio::spawn(async move {
                let mut space = vec![0; 64 << 10];
                while read.read(&mut space).await.is_ok_and(|count| count > 0) {}
            }),
        ));
        let run = good.prompt("x").model("m").start().await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), run.finish()).await;
        let (ended, _) = ended.unwrap_or_else(|_| panic!("{what} holds others up"));
        assert!(ended.is_ok(), "{what}: {ended:?}");
    }
    let writers = attacks.join_all().await;
    drop(server);
    // With the server gone, so are they all.
    for (what, reading) in held {
        let over = tokio::time::timeout(Duration::from_secs(20), reading).await;
        assert!(over.is_ok(), "{what} is still connected");
    }
    drop(writers);
}
