//! The network path with divan: streams, opening, many runs at once, with allocation counts, each
//! beside the rivals. The server is a canned one in a process of its own; nothing here waits for it
//! longer than for any server.
#![allow(missing_docs)]

use std::future::Future;

use agentwire_goals::net::clients::{self, Connect, H2, Tonic};
use agentwire_goals::net::{self, Answer, Plan, Server};
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    net::serve_if_asked();
    net::stay_on_core(true);
    divan::main();
}

/// What streams there are: their names, what is answered, and how many messages that is.
const STREAMS: [&str; 3] = ["single", "packed", "paced"];

fn stream(name: &str) -> (Answer, usize) {
    match name {
        "single" => (Answer::Single(40_000), 40_000),
        "packed" => (Answer::Packed(200), 100_000),
        _ => (Answer::Paced(500), 500),
    }
}

/// A server, a client of it, and the runtime that the client lives in.
fn joined<C>(plan: Plan, connect: impl AsyncFnOnce(&Server) -> C) -> (Server, Runtime, C) {
    let runtime = clients::runtime();
    let server = Server::start(plan);
    let client = runtime.block_on(connect(&server));
    (server, runtime, client)
}

async fn prewarmed(server: &Server) -> agentwire::Client {
    let client = clients::ours(server);
    client.prewarm().await.expect("the server listens");
    client
}

/// Reads whole streams.
fn read<C>(
    bencher: Bencher<'_, '_>,
    name: &str,
    grpc: bool,
    connect: impl AsyncFnOnce(&Server) -> C,
    read: impl AsyncFn(&C) -> u64,
) {
    let (answer, messages) = stream(name);
    let plan = Plan::of(answer);
    let (_server, runtime, client) = joined(if grpc { plan.grpc() } else { plan }, connect);
    let texts = (messages * net::plan::TEXT) as u64;
    bencher
        .counter(ItemsCount::new(messages))
        .bench_local(|| assert_eq!(runtime.block_on(read(&client)), texts));
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod streaming {
    use super::*;

    #[divan::bench(args = STREAMS)]
    fn ours(bencher: Bencher<'_, '_>, name: &str) {
        read(bencher, name, false, prewarmed, clients::ours_read);
    }

    #[divan::bench(args = STREAMS)]
    fn ours_owned(bencher: Bencher<'_, '_>, name: &str) {
        read(bencher, name, false, prewarmed, clients::ours_owned);
    }

    #[divan::bench(args = STREAMS)]
    fn h2_discarded(bencher: Bencher<'_, '_>, name: &str) {
        read(bencher, name, false, H2::connect, H2::discard);
    }

    #[divan::bench(args = STREAMS)]
    fn tonic(bencher: Bencher<'_, '_>, name: &str) {
        read(bencher, name, true, Tonic::connect, Tonic::read);
    }

    #[divan::bench(args = STREAMS)]
    fn connectrpc(bencher: Bencher<'_, '_>, name: &str) {
        read(bencher, name, false, Connect::connect, Connect::read);
    }

    #[divan::bench(args = STREAMS)]
    fn like_the_reference(bencher: Bencher<'_, '_>, name: &str) {
        read(bencher, name, false, H2::connect, H2::like_the_reference);
    }
}

/// Until the first text, over TLS on loopback.
#[divan::bench_group(sample_count = 60, sample_size = 1)]
mod open {
    use super::*;

    const PLAN: Plan = Plan::of(Answer::Single(1)).over_tls(0);

    #[divan::bench]
    fn ours_cold(bencher: Bencher<'_, '_>) {
        let (server, runtime, ()) = joined(PLAN, async |_| ());
        bencher
            .with_inputs(|| clients::ours(&server))
            .bench_local_values(|client| runtime.block_on(first(&client)));
    }

    #[divan::bench]
    fn ours_prewarmed(bencher: Bencher<'_, '_>) {
        let (server, runtime, ()) = joined(PLAN, async |_| ());
        bencher
            .with_inputs(|| runtime.block_on(prewarmed(&server)))
            .bench_local_values(|client| runtime.block_on(first(&client)));
    }

    #[divan::bench]
    fn ours_warm(bencher: Bencher<'_, '_>) {
        let (_server, runtime, client) = joined(PLAN, prewarmed);
        bencher.bench_local(|| runtime.block_on(first(&client)));
    }

    #[divan::bench]
    fn h2_warm(bencher: Bencher<'_, '_>) {
        let (_server, runtime, client) = joined(PLAN, H2::connect_tls);
        bencher.bench_local(|| runtime.block_on(client.first()));
    }

    /// Everything new for each stream.
    #[divan::bench]
    fn like_the_reference(bencher: Bencher<'_, '_>) {
        let (server, runtime, ()) = joined(PLAN, async |_| ());
        bencher.bench_local(|| runtime.block_on(clients::reference_open(&server)));
    }

    /// The run is handed out, so that its end is not counted.
    async fn first(client: &agentwire::Client) -> agentwire::Run {
        let mut run = clients::ours_open(client).await;
        clients::ours_first(&mut run).await;
        run
    }
}

#[divan::bench_group(sample_count = 20, sample_size = 1)]
mod many_runs {
    use super::*;

    const RUNS: [usize; 3] = [1, 100, 1_000];

    /// Opens so many at once and reads them all to their ends; none ends before all are open.
    fn at_once<C: Clone, R>(
        bencher: Bencher<'_, '_>,
        runs: usize,
        grpc: bool,
        connect: impl AsyncFnOnce(&Server) -> C,
        read: impl Fn(C) -> R,
    ) where
        R: Future<Output = u64> + Send + 'static,
    {
        let plan = Plan::of(Answer::Hold(runs));
        let (_server, runtime, client) = joined(if grpc { plan.grpc() } else { plan }, connect);
        bencher.counter(ItemsCount::new(runs)).bench_local(|| {
            runtime.block_on(async {
                let mut reading = JoinSet::new();
                (0..runs).for_each(|_| _ = reading.spawn(read(client.clone())));
                reading.join_all().await.into_iter().sum::<u64>()
            })
        });
    }

    #[divan::bench(args = RUNS)]
    fn ours(bencher: Bencher<'_, '_>, runs: usize) {
        let read = |client| async move { clients::ours_read(&client).await };
        at_once(bencher, runs, false, prewarmed, read);
    }

    #[divan::bench(args = RUNS)]
    fn h2_discarded(bencher: Bencher<'_, '_>, runs: usize) {
        at_once(bencher, runs, false, H2::connect, |h2| async move { h2.discard().await });
    }

    #[divan::bench(args = RUNS)]
    fn tonic(bencher: Bencher<'_, '_>, runs: usize) {
        at_once(bencher, runs, true, Tonic::connect, |tonic| async move { tonic.read().await });
    }

    #[divan::bench(args = RUNS)]
    fn connectrpc(bencher: Bencher<'_, '_>, runs: usize) {
        at_once(bencher, runs, false, Connect::connect, |rpc| async move { rpc.read().await });
    }
}
