//! One stream on a pooled connection, and the way to it.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::Request;
use http::header::AUTHORIZATION;
use http::response::Parts;

use super::tap::Tap;
use crate::error::{Error, Result};
use crate::redact::Redactor;
use crate::rpc::http2::{BodyReceiver, BodySender, Lost, OpenStream, SendError};
use crate::run::{Head, Turn};
use crate::transport::credentials::{Access, Credentials};
use crate::transport::pool::{Checkout, Lease, Pool};

/// How often another connection is asked for when the one handed out ended in between. No option: each time one
/// that was pooled died within the same moment, and beyond it the retries of the run apply.
const ATTEMPTS: u8 = 3;
/// Bytes of a body that are taken in at a time, before the consumer has its turn. 64 KiB: thousands of
/// tokens, and little enough that their events are still in the cache when they are read. No option: what is
/// held at most is the queue's limit.
const PORTION: usize = 64 << 10;

/// Where the streams of one run come from, and what they begin with.
pub(crate) struct Router {
    pool: Pool,
    /// The head of the request, but for the credentials.
    request: Arc<Request<()>>,
    access: Arc<Access>,
    /// Those of the last stream.
    credentials: Arc<Credentials>,
    /// The service did not take them.
    refused: bool,
}

impl Router {
    pub(crate) fn new(
        pool: Pool,
        request: Request<()>,
        access: Arc<Access>,
        credentials: Arc<Credentials>,
    ) -> Self {
        Self { pool, request: Arc::new(request), access, credentials, refused: false }
    }

    /// The first stream, on a connection that was asked for earlier.
    pub(crate) fn open_with(&self, checkout: Checkout) -> Opening {
        let credentials = Ticket::Ready(Arc::clone(&self.credentials));
        Opening::new(self.pool.clone(), checkout, Arc::clone(&self.request), credentials)
    }

    /// Another stream, on whatever connection there is, with the credentials of that time.
    pub(crate) fn open(&self) -> Opening {
        let (access, last) = (Arc::clone(&self.access), Arc::clone(&self.credentials));
        let refused = self.refused;
        let credentials: TicketFuture = Box::pin(async move {
            if refused { access.instead_of(&last).await } else { access.now().await.map(Some) }
        });
        let checkout = self.pool.checkout();
        let request = Arc::clone(&self.request);
        Opening::new(self.pool.clone(), checkout, request, Ticket::Asked(credentials))
    }

    /// The next stream begins with other credentials.
    pub(crate) fn renew(&mut self) {
        self.refused = true;
    }

    /// A stream was opened with these.
    pub(crate) fn used(&mut self, credentials: Arc<Credentials>) {
        self.refused = false;
        self.credentials = credentials;
    }
}

/// `None`: there are none but those that were refused.
type TicketFuture = Pin<Box<dyn Future<Output = Result<Option<Arc<Credentials>>>> + Send>>;

enum Ticket {
    Asked(TicketFuture),
    Ready(Arc<Credentials>),
}

/// Why there is no stream.
pub(crate) enum NotOpened {
    /// No connection, or none that takes it.
    Lost(Error),
    /// No credentials: why, or none but those that were refused.
    NoCredentials(Option<Error>),
}

/// Credentials and a place on a connection to come, then a stream on it.
pub(crate) struct Opening {
    pool: Pool,
    checkout: Checkout,
    request: Arc<Request<()>>,
    ticket: Ticket,
    attempts: u8,
}

impl Opening {
    /// `checkout` was begun earlier: the dial runs while the request is still being built.
    fn new(pool: Pool, checkout: Checkout, request: Arc<Request<()>>, ticket: Ticket) -> Self {
        Self { pool, checkout, request, ticket, attempts: ATTEMPTS }
    }

    /// Opens the stream with the first bytes of `outgoing`, in the same write as its headers. Says
    /// what credentials it has.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut VecDeque<Bytes>,
    ) -> Poll<Result<(Link, Arc<Credentials>), NotOpened>> {
        let credentials = match &mut self.ticket {
            Ticket::Ready(credentials) => Arc::clone(credentials),
            Ticket::Asked(asked) => match ready!(asked.as_mut().poll(cx)) {
                Ok(Some(credentials)) => {
                    self.ticket = Ticket::Ready(Arc::clone(&credentials));
                    credentials
                }
                Ok(None) => return Poll::Ready(Err(NotOpened::NoCredentials(None))),
                Err(error) => return Poll::Ready(Err(NotOpened::NoCredentials(Some(error)))),
            },
        };
        let stream = ready!(self.stream(cx, outgoing, &credentials));
        Poll::Ready(match stream {
            Ok(link) => Ok((link, credentials)),
            Err(error) => Err(NotOpened::Lost(error)),
        })
    }

    fn stream(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut VecDeque<Bytes>,
        credentials: &Credentials,
    ) -> Poll<Result<Link>> {
        let redactor = &credentials.redactor;
        loop {
            let lease = ready!(Pin::new(&mut self.checkout).poll(cx))?;
            let first = outgoing.front().cloned();
            let mut request = Request::clone(&self.request);
            if let Some(authorization) = &credentials.authorization {
                request.headers_mut().insert(AUTHORIZATION, authorization.clone());
            }
            match lease.connection.open(request, first, false) {
                Ok(stream) => {
                    let unsent = outgoing.pop_front().map_or(0, |first| first.len());
                    return Poll::Ready(Ok(Link::new(stream, lease, unsent, redactor.clone())));
                }
                Err(lost) => {
                    self.attempts -= 1;
                    if !lost.is_unprocessed() || self.attempts == 0 {
                        return Poll::Ready(Err(cleaned(lost, redactor)));
                    }
                    drop(lease);
                    self.checkout = self.pool.checkout();
                }
            }
        }
    }
}

