//! LLM transport for agent runtimes.
#![forbid(unsafe_code)]

pub mod codec;
pub mod connect;
pub mod context;
pub mod conversation;
pub mod error;
pub mod exec;
pub mod ids;
pub mod inspect;
pub mod models;
pub mod proto;
pub mod redact;
#[cfg(feature = "net")]
pub mod rpc;
pub mod run;
pub mod secret;
pub mod server;
#[cfg(feature = "client")]
pub mod transport;
pub mod wire;

pub use error::{Error, Result};
pub use secret::Secret;
#[cfg(feature = "client")]
pub use transport::{Client, Run};
