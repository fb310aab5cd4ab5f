//! Durable workflow stages.
#![forbid(unsafe_code)]
pub mod error;
pub mod failure;
pub mod hash;
pub mod key;
pub mod record;
pub mod store;
