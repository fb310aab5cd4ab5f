//! 1, 100 and 1,000 runs that are open at the same time: time, CPU and memory of each. Section C has
//! no number for them; the lines stand beside the rivals'.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::heap;
use crate::net::clients::{self, Connect, H2, Tonic};
use crate::net::{Answer, Plan, Server};
use crate::race::Race;
use crate::table::Table;

/// Bytes that were held on the heap when all runs were open, for each client.
type Held = RefCell<BTreeMap<&'static str, i64>>;

pub fn judge(table: &mut Table) {
    for (count, rounds) in [(1, 60), (100, 20), (1_000, 8)] {
        let held = Held::default();
        let results = race(count, rounds, &held);
        let per_run = |name| results.get(name).time.as_secs_f64() * 1e6 / count as f64;
        let wall = |name| results.get(name).wall.as_secs_f64() * 1e6 / count as f64;
        let memory = |name: &str| held.borrow()[name] as f64 / count as f64 / 1024.0;
        for name in ["ours", "h2", "tonic", "connectrpc"] {
            let what = |of: &str| format!("{count} runs at once, {name}, {of} of a run");
            table.told("–", what("CPU"), " us", per_run(name));
            table.told("–", what("time"), " us", wall(name));
            table.told("–", what("memory"), " KiB", memory(name));
        }
    }
}

fn race(count: usize, rounds: u32, held: &Held) -> crate::race::Results {
    let runtime = clients::runtime();
    let connect = Server::start(Plan::of(Answer::Hold(count)));
    let grpc = Server::start(Plan::of(Answer::Hold(count)).grpc());
    // A server counts the requests of all its clients, and only whole groups of them.
    let client = clients::ours(&connect);
    let (h2, tonic, rpc) = runtime.block_on(async {
        client.prewarm().await.expect("the server listens");
        let h2 = H2::connect(&connect).await;
        (h2, Tonic::connect(&grpc).await, Connect::connect(&connect).await)
    });
    let all = All { runtime: &runtime, count, held };
    Race::new(rounds)
        .case("ours", || {
            let open = |client: agentwire::Client| async move {
                let mut run = clients::ours_open(&client).await;
                (clients::ours_first(&mut run).await, run)
            };
            all.run("ours", &client, open, clients::ours_rest)
        })
        .case("h2", || {
            let open = |h2: H2| async move { (net_text(), h2.first().await) };
            all.run("h2", &h2, open, |(body, _send)| H2::texts(body))
        })
        .case("tonic", || {
            let open = |tonic: Tonic| async move {
                let mut stream = tonic.open().await;
                (Tonic::first(&mut stream).await, stream)
            };
            all.run("tonic", &tonic, open, Tonic::rest)
        })
        .case("connectrpc", || {
            let open = |rpc: Connect| async move {
                let mut stream = rpc.open().await;
                (Connect::first(&mut stream).await, stream)
            };
            all.run("connectrpc", &rpc, open, Connect::rest)
        })
        .run()
}

fn net_text() -> u64 {
    crate::net::plan::TEXT as u64
}

struct All<'a> {
    runtime: &'a Runtime,
    count: usize,
    held: &'a Held,
}

impl All<'_> {
    /// Opens all streams, and reads them to their ends when each has its first message.
    fn run<C: Clone, S: Send + 'static, O, R>(
        &self,
        name: &'static str,
        client: &C,
        open: impl Fn(C) -> O,
        rest: impl Fn(S) -> R,
    ) -> u64
    where
        O: Future<Output = (u64, S)> + Send + 'static,
        R: Future<Output = u64> + Send + 'static,
    {
        let before = heap::count().live;
        self.runtime.block_on(async {
            let mut opening = JoinSet::new();
            (0..self.count).for_each(|_| _ = opening.spawn(open(client.clone())));
            let opened = opening.join_all().await;
            // The tasks that opened the streams are gone; what is left is what streams hold.
            let now = heap::count().live - before;
            self.held.borrow_mut().insert(name, now);
            let mut sum = 0;
            let mut reading = JoinSet::new();
            for (first, stream) in opened {
                sum += first;
                reading.spawn(rest(stream));
            }
            sum + reading.join_all().await.into_iter().sum::<u64>()
        })
    }
}
