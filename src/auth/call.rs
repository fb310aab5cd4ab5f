//! The HTTP calls of sign-in: one connection each, HTTP/1.1, a small JSON answer.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::tokens::Tokens;
use crate::connect::MAX_ERROR_BODY;
use crate::error::{Error, NetworkFault, Result};
use crate::http1::{HyperIo, Whole};
use crate::redact::Redactor;
use crate::secret::Secret;
use crate::transport::Proxy;
use crate::transport::{
    Connector, DialLimits, Dialer, Endpoint, Roots, Speaks, Tls, authorities, bearer,
};

/// Scheme and host of the page on which a login is confirmed (PROTOCOL 1).
pub const DEFAULT_WEB_BASE: &str = "https://cursor.com";

/// Where a token is refreshed (PROTOCOL 1); some clients saw `/auth/refresh`.
pub const REFRESH_PATH: &str = "/auth/exchange_user_api_key";

/// The smallest limit for the head of an answer, in bytes: what hyper reads at once.
const LEAST_HEAD: usize = 8 << 10;

/// Longest refresh path, in bytes. No option: the caller gives it, nobody else.
const MAX_PATH: usize = 256;

/// How long a call of the sign-in may take, and how long what comes may be. Every default has its
/// reason beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthLimits {
    /// How long a refresh may take, from the first packet to the last byte of the answer. 30 s
    /// (BEHAVIOUR 9; the reference does not count the body). For the calls of a login see
    /// [`PollOptions::request`](super::PollOptions::request).
    pub request: Duration,
    /// The head of an answer, in bytes. 64 KiB (FAULTS, promises); 8 KiB at least.
    pub head: usize,
    /// The body of an answer, in bytes. 1 MiB: a hundred times a real one.
    pub answer: usize,
    /// Bytes kept of the body of an error; the rest is not read. 64 KiB (FAULTS, promises).
    pub error_body: usize,
}

impl Default for AuthLimits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            head: 64 << 10,
            answer: 1 << 20,
            error_body: MAX_ERROR_BODY,
        }
    }
}

/// The sign-in of one service: where it is, how it is reached. Cheap to clone.
///
/// A token is sent to the endpoint and nowhere else: redirects are errors (FAULTS M40).
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    web_base: Endpoint,
    refresh_path: String,
    connector: Arc<dyn Connector>,
    limits: AuthLimits,
}

impl Auth {
    /// Settings to begin with: the service itself.
    pub fn builder() -> AuthBuilder {
        AuthBuilder::default()
    }

    /// The API that tokens are fetched from and good for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Scheme and host of the page on which a login is confirmed.
    pub fn web_base(&self) -> &Endpoint {
        &self.0.web_base
    }

    /// Trades a refresh token for a new access token. [`Account`](super::Account) does this when it is
    /// due.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`](crate::error::Kind::Unauthenticated): the refresh token is no longer
    /// good. Else the call failed, or its answer is none.
    pub async fn refresh(&self, refresh: &Secret) -> Result<Tokens> {
        let redactor = Redactor::new([refresh.expose()]);
        let request = Ask {
            method: Method::POST,
            target: Secret::new(self.0.refresh_path.clone()),
            bearer: Some(refresh),
            limit: self.0.limits.request,
        };
        let answer = self.ask(request).await.map_err(|error| {
            let text = format!("the token could not be refreshed: {}", error.message());
            let text = redactor.clean(&text);
            error.with_message(text)
        })?;
        answer.refresh(refresh, &redactor)
    }

