//! Connections shared by all calls of a client. What to do is decided in [`plan`]; this drives it.
//!
//! Ownership: the pool holds the handles, each connection has a task that drives it and holds no
//! handle, and a call holds a [`Lease`]. So when the last client and the last run are gone, the
//! handles are gone, the connections close and their tasks end.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

use crate::error::{Blame, Error, NetworkFault, Result};
use crate::rpc::http2::{ClientConnection, ClientDriver, Http2Config, Lost};

use super::counters;
use super::dial::{BoxIo, Connector};
use super::endpoint::Endpoint;
use plan::{Action, ConnId, Plan, PlanLimits};

/// How a pool keeps its connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PoolOptions {
    /// Connections to one endpoint at a time. 16: with 100 streams each, more runs than one
    /// process drives.
    pub max_connections: usize,
    /// Calls on one connection at a time, where the peer allows more. 100, what servers allow by
    /// default: a second connection costs three round trips, a crowded one costs every call.
    pub max_streams: usize,
    /// How long a connection without a call is kept. 4 minutes: below the 350 s after which usual
    /// load balancers forget a silent connection. `None` keeps it until the peer closes it.
    pub idle: Option<Duration>,
    /// HTTP/2 settings of each connection.
    pub http2: Http2Config,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            max_connections: 16,
            max_streams: 100,
            idle: Some(Duration::from_secs(240)),
            http2: Http2Config::default(),
        }
    }
}

/// The connections to one endpoint. Clones share them.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    connector: Arc<dyn Connector>,
    options: PoolOptions,
    state: Mutex<State>,
    /// Whether a call waits: then the connections' tasks look whether the peer allows more.
    crowded: AtomicBool,
}

struct State {
    plan: Plan,
    conns: HashMap<ConnId, Conn>,
    waiters: VecDeque<Waiter>,
    dial: Option<AbortHandle>,
    dial_error: Option<Error>,
}

/// A call that waits for a place.
struct Waiter {
    give: oneshot::Sender<Result<Lease>>,
    since: Instant,
}

struct Conn {
    handle: ClientConnection,
    idle_since: Option<Instant>,
    /// Told when the connection falls idle.
    idle: Arc<Notify>,
}

/// A place on a connection, given back when dropped.
pub(crate) struct Lease {
    pub(crate) connection: ClientConnection,
    id: ConnId,
    since: Instant,
    pool: Arc<Inner>,
}

impl Pool {
    pub(crate) fn new(
        endpoint: Endpoint,
        connector: Arc<dyn Connector>,
        options: PoolOptions,
    ) -> Self {
        let limits =
            PlanLimits { connections: options.max_connections, streams: options.max_streams };
        let state = State {
            plan: Plan::new(limits),
            conns: HashMap::new(),
            waiters: VecDeque::new(),
            dial: None,
            dial_error: None,
        };
        Self(Arc::new(Inner {
            endpoint,
            connector,
            options,
            state: Mutex::new(state),
            crowded: AtomicBool::new(false),
        }))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Asks for a place; the dial, if one is needed, begins at once. Dropping the answer gives up.
    pub(crate) fn checkout(&self) -> Checkout {
        let (give, mut get) = oneshot::channel();
        self.0.lock().waiters.push_back(Waiter { give, since: Instant::now() });
        self.0.turn();
        match get.try_recv() {
            Ok(place) => Checkout::There(Some(place)),
            Err(_) => Checkout::Waiting(get),
        }
    }

    /// Makes a connection if there is none; it is there when this is ready.
    pub(crate) async fn warm(&self) -> Result<()> {
        // A place that is given back at once: ready when the connection is.
        self.checkout().await.map(drop)
    }

    /// How many connections may take calls now.
    #[cfg(test)]
    pub(crate) fn usable(&self) -> usize {
        self.0.lock().plan.usable()
    }
}

/// A place, or one to come.
pub(crate) enum Checkout {
    /// `None` once it was taken.
    There(Option<Result<Lease>>),
    Waiting(oneshot::Receiver<Result<Lease>>),
}

impl Checkout {
    /// Whether the place was free when it was asked for.
    pub(crate) fn is_there(&self) -> bool {
        matches!(self, Self::There(_))
    }
}

impl Future for Checkout {
    type Output = Result<Lease>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let place = match self.get_mut() {
            Self::There(place) => place.take(),
            Self::Waiting(waiting) => ready!(Pin::new(waiting).poll(cx)).ok(),
        };
        Poll::Ready(place.unwrap_or_else(|| Err(gone("the connection pool was closed"))))
    }
}

