//! Goals 12 and 13: how long it takes until the first byte of an answer.

use std::cell::RefCell;

use agentwire::transport::{Client, Run};

use crate::net::clients::{self, H2};
use crate::net::{Answer, Plan, Server};
use crate::race::{Race, Results};
use crate::table::Table;

pub fn judge(table: &mut Table) {
    for (delay, wall) in [(0, 0.20), (10, 0.36), (40, 0.36)] {
        let way = if delay == 0 { "loopback".to_owned() } else { format!("{delay} ms round trip") };
        let results = open(delay);
        let warm = results.times_as_long("warm", "reference");
        let what = format!("first byte, {way}, warm, time of the reference's way");
        table.at_most("12", what, wall, warm, "x");
        if delay == 0 {
            let cpu = results.times_faster("reference", "warm");
            table.at_most("12", "the same, CPU of the client", 0.15, cpu, "x");
            table.told(
                "12",
                "the same, time of bare h2, warm",
                "x",
                results.times_as_long("warm", "h2"),
            );
        }
        let what = format!("first byte, {way}, after prewarm(), time of a warm run");
        table.at_most("13", what, 1.05, results.times_as_long("prewarmed", "warm"), "x");
        let what = format!("first byte, {way}, cold, time of the reference's way");
        table.told("13", what, "x", results.times_as_long("cold", "reference"));
    }
}

/// All ways to the first byte, over TLS.
fn open(delay: u64) -> Results {
    let runtime = clients::runtime();
    let server = Server::start(Plan::of(Answer::Single(1)).over_tls(delay));
    let warm = clients::ours(&server);
    let plain = Server::start(Plan::of(Answer::Single(1)).over_tls(delay));
    let h2 = runtime.block_on(async {
        warm.prewarm().await.expect("the server listens");
        H2::connect_tls(&plain).await
    });
    let fresh = RefCell::new(clients::ours(&server));
    // What comes behind the first text is not counted: it is read before the next round.
    let open = RefCell::new(None::<Run>);
    let close = || {
        if let Some(run) = open.take() {
            runtime.block_on(run.finish()).0.expect("the run is complete");
        }
    };
    let first = |client: &Client| {
        runtime.block_on(async {
            let mut run = clients::ours_open(client).await;
            let length = clients::ours_first(&mut run).await;
            open.replace(Some(run));
            length
        })
    };
    let new = || {
        close();
        fresh.replace(clients::ours(&server));
    };
    let prewarm = || {
        new();
        let client = fresh.borrow().clone();
        runtime.block_on(async { client.prewarm().await }).expect("the server listens");
    };
    let length = net_text();
    Race::new(if delay == 0 { 60 } else { 12 })
        .case_after("warm", close, || first(&warm))
        .case_after("h2", close, || {
            runtime.block_on(async {
                drop(h2.first().await);
                length
            })
        })
        .case_after("reference", close, || {
            runtime.block_on(async {
                clients::reference_open(&server).await;
                length
            })
        })
        .case_after("cold", new, || first(&fresh.borrow()))
        .case_after("prewarmed", prewarm, || first(&fresh.borrow()))
        .run()
}

fn net_text() -> u64 {
    crate::net::plan::TEXT as u64
}
