//! The client over real sockets on loopback: connecting, streaming, answering, ending.
//!
//! The peer of most of these tests (`transport/peer.rs`) is a bare HTTP/2 server that does what a
//! test says, so that it can be wrong in every way.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on; the hang guards read the clock"
)]
#![cfg(all(feature = "client", feature = "server"))]

#[path = "transport/clock.rs"]
mod clock;
#[path = "transport/connecting.rs"]
mod connecting;
#[path = "transport/faults.rs"]
mod faults;
#[path = "transport/hosting.rs"]
mod hosting;
#[path = "transport/peer.rs"]
mod peer;
#[path = "transport/proxied.rs"]
mod proxied;
#[path = "transport/resume.rs"]
mod resume;
#[path = "transport/runs.rs"]
mod runs;
#[path = "transport/unary.rs"]
mod unary;
