//! A client's connection: a handle that opens streams, and the driver that runs it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, SendRequest};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::chunk::Chunk;
use super::hub::{Hub, Stream};
use super::meter::{Meter, Metered};
use super::watch::{Alarm, View, Watch};
use super::{BodyReceiver, BodySender, Http2Config, Lost, LostCause};

/// A handle to a client's HTTP/2 connection. Clones share the connection; it closes (GOAWAY) when
/// the last one is dropped and the last stream is done.
#[derive(Clone)]
pub struct ClientConnection {
    send: SendRequest<Chunk>,
    hub: Arc<Hub>,
    meter: Arc<Meter>,
    config: Arc<Http2Config>,
    _counted: Counted,
}

/// A stream of ours: read the head and the body from `body`, write the rest of the request to
/// `send`.
pub struct OpenStream {
    /// Response head, body, trailers.
    pub body: BodyReceiver,
    /// The request's body.
    pub send: BodySender,
}

impl ClientConnection {
    /// Starts HTTP/2 on `io` (TLS with ALPN `h2`, or cleartext with prior knowledge). The preface is
    /// written; the peer's SETTINGS are not waited for, their deadline runs in the driver. The
    /// driver has to be spawned: nothing moves without it.
    ///
    /// # Errors
    /// When the preface cannot be written, or not within `settings_timeout`.
    pub async fn handshake<T>(io: T, config: Http2Config) -> Result<(Self, ClientDriver<T>), Lost>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = Arc::new(config);
        let meter = Meter::new(config.read_burst);
        let metered = Metered::new(io, Arc::clone(&meter));
        let builder = builder(&config);
        let handshake = builder.handshake(metered);
        let (send, connection) = tokio::time::timeout(config.settings_timeout, handshake)
            .await
            .map_err(|_| Lost::new(LostCause::NoSettings))?
            .map_err(|error| Lost::of_connection(&error))?;
        let hub = Arc::new(Hub::default());
        let watch = Watch::new(Arc::clone(&meter), Arc::clone(&config), true);
        let handles = Counted::first();
        let driver = ClientDriver {
            connection: Some(connection),
            hub: Arc::clone(&hub),
            meter: Arc::clone(&meter),
            watch,
            handles: Arc::clone(&handles.0),
        };
        Ok((Self { send, hub, meter, config, _counted: handles }, driver))
    }

    /// Opens a stream. Returns at once: the request is queued for the driver, with `first` in the
    /// same write; whether the peer answers is on [`OpenStream::body`] (PROTOCOL 2: nothing may
    /// wait for the head). `end` closes our side after `first`.
    ///
    /// When the peer's limit of streams is reached the request waits for a slot; see
    /// [`Self::slots`].
    ///
    /// # Errors
    /// [`LostCause::Refused`] when the connection takes no more streams, [`LostCause::Unsendable`]
    /// when h2 refuses the request's headers. Nothing was written then.
    pub fn open(
        &self,
        request: Request<()>,
        first: Option<Bytes>,
        end: bool,
    ) -> Result<OpenStream, Lost> {
        if let Some(death) = self.hub.death() {
            return Err(Lost::new(LostCause::Refused).with_detail(&death.to_string()));
        }
        let whole = end && first.as_ref().is_none_or(Bytes::is_empty);
        let mut send = self.send.clone();
        let (response, body) = send.send_request(request, whole).map_err(|error| {
            let known = error.reason().is_some() || error.is_io();
            let cause = if known { LostCause::Refused } else { LostCause::Unsendable };
            Lost::new(cause).with_detail(&error.to_string())
        })?;
        let stream = Stream::response(&self.hub, response);
        let mut sender = if whole {
            BodySender::finished(body, &self.config)
        } else {
            BodySender::new(body, &self.config, Reason::CANCEL)
        };
        if let Some(first) = first.filter(|_| !whole) {
            sender.first(first, end);
        }
        Ok(OpenStream { body: BodyReceiver::new(stream), send: sender })
    }

    /// Why the connection ended, once it has.
    pub fn death(&self) -> Option<&Lost> {
        self.hub.death()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.hub.death().is_some()
    }

    /// Whether it takes no new streams any more: ended, or the peer said GOAWAY.
    pub fn is_draining(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.is_closed() || matches!(self.send.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Streams that are open, or wait to be.
    pub fn active(&self) -> usize {
        self.hub.active()
    }

    /// Whether the peer's SETTINGS have come: before that its limit of streams is a guess.
    pub fn is_settled(&self) -> bool {
        self.meter.has_settings()
    }

    /// Streams that the peer would take at once beside those open. 100 at most until it
    /// [is settled](Self::is_settled).
    pub fn slots(&self) -> usize {
        self.send.current_max_send_streams().saturating_sub(self.hub.active())
    }
}

fn builder(config: &Http2Config) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .data_frame_budget(config.data_frame_budget)
        .max_header_list_size(config.max_header_list)
        .max_concurrent_streams(config.max_concurrent_streams)
        .max_pending_accept_reset_streams(config.max_pending_reset_streams)
        .enable_push(false);
    builder
}

