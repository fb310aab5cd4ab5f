//! A server's connection: requests come out, each with its two body sides.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::Reason;
use h2::server::{Builder, Connection, SendResponse};
use http::Response;
use http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite};

use super::chunk::Chunk;
use super::hub::{Hub, Stream};
use super::meter::{Meter, Metered};
use super::watch::{Alarm, View, Watch};
use super::{BodyReceiver, BodySender, Http2Config, Lost, LostCause, SendError};

/// A request that came in.
pub struct Accepted {
    /// Method, path, headers.
    pub head: Parts,
    /// Its body, as it comes.
    pub body: BodyReceiver,
    /// Answers it.
    pub respond: Responder,
}

/// Answers one request: a head, then a body. Dropped unused, it resets the stream
/// (INTERNAL_ERROR), so that no client waits for a handler that is gone.
pub struct Responder {
    respond: Option<SendResponse<Chunk>>,
    config: Arc<Http2Config>,
}

impl Responder {
    /// Sends the response head; `end` when no body follows.
    ///
    /// # Errors
    /// [`SendError::Ended`] when the client is gone, or h2 refuses a header.
    pub fn send_head(mut self, head: Response<()>, end: bool) -> Result<BodySender, SendError> {
        let mut respond = self.respond.take().ok_or(SendError::Ended)?;
        let stream = respond.send_response(head, end).map_err(|_| SendError::Ended)?;
        Ok(if end {
            BodySender::finished(stream, &self.config)
        } else {
            BodySender::new(stream, &self.config, Reason::INTERNAL_ERROR)
        })
    }

    /// Refuses the request with this HTTP/2 code.
    pub fn reset(mut self, code: u32) {
        if let Some(mut respond) = self.respond.take() {
            respond.send_reset(Reason::from(code));
        }
    }

    /// Ready when the client gave the request up before it was answered: with the HTTP/2 code.
    pub fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<u32> {
        match &mut self.respond {
            Some(respond) => respond.poll_reset(cx).map(|result| {
                result.unwrap_or_else(|error| error.reason().unwrap_or(Reason::CANCEL)).into()
            }),
            None => Poll::Pending,
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(mut respond) = self.respond.take() {
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// A server's connection. It moves only while [`Self::poll_accept`] is polled; dropping it ends
/// every stream with [`LostCause::Abandoned`].
pub struct ServerConnection<T> {
    connection: Option<Connection<Metered<T>, Chunk>>,
    hub: Arc<Hub>,
    meter: Arc<Meter>,
    watch: Watch,
    config: Arc<Http2Config>,
    draining: bool,
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ServerConnection<T> {
    /// Reads the client's preface from `io` and answers with SETTINGS.
    ///
    /// # Errors
    /// When the peer does not speak HTTP/2, or says nothing within `settings_timeout`.
    pub async fn handshake(io: T, config: Http2Config) -> Result<Self, Lost> {
        let config = Arc::new(config);
        let meter = Meter::new(config.read_burst);
        let metered = Metered::new(io, Arc::clone(&meter));
        let handshake = builder(&config).handshake(metered);
        let connection = tokio::time::timeout(config.settings_timeout, handshake)
            .await
            .map_err(|_| Lost::new(LostCause::NoSettings))?
            .map_err(|error| Lost::of_connection(&error))?;
        let watch = Watch::new(Arc::clone(&meter), Arc::clone(&config), false);
        let connection = Some(connection);
        Ok(Self { connection, hub: Arc::default(), meter, watch, config, draining: false })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> ServerConnection<T> {
    /// The next request. Runs the connection: has to be polled until it says `Err`, which is the
    /// end (an orderly one is [`LostCause::GoAway`] with code 0).
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Accepted, Lost>> {
        const BURSTS: usize = 8;
        for _ in 0..BURSTS {
            let Some(connection) = &mut self.connection else {
                let lost = self.hub.death().cloned();
                return Poll::Ready(Err(lost.unwrap_or_else(|| Lost::new(LostCause::Abandoned))));
            };
            self.hub.enter(cx);
            let result = connection.poll_accept(cx);
            let moved = self.hub.leave();
            match result {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    return Poll::Ready(Ok(self.accepted(request, respond)));
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(self.end(Lost::of_connection(&error))));
                }
                Poll::Ready(None) => {
                    let closed = Lost::new(LostCause::GoAway { code: 0, local: false });
                    return Poll::Ready(Err(self.end(closed)));
                }
                Poll::Pending => {}
            }
            if !self.meter.next_burst() && !moved {
                return self.poll_watch(cx);
            }
        }
        cx.waker().wake_by_ref();
        self.poll_watch(cx)
    }

    /// As [`Self::poll_accept`].
    ///
    /// # Errors
    /// The end of the connection.
    pub async fn accept(&mut self) -> Result<Accepted, Lost> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Takes no new streams, lets the open ones finish, then closes (GOAWAY). Goes on only while
    /// polled.
    pub fn graceful_shutdown(&mut self) {
        self.draining = true;
        if let Some(connection) = &mut self.connection {
            connection.graceful_shutdown();
        }
    }

    /// Ends the connection and all its streams with this HTTP/2 code. Goes on only while polled.
    pub fn abort(&mut self, code: u32) {
        self.draining = true;
        if let Some(connection) = &mut self.connection {
            connection.abrupt_shutdown(Reason::from(code));
        }
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Result<Accepted, Lost>> {
        let active = self.hub.active() > 0;
        let closing = (self.draining && !active) || self.hub.is_dying();
        let connection = &mut self.connection;
        let pings = || connection.as_mut().and_then(Connection::ping_pong);
        match self.watch.poll(cx, &View { active, closing }, pings) {
            Poll::Ready(Alarm::Lost(lost)) => Poll::Ready(Err(self.end(lost))),
            Poll::Ready(Alarm::Idle) => {
                self.graceful_shutdown();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn accepted(
        &self,
        request: http::Request<h2::RecvStream>,
        respond: SendResponse<Chunk>,
    ) -> Accepted {
        let (head, body) = request.into_parts();
        let body = BodyReceiver::new(Stream::request(&self.hub, body));
        let respond = Responder { respond: Some(respond), config: Arc::clone(&self.config) };
        Accepted { head, body, respond }
    }
}

impl<T> ServerConnection<T> {
    /// Streams that are open.
    pub fn active(&self) -> usize {
        self.hub.active()
    }

    fn end(&mut self, lost: Lost) -> Lost {
        self.connection = None;
        self.hub.finish(lost.clone());
        lost
    }
}

impl<T> Drop for ServerConnection<T> {
    fn drop(&mut self) {
        if self.connection.is_some() {
            let _ = self.end(Lost::new(LostCause::Abandoned));
        }
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
        .max_pending_accept_reset_streams(config.max_pending_reset_streams);
    builder
}
