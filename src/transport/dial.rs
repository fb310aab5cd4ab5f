//! From an endpoint to a byte stream that is ready for HTTP/2: DNS, TCP, TLS.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

use crate::error::{Error, Kind, NetworkFault, Result};

use super::endpoint::{Endpoint, Host};
use super::proxy::{ProxyRules, ProxyUrl, tunnel};
use super::tls::{self, Tls};

/// A byte stream that HTTP/2 can run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Any byte stream that HTTP/2 can run over.
pub type BoxIo = Box<dyn Io>;

/// What [`Connector::connect`] gives.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<BoxIo>> + Send + 'a>>;

/// Makes the byte streams of a client, for hosts with their own way to the network (a Unix socket,
/// a sandbox's broker, an in-memory link in a test).
///
/// The stream must be ready for HTTP/2 with prior knowledge: TLS and ALPN, where there are any,
/// are the connector's business. The default one does DNS, TCP and TLS.
pub trait Connector: Send + Sync + 'static {
    /// Makes one connection to `endpoint`. Dropping the future gives up.
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a>;
}

/// How long the parts of a connection attempt may take, and how much is tried and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialLimits {
    /// Name lookup and TCP together, all addresses included. 5 s (FAULTS, promises).
    pub connect: Duration,
    /// The TLS handshake. 10 s (FAULTS, promises).
    pub tls: Duration,
    /// A proxy's answer to CONNECT: it connects meanwhile. 10 s, twice what connecting takes here.
    pub proxy: Duration,
    /// The head of that answer, in bytes. 16 KiB: a page of headers; a proxy's answer has a handful.
    pub proxy_head: usize,
    /// An address gets this long before the next one is tried beside it. 250 ms (RFC 8305 section 8).
    pub next_address: Duration,
    /// Addresses tried for one name. 16: more than any real service publishes, and the last one has
    /// its turn before the 5 s for connecting are over.
    pub addresses: usize,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(10),
            proxy: Duration::from_secs(10),
            proxy_head: 16 << 10,
            next_address: Duration::from_millis(250),
            addresses: 16,
        }
    }
}

/// The default connector.
pub(crate) struct Dialer {
    pub(crate) tls: Arc<Tls>,
    pub(crate) proxies: ProxyRules,
    pub(crate) limits: DialLimits,
    pub(crate) allow_cleartext: bool,
}

impl Connector for Dialer {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> Connecting<'a> {
        Box::pin(self.dial(endpoint))
    }
}

impl Dialer {
    async fn dial(&self, endpoint: &Endpoint) -> Result<BoxIo> {
        endpoint.check_cleartext(self.allow_cleartext)?;
        let proxy = self.proxies.of(endpoint)?;
        let way = async {
            match &proxy {
                Some(proxy) => self.through(proxy, endpoint).await,
                None => self.direct(endpoint).await,
            }
        };
        if !endpoint.is_tls() {
            return way.await;
        }
        // The roots are read while the SYN is on its way.
        let (stream, config) = tokio::try_join!(way, self.tls.config())?;
        let stream = self.handshake(config, endpoint, stream).await?;
        let chosen = stream.get_ref().1.alpn_protocol();
        if !self.tls.speaks().accepts(chosen) {
            return Err(tls::alpn_error(endpoint, chosen));
        }
        Ok(Box::new(stream))
    }

    async fn direct(&self, endpoint: &Endpoint) -> Result<BoxIo> {
        let loopback_only = !endpoint.is_tls() && !self.allow_cleartext;
        Ok(Box::new(self.tcp(endpoint, loopback_only).await?))
    }

    /// The host's name is left to the proxy to resolve.
    async fn through(&self, proxy: &ProxyUrl, endpoint: &Endpoint) -> Result<BoxIo> {
        let at = proxy.endpoint();
        let tcp = self.tcp(at, false).await.map_err(|error| {
            let text = format!("on the way to the proxy: {}", error.message());
            error.with_kind(Kind::Network(NetworkFault::Proxy)).with_message(text)
        })?;
        let mut stream: BoxIo = Box::new(tcp);
        if at.is_tls() {
            let config = self.tls.proxy_config().await?;
            stream = Box::new(self.handshake(config, at, stream).await?);
        }
        tunnel::open(&mut stream, proxy, endpoint, &self.limits).await?;
        tracing::debug!(%proxy, "tunnel open");
        Ok(stream)
    }

