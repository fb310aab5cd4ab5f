//! The vectors of the reference, one layer per file.
//!
//! Every suite runs all cases of a file and then changes each expectation by one byte, to show that
//! a wrong one is noticed. `AGENTWIRE_VECTORS` names another folder with the same file names.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "modules of one test program"
)]

#[path = "vectors/framework.rs"]
mod framework;

#[path = "vectors/base64.rs"]
mod base64;
#[path = "vectors/control.rs"]
mod control;
#[path = "vectors/errors.rs"]
mod errors;
#[path = "vectors/frames.rs"]
mod frames;
#[path = "vectors/models.rs"]
mod models;
#[path = "vectors/requests.rs"]
mod requests;
#[path = "vectors/server.rs"]
mod server;
