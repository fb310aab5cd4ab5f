//! HTTP/2 connections and their byte streams, on h2 directly.
//!
//! What h2 leaves to its user, and what is here therefore:
//!
//! - **Eager reading.** h2 ends the whole connection when too many small DATA frames wait unread
//!   (FAULTS, finding 1). The connection's own task pulls every frame into the stream's contiguous
//!   buffer right after it read the socket, whether the consumer takes it or not, and withholds
//!   window credit instead: back-pressure counts bytes, never frames. See [`BodyReceiver`].
//! - **Bounded writes.** `send_data` of h2 takes any amount (finding 2). [`BodySender`] queues up to
//!   a limit, hands over what the peer's window allows, and gives up when nothing moves.
//! - **Flush before reset.** A reset drops what h2 still holds (finding 3). Each piece handed to h2
//!   counts the bytes that left it, so [`BodySender::poll_sent`] is exact.
//! - **Why a connection died.** A stream sees "broken pipe"; the connection knows the GOAWAY. The
//!   connection's task holds a stream's error back until it knows (FAULTS M51). See [`Lost`].
//! - **Deadlines**: SETTINGS, PING keep-alive, closing.
//!
//! Nothing here spawns. A connection is a handle plus a driver future; who spawns the driver owns
//! its end, and when the driver is dropped every stream ends with an error, none hangs.

mod chunk;
mod client;
mod config;
mod hub;
mod keepalive;
mod lost;
mod meter;
mod receiver;
mod sender;
mod server;
mod unread;
mod watch;

pub use client::{ClientConnection, ClientDriver, OpenStream};
pub use config::Http2Config;
pub use lost::{Lost, LostCause};
pub use receiver::BodyReceiver;
pub use sender::{BodySender, SendError};
pub use server::{Accepted, Responder, ServerConnection};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere: the state behind these locks is valid between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
