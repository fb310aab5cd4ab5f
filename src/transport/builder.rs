//! Settings of a [`Client`], and the checks that need no I/O.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::auth::TokenSource;
use crate::error::{Error, Result};
use crate::run;
use crate::secret::Secret;

use super::client::{Client, Shared};
use super::credentials::{Access, Credentials};
use super::dial::{Connector, DialLimits, Dialer};
use super::endpoint::Endpoint;
use super::headers::{Headers, Identity};
use super::pool::{Pool, PoolOptions};
use super::proxy::Proxy;
use super::tls::{self, Roots, Speaks, Tls};
use super::unary::UnaryLimits;

/// Makes a [`Client`]. Nothing is read or connected before [`ClientBuilder::build`], and no
/// connection is made before the first call or [`Client::prewarm`].
#[derive(Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct ClientBuilder {
    token: Option<Secret>,
    tokens: Option<Arc<dyn TokenSource>>,
    endpoint: Option<String>,
    unary_endpoint: Option<String>,
    identity: Identity,
    headers: Vec<(String, String)>,
    roots: Roots,
    ca_pem: Vec<Vec<u8>>,
    ca_files: Vec<PathBuf>,
    allow_cleartext: bool,
    dial: DialLimits,
    proxy: Proxy,
    pool: PoolOptions,
    run: run::Options,
    queue: QueueLimits,
    unary: UnaryLimits,
    connector: Option<Arc<dyn Connector>>,
}

/// How many events of a run may wait for its consumer before the service is slowed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLimits {
    /// Bytes, text and bookkeeping together. 4 MiB (FAULTS, promises). One event larger than that
    /// still passes.
    pub bytes: usize,
    /// Events. 131,072: a token each, an hour of a fast model.
    pub events: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { bytes: 4 << 20, events: 128 << 10 }
    }
}

impl ClientBuilder {
    /// The access token, sent as `authorization: Bearer …`. Without one the header is left out,
    /// which only a server of one's own accepts.
    pub fn token(mut self, token: impl Into<Secret>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Where a token for each call comes from, an [`auth::Account`](crate::auth) as a rule. It wins
    /// over [`ClientBuilder::token`].
    pub fn tokens(mut self, source: impl TokenSource) -> Self {
        self.tokens = Some(Arc::new(source));
        self
    }

    /// Base URL of Run, and of the unary calls unless [`ClientBuilder::unary_endpoint`] says
    /// otherwise. [`Endpoint::DEFAULT_URL`] by default; see [`Endpoint`] for what is accepted.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Base URL of the unary calls: newer accounts use another (region) host for Run (PROTOCOL 1).
    pub fn unary_endpoint(mut self, url: impl Into<String>) -> Self {
        self.unary_endpoint = Some(url.into());
        self
    }

    /// Version and type that the service is told; see [`Identity`].
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Adds a header to every call. The protocol's own headers win over one of the same name;
    /// headers of the connection are refused by [`ClientBuilder::build`].
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
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

    /// Trusts the authorities in this PEM file as well; it is read by [`ClientBuilder::build`].
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_files.push(path.into());
        self
    }

    /// Permits `http://` base URLs beyond this machine: the token then travels in clear text.
    pub fn allow_cleartext(mut self, allow: bool) -> Self {
        self.allow_cleartext = allow;
        self
    }

    /// How long connecting may take.
    pub fn dial_limits(mut self, limits: DialLimits) -> Self {
        self.dial = limits;
        self
    }

    /// Which HTTP proxy to go through; as the environment says by default.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// How connections are kept and what HTTP/2 is set to.
    pub fn pool(mut self, options: PoolOptions) -> Self {
        self.pool = options;
        self
    }

    /// Limits and times of runs, unless one brings its own.
    pub fn run_options(mut self, options: run::Options) -> Self {
        self.run = options;
        self
    }

