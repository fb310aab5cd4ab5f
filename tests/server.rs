//! The server side without sockets: transcripts of sessions and players under a virtual clock.
//!
//! Sockets come at the end, and only for what is about sockets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    reason = "helpers of tests"
)]

#[path = "server/client.rs"]
mod client;
#[path = "server/faults.rs"]
mod faults;
#[path = "server/fuzz.rs"]
mod fuzz;
#[path = "server/player.rs"]
mod player;
#[allow(dead_code, reason = "shared with tests that use more of it")]
#[path = "rpc/raw.rs"]
mod raw;
#[path = "server/script.rs"]
mod script;
#[path = "server/session.rs"]
mod session;
#[path = "server/sign_in.rs"]
mod sign_in;
#[path = "server/sockets.rs"]
mod sockets;
#[path = "server/unary.rs"]
mod unary;
