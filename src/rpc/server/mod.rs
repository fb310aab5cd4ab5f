//! The serving side: a connection, and routes on it.
//!
//! Two levels. [`serve_connection`] runs a connection and hands every stream, raw, to a handler:
//! who drives its own machine stops here. [`Router`] is such a handler; it judges the request's
//! head and gives unary calls and streams to the route of the path.

mod call;
mod router;

pub use call::{Request, StreamCall};
pub use router::{Router, ServerOptions};

use std::future::Future;
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::http2::{Accepted, Http2Config, Lost, ServerConnection};

/// Serves one connection until it ends, and says how. Every request gets a task that runs `handler`;
/// these tasks end with this future.
///
/// When `shutdown` resolves, no new streams are taken, the open ones finish, then the connection
/// closes (GOAWAY). A handler that panics resets its stream and nothing else.
pub async fn serve_connection<T, H, F>(
    io: T,
    config: Http2Config,
    handler: H,
    shutdown: impl Future<Output = ()> + Send,
) -> Lost
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Fn(Accepted) -> F + Send,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connection = match ServerConnection::handshake(io, config).await {
        Ok(connection) => connection,
        Err(lost) => return lost,
    };
    let mut shutdown = pin!(shutdown);
    let mut draining = false;
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Ok(accepted) => {
                    tasks.spawn(handler(accepted));
                }
                Err(lost) => return lost,
            },
            // Finished tasks are taken out, or the set would grow with the connection's life.
            Some(_) = tasks.join_next() => {}
            () = &mut shutdown, if !draining => {
                draining = true;
                connection.graceful_shutdown();
            }
        }
    }
}
