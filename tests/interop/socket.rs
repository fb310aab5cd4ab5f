//! Sockets with and without TLS for the generic layer, which takes any byte stream.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use agentwire::rpc::client::RpcClient;
use agentwire::rpc::http2::{ClientConnection, Http2Config};
use agentwire::rpc::server::{Router, serve_connection};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate for 127.0.0.1, in memory and as files for the peer.
pub(crate) struct Identity {
    pub(crate) certificate_pem: String,
    key_pem: String,
    folder: TempDir,
}

impl Identity {
    pub(crate) fn make() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let identity = Self {
            certificate_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            folder: tempfile::tempdir().unwrap(),
        };
        std::fs::write(identity.certificate_file(), &identity.certificate_pem).unwrap();
        std::fs::write(identity.key_file(), &identity.key_pem).unwrap();
        identity
    }

    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).unwrap()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// Serves `router` until the test's runtime ends; gives the base URL.
pub(crate) async fn serve(router: Router, identity: Option<&Identity>) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = url(listener.local_addr().unwrap().port(), identity);
    let acceptor = identity.map(Identity::acceptor);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (router, acceptor) = (router.clone(), acceptor.clone());
            tokio::spawn(async move {
                match acceptor {
                    Some(acceptor) => connection(acceptor.accept(tcp).await.unwrap(), router).await,
                    None => connection(tcp, router).await,
                }
            });
        }
    });
    url
}

async fn connection<T>(io: T, router: Router)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handler = move |accepted| router.clone().serve(accepted);
    serve_connection(io, Http2Config::server(), handler, std::future::pending()).await;
}

/// A client of the server at `url`.
pub(crate) async fn connect(url: &str, identity: Option<&Identity>) -> RpcClient {
    let address = url.split_once("://").unwrap().1;
    let tcp = TcpStream::connect(address).await.unwrap();
    let connection = match identity {
        None => handshake(tcp).await,
        Some(identity) => {
            let name = ServerName::try_from("127.0.0.1").unwrap();
            handshake(identity.connector().connect(name, tcp).await.unwrap()).await
        }
    };
    RpcClient::new(connection, url).unwrap()
}

async fn handshake<T>(io: T) -> ClientConnection
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (connection, driver) =
        ClientConnection::handshake(io, Http2Config::default()).await.unwrap();
    tokio::spawn(driver);
    connection
}

pub(crate) fn url(port: u16, identity: Option<&Identity>) -> String {
    let scheme = if identity.is_some() { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{port}")
}
