//! The binary, from its arguments to its exit code.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod account;
mod agent;
mod chat;
mod models;
mod recording;
mod streams;
mod support;
#[cfg(unix)]
mod tools;
mod usage;
mod workflow;
#[cfg(unix)]
mod workspace;
