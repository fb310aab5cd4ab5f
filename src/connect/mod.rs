//! Connect streaming: envelopes in and out, the end-stream message, the status codes, and what an
//! error that a peer states means.
//!
//! [`Decoder`] is the machine for one direction of one stream: chunks in, [`Envelope`]s out.
//! [`Splitter`] is the framing alone. [`EndStream`] reads and writes the last message;
//! [`error_from_http`] is for answers that never become a stream.

pub mod classify;
mod code;
mod decoder;
mod end_stream;
mod envelope;
#[cfg(feature = "testing")]
pub mod fuzz;
pub mod gzip;
mod http;
mod json;
pub mod reference;
mod stated;

pub use code::{Code, UnknownCode};
pub use decoder::{Compression, Decoder, Envelope, Limits};
pub use end_stream::EndStream;
pub use envelope::{
    FLAG_COMPRESSED, FLAG_END_STREAM, FLAGS_RESERVED, Frame, FrameError, HEADER_LEN, Splitter,
    header, put_envelope,
};
pub use http::{MAX_ERROR_BODY, error_from_http, retry_after};
pub use stated::{Stated, error_json};

#[cfg(test)]
mod tests;
