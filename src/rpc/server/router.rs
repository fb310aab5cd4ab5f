//! Routes: a path to its handler, and everything that is refused before a handler sees it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use super::call::{Request, StreamCall, cancelled};
use crate::connect::{Compression, Decoder, Limits, error_json, gzip};
use crate::error::Kind;
use crate::rpc::head::{ERROR, Refusal, Shape, accepts_gzip, check_request};
use crate::rpc::http2::{Accepted, BodyReceiver, Responder};
use crate::rpc::message::{BodyError, Messages, read_all, too_long};
use crate::rpc::{Gzip, Metadata, Reply, header, timeout};
use crate::{Error, Result};

/// A boxed future.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type UnaryHandler = Arc<dyn Fn(Request, Bytes) -> Boxed<'static, Reply> + Send + Sync>;
type StreamHandler = Arc<dyn for<'a> Fn(&'a mut StreamCall) -> Boxed<'a, Result<()>> + Send + Sync>;

/// What every call on a server is allowed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How long a message may be. Default as everywhere, 16 MiB.
    pub limits: Limits,
    /// Compress answers for callers that read gzip. Default yes.
    pub gzip: Option<Gzip>,
    /// The longest that a call may take, whatever the caller allows. Default none.
    pub max_timeout: Option<Duration>,
    /// How long a unary request's message may take to arrive. Default 60 s; nobody's deadline may
    /// be there to end the wait.
    pub read_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            gzip: Some(Gzip::default()),
            max_timeout: None,
            read_timeout: Duration::from_secs(60),
        }
    }
}

/// Handlers by path. Cheap to clone.
///
/// 404 for an unknown path, 405 and 415 where [`check_request`] says so, an error of the protocol
/// for the rest (FAULTS M100). A call past its deadline ends with `deadline_exceeded`; a handler
/// whose caller gave up is dropped.
#[derive(Clone, Default)]
pub struct Router {
    routes: Arc<HashMap<String, Route>>,
    options: Arc<ServerOptions>,
}

#[derive(Clone)]
enum Route {
    Unary(UnaryHandler),
    Stream(StreamHandler),
}

impl Router {
    /// A router without routes.
    pub fn new(options: ServerOptions) -> Self {
        Self { routes: Arc::default(), options: Arc::new(options) }
    }

    /// Adds a unary method.
    #[must_use]
    pub fn unary<H, F>(self, path: &str, handler: H) -> Self
    where
        H: Fn(Request, Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = Reply> + Send + 'static,
    {
        let handler: UnaryHandler =
            Arc::new(move |request, bytes| Box::pin(handler(request, bytes)));
        self.with(path, Route::Unary(handler))
    }

    /// Adds a method of any other shape. A handler is a function that gives a boxed future, since
    /// it borrows the call: `|call| Box::pin(async move { … })`.
    #[must_use]
    pub fn stream<H>(self, path: &str, handler: H) -> Self
    where
        H: for<'a> Fn(&'a mut StreamCall) -> Boxed<'a, Result<()>> + Send + Sync + 'static,
    {
        self.with(path, Route::Stream(Arc::new(handler)))
    }

    fn with(mut self, path: &str, route: Route) -> Self {
        Arc::make_mut(&mut self.routes).insert(path.to_owned(), route);
        self
    }

    /// Serves one request.
    pub async fn serve(self, accepted: Accepted) {
        let Accepted { head, body, respond } = accepted;
        let Some(route) = self.routes.get(head.uri.path()) else {
            return refuse(respond, 404);
        };
        let shape = match route {
            Route::Unary(_) => Shape::Unary,
            Route::Stream(_) => Shape::Stream,
        };
        let checked = match check_request(shape, &head.method, &head.headers) {
            Err(Refusal::Status(status)) => return refuse(respond, status),
            Err(Refusal::Error(error)) => Err(error),
            Ok(compression) => Ok(compression),
        };
        let (request, checked) = self.request(&head, checked);
        let gzip = self.options.gzip.filter(|_| accepts_gzip(shape, &head.headers));
        match route {
            Route::Unary(handler) => {
                self.serve_unary(handler, request, checked, body, respond, gzip).await;
            }
            Route::Stream(handler) => {
                let compression = checked.as_ref().copied().unwrap_or_default();
                let decoder = Decoder::new(self.options.limits, compression);
                let call = StreamCall::new(request, Messages::new(body, decoder), respond, gzip);
                serve_stream(handler, call, checked.err()).await;
            }
        }
    }

    /// What the handler is told, and whether the head was sound.
    fn request(
        &self,
        head: &http::request::Parts,
        mut checked: Result<Compression>,
    ) -> (Request, Result<Compression>) {
        let value = head.headers.get(timeout::HEADER).map(|value| value.to_str().unwrap_or("?"));
        let timeout = value.map(timeout::parse).transpose().unwrap_or_else(|error| {
            checked = Err(error);
            None
        });
        let limit = [timeout, self.options.max_timeout].into_iter().flatten().min();
        let request = Request {
            path: head.uri.path().to_owned(),
            headers: header::metadata(&head.headers),
            timeout,
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
        };
        (request, checked)
    }

