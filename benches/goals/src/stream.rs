//! Goals 9 to 11 and 14: a stream over loopback HTTP/2, from the socket to the caller's events.

use bytes::Bytes;

use crate::net::clients::{self, Connect, H2, Tonic};
use crate::net::floor::Floor;
use crate::net::{Answer, Plan, Server};
use crate::race::{Race, Results, thread_time};
use crate::table::Table;
use crate::{heap, net};

/// Messages of a stream with one in each DATA frame: 1.24 MB, less than our window.
const SINGLE: usize = 40_000;
/// DATA frames of a stream with 500 messages in each: 100,000 messages, 3.1 MB, a long turn.
const PACKED: usize = 200;
/// Messages that come 40 us apart.
const PACED: usize = 2_000;
/// Questions that are asked one after the other.
const PINGS: usize = 2_000;
/// Bytes of our answer to a question for a blob that is not there, in its envelope.
const ANSWER: usize = 11;

pub fn judge(table: &mut Table) {
    let single = against_the_field(Answer::Single(SINGLE), 20);
    let packed = against_the_field(Answer::Packed(PACKED), 12);
    for (results, name, floor, wanted) in [
        (&single, "one message in each DATA frame", 0.95, [1.4, 1.5, 2.2]),
        (&packed, "500 messages in each DATA frame", 0.65, [9.0, 11.0, 14.0]),
    ] {
        let what = format!("{name}, against h2 alone, body discarded");
        table.at_least("9", what, floor, results.times_faster("ours", "h2"));
        for (rival, wanted) in ["tonic", "connectrpc", "reference"].into_iter().zip(wanted) {
            let what = format!("{name}, against {rival}");
            table.at_least("10", what, wanted, results.times_faster("ours", rival));
        }
        let what = format!("{name}, owned events, against the same borrowed");
        table.told("9", what, "x", results.times_faster("owned", "ours"));
    }
    for (results, messages) in [(&single, SINGLE), (&packed, PACKED * 500)] {
        let each = |name| results.get(name).time.as_secs_f64() * 1e9 / messages as f64;
        for name in ["ours", "h2", "floor"] {
            table.told("9", format!("{messages} messages, CPU of one, {name}"), " ns", each(name));
        }
        let calls = results.get("ours").heap.calls as f64 / messages as f64;
        table.at_most("4", "allocations a message, through h2 to the caller", 0.02, calls, "");
    }
    paced(table);
    ping(table);
    stalled(table);
}

fn against_the_field(answer: Answer, rounds: u32) -> Results {
    let runtime = clients::runtime();
    let connect = Server::start(Plan::of(answer));
    let grpc = Server::start(Plan::of(answer).grpc());
    let client = clients::ours(&connect);
    let (h2, tonic, rpc) = runtime.block_on(async {
        client.prewarm().await.expect("the server listens");
        let h2 = H2::connect(&connect).await;
        (h2, Tonic::connect(&grpc).await, Connect::connect(&connect).await)
    });
    let mut floor = Floor::connect(&connect).expect("the server listens");
    Race::new(rounds)
        .case("ours", || runtime.block_on(clients::ours_read(&client)))
        .case("owned", || runtime.block_on(clients::ours_owned(&client)))
        .case("h2", || runtime.block_on(h2.discard()))
        .case("tonic", || runtime.block_on(tonic.read()))
        .case("connectrpc", || runtime.block_on(rpc.read()))
        .case("reference", || runtime.block_on(h2.like_the_reference()))
        .case("floor", || floor.read(None).expect("the stream is whole"))
        .run()
}

/// At the rate of tokens only wake-ups count.
fn paced(table: &mut Table) {
    let results = against_the_field(Answer::Paced(PACED), 9);
    let against = |rival| results.middle_of("ours", rival);
    let what = "a message every 40 us, CPU of a blocking socket";
    table.at_most("11", what, 1.10, against("floor"), "x");
    for rival in ["h2", "tonic", "connectrpc"] {
        let what = format!("a message every 40 us, CPU of {rival}");
        table.told("11", what, "x", against(rival));
    }
}

