//! The listener: exchanges on real sockets, over TLS or cleartext, HTTP/2 or HTTP/1.1.
//!
//! ```no_run
//! # async fn example() -> agentwire::Result<()> {
//! use agentwire::server::{Script, serve::Server};
//!
//! let server = Server::builder().script(Script::assistant()).bind().await?;
//! println!("listening on {}", server.url());
//! // A client that is to trust it gets `server.certificate_pem()` as an extra root.
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Drivers only: what is said is decided by [`super::Exchange`]. Everything spawned belongs to the
//! [`Server`] and ends with it.
#![allow(clippy::disallowed_methods, reason = "a driver reads the clock")]

mod connection;
mod http1;
mod http2;
mod io;
mod tls;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use self::tls::Tls;
use super::exchange;
use super::player::Playbook;
use super::script::Script;
use super::session::Violation;
use super::sign_in::Seed;
use crate::connect::Limits;
use crate::error::{Blame, Kind, NetworkFault};
use crate::rpc::http2::Http2Config;
use crate::secret::Secret;
use crate::{Error, Result};

/// Settings of a server that is to be bound.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    addr: SocketAddr,
    script: Script,
    tls: Tls,
    connections: usize,
    exchange: exchange::Options,
    bounds: Bounds,
    http2: Http2Config,
}

/// Times and sizes that hold for all connections.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    handshake: Duration,
    http1: Duration,
    linger: Duration,
    shutdown: Duration,
    reported: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            http1: Duration::from_secs(90),
            linger: Duration::from_secs(1),
            shutdown: Duration::from_secs(1),
            reported: 1_024,
        }
    }
}

impl Builder {
    /// Where to listen. Default 127.0.0.1 and a free port; any other address has to be asked for.
    pub fn addr(mut self, addr: impl Into<SocketAddr>) -> Self {
        self.addr = addr.into();
        self
    }

    /// What to say. Default the built-in assistant.
    pub fn script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// How to encrypt. Default a certificate made at start.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// No encryption: HTTP/2 with prior knowledge or HTTP/1.1, as the first bytes say.
    pub fn cleartext(self) -> Self {
        self.tls(Tls::Off)
    }

    /// The bearer token that every request must carry. Default: none is looked for.
    pub fn token(mut self, token: impl Into<Secret>) -> Self {
        self.exchange.session.token = Some(token.into());
        self
    }

    /// Limits of what clients send. Default as on the client.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.exchange.session.limits = limits;
        self
    }

    /// Connections at the same time; one more is closed at once. Default 1,024: more than any test or
    /// person needs, and with the window of a connection (16 MiB) the bound of what strangers can make
    /// grow.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// How long TLS may take, and then the first bytes. Default 10 s (FAULTS, promises).
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.handshake = timeout;
        self
    }

    /// How long a connection that speaks HTTP/1.1 may take altogether. Default 90 s: it carries one
    /// small call.
    pub fn http1_timeout(mut self, timeout: Duration) -> Self {
        self.bounds.http1 = timeout;
        self
    }

    /// How long a stream that said its last word still listens: the client's own last words (an answer
    /// that crossed, its half-close) are read and judged. As long may its own take to leave before it
    /// is reset or cut. Default 1 s.
    pub fn linger(mut self, time: Duration) -> Self {
        self.bounds.linger = time;
        self
    }

    /// How long [`Server::shutdown`] waits for runs to end. Default 1 s: whoever stops a server waits
    /// for it.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.bounds.shutdown = grace;
        self
    }

    /// The body of a unary call, in bytes. Default 1 MiB: these calls ask little.
    pub fn max_unary_body(mut self, bytes: usize) -> Self {
        self.exchange.unary_body = bytes;
        self
    }

    /// How long the body of a unary call may take to arrive. Default 30 s, as the run request.
    pub fn unary_timeout(mut self, timeout: Duration) -> Self {
        self.exchange.unary_within = timeout;
        self
    }

    /// Violations that a [`Report`] keeps; more are counted. Default 1,024: the first ones say what is
    /// wrong.
    pub fn max_reported(mut self, violations: usize) -> Self {
        self.bounds.reported = violations;
        self
    }

    /// Settings of HTTP/2: windows, streams, deadlines. Default [`Http2Config::server`]. The largest
    /// header list holds for the head of an HTTP/1.1 request, too (8 KiB at least).
    pub fn http2(mut self, config: Http2Config) -> Self {
        self.http2 = config;
        self
    }

    /// Binds the address and begins to serve.
    ///
    /// # Errors
    /// The script cannot be played, the certificate or key cannot be used, or the address is taken.
    pub async fn bind(self) -> Result<Server> {
        let playbook = Playbook::new(self.script)?;
        let identity = self.tls.identity()?;
        let listener =
            TcpListener::bind(self.addr).await.map_err(|error| cannot_listen(self.addr, &error))?;
        let addr = listener.local_addr().map_err(|error| cannot_listen(self.addr, &error))?;
        let options = exchange::Options { sign_in: Some(seed()?), ..self.exchange };
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            playbook,
            options,
            acceptor: identity.as_ref().map(|identity| identity.acceptor.clone()),
            bounds: self.bounds,
            http2: self.http2,
            report: Mutex::default(),
            stopped,
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), self.connections));
        let certificate = identity.and_then(|identity| identity.certificate_pem);
        Ok(Server { addr, certificate, shared, stop, accepting })
    }
}

