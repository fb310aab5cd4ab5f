//! The Connect protocol over HTTP/2, generic: a path, headers and bytes in; headers, messages and
//! an end status out; both sides of it. Knows nothing of agent.v1.
//!
//! - [`http2`]: byte streams over one connection, with everything that h2 leaves to its user.

pub mod http2;
