//! Through an HTTP proxy: tunnels, credentials, refusals.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use agentwire::error::{Kind, NetworkFault};
use agentwire::transport::{Client, ClientBuilder, Proxy, Roots};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::peer::{Authority, Peer};

/// A proxy that takes every name for one address.
struct Tunnels {
    address: SocketAddr,
    /// The heads of the requests that came.
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Tunnels {
    async fn to(peer: SocketAddr, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (heads, tls) = (Arc::clone(&asked), tls.map(|tls| TlsAcceptor::from(Arc::new(tls))));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut tunnels = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (heads, tls) = (Arc::clone(&heads), tls.clone());
                tunnels.spawn(async move {
                    match tls {
                        None => tunnel(socket, peer, &heads).await,
                        Some(tls) => {
                            let Ok(socket) = tls.accept(socket).await else { return };
                            let alpn = socket.get_ref().1.alpn_protocol();
                            assert_eq!(alpn, Some(&b"http/1.1"[..]));
                            tunnel(socket, peer, &heads).await;
                        }
                    }
                });
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn tunnel<T: AsyncRead + AsyncWrite + Unpin>(
    mut client: T,
    peer: SocketAddr,
    heads: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let allowed = head.contains("\r\nproxy-authorization: Basic bWU6cGFzcw==\r\n");
    heads.lock().unwrap().push(head);
    if !allowed {
        let refusal = b"HTTP/1.1 407 Who is me:zz9?\r\ncontent-length: 3\r\n\r\nzz9";
        client.write_all(refusal).await.unwrap();
        return client.shutdown().await.unwrap();
    }
    let mut onward = TcpStream::connect(peer).await.unwrap();
    client.write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut onward).await;
}

fn client(authority: &Authority, proxy: Proxy) -> ClientBuilder {
    Client::builder()
        .endpoint("https://service.example:8443")
        .roots(Roots::OnlyAdded)
        .ca_pem(authority.pem())
        .proxy(proxy)
        .retries(0)
}

async fn service(authority: &Authority) -> Peer {
    let tls = authority.server("service.example", &["h2"], |_| {});
    Peer::tls(tls, |mut call| async move {
        call.next().await;
        call.complete("through").await;
    })
    .await
}

#[tokio::test]
async fn a_run_goes_through_a_proxy_in_clear_text_or_over_tls() {
    let authority = Authority::new("good");
    let peer = service(&authority).await;
    let in_tls = authority.server("localhost", &["http/1.1"], |_| {});
    for (tls, scheme) in [(None, "http"), (Some(in_tls), "https")] {
        let proxy = Tunnels::to(peer.address, tls).await;
        let port = proxy.address.port();
        let url = format!("{scheme}://me:pass@localhost:{port}");
        let client = client(&authority, Proxy::url(url)).build().unwrap();
        for _ in 0..2 {
            let run = client.prompt("x").model("m").start().await.unwrap();
            let (ended, _) = run.finish().await;
            assert!(ended.is_ok(), "{ended:?}");
        }
        let asked = proxy.asked();
        assert_eq!(asked.len(), 1, "one connection, one tunnel");
        let start = "CONNECT service.example:8443 HTTP/1.1\r\nhost: service.example:8443\r\n";
        assert!(asked[0].starts_with(start), "{asked:?}");
        // Nothing of the service's own goes to the proxy in clear text.
        assert!(!asked[0].contains("Bearer"));
    }
}

#[tokio::test]
async fn what_a_proxy_refuses_or_cannot_do_is_its_own_kind_of_error() {
    let authority = Authority::new("good");
    let peer = service(&authority).await;
    let proxy = Tunnels::to(peer.address, None).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let cases = [
        (format!("http://me:zz9@{}", proxy.address), Some(407), "does not accept"),
        (format!("http://{}", proxy.address), Some(407), "wants a user"),
        (format!("http://me:zz9@{closed}"), None, "on the way to the proxy"),
    ];
    for (url, status, words) in cases {
        let client = client(&authority, Proxy::url(url)).build().unwrap();
        let error = client.prewarm().await.unwrap_err();
        assert_eq!(error.kind(), &Kind::Network(NetworkFault::Proxy), "{error}");
        assert_eq!(error.http_status(), status, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!format!("{error} {error:?}").contains("zz9"), "{error:?}");
    }
}

/// A cleartext service that is not on this machine, allowed by name, through a proxy.
#[tokio::test]
async fn http2_in_clear_text_goes_through_as_well_and_exempt_hosts_do_not() {
    let peer = Peer::cleartext(|mut call| async move {
        call.next().await;
        call.complete("through").await;
    })
    .await;
    let proxy = Tunnels::to(peer.address, None).await;
    let through = Proxy::url(format!("http://me:pass@{}", proxy.address));
    let exempt = through.clone().except("127.0.0.0/8");
    let cases = [(through, "http://192.0.2.7:81".to_owned(), 1), (exempt, peer.url(), 0)];
    for (proxy_of, url, tunnels) in cases {
        let builder = Client::builder().endpoint(url).allow_cleartext(true).proxy(proxy_of);
        let client = builder.build().unwrap();
        let run = client.prompt("x").model("m").start().await.unwrap();
        assert!(run.finish().await.0.is_ok());
        assert_eq!(proxy.asked().len(), tunnels);
    }
}

#[test]
fn a_proxy_url_that_cannot_be_used_is_refused_by_build() {
    for url in ["socks5://me:zz9@127.0.0.1:1", "http://me:zz9@", "http://me:zz9@a b"] {
        let builder = Client::builder().proxy(Proxy::url(url));
        assert!(!format!("{builder:?}").contains("zz9"));
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), &Kind::InvalidRequest, "{error}");
        assert!(!format!("{error} {error:?}").contains("zz9"), "{error:?}");
    }
}
