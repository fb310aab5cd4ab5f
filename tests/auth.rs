//! Sign-in over real HTTP, against the local server on loopback: login, refresh, and clients whose
//! tokens run out.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on; tokens need the wall clock"
)]
#![cfg(all(feature = "auth", feature = "server"))]

#[path = "auth/account.rs"]
mod account;
#[path = "auth/client.rs"]
mod client;
#[path = "auth/login.rs"]
mod login;
#[path = "auth/support.rs"]
mod support;