/// Counts the handles, so that the driver knows when it may close.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn first() -> Self {
        Self(Arc::new(AtomicUsize::new(1)))
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs a client's connection; to be spawned. Resolves when the connection is over, with the reason
/// (an orderly end is [`LostCause::GoAway`] with code 0). Dropped early, it ends every stream with
/// [`LostCause::Abandoned`].
#[must_use = "a connection does nothing unless its driver is polled"]
pub struct ClientDriver<T> {
    connection: Option<Connection<Metered<T>, Chunk>>,
    hub: Arc<Hub>,
    meter: Arc<Meter>,
    watch: Watch,
    handles: Arc<AtomicUsize>,
}

/// Bursts in one poll before other tasks get their turn.
const BURSTS: usize = 8;

impl<T: AsyncRead + AsyncWrite + Unpin> Future for ClientDriver<T> {
    type Output = Lost;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Lost> {
        let this = self.get_mut();
        for _ in 0..BURSTS {
            let Some(connection) = &mut this.connection else {
                return Poll::Ready(this.end(Lost::new(LostCause::Abandoned)));
            };
            this.hub.enter(cx);
            let result = Pin::new(connection).poll(cx);
            if this.meter.began_with_http1() {
                // To h2 it is a frame of absurd size.
                this.hub.condemn(Lost::new(LostCause::Http1));
            }
            let moved = this.hub.leave();
            if let Poll::Ready(result) = result {
                let lost = match result {
                    Ok(()) => Lost::new(LostCause::GoAway { code: 0, local: false }),
                    Err(error) => Lost::of_connection(&error),
                };
                return Poll::Ready(this.end(lost));
            }
            if !this.meter.next_burst() && !moved {
                return this.poll_watch(cx);
            }
        }
        cx.waker().wake_by_ref();
        this.poll_watch(cx)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ClientDriver<T> {
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        let active = self.hub.active() > 0;
        let unused = self.handles.load(Ordering::Acquire) == 0 && !active;
        let view = View { active, closing: unused || self.hub.is_dying() };
        let connection = &mut self.connection;
        let pings = || connection.as_mut().and_then(Connection::ping_pong);
        match self.watch.poll(cx, &view, pings) {
            Poll::Ready(Alarm::Lost(lost)) => Poll::Ready(self.end(lost)),
            // A client has no idle limit of its own.
            Poll::Ready(Alarm::Idle) | Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> ClientDriver<T> {
    /// Bytes read from the peer so far.
    pub fn received(&self) -> u64 {
        self.meter.read()
    }

    fn end(&mut self, lost: Lost) -> Lost {
        self.connection = None;
        let lost = self.hub.death().cloned().unwrap_or(lost);
        self.hub.finish(lost.clone());
        lost
    }
}

impl<T> Drop for ClientDriver<T> {
    fn drop(&mut self) {
        if self.connection.is_some() {
            let _ = self.end(Lost::new(LostCause::Abandoned));
        }
    }
}
