//! HTTP/2: a task for the connection, and one for each of its streams.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Shared, now, stop};
use crate::rpc::http2::{
    Accepted, BodyReceiver, BodySender, Lost, LostCause, Responder, SendError, ServerConnection,
};
use crate::server::{Exchange, Output, RequestHead};

/// What a stream wants of its connection.
enum Control {
    GoAway(u32),
    Cut,
}

/// Serves a connection to its end.
pub(super) async fn serve<T>(io: T, shared: Arc<Shared>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = match ServerConnection::handshake(io, shared.http2.clone()).await {
        Ok(connection) => connection,
        Err(lost) => return tracing::debug!(cause = ?lost.cause(), "HTTP/2 handshake failed"),
    };
    let (control, mut controls) = mpsc::channel(8);
    let mut streams = JoinSet::new();
    let mut stopped = shared.stopped.clone();
    let mut stopping = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Ok(accepted) => {
                    streams.spawn(drive(accepted, Arc::clone(&shared), control.clone()));
                }
                Err(lost) => {
                    tracing::debug!(cause = ?lost.cause(), "HTTP/2 connection ended");
                    break;
                }
            },
            Some(wanted) = controls.recv() => match wanted {
                Control::GoAway(0) => connection.graceful_shutdown(),
                Control::GoAway(code) => connection.abort(code),
                Control::Cut => {
                    // Once more, so that what was written before leaves the buffer.
                    let _ = poll_fn(|cx| Poll::Ready(connection.poll_accept(cx).is_ready())).await;
                    break;
                }
            },
            Some(ended) = streams.join_next(), if !streams.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a stream's task failed");
                }
            }
            () = stop(&mut stopped), if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
        }
    }
    drop(connection);
    // The streams see the loss and write down how they went.
    let rest = async { while streams.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(shared.bounds.linger, rest).await;
}

/// Drives one exchange over one stream.
async fn drive(accepted: Accepted, shared: Arc<Shared>, control: mpsc::Sender<Control>) {
    let Accepted { head, body, respond } = accepted;
    let mut exchange = shared.exchange(false);
    exchange.handle_head(&request_head(&head), now());
    let linger = shared.bounds.linger;
    let stream =
        Stream { body, way: Way::Waiting(respond), control, reading: true, ended: None, linger };
    stream.run(&mut exchange).await;
    shared.record(&exchange);
}

/// The sending side of a stream.
enum Way {
    /// The head is not out yet.
    Waiting(Responder),
    /// The body goes out.
    Sending(BodySender),
    /// All is said.
    Over,
}

struct Stream {
    body: BodyReceiver,
    way: Way,
    control: mpsc::Sender<Control>,
    /// The request body may bring more.
    reading: bool,
    /// When the last word was said.
    ended: Option<Instant>,
    /// See [`Builder::linger`](super::Builder::linger).
    linger: Duration,
}

impl Stream {
    async fn run(mut self, exchange: &mut Exchange) {
        loop {
            let mut wake = None;
            if !self.is_behind() {
                match exchange.poll_output(now()) {
                    Output::Wait(until) => wake = until.map(Instant::from_std),
                    output => {
                        if self.perform(output).await.is_err() {
                            exchange.handle_reset(None, now());
                            return;
                        }
                        continue;
                    }
                }
            }
            if let Some(ended) = self.ended {
                if !self.reading {
                    return;
                }
                wake = Some(ended + self.linger);
            }
            if !self.wait(exchange, wake).await {
                return;
            }
        }
    }

    /// Whether something that was said waits for the peer to take it.
    fn is_behind(&self) -> bool {
        matches!(&self.way, Way::Sending(sender) if sender.queued() > 0)
    }

