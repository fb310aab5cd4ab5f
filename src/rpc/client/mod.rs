//! Calls: unary, and streams of every shape.
//!
//! ```no_run
//! # async fn run(connection: agentwire::rpc::http2::ClientConnection) -> agentwire::Result<()> {
//! use agentwire::rpc::client::{Call, RpcClient};
//! let client = RpcClient::new(connection, "https://api.example.com")?;
//! let reply = client.unary(Call::new("/pkg.Service/Method"), "request".into()).await;
//! let message = reply.result?;
//! # Ok(()) }
//! ```

// A driver: the wall clock is needed for a `retry-after` that names a date.
#![allow(clippy::disallowed_methods)]

mod stream;
mod unary;

pub use stream::{CallReceiver, CallSender};

use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use tokio::time::Instant;

use super::head::{Shape, check_answer};
use super::http2::{BodyReceiver, ClientConnection, OpenStream};
use super::message::{BodyError, read_all};
use super::{Gzip, Metadata, Reply, header, timeout};
use crate::connect::{Compression, Limits, MAX_ERROR_BODY, error_from_http, gzip};
use crate::error::Kind;
use crate::redact::Redactor;
use crate::{Error, Result};

/// What one call is allowed and how it is sent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long what comes may be.
    pub limits: Limits,
    /// How long the whole call may take; sent as `connect-timeout-ms`. Default none: who calls
    /// knows, and a stream of a model may be long.
    pub timeout: Option<Duration>,
    /// Say that gzip is read here. Default yes.
    pub accept_gzip: bool,
    /// Compress what is sent. Default no: whether the peer reads gzip is not known beforehand.
    pub send_gzip: Option<Gzip>,
    /// Takes secrets out of what the peer says in errors.
    pub redactor: Redactor,
    /// Read a unary answer that comes inside an envelope, as some servers of agent.v1 send it
    /// (PROTOCOL 1). A bare protobuf message cannot begin like an envelope. Default no.
    pub accept_enveloped: bool,
    /// Bytes kept of an error answer's body; the rest is not read. Default 64 KiB (FAULTS, promises).
    pub error_body: usize,
}

impl Default for CallOptions {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            timeout: None,
            accept_gzip: true,
            send_gzip: None,
            redactor: Redactor::default(),
            accept_enveloped: false,
            error_body: MAX_ERROR_BODY,
        }
    }
}

/// One call to make.
#[derive(Debug, Clone)]
pub struct Call {
    path: String,
    prepared: HeaderMap,
    headers: Metadata,
    options: CallOptions,
}

impl Call {
    /// A call of `path` (`/package.Service/Method`).
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            prepared: HeaderMap::new(),
            headers: Vec::new(),
            options: CallOptions::default(),
        }
    }

    /// Adds headers that were checked before: a token marked sensitive is not copied into text.
    /// The protocol's own win over them.
    #[must_use]
    pub fn with_prepared(mut self, headers: HeaderMap) -> Self {
        self.prepared = headers;
        self
    }

    /// Adds headers; see [`header::add`] for what is refused.
    #[must_use]
    pub fn with_headers(mut self, headers: Metadata) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Sets the options.
    #[must_use]
    pub fn with_options(mut self, options: CallOptions) -> Self {
        self.options = options;
        self
    }
}

/// Makes calls on one connection. Redirects are never followed (FAULTS M40).
#[derive(Clone)]
pub struct RpcClient {
    connection: ClientConnection,
    base: String,
}

impl RpcClient {
    /// Calls on `connection` with `base` (`https://host[:port]`) before the path.
    ///
    /// # Errors
    /// When `base` has no scheme or no host, or carries user, query or fragment.
    pub fn new(connection: ClientConnection, base: &str) -> Result<Self> {
        let base = base.trim_end_matches('/');
        let uri: Option<http::Uri> = base.parse().ok();
        let sound = uri.is_some_and(|uri| {
            let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
            uri.scheme().is_some()
                && !authority.is_empty()
                && !authority.contains('@')
                && uri.query().is_none()
                && !base.contains('#')
        });
        if !sound {
            return Err(Error::invalid("the base URL is not of the form https://host[:port]"));
        }
        Ok(Self { connection, base: base.to_owned() })
    }

    /// The connection under it.
    pub fn connection(&self) -> &ClientConnection {
        &self.connection
    }

