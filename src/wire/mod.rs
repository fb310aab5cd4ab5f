//! Protobuf primitives over slices: varints, tags, a bounded borrowing reader, a forward writer.
//!
//! Nothing here knows a message. A length that the input claims is compared with what is left
//! before anything is done with it, so a claim never allocates and never waits (FAULTS M32). What
//! is accepted and refused is exactly what prost 0.14 accepts and refuses, so that hand-written
//! decoders over this module can be compared with generated ones on every input.

mod reader;
mod varint;
mod writer;

pub use reader::{Field, MAX_DEPTH, Reader, Value};
pub use varint::{MAX_VARINT_LEN, put_varint, size_varint};
pub use writer::{
    put_bool, put_bytes, put_double, put_int32, put_len, put_nested, put_str, put_tag, put_uint,
    size_bytes, size_int32, size_len, size_tag, size_uint,
};

use crate::error::Error;

/// How the bytes after a tag are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WireType {
    /// A varint of at most ten bytes.
    Varint = 0,
    /// Eight bytes, little endian.
    I64 = 1,
    /// A varint length, then that many bytes.
    Len = 2,
    /// Fields until the matching [`WireType::EndGroup`]; deprecated, only ever skipped.
    StartGroup = 3,
    /// The end of a group.
    EndGroup = 4,
    /// Four bytes, little endian.
    I32 = 5,
}

/// Why bytes are not protobuf. The input itself is never part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WireError {
    /// A varint that ends with the input, or a value longer than what is left.
    #[error("the message is cut short")]
    Truncated,
    /// A varint of more than ten bytes, or of more than 64 bits.
    #[error("a varint is longer than 64 bits")]
    VarintOverflow,
    /// A tag with field number 0, above 2²⁹ − 1, or with wire type 6 or 7.
    #[error("a tag is not valid")]
    InvalidTag,
    /// An end-group tag without its start, or with another number.
    #[error("a group does not end where it should")]
    InvalidGroup,
    /// Messages or groups nested deeper than [`MAX_DEPTH`].
    #[error("the message is nested too deep")]
    TooDeep,
    /// A known field with another wire type than its declaration allows.
    #[error("a field has the wrong wire type")]
    WrongWireType,
    /// A string field that is not UTF-8.
    #[error("a string is not valid UTF-8")]
    InvalidUtf8,
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Self::protocol(format!("cannot decode the message: {error}"))
    }
}