    /// Waits for the first thing to happen; `false` when the stream is over.
    async fn wait(&mut self, exchange: &mut Exchange, wake: Option<Instant>) -> bool {
        let behind = self.is_behind();
        let until = wake.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
        tokio::select! {
            chunk = self.body.next(), if self.reading => match chunk {
                Some(Ok(bytes)) => exchange.handle_body(&bytes, now()),
                Some(Err(lost)) => {
                    exchange.handle_reset(reset_code(&lost), now());
                    return false;
                }
                None => {
                    self.reading = false;
                    exchange.handle_end(now());
                }
            },
            code = outgoing(&mut self.way, !self.reading), if behind || !self.reading => {
                if let Err(code) = code {
                    exchange.handle_reset(code, now());
                    return false;
                }
            }
            () = tokio::time::sleep_until(until) => {
                if self.ended.is_some() {
                    return false;
                }
                exchange.handle_timeout(now());
            }
        }
        true
    }

    async fn perform(&mut self, output: Output) -> Result<(), SendError> {
        match output {
            Output::Head { status, headers } => {
                let Way::Waiting(respond) = std::mem::replace(&mut self.way, Way::Over) else {
                    return Err(SendError::Ended);
                };
                let mut head = Response::new(());
                *head.status_mut() =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                *head.headers_mut() = header_map(headers);
                self.way = Way::Sending(respond.send_head(head, false)?);
            }
            Output::Send(bytes) => {
                if let Way::Sending(sender) = &mut self.way {
                    sender.push(bytes)?;
                }
            }
            Output::End { trailers } => {
                if let Way::Sending(sender) = &mut self.way {
                    if trailers.is_empty() {
                        sender.push_finish();
                    } else {
                        sender.push_trailers(header_map(trailers));
                    }
                    sender.flush().await?;
                }
                self.ended = Some(Instant::now());
            }
            Output::Reset(code) => {
                match std::mem::replace(&mut self.way, Way::Over) {
                    Way::Waiting(respond) => respond.reset(code),
                    Way::Sending(mut sender) => sender.flush_then_reset(code, self.linger).await,
                    Way::Over => {}
                }
                return Err(SendError::Ended);
            }
            Output::GoAway(code) => {
                // A full channel means that the connection is ending already.
                let _ = self.control.try_send(Control::GoAway(code));
            }
            Output::Cut => {
                if let Way::Sending(sender) = &mut self.way {
                    let sent = poll_fn(|cx| sender.poll_sent(cx));
                    let _ = tokio::time::timeout(self.linger, sent).await;
                }
                let _ = self.control.try_send(Control::Cut);
                // Dropping the stream would reset it: it waits for the end of the connection.
                let _ = poll_fn(|cx| poll_cancelled(&mut self.way, cx)).await;
                return Err(SendError::Ended);
            }
            Output::Wait(_) => {}
        }
        Ok(())
    }
}

/// Moves what waits to be sent; ready when it is on its way. With `watch` also looks for a reset,
/// which the request body no longer tells once it has ended. The error is its code, where known.
async fn outgoing(way: &mut Way, watch: bool) -> Result<(), Option<u32>> {
    poll_fn(|cx| {
        if watch && let Poll::Ready(code) = poll_cancelled(way, cx) {
            return Poll::Ready(Err(Some(code)));
        }
        match way {
            Way::Sending(sender) if sender.queued() > 0 => {
                sender.poll_flush(cx).map_err(|_: SendError| None)
            }
            _ => Poll::Pending,
        }
    })
    .await
}

/// The code of a reset by the client.
fn poll_cancelled(way: &mut Way, cx: &mut Context<'_>) -> Poll<u32> {
    match way {
        Way::Waiting(respond) => respond.poll_cancelled(cx),
        Way::Sending(sender) => sender.poll_cancelled(cx),
        Way::Over => Poll::Pending,
    }
}

fn reset_code(lost: &Lost) -> Option<u32> {
    match lost.cause() {
        LostCause::Reset { code, .. } => Some(code),
        _ => None,
    }
}

/// The head of a request, as the machines take it.
pub(super) fn request_head(parts: &Parts) -> RequestHead {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    RequestHead {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
    }
}

/// Headers as HTTP takes them; what it refuses was refused when the script was read.
pub(super) fn header_map(headers: Vec<(String, String)>) -> HeaderMap {
    let valid = headers.into_iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    valid.collect()
}
