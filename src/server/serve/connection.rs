//! One connection: the handshake, then what the peer speaks.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::io::Peeked;
use super::{Shared, http1, http2};

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Small frames are to leave at once; a socket that refuses this still works.
    let _ = stream.set_nodelay(true);
    match shared.acceptor.clone() {
        None => by_preface(stream, shared).await,
        Some(acceptor) => {
            match tokio::time::timeout(shared.bounds.handshake, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => http2::serve(stream, shared).await,
                    Some(_) => http1::serve(stream, shared).await,
                    None => by_preface(stream, shared).await,
                },
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            }
        }
    }
}

/// Looks at the first bytes: HTTP/2 with prior knowledge, or HTTP/1.1.
async fn by_preface<T>(stream: T, shared: Arc<Shared>)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match tokio::time::timeout(shared.bounds.handshake, Peeked::peek(stream)).await {
        Ok(Ok((true, stream))) => http2::serve(stream, shared).await,
        Ok(Ok((false, stream))) => http1::serve(stream, shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "connection lost before its first request"),
        Err(_) => tracing::debug!("the first bytes took too long"),
    }
}