    /// One call, from connecting to the last byte that is read.
    pub(super) async fn ask(&self, ask: Ask<'_>) -> Result<Answer> {
        let limit = ask.limit;
        tokio::time::timeout(limit, self.exchange(ask)).await.unwrap_or_else(|_| {
            let text = format!("{} did not answer within {limit:?}", self.0.endpoint);
            Err(Error::network(NetworkFault::Stalled, text))
        })
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer> {
        let endpoint = &self.0.endpoint;
        let request = self.request(ask)?;
        let io = self.0.connector.connect(endpoint).await?;
        let broke = |error: &hyper::Error| broken(endpoint, error);
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(self.0.limits.head)
            .handshake(HyperIo(io))
            .await
            .map_err(|error| broke(&error))?;
        let mut connection = pin!(connection);
        let mut answering = pin!(async {
            let response = sender.send_request(request).await.map_err(|error| broke(&error))?;
            read(endpoint, response, &self.0.limits).await
        });
        let mut connected = true;
        // The connection is driven here and ends with this future: nothing is spawned.
        loop {
            tokio::select! {
                biased;
                answer = &mut answering => return answer,
                _ = &mut connection, if connected => connected = false,
            }
        }
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Whole>> {
        let post = ask.method == Method::POST;
        let body = if post { Bytes::from_static(b"{}") } else { Bytes::new() };
        let bad = |_| Error::invalid("the sign-in call cannot be put into a request");
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.target.expose().as_str())
            .header(HOST, self.0.endpoint.authority())
            .header(ACCEPT, "application/json")
            .body(Whole::new(body))
            .map_err(bad)?;
        if post {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
        }
        if let Some(token) = ask.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer(token)?);
        }
        Ok(request)
    }
}

/// A call that is to be made.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Path and query; the poll's holds the verifier.
    pub(super) target: Secret,
    pub(super) bearer: Option<&'a Secret>,
    pub(super) limit: Duration,
}

/// Reads the answer as far as it counts.
async fn read(
    endpoint: &Endpoint,
    response: http::Response<Incoming>,
    limits: &AuthLimits,
) -> Result<Answer> {
    let (head, mut incoming) = response.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let mut answer = Answer {
        status: head.status.as_u16(),
        headers: headers.collect(),
        body: Zeroizing::new(Vec::new()),
        received_at: SystemTime::now(),
    };
    let success = head.status.is_success();
    let limit = if success { limits.answer } else { limits.error_body };
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await;
        let Some(frame) = frame else { return Ok(answer) };
        let frame = frame.map_err(|error| broken(endpoint, &error))?;
        let Ok(bytes) = frame.into_data() else { continue };
        let room = limit - answer.body.len();
        append(&mut answer.body, bytes.get(..room.min(bytes.len())).unwrap_or_default());
        if bytes.len() <= room {
            continue;
        }
        if success {
            let text =
                format!("{endpoint} sent an answer of more than {limit} bytes to a sign-in call");
            return Err(Error::limit(text).with_http_status(answer.status));
        }
        // What was read of an error says enough.
        return Ok(answer);
    }
}

/// Puts `bytes` behind `body`. A body that has to move is wiped where it was: it may hold tokens.
fn append(body: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    /// Of a real answer, which then never moves.
    const FIRST: usize = 8 << 10;
    let needed = body.len() + bytes.len();
    if needed > body.capacity() {
        let mut larger = Vec::with_capacity(needed.next_power_of_two().max(FIRST));
        larger.extend_from_slice(body);
        *body = Zeroizing::new(larger);
    }
    body.extend_from_slice(bytes);
}

fn broken(endpoint: &Endpoint, error: &hyper::Error) -> Error {
    if error.is_parse() {
        return Error::protocol(format!("{endpoint} did not answer in HTTP/1.1 ({error})"));
    }
    let text = format!("the connection to {endpoint} broke during a sign-in call ({error})");
    Error::network(NetworkFault::Cut, text)
}

/// Makes an [`Auth`].
#[derive(Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct AuthBuilder {
    endpoint: Option<String>,
    web_base: Option<String>,
    refresh_path: Option<String>,
    roots: Roots,
    ca_pem: Vec<Vec<u8>>,
    ca_files: Vec<PathBuf>,
    allow_cleartext: bool,
    dial: DialLimits,
    proxy: Proxy,
    limits: AuthLimits,
    connector: Option<Arc<dyn Connector>>,
}

impl AuthBuilder {
    /// Base URL of the API. [`Endpoint::DEFAULT_URL`] by default; see [`Endpoint`] for what is
    /// accepted.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Base URL of the page. [`DEFAULT_WEB_BASE`] by default.
    pub fn web_base(mut self, url: impl Into<String>) -> Self {
        self.web_base = Some(url.into());
        self
    }

    /// Path of the refresh call. [`REFRESH_PATH`] by default.
    pub fn refresh_path(mut self, path: impl Into<String>) -> Self {
        self.refresh_path = Some(path.into());
        self
    }

