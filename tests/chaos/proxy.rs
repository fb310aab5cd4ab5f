//! A way to a server that fails as its seed says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Numbers that follow from a seed (SplitMix64): the same storm every time, as far as the order of
/// tasks allows.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn fork(&mut self) -> Self {
        Self(self.next())
    }
}

/// What a connection comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Nothing; it is slow and cut into pieces like the others.
    None,
    /// Both sockets are closed.
    Cut,
    /// Both sockets are reset.
    Reset,
    /// One direction ends, the other goes on.
    HalfClose,
    /// Nothing passes any more for a while, then it is cut.
    Stall,
    /// It is closed before a byte has passed.
    Refused,
}

type Faults = Arc<Mutex<BTreeMap<Fault, u32>>>;

/// The listener, and all that goes through it.
pub(crate) struct Proxy {
    addr: SocketAddr,
    faults: Faults,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let faults = Faults::default();
        let task = tokio::spawn(accept(listener, server, Random(seed), stopped, faults.clone()));
        Self { addr, faults, stop, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn faults(&self) -> BTreeMap<Fault, u32> {
        self.faults.lock().unwrap().clone()
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
    }
}

async fn accept(
    listener: TcpListener,
    server: SocketAddr,
    mut random: Random,
    mut stopped: watch::Receiver<bool>,
    faults: Faults,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                connections.spawn(connection(client, server, random.fork(), faults.clone()));
            }
            Some(ended) = connections.join_next() => ended.unwrap(),
        }
    }
    connections.shutdown().await;
}

async fn connection(client: TcpStream, server: SocketAddr, mut random: Random, faults: Faults) {
    let fault = match random.below(16) {
        0..=3 => Fault::Cut,
        4..=6 => Fault::Reset,
        7..=9 => Fault::HalfClose,
        10 => Fault::Stall,
        11 => Fault::Refused,
        _ => Fault::None,
    };
    if fault == Fault::Refused {
        return count(&faults, fault);
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    if fault == Fault::Reset {
        // Closed sockets of this kind send a RST.
        client.set_zero_linger().unwrap();
        server.set_zero_linger().unwrap();
    }
    // The direction that fails, and after how many bytes.
    let upwards = random.below(2) == 0;
    // What a few runs take, roughly: most connections do not live to see them through.
    let after = random.below(if upwards { 8_000 } else { 20_000 });
    let after = if fault == Fault::None { u64::MAX } else { after };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let limits = if upwards { (after, u64::MAX) } else { (u64::MAX, after) };
    let up = Way::new(from_client, to_server, random.fork(), limits.0);
    let down = Way::new(from_server, to_client, random.fork(), limits.1);
    let (mut up, mut down) = (Box::pin(up.pass()), Box::pin(down.pass()));
    // The other direction goes on where it is: begun anew it would lose the piece in its hands, and
    // a proxy that swallows bytes is none that HTTP/2 promises anything about.
    let ((end, mut ended), other) = tokio::select! {
        ended = &mut up => (ended, down),
        ended = &mut down => (ended, up),
    };
    if end == End::Limit {
        count(&faults, fault);
    }
    match (end, fault) {
        (End::Limit, Fault::Cut | Fault::Reset | Fault::None | Fault::Refused) => {}
        (End::Limit, Fault::Stall) => tokio::time::sleep(Duration::from_millis(300)).await,
        // A half-close, by the fault or by one of the peers: the other direction has its time.
        (End::Limit, Fault::HalfClose) | (End::Closed, _) => {
            let _gone = ended.to.shutdown().await;
            let _over = tokio::time::timeout(Duration::from_millis(300), other).await;
        }
    }
}

fn count(faults: &Faults, fault: Fault) {
    *faults.lock().unwrap().entry(fault).or_default() += 1;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The bytes that may pass have passed.
    Limit,
    /// A peer closed.
    Closed,
}

/// One direction.
struct Way {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    random: Random,
    left: u64,
}

impl Way {
    fn new(from: OwnedReadHalf, to: OwnedWriteHalf, random: Random, left: u64) -> Self {
        Self { from, to, random, left }
    }

    /// Passes bytes on in pieces of random sizes, now and then after a while.
    async fn pass(mut self) -> (End, Self) {
        let mut piece = vec![0; 4_096];
        let end = loop {
            let size = match self.random.below(4) {
                0 => 1 + self.random.below(16),
                1 => 1 + self.random.below(200),
                _ => piece.len() as u64,
            };
            let room = size.min(self.left) as usize;
            if room == 0 {
                break End::Limit;
            }
            let read = match self.from.read(&mut piece[..room]).await {
                Ok(0) | Err(_) => break End::Closed,
                Ok(read) => read,
            };
            if self.random.below(20) == 0 {
                tokio::time::sleep(Duration::from_millis(self.random.below(5))).await;
            }
            if self.to.write_all(&piece[..read]).await.is_err() {
                break End::Closed;
            }
            self.left -= read as u64;
        };
        (end, self)
    }
}