fn gone(message: &'static str) -> Error {
    Error::network(NetworkFault::Cut, message).with_blame(Blame::Local)
}

impl Inner {
    /// The state is valid between statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the plan says. Places are delivered outside the lock: one that nobody takes any
    /// more comes back through [`Lease::drop`].
    fn turn(self: &Arc<Self>) {
        let mut deliveries = Vec::new();
        let mut state = self.lock();
        state.refresh();
        loop {
            let waiting = state.waiters.len();
            match state.plan.poll(waiting) {
                Action::Assign(id) => deliveries.extend(self.assign(&mut state, id)),
                Action::Dial => self.start_dial(&mut state),
                Action::Fail => {
                    let error = state.dial_error.take();
                    let error = error.unwrap_or_else(|| gone("the connection was given up"));
                    let waiters = std::mem::take(&mut state.waiters);
                    deliveries.extend(
                        waiters.into_iter().map(|waiter| (waiter.give, Err(error.clone()))),
                    );
                }
                Action::Rest => break,
            }
        }
        let forgotten = state.take_forgotten();
        self.crowded.store(!state.waiters.is_empty(), Ordering::Release);
        drop(state);
        drop(forgotten);
        for (give, place) in deliveries {
            // Refused when the call gave up meanwhile.
            drop(give.send(place));
        }
    }

    fn assign(
        self: &Arc<Self>,
        state: &mut State,
        id: ConnId,
    ) -> Option<(oneshot::Sender<Result<Lease>>, Result<Lease>)> {
        let Waiter { give, since } = state.waiters.pop_front()?;
        let conn = state.conns.get_mut(&id)?;
        conn.idle_since = None;
        let now = Instant::now();
        let waited = now.saturating_duration_since(since);
        tracing::debug!(connection = id, active = conn.handle.active(), ?waited, "call placed");
        counters::placed(waited);
        let connection = conn.handle.clone();
        Some((give, Ok(Lease { connection, id, since: now, pool: Arc::clone(self) })))
    }

    /// The dial's task holds the pool weakly: it ends with it.
    fn start_dial(self: &Arc<Self>, state: &mut State) {
        let Ok(runtime) = Handle::try_current() else {
            state.dial_error = Some(gone("no runtime to connect on"));
            return state.plan.dial_failed();
        };
        let outcome = Outcome { pool: Arc::downgrade(self), result: None };
        let (connector, endpoint) = (Arc::clone(&self.connector), self.endpoint.clone());
        let config = self.options.http2.clone();
        let span = tracing::debug_span!("dial", endpoint = %endpoint);
        let dial = async move {
            let mut outcome = outcome;
            outcome.result = Some(connect(connector.as_ref(), &endpoint, config).await);
        };
        let task = runtime.spawn(dial.instrument(span));
        state.dial = Some(task.abort_handle());
    }

    fn dialed(self: &Arc<Self>, result: Result<(ClientConnection, ClientDriver<BoxIo>)>) {
        let mut state = self.lock();
        state.dial = None;
        match (result, Handle::try_current()) {
            (Ok((handle, driver)), Ok(runtime)) => {
                let id = state.plan.dialed(limit(&handle));
                let idle = Arc::new(Notify::new());
                let span = tracing::debug_span!("connection", id, endpoint = %self.endpoint);
                let keeper = keep(Arc::downgrade(self), id, driver, Arc::clone(&idle));
                let conn = Conn { handle, idle_since: Some(Instant::now()), idle };
                conn.idle.notify_one();
                state.conns.insert(id, conn);
                runtime.spawn(keeper.instrument(span));
            }
            (Err(error), _) => {
                tracing::debug!(endpoint = %self.endpoint, %error, "no connection");
                counters::failed(&error);
                state.dial_error = Some(error);
                state.plan.dial_failed();
            }
            (Ok(_), Err(_)) => {
                state.dial_error = Some(gone("the runtime is shutting down"));
                state.plan.dial_failed();
            }
        }
        drop(state);
        self.turn();
    }

    fn closed(self: &Arc<Self>, id: ConnId) {
        let mut state = self.lock();
        state.plan.closed(id);
        let conn = state.conns.remove(&id);
        drop(state);
        drop(conn);
        self.turn();
    }

    fn released(self: &Arc<Self>, id: ConnId) {
        let mut state = self.lock();
        state.plan.released(id);
        if state.plan.is_idle(id)
            && let Some(conn) = state.conns.get_mut(&id)
        {
            conn.idle_since = Some(Instant::now());
            conn.idle.notify_one();
        }
        drop(state);
        self.turn();
    }