    /// Attempts after the first when the way to the service fails, unless a run says otherwise.
    /// 10 (PROTOCOL 3); 0: one attempt, whatever comes of it.
    pub fn retries(mut self, retries: u32) -> Self {
        self.run.retry.retries = retries;
        self
    }

    /// How many events of a run may wait for its consumer.
    pub fn queue_limits(mut self, limits: QueueLimits) -> Self {
        self.queue = limits;
        self
    }

    /// How long a unary call may take, connecting and repeating included. 60 s (BEHAVIOUR 1.6).
    pub fn unary_timeout(mut self, limit: Duration) -> Self {
        self.unary.timeout = limit;
        self
    }

    /// Limits of unary calls: times, sizes, what is taken of a list of models.
    pub fn unary_limits(mut self, limits: UnaryLimits) -> Self {
        self.unary = limits;
        self
    }

    /// Another way to the network. TLS settings and proxy of this builder do not apply to it, and
    /// neither does the rule about clear text.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = Some(Arc::new(connector));
        self
    }

    /// Checks everything and makes the client.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest) for a base URL, token, header,
    /// proxy or certificate file that cannot be used; never with the token or a URL in it.
    pub fn build(self) -> Result<Client> {
        let run_at = parse(self.endpoint.as_deref())?;
        let unary_at = match &self.unary_endpoint {
            Some(url) => parse(Some(url))?,
            None => run_at.clone(),
        };
        let headers = Headers::new(&self.identity, &self.headers)?;
        let access = match self.tokens {
            Some(source) => Access::from_source(source),
            None => Access::Fixed(Arc::new(Credentials::new(self.token.as_ref())?)),
        };
        let connector = match self.connector {
            Some(connector) => connector,
            None => {
                run_at.check_cleartext(self.allow_cleartext)?;
                unary_at.check_cleartext(self.allow_cleartext)?;
                let added = authorities(&self.ca_files, &self.ca_pem)?;
                let proxies = self.proxy.rules(|name| std::env::var(name).ok());
                for endpoint in [&run_at, &unary_at] {
                    proxies.of(endpoint)?;
                }
                Arc::new(Dialer {
                    proxies,
                    tls: Arc::new(Tls::new(Speaks::Http2, self.roots, added)),
                    limits: self.dial,
                    allow_cleartext: self.allow_cleartext,
                })
            }
        };
        let pool = Pool::new(run_at.clone(), Arc::clone(&connector), self.pool.clone());
        let unary = if unary_at == run_at {
            pool.clone()
        } else {
            Pool::new(unary_at, connector, self.pool.clone())
        };
        let shared =
            Shared::new(pool, unary, headers, self.run, self.queue, self.unary, &self.pool.http2)?;
        Ok(Client::new(shared, access))
    }
}

fn parse(url: Option<&str>) -> Result<Endpoint> {
    url.map_or_else(|| Ok(Endpoint::default()), Endpoint::parse)
}

/// The certificate authorities in these files and texts.
pub(crate) fn authorities(
    files: &[PathBuf],
    texts: &[Vec<u8>],
) -> Result<Vec<CertificateDer<'static>>> {
    let mut added = Vec::new();
    for path in files {
        added.extend(tls::parse_pem(&read_pem(path)?)?);
    }
    for pem in texts {
        added.extend(tls::parse_pem(pem)?);
    }
    Ok(added)
}

/// Reads a PEM file, no more than would be accepted.
fn read_pem(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut pem = Vec::new();
    let limit = tls::MAX_PEM as u64 + 1;
    std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut pem)).map_err(
        |error| {
            let path = super::shown(&path.to_string_lossy());
            Error::invalid(format!("the certificate file {path} cannot be read: {error}"))
        },
    )?;
    Ok(pem)
}

impl std::fmt::Debug for ClientBuilder {
    /// Not the URLs: one may hold a password, which `build` would refuse.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("token", &self.token)
            .field("identity", &self.identity)
            .field("roots", &self.roots)
            .finish_non_exhaustive()
    }
}