fn ping(table: &mut Table) {
    let runtime = clients::runtime();
    let server = Server::start(Plan::of(Answer::Ping(PINGS)));
    let client = clients::ours(&server);
    let h2 = runtime.block_on(async {
        client.prewarm().await.expect("the server listens");
        H2::connect(&server).await
    });
    let mut floor = Floor::connect(&server).expect("the server listens");
    let answer = Bytes::from_static(&[0; ANSWER]);
    let results = Race::new(12)
        .case("ours", || runtime.block_on(clients::ours_read(&client)))
        .case("h2", || {
            runtime.block_on(h2.ping(&answer));
            0
        })
        .case("floor", || floor.read(Some(&answer)).expect("the stream is whole"))
        .run();
    let what = "a question and its answer, CPU of a blocking socket";
    table.at_most("11", what, 1.25, results.middle_of("ours", "floor"), "x");
    table.told("11", "a question and its answer, CPU of h2", "x", results.middle_of("ours", "h2"));
}

/// A consumer that sleeps while 60,000 small frames come, and another run beside it.
fn stalled(table: &mut Table) {
    const FRAMES: usize = 60_000;
    let runtime = clients::runtime();
    let server = Server::start(Plan::of(Answer::Single(FRAMES)));
    let client = clients::ours(&server);
    let before = heap::count();
    let (read, beside) = runtime.block_on(async {
        client.prewarm().await.expect("the server listens");
        let run = clients::ours_open(&client).await;
        // Nobody reads `run` while another is read to its end on the same connection.
        let beside = clients::ours_read(&client).await;
        (clients::ours_rest(run).await, beside)
    });
    let text = (FRAMES * net::plan::TEXT) as u64;
    let whole = f64::from(u8::from(read == text && beside == text));
    table.at_least(
        "14",
        "60,000 frames of 31 B unread: streams that are whole, of one",
        1.0,
        whole,
    );
    let peak = (heap::count() - before).peak as f64 / (1 << 20) as f64;
    table.at_most("14", "the same, memory at its peak", 16.0, peak, " MiB");
}

/// What a profiler can look at.
#[derive(Clone, Copy)]
pub enum Profile {
    Single,
    Packed,
    /// Many short runs, one after the other.
    Runs,
    Paced,
}

/// Our client alone, for a profiler; then bare h2 for a moment, to say what it took. Under callgrind
/// a few `wanted` runs will do.
pub fn profile(which: Profile, wanted: Option<u32>) {
    let runtime = clients::runtime();
    let (answer, messages, runs) = match which {
        Profile::Single => (Answer::Single(SINGLE), SINGLE, 200),
        Profile::Packed => (Answer::Packed(PACKED), PACKED * 500, 200),
        Profile::Runs => (Answer::Single(1), 1, 50_000),
        Profile::Paced => (Answer::Paced(PACED), PACED, 50),
    };
    let runs = wanted.unwrap_or(runs);
    let server = Server::start(Plan::of(answer));
    let client = clients::ours(&server);
    let each = |runs: u32, run: &dyn Fn()| {
        let start = (thread_time(), heap::count());
        let one = |_| {
            let start = thread_time();
            run();
            thread_time() - start
        };
        let least = (0..runs).map(one).min().unwrap_or_default().as_secs_f64();
        let heap = heap::count() - start.1;
        let all = (thread_time() - start.0).as_secs_f64() / f64::from(runs);
        let [least, all] = [least, all].map(|time| time * 1e9 / messages as f64);
        let calls = heap.calls as f64 / f64::from(runs);
        eprintln!(
            "{least:.1} ns of CPU a message at best, {all:.1} in all; {calls:.1} allocations a run"
        );
    };
    each(runs, &|| _ = runtime.block_on(clients::ours_read(&client)));
    eprint!("h2 alone: ");
    let h2 = runtime.block_on(H2::connect(&server));
    each(runs / 4, &|| _ = runtime.block_on(h2.discard()));
}
