//! Connect streaming: envelopes in and out, the end-stream message, the status codes.

mod code;

pub use code::{Code, UnknownCode};
