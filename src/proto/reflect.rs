//! The schema as data: what the inspector reads to name fields. No code is generated for it, only
//! the table in `table.rs`.

use std::fmt;

use super::table::MESSAGES;

/// What a server says on the Run stream.
pub static SERVER_MESSAGE: &MessageInfo = &super::table::AgentServerMessage;
/// What a client says on the Run stream.
pub static CLIENT_MESSAGE: &MessageInfo = &super::table::AgentClientMessage;

/// A message of the schema.
pub struct MessageInfo {
    /// Its name in the protocol tables, such as `AgentRunRequest` or `SelectedImage_Dimension`.
    pub name: &'static str,
    /// Its fields, by ascending number.
    pub fields: &'static [FieldInfo],
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub struct FieldInfo {
    /// Its number.
    pub number: u32,
    /// Its name in the protocol tables, in snake case.
    pub name: &'static str,
    /// Once, many times, or a map from strings.
    pub shape: Shape,
    /// The type; of a map that of its values.
    pub kind: FieldKind,
}

/// How often a field occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// At most once, whether `optional` or not.
    One,
    /// Any number of times; numbers are packed.
    Many,
    /// `map<string, kind>`.
    Map,
}

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub enum FieldKind {
    /// `bool`
    Bool,
    /// `bytes`
    Bytes,
    /// `double`
    Double,
    /// `int32`
    Int32,
    /// `int64`
    Int64,
    /// `string`
    String,
    /// `uint32`
    Uint32,
    /// `uint64`
    Uint64,
    /// An enum.
    Enum(&'static EnumInfo),
    /// A message.
    Message(&'static MessageInfo),
}

/// An enum of the schema.
#[derive(Debug)]
pub struct EnumInfo {
    /// Its name in the protocol tables.
    pub name: &'static str,
    /// Its values.
    pub values: &'static [(i32, &'static str)],
}

impl MessageInfo {
    /// The message with this name in the protocol tables.
    pub fn named(name: &str) -> Option<&'static Self> {
        let place = MESSAGES.binary_search_by(|message| message.name.cmp(name)).ok()?;
        MESSAGES.get(place).copied()
    }

    /// All messages, by name.
    pub fn all() -> &'static [&'static Self] {
        &MESSAGES
    }

    /// The field with this number.
    pub fn field(&self, number: u32) -> Option<&'static FieldInfo> {
        let place = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(place)
    }

    /// The field with this name.
    pub fn field_named(&self, name: &str) -> Option<&'static FieldInfo> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl FieldKind {
    /// Whether a repeated field of this type is packed.
    pub const fn is_packable(self) -> bool {
        !matches!(self, Self::Bytes | Self::String | Self::Message(_))
    }
}

/// Only the name: messages refer to each other in circles.
impl fmt::Debug for MessageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageInfo").field("name", &self.name).finish_non_exhaustive()
    }
}

impl EnumInfo {
    /// The name of a value.
    pub fn name_of(&self, number: i32) -> Option<&'static str> {
        self.values.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
    }

    /// The value with this name.
    pub fn number_of(&self, name: &str) -> Option<i32> {
        self.values.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }
}

/// Short forms for the table.
pub(super) const fn one(number: u32, name: &'static str, kind: FieldKind) -> FieldInfo {
    FieldInfo { number, name, shape: Shape::One, kind }
}

pub(super) const fn many(number: u32, name: &'static str, kind: FieldKind) -> FieldInfo {
    FieldInfo { number, name, shape: Shape::Many, kind }
}

pub(super) const fn map(number: u32, name: &'static str, kind: FieldKind) -> FieldInfo {
    FieldInfo { number, name, shape: Shape::Map, kind }
}
