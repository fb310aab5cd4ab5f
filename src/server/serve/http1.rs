//! HTTP/1.1: one small request for a connection, answered whole. A run is not possible here.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};

use super::http2::request_head;
use super::{Shared, now, stop};
use crate::http1::{HyperIo, Whole};
use crate::server::{Exchange, Output};

/// Serves one request.
pub(super) async fn serve<T>(stream: T, shared: Arc<Shared>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut stopped = shared.stopped.clone();
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    // Less than 8 KiB hyper does not take.
    let head = usize::try_from(shared.http2.max_header_list).unwrap_or(usize::MAX).max(8 << 10);
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(head)
        .serve_connection(HyperIo(stream), service);
    let mut connection = pin!(tokio::time::timeout(shared.bounds.http1, connection));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop(&mut stopped) => return,
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "HTTP/1.1 connection failed"),
        Err(_) => tracing::debug!("HTTP/1.1 connection took too long"),
    }
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Response<Answering> {
    let mut exchange = shared.exchange(true);
    let (head, mut body) = request.into_parts();
    exchange.handle_head(&request_head(&head), now());
    let mut answer = Answer::default();
    let mut reading = true;
    loop {
        let wake = match exchange.poll_output(now()) {
            // The answer has begun and its end is not in sight.
            Output::Wait(_) if answer.begun => {
                return answer.response(Some(Rest::new(exchange, Arc::clone(shared))));
            }
            Output::Wait(wake) => wake,
            output => {
                if answer.take(output) {
                    break;
                }
                continue;
            }
        };
        let sleep = tokio::time::sleep_until(wake.map_or_else(far, tokio::time::Instant::from_std));
        tokio::select! {
            frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)), if reading => match frame {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        exchange.handle_body(&bytes, now());
                    }
                }
                Some(Err(_)) => {
                    reading = false;
                    exchange.handle_reset(None, now());
                }
                None => {
                    reading = false;
                    exchange.handle_end(now());
                }
            },
            () = sleep => exchange.handle_timeout(now()),
        }
    }
    shared.record(&exchange);
    answer.response(None)
}

/// Later than a connection is expected to live; whoever wakes then sleeps again.
fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(86_400)
}

/// An answer that is being put together.
#[derive(Default)]
struct Answer {
    begun: bool,
    status: StatusCode,
    headers: http::HeaderMap,
    body: BytesMut,
}

impl Answer {
    /// Takes one output; `true` when it was the last.
    fn take(&mut self, output: Output) -> bool {
        match output {
            Output::Head { status, headers } => {
                self.begun = true;
                self.status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                self.headers = super::http2::header_map(headers);
                false
            }
            Output::Send(bytes) => {
                self.body.extend_from_slice(&bytes);
                false
            }
            Output::GoAway(_) | Output::Wait(_) => false,
            Output::End { .. } | Output::Reset(_) | Output::Cut => true,
        }
    }

    fn response(self, rest: Option<Rest>) -> Response<Answering> {
        let mut response = Response::new(Answering { begun: Whole::new(self.body.freeze()), rest });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// A body: what was there when the answer began, then what comes.
struct Answering {
    begun: Whole,
    rest: Option<Rest>,
}

/// The exchange behind a body that goes on.
struct Rest {
    exchange: Exchange,
    shared: Arc<Shared>,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Rest {
    fn new(exchange: Exchange, shared: Arc<Shared>) -> Self {
        Self { exchange, shared, sleep: Box::pin(tokio::time::sleep_until(far())) }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            match self.exchange.poll_output(now()) {
                Output::Send(bytes) => return Poll::Ready(Some(Frame::data(bytes))),
                Output::End { .. } | Output::Reset(_) | Output::Cut => return Poll::Ready(None),
                Output::Head { .. } | Output::GoAway(_) => {}
                Output::Wait(wake) => {
                    let wake = wake.map_or_else(far, tokio::time::Instant::from_std);
                    self.sleep.as_mut().reset(wake);
                    std::task::ready!(self.sleep.as_mut().poll(cx));
                    self.exchange.handle_timeout(now());
                }
            }
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.shared.record(&self.exchange);
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.begun.is_end_stream() {
            return Pin::new(&mut self.begun).poll_frame(cx);
        }
        match &mut self.rest {
            Some(rest) => rest.poll_frame(cx).map(|frame| frame.map(Ok)),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_end_stream() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.rest.is_some() { SizeHint::default() } else { self.begun.size_hint() }
    }
}
