//! The pool over in-memory links to an HTTP/2 server, on a virtual clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::broadcast;

use super::*;
use crate::rpc::http2::ServerConnection;
use crate::transport::dial::Connecting;

/// What the servers are told to do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Drain,
    Die,
}

/// Dials in-memory links; each has a server behind it that answers nothing.
struct Links {
    dials: AtomicUsize,
    alive: Arc<AtomicUsize>,
    streams: u32,
    refuse: AtomicBool,
    orders: broadcast::Sender<Order>,
}

impl Links {
    fn new(streams: u32) -> Arc<Self> {
        Arc::new(Self {
            dials: AtomicUsize::new(0),
            alive: Arc::default(),
            streams,
            refuse: AtomicBool::new(false),
            orders: broadcast::channel(8).0,
        })
    }

    fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }
}

impl Connector for Arc<Links> {
    fn connect<'a>(&'a self, _: &'a Endpoint) -> Connecting<'a> {
        Box::pin(async move {
            self.dials.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            if self.refuse.load(Ordering::SeqCst) {
                return Err(Error::network(NetworkFault::Connect, "refused"));
            }
            let (near, far) = tokio::io::duplex(64 << 10);
            let config = Http2Config {
                max_concurrent_streams: self.streams,
                idle_timeout: None,
                ..Http2Config::server()
            };
            tokio::spawn(serve(far, config, Arc::clone(&self.alive), self.orders.subscribe()));
            let io: BoxIo = Box::new(near);
            Ok(io)
        })
    }
}

async fn serve(
    io: tokio::io::DuplexStream,
    config: Http2Config,
    alive: Arc<AtomicUsize>,
    mut orders: broadcast::Receiver<Order>,
) {
    alive.fetch_add(1, Ordering::SeqCst);
    let mut connection = ServerConnection::handshake(io, config).await.unwrap();
    let mut held = Vec::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Ok(accepted) => held.push(accepted),
                Err(_) => break,
            },
            order = orders.recv() => match order {
                Ok(Order::Drain) => connection.graceful_shutdown(),
                _ => break,
            },
        }
    }
    alive.fetch_sub(1, Ordering::SeqCst);
}

