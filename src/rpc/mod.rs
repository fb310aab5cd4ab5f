//! The Connect protocol over HTTP/2, generic: a path, headers and bytes in; headers, messages and
//! an end status out; both sides of it. Knows nothing of agent.v1.
//!
//! - [`http2`]: byte streams over one connection, with everything that h2 leaves to its user.
//! - [`client`]: unary calls and streams of all shapes on a connection.
//! - [`server`]: a connection served by a [`server::Router`], or by a handler of raw streams.
//! - [`header`], [`timeout`], [`head`]: the rules, as functions of what they judge.
//!
//! Messages are bytes here; who calls gives them a meaning. The codec is `proto` (PROTOCOL 1).

pub mod client;
pub mod head;
pub mod header;
pub mod http2;
mod message;
pub mod server;
pub mod timeout;

/// Headers or trailers: names in lower case, one entry for each value, in the order they came.
///
/// The value of a name that ends in `-bin` is base64; see [`header::encode_bin`].
pub type Metadata = Vec<(String, String)>;

/// How a call with one message in the answer ended. A client gets it, a server's handler gives it.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status, on the client once a head came.
    pub status: Option<u16>,
    /// The headers of the answer.
    pub headers: Metadata,
    /// The trailers of the answer.
    pub trailers: Metadata,
    /// The message, or the error.
    pub result: crate::Result<bytes::Bytes>,
}

impl Reply {
    /// An answer without headers and trailers.
    pub fn new(result: crate::Result<bytes::Bytes>) -> Self {
        Self { status: None, headers: Vec::new(), trailers: Vec::new(), result }
    }
}

/// Whether and from which size on messages are sent compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gzip {
    /// Smaller messages are sent as they are. Default 1,024 bytes, below which gzip saves less than
    /// a packet; connect-rust and connect-node have the same.
    pub min: usize,
}

impl Default for Gzip {
    fn default() -> Self {
        Self { min: 1024 }
    }
}
