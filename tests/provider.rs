//! The provider over real HTTP, against the local server: C026 to C043 of the reference's cases
//! (BEHAVIOUR 10 and 12). When models are asked for, and what ending waits for, is tested on a virtual
//! clock beside the machines (`src/provider/life.rs`, `src/provider/sessions.rs`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers")]
#![cfg(all(feature = "client", feature = "server"))]

#[path = "provider/catalog.rs"]
mod catalog;
#[path = "provider/rig.rs"]
mod rig;
#[path = "provider/sessions.rs"]
mod sessions;