    /// When this connection may be closed; `None` while it is in use.
    fn idle_until(&self, id: ConnId, idle: Duration) -> Option<Instant> {
        let state = self.lock();
        let since = state.conns.get(&id).and_then(|conn| conn.idle_since)?;
        if state.plan.is_idle(id) { since.checked_add(idle) } else { None }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(dial) = state.dial.take() {
            dial.abort();
        }
    }
}

impl State {
    /// Calls that gave up wait no longer; what the peers said in the meantime counts.
    fn refresh(&mut self) {
        self.waiters.retain(|waiter| !waiter.give.is_closed());
        for (id, conn) in &mut self.conns {
            if conn.handle.is_draining() {
                self.plan.drain(*id);
            } else {
                self.plan.set_limit(*id, limit(&conn.handle));
            }
        }
    }

    /// The connections that the plan no longer hands out: without their handle they close.
    fn take_forgotten(&mut self) -> Vec<Conn> {
        let gone: Vec<ConnId> =
            self.conns.keys().filter(|id| !self.plan.knows(**id)).copied().collect();
        gone.iter().filter_map(|id| self.conns.remove(id)).collect()
    }
}

/// How many streams the peer allows, once it has said so.
fn limit(handle: &ClientConnection) -> Option<usize> {
    handle.is_settled().then(|| handle.slots() + handle.active())
}

impl Drop for Lease {
    fn drop(&mut self) {
        let held = Instant::now().saturating_duration_since(self.since);
        tracing::debug!(connection = self.id, ?held, "call ended");
        counters::released(held);
        self.pool.released(self.id);
    }
}

/// Reports how a dial ended, also when its task was aborted or panicked: nobody waits for ever.
struct Outcome {
    pool: Weak<Inner>,
    result: Option<Result<(ClientConnection, ClientDriver<BoxIo>)>>,
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            let result = self.result.take();
            pool.dialed(result.unwrap_or_else(|| Err(gone("connecting was broken off"))));
        }
    }
}

async fn connect(
    connector: &dyn Connector,
    endpoint: &Endpoint,
    config: Http2Config,
) -> Result<(ClientConnection, ClientDriver<BoxIo>)> {
    let io = connector.connect(endpoint).await?;
    ClientConnection::handshake(io, config).await.map_err(Error::from)
}

/// Drives one connection to its end, and closes it when it was idle for too long.
async fn keep(pool: Weak<Inner>, id: ConnId, driver: ClientDriver<BoxIo>, idle: Arc<Notify>) {
    let mut report = Report { pool: pool.clone(), id, lost: None, received: 0 };
    counters::opened();
    tracing::debug!("connection opened");
    let mut driver = pin!(driver);
    let mut retire = pin!(until_idle(pool.clone(), id, idle));
    let mut retired = false;
    let received = &mut report.received;
    let lost = std::future::poll_fn(|cx| {
        if !retired && retire.as_mut().poll(cx).is_ready() {
            retired = true;
            if let Some(pool) = pool.upgrade() {
                pool.closed(id);
            }
        }
        let ended = driver.as_mut().poll(cx);
        *received = driver.received();
        if let Some(pool) = pool.upgrade().filter(|pool| pool.crowded.load(Ordering::Acquire)) {
            pool.turn();
        }
        ended
    })
    .await;
    // Not what the peer said about it: that may repeat a secret (FAULTS M88).
    tracing::debug!(cause = ?lost.cause(), received = report.received, "connection closed");
    report.lost = Some(lost);
}

/// Ready when the connection has been idle for the time the options give.
async fn until_idle(pool: Weak<Inner>, id: ConnId, fell_idle: Arc<Notify>) {
    let Some(idle) = pool.upgrade().and_then(|pool| pool.options.idle) else {
        return std::future::pending().await;
    };
    loop {
        fell_idle.notified().await;
        while let Some(at) = pool.upgrade().and_then(|pool| pool.idle_until(id, idle)) {
            if at <= Instant::now() {
                return;
            }
            sleep_until(at).await;
        }
    }
}

/// Tells the pool that a connection is gone, also when its task was dropped.
struct Report {
    pool: Weak<Inner>,
    id: ConnId,
    lost: Option<Lost>,
    received: u64,
}

impl Drop for Report {
    fn drop(&mut self) {
        counters::closed(self.lost.as_ref(), self.received);
        if let Some(pool) = self.pool.upgrade() {
            pool.closed(self.id);
        }
    }
}