    async fn handshake(
        &self,
        config: Arc<ClientConfig>,
        endpoint: &Endpoint,
        stream: BoxIo,
    ) -> Result<TlsStream<BoxIo>> {
        let name = tls::server_name(endpoint)?;
        let limit = self.limits.tls;
        match timeout(limit, TlsConnector::from(config).connect(name, stream)).await {
            Ok(Ok(stream)) => {
                let tls = stream.get_ref().1;
                let (version, kind) = (tls.protocol_version(), tls.handshake_kind());
                tracing::debug!(?version, ?kind, "TLS handshake done");
                Ok(stream)
            }
            Ok(Err(error)) => Err(tls::handshake_error(&error, endpoint)),
            Err(_) => Err(Error::network(
                NetworkFault::Tls,
                format!("the TLS handshake with {endpoint} was not done after {limit:?}"),
            )),
        }
    }

    async fn tcp(&self, endpoint: &Endpoint, loopback_only: bool) -> Result<TcpStream> {
        let limit = self.limits.connect;
        let mut resolved = false;
        let attempt = async {
            let addresses = self.resolve(endpoint, loopback_only).await?;
            resolved = true;
            let stream = connect_any(addresses, self.limits.next_address, TcpStream::connect)
                .await
                .map_err(|error| connect_error(endpoint, &error))?;
            tracing::debug!(address = ?stream.peer_addr().ok(), "connected");
            // A token is a small packet: waiting to fill one only makes it late.
            stream.set_nodelay(true).map_err(|error| connect_error(endpoint, &error))?;
            Ok(stream)
        };
        match timeout(limit, attempt).await {
            Ok(result) => result,
            Err(_) if resolved => Err(Error::network(
                NetworkFault::Connect,
                format!("no TCP connection to {endpoint} within {limit:?}"),
            )),
            Err(_) => Err(Error::network(
                NetworkFault::Dns,
                format!("the host of {endpoint} was not resolved within {limit:?}"),
            )),
        }
    }

    async fn resolve(
        &self,
        endpoint: &Endpoint,
        loopback_only: bool,
    ) -> Result<VecDeque<SocketAddr>> {
        let port = endpoint.port();
        let name = match endpoint.host_ref() {
            Host::Ip(ip) => return Ok(VecDeque::from([SocketAddr::new(*ip, port)])),
            Host::Name(name) => name,
        };
        let found = tokio::net::lookup_host((name.as_str(), port)).await.map_err(|error| {
            Error::network(
                NetworkFault::Dns,
                format!("the host of {endpoint} cannot be resolved ({error})"),
            )
            .with_hint("check the name and the network")
        })?;
        let allowed =
            |address: &SocketAddr| !loopback_only || address.ip().to_canonical().is_loopback();
        let addresses = alternate(found.filter(allowed).take(self.limits.addresses));
        if addresses.is_empty() {
            return Err(Error::network(
                NetworkFault::Dns,
                format!("the host of {endpoint} has no address that may be used"),
            ));
        }
        Ok(addresses)
    }
}

fn connect_error(endpoint: &Endpoint, error: &io::Error) -> Error {
    Error::network(NetworkFault::Connect, format!("no TCP connection to {endpoint}: {error}"))
}

/// IPv6 and IPv4 in turn, beginning with the family the resolver put first (RFC 8305 section 4).
fn alternate(addresses: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let all: Vec<_> = addresses.collect();
    let first_is_v6 = all.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = VecDeque::new();
    loop {
        let before = turns.len();
        turns.extend(first.next());
        turns.extend(second.next());
        if turns.len() == before {
            return turns;
        }
    }
}

