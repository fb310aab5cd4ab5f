//! Models against the reference's test cases, and catalogs at random.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers")]

#[path = "models/cache.rs"]
mod cache;
#[path = "models/discovery.rs"]
mod discovery;
#[path = "models/listing.rs"]
mod listing;
#[path = "models/parity.rs"]
mod parity;
#[path = "models/random.rs"]
mod random;