fn pool(links: &Arc<Links>, max_connections: usize) -> Pool {
    let options = PoolOptions { max_connections, ..PoolOptions::default() };
    Pool::new(Endpoint::default(), Arc::new(Arc::clone(links)), options)
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test(start_paused = true)]
async fn calls_share_one_connection_and_everything_ends_with_the_last_owner() {
    let links = Links::new(100);
    let pool = pool(&links, 4);
    let (a, b) = tokio::join!(pool.checkout(), pool.checkout());
    let (a, b) = (a.unwrap(), b.unwrap());
    let c = pool.checkout().await.unwrap();
    assert_eq!((links.dials(), links.alive()), (1, 1));
    drop((a, b, pool));
    settle().await;
    assert_eq!(links.alive(), 1, "a call is still there");
    drop(c);
    settle().await;
    assert_eq!(links.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_calls_is_closed_after_a_while_and_made_anew() {
    let links = Links::new(100);
    let pool = pool(&links, 4);
    pool.warm().await.unwrap();
    assert_eq!(pool.usable(), 1);
    tokio::time::sleep(Duration::from_secs(200)).await;
    let lease = pool.checkout().await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(links.alive(), 1, "in use");
    drop(lease);
    tokio::time::sleep(Duration::from_secs(239)).await;
    assert_eq!(links.alive(), 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((links.alive(), pool.usable()), (0, 0));
    drop(pool.checkout().await.unwrap());
    assert_eq!(links.dials(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_connection_gets_a_second_and_then_calls_queue() {
    let links = Links::new(2);
    let pool = pool(&links, 2);
    pool.warm().await.unwrap();
    settle().await;
    let mut leases = Vec::new();
    for _ in 0..4 {
        let lease = pool.checkout().await.unwrap();
        let stream = lease.connection.open(request(), None, false).unwrap();
        leases.push((stream, lease));
    }
    assert_eq!(links.dials(), 2);
    let mut fifth = pool.checkout();
    let pending = tokio::time::timeout(Duration::from_secs(1), &mut fifth).await;
    assert!(pending.is_err(), "no place");
    leases.pop();
    drop(fifth.await.unwrap());
    assert_eq!(links.dials(), 2);
}

/// Nobody is placed on a guess and then stuck behind the peer's limit.
#[tokio::test(start_paused = true)]
async fn calls_that_start_together_keep_to_a_limit_that_nobody_knew() {
    let links = Links::new(2);
    let pool = pool(&links, 4);
    let (a, b, c) = tokio::join!(pool.checkout(), pool.checkout(), pool.checkout());
    let leases = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert_eq!(links.dials(), 2);
    let on = |id| leases.iter().filter(|lease| lease.id == id).count();
    assert_eq!((on(1), on(2)), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_drains_or_dies_is_replaced() {
    let links = Links::new(100);
    let pool = pool(&links, 4);
    let old = pool.checkout().await.unwrap();
    let stream = old.connection.open(request(), None, false).unwrap();
    settle().await;
    links.orders.send(Order::Drain).unwrap();
    settle().await;
    let new = pool.checkout().await.unwrap();
    assert_eq!((links.dials(), links.alive()), (2, 2), "the old one finishes its stream");
    drop((stream, old));
    settle().await;
    assert_eq!(links.alive(), 1);
    drop(new);
    links.orders.send(Order::Die).unwrap();
    settle().await;
    assert_eq!(pool.usable(), 0, "noticed while nobody uses it");
    drop(pool.checkout().await.unwrap());
    assert_eq!(links.dials(), 3);
}

#[tokio::test(start_paused = true)]
async fn everybody_who_waits_learns_why_a_dial_failed_and_the_next_call_tries_again() {
    let links = Links::new(100);
    links.refuse.store(true, Ordering::SeqCst);
    let pool = pool(&links, 4);
    let (a, b) = tokio::join!(pool.checkout(), pool.checkout());
    for failed in [a, b] {
        let error = failed.err().unwrap();
        assert_eq!(error.kind(), &crate::error::Kind::Network(NetworkFault::Connect));
    }
    assert_eq!(links.dials(), 1);
    links.refuse.store(false, Ordering::SeqCst);
    assert!(pool.checkout().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_gave_up_leaves_no_trace() {
    let links = Links::new(1);
    let pool = pool(&links, 1);
    drop(pool.checkout());
    let lease = pool.checkout().await.unwrap();
    let waiting = pool.checkout();
    drop(waiting);
    drop(lease);
    assert!(pool.checkout().await.is_ok());
    assert_eq!(links.dials(), 1);
}

#[test]
fn a_runtime_that_ends_during_a_dial_leaves_nobody_waiting() {
    let links = Links::new(100);
    let pool = pool(&links, 4);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    // Started in the first runtime, waited for in the second.
    let entered = first.enter();
    let waiting = pool.checkout();
    drop(entered);
    drop(first);
    let error = runtime().block_on(waiting).err().unwrap();
    assert_eq!(error.blame(), Blame::Local, "{error}");
    let second = runtime().block_on(async { pool.checkout().await.map(drop) });
    assert!(second.is_ok(), "another runtime dials again");
}

fn request() -> http::Request<()> {
    http::Request::post("https://localhost/x").body(()).unwrap()
}

#[cfg(feature = "metrics")]
mod counted {
    use std::sync::atomic::AtomicU64;

    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    use super::*;

    /// Keeps counters and gauges by name and labels.
    #[derive(Default)]
    struct Kept(Mutex<HashMap<String, Arc<AtomicU64>>>);

    impl Kept {
        fn of(&self, key: &Key) -> Arc<AtomicU64> {
            let labels = key.labels().map(|label| format!(" {}", label.value()));
            let name = key.name().to_owned() + &labels.collect::<String>();
            Arc::clone(self.0.lock().unwrap().entry(name).or_default())
        }

        fn counter(&self, name: &str) -> u64 {
            self.0.lock().unwrap().get(name).map_or(0, |value| value.load(Ordering::SeqCst))
        }

        fn gauge(&self, name: &str) -> f64 {
            f64::from_bits(self.counter(name))
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.of(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.of(key))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn connections_and_calls_are_counted_and_balance() {
        let kept = Kept::default();
        metrics::with_local_recorder(&kept, || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let links = Links::new(1);
                let pool = pool(&links, 4);
                links.refuse.store(true, Ordering::SeqCst);
                assert!(pool.checkout().await.is_err());
                links.refuse.store(false, Ordering::SeqCst);
                let (a, b) = tokio::join!(pool.checkout(), pool.checkout());
                assert_eq!(kept.gauge("agentwire_connections_open"), 2.0);
                assert_eq!(kept.gauge("agentwire_calls_open"), 2.0);
                drop((a, b, pool));
                settle().await;
            });
        });
        assert_eq!(kept.counter("agentwire_connections_failed_total connect"), 1);
        assert_eq!(kept.counter("agentwire_connections_opened_total"), 2);
        assert_eq!(kept.counter("agentwire_connections_closed_total in order"), 2);
        assert_eq!(kept.counter("agentwire_calls_total"), 2);
        assert_eq!(kept.gauge("agentwire_connections_open"), 0.0);
        assert_eq!(kept.gauge("agentwire_calls_open"), 0.0);
        assert!(kept.counter("agentwire_received_bytes_total") > 0);
    }
}