/// What the tokens of this server's sign-in are made from.
fn seed() -> Result<Seed> {
    let mut entropy = [0; 32];
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut entropy).map_err(|_| {
        Error::new(Kind::Rejected, "the system gives no random bytes for tokens")
            .with_blame(Blame::Local)
    })?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Ok(Seed { clock: (now(), unix_ms), entropy: Secret::new(entropy) })
}

fn cannot_listen(addr: SocketAddr, error: &std::io::Error) -> Error {
    Error::network(NetworkFault::Connect, format!("cannot listen on {addr}: {error}"))
}

/// What connections share.
pub(super) struct Shared {
    playbook: Playbook,
    options: exchange::Options,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    bounds: Bounds,
    http2: Http2Config,
    report: Mutex<Report>,
    stopped: watch::Receiver<bool>,
}

impl Shared {
    /// A machine for one request.
    fn exchange(&self, http1: bool) -> super::Exchange {
        let options = exchange::Options { http1, ..self.options.clone() };
        super::Exchange::new(self.playbook.clone(), options)
    }

    /// Writes down how an exchange went.
    fn record(&self, exchange: &super::Exchange) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.requests += 1;
        report.cancelled += u64::from(exchange.was_cancelled());
        report.unanswered += exchange.open_questions();
        report.violation_count += exchange.violations().len();
        let room = self.bounds.reported.saturating_sub(report.violations.len());
        report.violations.extend(exchange.violations().iter().take(room).cloned());
    }
}

/// What a server saw of its clients so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that ended.
    pub requests: u64,
    /// Runs whose client said that it cancels them.
    pub cancelled: u64,
    /// Questions that had no answer, or no close, when their run ended.
    pub unanswered: usize,
    /// Breaches of the protocol: the first of them ([`Builder::max_reported`]).
    pub violations: Vec<Violation>,
    /// How many there were.
    pub violation_count: usize,
}

/// A server that listens. Dropping it ends everything: listener, connections, runs.
pub struct Server {
    addr: SocketAddr,
    certificate: Option<String>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Settings to begin with.
    pub fn builder() -> Builder {
        Builder {
            addr: (Ipv4Addr::LOCALHOST, 0).into(),
            script: Script::assistant(),
            tls: Tls::SelfSigned,
            connections: 1_024,
            exchange: exchange::Options::default(),
            bounds: Bounds::default(),
            http2: Http2Config::server(),
        }
    }

    /// The address, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL: `https://127.0.0.1:PORT`, or `http://` in cleartext. A server that listens on
    /// all addresses is named by the loopback one.
    pub fn url(&self) -> String {
        let scheme = if self.shared.acceptor.is_some() { "https" } else { "http" };
        let mut addr = self.addr;
        if addr.ip().is_unspecified() {
            addr.set_ip(if addr.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        format!("{scheme}://{addr}")
    }

    /// The root certificate to trust, as PEM: that of a certificate made at start, or the chain
    /// that was given. `None` in cleartext.
    pub fn certificate_pem(&self) -> Option<&str> {
        self.certificate.as_deref()
    }

    /// What the server saw of its clients so far.
    pub fn report(&self) -> Report {
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops listening, lets the runs that are open end for at most [`Builder::shutdown_grace`], then ends them, and
    /// says what was seen.
    pub async fn shutdown(mut self) -> Report {
        self.stop.send_replace(true);
        // Whether all ended in time or not: dropping the server ends the rest.
        let _ = tokio::time::timeout(self.shared.bounds.shutdown, &mut self.accepting).await;
        self.report()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Takes connections until told to stop; those that run are ended when this future is dropped.
async fn accept(listener: TcpListener, shared: Arc<Shared>, most: usize) {
    let mut stopped = shared.stopped.clone();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < most => {
                    connections.spawn(connection::serve(stream, Arc::clone(&shared)));
                }
                Ok((stream, _)) => refuse(stream),
                Err(error) => {
                    // Out of file handles, most likely: wait for one to come free.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task failed");
                }
            }
            () = stop(&mut stopped) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Closes a connection that is one too many.
fn refuse(stream: TcpStream) {
    tracing::warn!("too many connections: one more is refused");
    drop(stream);
}

/// Ready when the server is to stop, or is gone.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    drop(stopped.wait_for(|stopped| *stopped).await);
}

/// The time, as the machines take it; under tokio's paused clock it is that clock's.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