    /// One message there, one back.
    pub async fn unary(&self, call: Call, message: Bytes) -> Reply {
        unary::unary(self, call, message).await
    }

    /// Opens a stream: `first` leaves with the headers, and nothing is waited for. Whether the
    /// shape allows more messages is the caller's business.
    ///
    /// # Errors
    /// When the request cannot be sent; what the peer says comes from the receiver.
    pub fn stream(&self, call: Call, first: Option<&[u8]>) -> Result<(CallSender, CallReceiver)> {
        stream::open(self, call, first)
    }

    /// One message there, any number back.
    ///
    /// # Errors
    /// As [`Self::stream`].
    pub async fn server_stream(&self, call: Call, message: &[u8]) -> Result<CallReceiver> {
        let (mut send, recv) = self.stream(call, Some(message))?;
        // A failure shows on the receiver, which knows more.
        let _ = send.close().await;
        Ok(recv)
    }

    fn open(
        &self,
        call: &Call,
        shape: Shape,
        compressed: bool,
        first: Option<Bytes>,
        end: bool,
    ) -> Result<OpenStream> {
        let mut headers = call.prepared.clone();
        header::add(&mut headers, &call.headers)?;
        let options = &call.options;
        let gzip = HeaderValue::from_static("gzip");
        headers.insert("content-type", HeaderValue::from_static(shape.content_type()));
        headers.insert("connect-protocol-version", HeaderValue::from_static("1"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        if options.accept_gzip {
            headers.insert(shape.accept(), gzip.clone());
        }
        if compressed {
            headers.insert(shape.encoding(), gzip);
        }
        if let Some(limit) = options.timeout {
            let value = HeaderValue::from_str(&timeout::format(limit));
            headers.extend(
                value
                    .ok()
                    .map(|value| (http::header::HeaderName::from_static(timeout::HEADER), value)),
            );
        }
        let mut request = Request::post(format!("{}{}", self.base, call.path))
            .body(())
            .map_err(|_| Error::invalid("the path of the call is not valid in a URL"))?;
        *request.headers_mut() = headers;
        Ok(self.connection.open(request, first, end)?)
    }
}

/// When a call has to be over.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>, Duration);

impl Deadline {
    fn of(options: &CallOptions) -> Self {
        let limit = options.timeout.unwrap_or_default();
        Self(options.timeout.and_then(|limit| Instant::now().checked_add(limit)), limit)
    }

    /// Waits for `future`, but not past the deadline.
    async fn run<T>(self, future: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(at) = self.0 else { return future.await };
        tokio::time::timeout_at(at, future).await.unwrap_or_else(|_| {
            Err(Error::new(
                Kind::DeadlineExceeded,
                format!("the call took longer than the {} ms allowed", self.1.as_millis()),
            ))
        })
    }
}

/// The error for an answer that is not 200, with the start of its body.
async fn http_error(
    status: u16,
    headers: &HeaderMap,
    body: &mut BodyReceiver,
    options: &CallOptions,
) -> Error {
    let (limit, redactor) = (options.error_body, &options.redactor);
    let mut raw = Vec::new();
    if let Err(BodyError::Lost(lost)) = read_all(body, limit, &mut raw).await {
        tracing::debug!(cause = ?lost.cause(), "the body of an error answer broke off");
    }
    if headers.get("content-encoding").is_some_and(|value| value == "gzip") {
        let mut plain = Vec::new();
        // What cannot be read is dropped; the status still says enough.
        raw = gzip::decompress(&raw, limit, &mut plain).map_or_else(|_| Vec::new(), |()| plain);
    }
    error_from_http(status, &header::metadata(headers), &raw, redactor, SystemTime::now())
}

/// Judges the head of an answer; an error repeats no secret, not even a part of one.
fn check_answer_of(
    shape: Shape,
    headers: &HeaderMap,
    options: &CallOptions,
) -> Result<Compression> {
    check_answer(shape, headers, options.accept_gzip).or_else(|error| {
        let mut hidden = HeaderMap::new();
        for (name, value) in headers {
            let value = options.redactor.hide(&String::from_utf8_lossy(value.as_bytes()));
            if let Ok(value) = value.parse() {
                hidden.append(name, value);
            }
        }
        // What was wrong stays wrong; if it did not, the words would still be ours to hide.
        check_answer(shape, &hidden, options.accept_gzip)
            .and_then(|_| Err(error.cleaned(&options.redactor)))
    })
}
