//! HTTP/1.1: one small request for a connection, answered whole. A run is not possible here.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncWrite};

use super::http2::request_head;
use super::{Shared, now, stop};
use crate::http1::{HyperIo, Whole};
use crate::server::Output;

/// How long a connection may take altogether: it carries one call.
const WHOLE: Duration = Duration::from_secs(90);

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
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(64 << 10)
        .serve_connection(HyperIo(stream), service);
    let mut connection = pin!(tokio::time::timeout(WHOLE, connection));
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

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Whole> {
    let mut exchange = shared.exchange(true);
    let (head, mut body) = request.into_parts();
    exchange.handle_head(&request_head(&head), now());
    let mut answer = Answer::default();
    let mut reading = true;
    loop {
        let wake = match exchange.poll_output(now()) {
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
    answer.response()
}

/// Later than any connection lives.
fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + WHOLE
}

/// An answer that is being put together.
#[derive(Default)]
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: BytesMut,
}

impl Answer {
    /// Takes one output; `true` when it was the last.
    fn take(&mut self, output: Output) -> bool {
        match output {
            Output::Head { status, headers } => {
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

    fn response(self) -> Response<Whole> {
        let mut response = Response::new(Whole::new(self.body.freeze()));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}
