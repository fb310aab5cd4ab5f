//! The client over real sockets: endpoints, dialling, pooled connections, runs.
//!
//! Everything here is a driver: it moves bytes and owns sockets, timers and tasks. What a message
//! means is decided in [`run`](crate::run); which connection a call gets, in `pool::plan`.
//!
//! ```text
//! Client ── checkout ─▶ Pool ── dial ─▶ Connector (DNS, TCP, proxy, TLS + ALPN h2)
//!   │                    │ one task a connection: http2::ClientDriver
//!   └ run ─▶ one task a run: stream ⇄ run::Session ⇄ Mailbox ⇄ Run (events, answers, cancel)
//! ```

mod builder;
mod client;
mod counters;
mod credentials;
mod dial;
mod endpoint;
mod headers;
mod pool;
mod prewarm;
mod proxy;
mod run;
mod tls;
mod unary;

pub use builder::{ClientBuilder, QueueLimits};
pub use client::{Client, RunBuilder, StartError};
pub use dial::{BoxIo, Connecting, Connector, DialLimits, Io};
pub use endpoint::Endpoint;
pub use headers::Identity;
pub use pool::PoolOptions;
pub use prewarm::Prewarm;
pub use proxy::Proxy;
pub use run::{Run, RunHandle};
pub use tls::Roots;
pub use unary::UnaryLimits;

#[cfg(feature = "auth")]
pub(crate) use self::{
    builder::authorities,
    dial::Dialer,
    headers::bearer,
    tls::{Speaks, Tls},
};

/// A text from outside in an error: one escaped line of at most 200 characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(200).collect::<String>().escape_debug().to_string()
}