/// An open stream and what is known about its two directions.
pub(crate) struct Link {
    body: BodyReceiver,
    send: BodySender,
    head_seen: bool,
    body_ended: bool,
    send_failed: bool,
    /// Given to `send` and not yet known to have left.
    unsent: usize,
    redactor: Redactor,
    /// Last: the place is free when the stream is gone.
    _lease: Lease,
}

impl Link {
    fn new(stream: OpenStream, lease: Lease, unsent: usize, redactor: Redactor) -> Self {
        Self {
            body: stream.body,
            send: stream.send,
            head_seen: false,
            body_ended: false,
            send_failed: false,
            unsent,
            redactor,
            _lease: lease,
        }
    }

    /// Gives the turn what has come; says how many bytes of the body that was.
    pub(crate) fn read(
        &mut self,
        turn: &mut Turn,
        tap: &mut Tap,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> usize {
        if !self.head_seen {
            match self.body.poll_head(cx) {
                Poll::Pending => return 0,
                Poll::Ready(Ok(parts)) => {
                    let head = head(&parts);
                    tap.head(&head, now);
                    turn.handle_head(head, now);
                }
                Poll::Ready(Err(lost)) => self.lose(turn, tap, lost, now),
            }
            self.head_seen = true;
        }
        let mut came = 0;
        while !self.body_ended {
            if came >= PORTION {
                // The rest is asked for as soon as others had their turn.
                cx.waker().wake_by_ref();
                break;
            }
            match self.body.poll_chunk(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(chunk))) => {
                    came += chunk.len();
                    tap.server(&chunk, now);
                    turn.handle_body(chunk, now);
                }
                Poll::Ready(Some(Err(lost))) => self.lose(turn, tap, lost, now),
                Poll::Ready(None) => {
                    self.body_ended = true;
                    tap.end(now);
                    turn.handle_end(now);
                }
            }
        }
        came
    }

    fn lose(&mut self, turn: &mut Turn, tap: &mut Tap, lost: Lost, now: Instant) {
        self.body_ended = true;
        let error = cleaned(lost, &self.redactor);
        tap.lost(&error, now);
        turn.handle_lost(error, now);
    }

    /// Opens the peer's window by so many bytes.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.body.release(bytes);
    }

    /// Moves `outgoing` on. Ready with the bytes that have left for good, or that never will:
    /// 0 when there is nothing to write. An error is a reason to end the run; other failures are
    /// better explained by the receiving side.
    pub(crate) fn write(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut VecDeque<Bytes>,
    ) -> Poll<Result<usize, (usize, Error)>> {
        let result = match self.feed(outgoing) {
            Ok(()) if self.unsent == 0 => return Poll::Ready(Ok(0)),
            Ok(()) => ready!(self.send.poll_sent(cx)),
            Err(error) => Err(error),
        };
        let mut gone = std::mem::take(&mut self.unsent);
        let Err(error) = result else { return Poll::Ready(Ok(gone)) };
        gone += outgoing.drain(..).map(|bytes| bytes.len()).sum::<usize>();
        self.send_failed = true;
        Poll::Ready(match error {
            SendError::Stalled => Err((gone, error.into())),
            SendError::Ended | SendError::Full => Ok(gone),
        })
    }

    fn feed(&mut self, outgoing: &mut VecDeque<Bytes>) -> Result<(), SendError> {
        while let Some(bytes) = outgoing.pop_front() {
            let len = bytes.len();
            if self.send_failed {
                self.unsent += len;
                return Err(SendError::Ended);
            }
            match self.send.push(bytes.clone()) {
                Ok(()) => self.unsent += len,
                Err(SendError::Full) => {
                    outgoing.push_front(bytes);
                    return Ok(());
                }
                Err(error) => {
                    self.unsent += len;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Ready when everything has left and the stream needs no reset any more. `reset` is the code
    /// the run wants: with one, the stream may be reset when this is ready.
    ///
    /// A reset that only says "complete" waits for the end of the service's side, which is usually
    /// on its way: a reset would be an error in the service's books.
    pub(crate) fn poll_closed(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut VecDeque<Bytes>,
        finish: bool,
        reset: Option<u32>,
    ) -> Poll<()> {
        loop {
            match ready!(self.write(cx, outgoing)) {
                Ok(0) if outgoing.is_empty() => break,
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
        if self.send_failed {
            return Poll::Ready(());
        }
        if finish {
            self.send.push_finish();
            let left = match self.body_ended {
                // The service has ended its side: that we have, too, leaves on its own.
                true => self.send.poll_flush(cx),
                false => self.send.poll_sent(cx),
            };
            if ready!(left).is_err() {
                return Poll::Ready(());
            }
        }
        while reset == Some(0) && !self.body_ended {
            match ready!(self.body.poll_chunk(cx)) {
                Some(Ok(chunk)) => self.body.release(chunk.len()),
                Some(Err(_)) | None => self.body_ended = true,
            }
        }
        Poll::Ready(())
    }

    /// Resets the stream unless both sides have ended.
    pub(crate) fn reset(&mut self, code: u32) {
        if !(code == 0 && self.body_ended) {
            self.send.reset(code);
        }
    }
}

/// What the loss means to a caller; the peer's words in it may repeat the token (FAULTS M88).
fn cleaned(lost: Lost, redactor: &Redactor) -> Error {
    Error::from(lost).cleaned(redactor)
}

/// The head as the session takes it. A value that is not text is shown as far as it is.
fn head(parts: &Parts) -> Head {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    Head {
        status: parts.status.as_u16(),
        headers: headers.collect(),
        received_at: SystemTime::now(),
    }
}