    async fn serve_unary(
        &self,
        handler: &UnaryHandler,
        request: Request,
        checked: Result<Compression>,
        mut body: BodyReceiver,
        mut respond: Responder,
        gzip: Option<Gzip>,
    ) {
        let deadline = request.deadline;
        let work = async {
            let compression = checked?;
            let read = self.read(&mut body, compression);
            let message = tokio::time::timeout(self.options.read_timeout, read)
                .await
                .unwrap_or_else(|_| Err(expired()))?;
            Ok(handler(request, message).await)
        };
        let reply = tokio::select! {
            reply = by(deadline, work) => reply,
            _ = std::future::poll_fn(|cx| respond.poll_cancelled(cx)) => return,
        };
        let reply = reply.unwrap_or_else(|error| Reply::new(Err(error)));
        let (head, message) = match answer(reply, gzip) {
            Ok(parts) => parts,
            // Headers that cannot be sent are the handler's mistake.
            Err(error) => {
                match answer(Reply::new(Err(error.with_code(crate::connect::Code::Internal))), None)
                {
                    Ok(parts) => parts,
                    Err(_) => return,
                }
            }
        };
        let Ok(mut send) = respond.send_head(head, message.is_empty()) else { return };
        // A caller that is gone needs no answer.
        let _ = send.push(message);
        let _ = send.finish().await;
    }

    /// A unary request's message.
    async fn read(&self, body: &mut BodyReceiver, compression: Compression) -> Result<Bytes> {
        let limits = self.options.limits;
        let mut raw = Vec::new();
        match read_all(body, limits.message, &mut raw).await {
            Ok(()) => {}
            Err(BodyError::TooLong) => return Err(too_long(limits.message)),
            Err(BodyError::Lost(lost)) => return Err(lost.into()),
        }
        if compression == Compression::None {
            return Ok(Bytes::from(raw));
        }
        let mut plain = Vec::new();
        gzip::decompress(&raw, limits.decompressed, &mut plain)?;
        Ok(Bytes::from(plain))
    }
}

async fn serve_stream(handler: &StreamHandler, mut call: StreamCall, refused: Option<Error>) {
    let cancelled = cancelled(call.answer());
    let result = match refused {
        Some(error) => Err(error),
        None => {
            let deadline = call.request.deadline;
            tokio::select! {
                result = by(deadline, handler(&mut call)) => result,
                _ = cancelled => return,
            }
        }
    };
    // A caller that is gone needs no end.
    let _ = call.finish(result.err()).await;
}

/// Waits for `work`, but not past the deadline.
async fn by<T>(deadline: Option<Instant>, work: impl Future<Output = Result<T>>) -> Result<T> {
    match deadline {
        Some(at) => tokio::time::timeout_at(at, work).await.unwrap_or_else(|_| Err(expired())),
        None => work.await,
    }
}

fn expired() -> Error {
    Error::new(Kind::DeadlineExceeded, "the call took longer than its deadline allows")
}

/// A status and nothing else: the caller does not speak the protocol, or not to this path.
fn refuse(respond: Responder, status: u16) {
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
    let hint = match status {
        405 => Some(("allow", "POST")),
        415 => Some(("accept-post", "application/proto, application/connect+proto")),
        _ => None,
    };
    if let Some((name, value)) = hint {
        head.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    // A caller that is gone needs no answer.
    let _ = respond.send_head(head, true);
}

/// Head and body of a unary answer.
fn answer(reply: Reply, gzip: Option<Gzip>) -> Result<(Response<()>, Bytes)> {
    let mut headers = HeaderMap::new();
    header::add(&mut headers, &reply.headers)?;
    add_trailers(&mut headers, &reply.trailers)?;
    headers.insert(Shape::Unary.accept(), HeaderValue::from_static("gzip"));
    let mut head = Response::new(());
    let (kind, body) = match reply.result {
        Ok(message) => (Shape::Unary.content_type(), message),
        Err(error) => {
            header::add(&mut headers, &error.metadata().to_vec())?;
            *head.status_mut() = StatusCode::from_u16(error.code().http_status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (ERROR, Bytes::from(error_json(&error).to_string()))
        }
    };
    headers.insert("content-type", HeaderValue::from_static(kind));
    let body = match gzip.filter(|gzip| body.len() >= gzip.min) {
        Some(_) => {
            headers.insert(Shape::Unary.encoding(), HeaderValue::from_static("gzip"));
            Bytes::from(gzip::compress(&body))
        }
        None => body,
    };
    *head.headers_mut() = headers;
    Ok((head, body))
}

/// Trailers of a unary answer are headers with a prefix.
fn add_trailers(headers: &mut HeaderMap, trailers: &Metadata) -> Result<()> {
    for (name, value) in trailers {
        let (name, value) = header::check(name, value)?;
        let prefixed = HeaderName::from_bytes(format!("trailer-{name}").as_bytes())
            .map_err(|_| Error::invalid("a trailer's name cannot be sent"))?;
        headers.append(prefixed, value);
    }
    Ok(())
}