/// Tries the addresses in turn; one that neither answers nor refuses is left running while the
/// next is tried (FAULTS M59b). The first connection wins; the others end with the set.
async fn connect_any<T, F>(
    mut addresses: VecDeque<SocketAddr>,
    next: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut attempts = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address");
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.spawn(connect(address));
        }
        let patience = async {
            if addresses.is_empty() {
                std::future::pending::<()>().await;
            } else {
                sleep(next).await;
            }
        };
        tokio::select! {
            done = attempts.join_next() => match done {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last = error,
                Some(Err(_)) => last = io::Error::other("the attempt was given up"),
                None => return Err(last),
            },
            () = patience => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::proxy::Proxy;

    fn dialer() -> Dialer {
        let tls = Arc::new(Tls::new(tls::Speaks::Http2, tls::Roots::OnlyAdded, Vec::new()));
        let proxies = Proxy::off().rules(|_| None);
        Dialer { tls, proxies, limits: DialLimits::default(), allow_cleartext: false }
    }

    async fn fault(dialer: &Dialer, url: &str) -> (Kind, String) {
        let endpoint = Endpoint::parse(url).unwrap();
        let error = dialer.connect(&endpoint).await.err().expect("refused");
        (error.kind().clone(), error.to_string())
    }

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|a| a.parse().unwrap()).collect()
        };
        let mixed = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let expected = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(alternate(mixed.into_iter()), expected);
    }

    #[tokio::test]
    async fn a_refused_port_says_so_and_the_next_address_is_tried() {
        let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (kind, text) = fault(&dialer(), &format!("http://{refused}")).await;
        assert_eq!(kind, Kind::Network(NetworkFault::Connect), "{text}");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listening = listener.local_addr().unwrap();
        let (both, next) =
            (VecDeque::from([refused, listening]), DialLimits::default().next_address);
        let stream = connect_any(both, next, TcpStream::connect).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listening);
    }

    /// FAULTS M59b, on a virtual clock: refused, black-holed and good addresses.
    #[tokio::test(start_paused = true)]
    async fn m59b_addresses_are_tried_in_turn_and_none_holds_the_others_up() {
        let after = async |next, plan: &'static str| {
            let start = tokio::time::Instant::now();
            let ports = (0..plan.len()).map(|n| u16::try_from(n).unwrap());
            let addresses = ports.map(|n| SocketAddr::from(([127, 0, 0, 1], n))).collect();
            let dialled = connect_any(addresses, next, |address| async move {
                match plan.as_bytes()[usize::from(address.port())] {
                    b'x' => Err(io::ErrorKind::ConnectionRefused.into()),
                    b'.' => std::future::pending().await,
                    tenths => {
                        sleep(Duration::from_millis(u64::from(tenths - b'0') * 100)).await;
                        Ok(address.port())
                    }
                }
            });
            let port = timeout(DialLimits::default().connect, dialled).await;
            (port.map(|port| port.map_err(|error| error.kind())), start.elapsed().as_millis())
        };
        let connect = |plan| after(DialLimits::default().next_address, plan);
        assert_eq!(connect("x1").await, (Ok(Ok(1)), 100), "refused: the next at once");
        assert_eq!(connect(".1").await, (Ok(Ok(1)), 350), "silent: the next after a moment");
        assert_eq!(connect("51").await, (Ok(Ok(1)), 350), "the faster one wins");
        assert_eq!(connect("3.").await, (Ok(Ok(0)), 300), "the slow first one is kept");
        assert_eq!(connect("...............1").await, (Ok(Ok(15)), 3_850), "all have their turn");
        let refused = Ok(Err(io::ErrorKind::ConnectionRefused));
        assert_eq!(connect("xxx").await, (refused, 0));
        let (silent, took) = connect(".x.").await;
        assert!(silent.is_err() && took == 5_000, "{took}");
        let sooner = after(Duration::from_millis(20), ".1").await;
        assert_eq!(sooner, (Ok(Ok(1)), 120), "the moment can be set");
    }

    /// `localhost` is this machine by RFC 6761, whatever it resolves to.
    #[tokio::test]
    async fn how_many_addresses_are_tried_can_be_set() {
        let mut dialer = dialer();
        let endpoint = Endpoint::parse("https://localhost").unwrap();
        assert!(!dialer.resolve(&endpoint, false).await.unwrap().is_empty());
        dialer.limits.addresses = 0;
        let error = dialer.resolve(&endpoint, false).await.unwrap_err();
        assert!(error.message().contains("no address that may be used"), "{error}");
    }

    #[tokio::test]
    async fn clear_text_to_another_machine_is_refused_before_any_io() {
        let (kind, text) = fault(&dialer(), "http://192.0.2.1").await;
        assert_eq!(kind, Kind::InvalidRequest, "{text}");
    }

    #[tokio::test]
    async fn a_server_that_stalls_or_talks_nonsense_in_the_handshake() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let mut dialer = dialer();
        dialer.limits.tls = Duration::from_millis(50);
        let (kind, text) = fault(&dialer, &url).await;
        assert_eq!(kind, Kind::Network(NetworkFault::Tls));
        assert!(text.contains("not done after"), "{text}");

        dialer.limits.tls = Duration::from_secs(10);
        let answer = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::io::AsyncWriteExt::write_all(
                    &mut stream,
                    b"HTTP/1.1 400 Bad Request\r\n\r\n",
                )
                .await
                .ok();
            }
        };
        let (kind, text) =
            tokio::select! { f = fault(&dialer, &url) => f, () = answer => unreachable!() };
        assert_eq!(kind, Kind::Network(NetworkFault::Tls));
        assert!(text.contains("does not speak TLS") || text.contains("handshake"), "{text}");
    }
}