    /// Which certificate authorities are trusted; those of the operating system by default.
    pub fn roots(mut self, roots: Roots) -> Self {
        self.roots = roots;
        self
    }

    /// Trusts the authorities in this PEM text as well.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem.push(pem.into());
        self
    }

    /// Trusts the authorities in this PEM file as well; it is read by [`AuthBuilder::build`].
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_files.push(path.into());
        self
    }

    /// Which HTTP proxy to go through; as the environment says by default.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// Permits an `http://` endpoint beyond this machine: the tokens then travel in clear text.
    pub fn allow_cleartext(mut self, allow: bool) -> Self {
        self.allow_cleartext = allow;
        self
    }

    /// How long connecting may take.
    pub fn dial_limits(mut self, limits: DialLimits) -> Self {
        self.dial = limits;
        self
    }

    /// How long a refresh may take, connecting and the whole answer included. 30 s. For the calls of a
    /// login see [`PollOptions::request`](super::PollOptions::request).
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.limits.request = limit;
        self
    }

    /// Limits of the calls: times and sizes.
    pub fn limits(mut self, limits: AuthLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Another way to the network. Its streams must be ready for HTTP/1.1; TLS settings of this
    /// builder do not apply to it, and neither does the rule about clear text.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(Arc::new(connector));
        self
    }

    /// Checks everything. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest) for a URL, path, certificate
    /// file or limit that cannot be used.
    pub fn build(self) -> Result<Auth> {
        let endpoint = Endpoint::parse(self.endpoint.as_deref().unwrap_or(Endpoint::DEFAULT_URL))?;
        let web_base = Endpoint::parse(self.web_base.as_deref().unwrap_or(DEFAULT_WEB_BASE))?;
        let refresh_path = self.refresh_path.unwrap_or_else(|| REFRESH_PATH.to_owned());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        if !refresh_path.starts_with('/')
            || refresh_path.starts_with("//")
            || refresh_path.len() > MAX_PATH
            || refresh_path.contains("..")
            || !refresh_path.bytes().all(plain)
        {
            return Err(Error::invalid("the refresh path is not of the form /auth/refresh"));
        }
        if self.limits.head < LEAST_HEAD {
            let text = format!("the limit for the head of an answer is below {LEAST_HEAD} bytes");
            return Err(Error::invalid(text));
        }
        let connector = match self.connector {
            Some(connector) => connector,
            None => {
                endpoint.check_cleartext(self.allow_cleartext)?;
                let added = authorities(&self.ca_files, &self.ca_pem)?;
                let proxies = self.proxy.rules(|name| std::env::var(name).ok());
                proxies.of(&endpoint)?;
                Arc::new(Dialer {
                    proxies,
                    tls: Arc::new(Tls::new(Speaks::Http1, self.roots, added)),
                    limits: self.dial,
                    allow_cleartext: self.allow_cleartext,
                })
            }
        };
        let limits = self.limits;
        Ok(Auth(Arc::new(Inner { endpoint, web_base, refresh_path, connector, limits })))
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AuthBuilder {
    /// Not the URLs: one may hold a password, which `build` would refuse.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthBuilder").field("roots", &self.roots).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_refused_before_any_io() {
        for path in ["", "auth", "//evil", "/a/../b", "/a b", "/a?b", "/a\r\nx", "/\u{e9}"] {
            assert!(Auth::builder().refresh_path(path).build().is_err(), "{path:?}");
        }
        assert!(Auth::builder().refresh_path("/auth/refresh").build().is_ok());
        assert!(Auth::builder().endpoint("http://192.0.2.1").build().is_err());
        assert!(Auth::builder().web_base("javascript:alert(1)").build().is_err());
        let head = |head| AuthLimits { head, ..AuthLimits::default() };
        assert!(Auth::builder().limits(head(LEAST_HEAD)).build().is_ok());
        let error = Auth::builder().limits(head(LEAST_HEAD - 1)).build().unwrap_err();
        assert!(error.message().contains("below 8192 bytes"), "{error}");
        assert_eq!(Auth::builder().build().unwrap().endpoint(), &Endpoint::default());
    }
}
