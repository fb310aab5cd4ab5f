//! Messages and whole streams as JSON, and back to the same bytes.
//!
//! This is what `agentwire decode` and `encode` print and read. It knows the schema as data
//! ([`crate::proto::reflect`]) and decides nothing else: no message is answered, none is refused.
//!
//! # The JSON of a message
//!
//! - A field is a member under its proto name, in snake case as in the protocol tables. What is not
//!   on the wire is not in the JSON.
//! - Numbers of 32 bits and `double` are numbers (`"NaN"`, `"Infinity"`, `"-Infinity"` are
//!   strings, and so is a number that JSON readers would round); numbers of 64 bits are strings of digits; `bytes` are base64 with padding. An enum is
//!   the name of its value, or the number of one that has no name. Fields that are `int32` on the
//!   wire and an enum in the mind, such as `mode`, are numbers.
//! - A repeated field is an array, a map is an object.
//! - A field that the schema does not know, or whose bytes do not fit the type that it knows, is
//!   kept under its number: `{"wire_type": "varint", "value": "5"}`, an array of them where there
//!   are several. Wire types are `varint` and `i64` (digits in a string), `i32` (a number), `len`
//!   and `group` (base64).
//! - A string that is not UTF-8 is `{"raw": base64}`.
//!
//! # Back to the same bytes
//!
//! What is written from these members is: fields by ascending number, each number in its shortest
//! form, repeated numbers packed, map entries by ascending key with key and value both present.
//! Where a message stood otherwise on the wire (other order, longer varints, a field twice, an
//! unpacked repeat, …), it has one more member, `"raw"`: its exact bytes in base64. [`from_json`]
//! takes them, provided that the members beside `raw` still say the same; one who edits such a
//! message removes `raw`. Messages inside one with `raw` have none. The order of members does not
//! matter anywhere, so the JSON may pass through tools that sort keys.
//!
//! A message inside another whose bytes are no protobuf is shown as
//! `{"damaged": {"offset": …, "reason": …}, "raw": …}`, the offset counted from its own start; one
//! that is nested too deep for JSON readers (about a hundred objects and arrays) as `{"raw": …}`
//! alone.
//!
//! # Limits
//!
//! Messages nested more than [`MAX_DEPTH`] levels, as everywhere here, and a message with more
//! than [`MAX_VALUES`] fields and numbers are errors.

mod decode;
mod encode;
mod envelope;
mod error;
#[cfg(feature = "testing")]
pub mod fuzz;
mod scalar;
mod scan;
mod stream;

pub use crate::wire::MAX_DEPTH;
pub use envelope::{Lines, envelope_from_json, lines};
pub use error::InspectError;
pub use stream::Stream;

use serde_json::Value;

use crate::proto::reflect::{CLIENT_MESSAGE, MessageInfo, SERVER_MESSAGE};
use decode::{Decoder, Level};
use encode::Encoder;

/// How many fields and packed numbers one message may hold, all levels together: what a message
/// becomes in memory can be two hundred times what it takes on the wire, so this bounds it to a few
/// hundred MiB. A checkpoint of 16 MiB full of blob ids has fewer. No option: this is for people who
/// look at a capture; a program reads more with the generated types.
pub const MAX_VALUES: usize = 1 << 19;

/// JSON levels above which a message is shown by its bytes: common readers stop at 128.
const FOLD_AT: u32 = 110;

/// Who says a message on the Run stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The server: `AgentServerMessage`.
    Server,
    /// The client: `AgentClientMessage`.
    Client,
}

impl Side {
    /// The message this side says.
    pub fn message(self) -> &'static MessageInfo {
        match self {
            Self::Server => SERVER_MESSAGE,
            Self::Client => CLIENT_MESSAGE,
        }
    }
}

/// JSON made from bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspected {
    /// The JSON. [`from_json`] turns it back into exactly the same bytes.
    pub value: Value,
    /// The first thing inside that a decoder of the protocol would refuse: a message that does not
    /// parse, a string that is not UTF-8, a field of another type. All of it is kept in `value`.
    pub damage: Option<InspectError>,
}

/// The JSON of a message of the Run stream, with what is damaged inside it.
///
/// # Errors
///
/// The outermost message is no protobuf, or a limit is crossed; the error has the byte offset.
pub fn inspect(side: Side, message: &[u8]) -> Result<Inspected, InspectError> {
    inspect_as(side.message(), message)
}

/// The same for any message of the schema, such as one that travels in a blob.
///
/// # Errors
///
/// As for [`inspect`].
pub fn inspect_as(info: &'static MessageInfo, message: &[u8]) -> Result<Inspected, InspectError> {
    let mut decoder = Decoder::new();
    let value = decoder.message(info, message, Level::TOP)?;
    Ok(Inspected { value, damage: decoder.damage })
}

/// The JSON of a message of the Run stream.
///
/// # Errors
///
/// As for [`inspect`].
///
/// ```
/// use agentwire::inspect::{Side, from_json, to_json};
///
/// let bytes = b"\x0a\x06\x0a\x04\x0a\x02hi";
/// let json = to_json(Side::Server, bytes)?;
/// assert_eq!(json["interaction_update"]["text_delta"]["text"], "hi");
/// assert_eq!(from_json(Side::Server, &json)?, bytes);
/// # Ok::<(), agentwire::inspect::InspectError>(())
/// ```
pub fn to_json(side: Side, message: &[u8]) -> Result<Value, InspectError> {
    inspect(side, message).map(|inspected| inspected.value)
}

/// The bytes of a message of the Run stream from its JSON.
///
/// # Errors
///
/// A member that the message does not have, a value of another type, or members that say something
/// else than the `raw` beside them; the error has the path.
pub fn from_json(side: Side, value: &Value) -> Result<Vec<u8>, InspectError> {
    from_json_as(side.message(), value)
}

/// The same for any message of the schema.
///
/// # Errors
///
/// As for [`from_json`].
pub fn from_json_as(info: &'static MessageInfo, value: &Value) -> Result<Vec<u8>, InspectError> {
    Encoder::at("").message(info, value, Level::TOP)
}
