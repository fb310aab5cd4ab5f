//! The protocol tables, and the same lines made from the compiled schema.

use std::collections::BTreeSet;
use std::fs;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::source_code_info::Location;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

use crate::generate::root;

/// The three tables, each line as it stands in the file, without the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tables {
    /// message, number, field, type, oneof, seen
    pub(crate) fields: BTreeSet<String>,
    /// enum, number, value
    pub(crate) enums: BTreeSet<String>,
    /// message.field, enum, number, value: enums that are plain integers on the wire
    pub(crate) int_enums: BTreeSet<String>,
}

/// Reads the tables in `tests/data/protocol/`.
pub(crate) fn read() -> Tables {
    Tables {
        fields: lines("agent_v1_fields.tsv"),
        enums: lines("agent_v1_enums.tsv"),
        int_enums: lines("agent_v1_int_enums.tsv"),
    }
}

fn lines(name: &str) -> BTreeSet<String> {
    let path = root().join("tests/data/protocol").join(name);
    let text = fs::read_to_string(path).expect("the table is there");
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let set: BTreeSet<String> = lines.iter().map(ToString::to_string).collect();
    assert_eq!(set.len(), lines.len(), "{name} says something twice");
    set
}

/// Makes the same tables from the schema.
pub(crate) fn from_schema(schema: &FileDescriptorSet) -> Tables {
    let mut tables =
        Tables { fields: BTreeSet::new(), enums: BTreeSet::new(), int_enums: BTreeSet::new() };
    let mut typed = BTreeSet::new();
    for file in &schema.file {
        assert_eq!(file.package(), "agent.v1", "{}", file.name());
        for (index, message) in file.message_type.iter().enumerate() {
            add_message(&mut tables, &mut typed, schema, file, index, message);
        }
    }
    // An enum that no field has as its type stands for integers only; `DiagnosticSeverity` is both.
    for file in &schema.file {
        for decl in file.enum_type.iter().filter(|e| typed.contains(e.name())) {
            tables.enums.extend(values(decl).map(|value| format!("{}\t{value}", decl.name())));
        }
    }
    tables
}

fn add_message(
    tables: &mut Tables,
    typed: &mut BTreeSet<String>,
    schema: &FileDescriptorSet,
    file: &FileDescriptorProto,
    index: usize,
    message: &DescriptorProto,
) {
    let name = message.name();
    if message.field.is_empty() {
        tables.fields.insert(format!("{name}\t\t\t\t\t"));
    }
    for (position, field) in message.field.iter().enumerate() {
        if field.r#type() == Type::Enum {
            typed.insert(short(field.type_name()).to_owned());
        }
        let comment = comment(file, &[4, index as i32, 2, position as i32]);
        tables.fields.insert(format!(
            "{name}\t{}\t{}\t{}\t{}\t{}",
            field.number(),
            field.name(),
            type_of(message, field),
            oneof_of(message, field),
            seen(&comment),
        ));
        if let Some(decl) = integer_enum(schema, &comment) {
            assert_eq!(field.r#type(), Type::Int32, "{name}.{}", field.name());
            let head = format!("{name}.{}\t{}", field.name(), decl.name());
            tables.int_enums.extend(values(decl).map(|value| format!("{head}\t{value}")));
        }
    }
}

fn values(decl: &EnumDescriptorProto) -> impl Iterator<Item = String> + '_ {
    decl.value.iter().map(|value| format!("{}\t{}", value.number(), value.name()))
}

pub(crate) fn short(type_name: &str) -> &str {
    type_name.rsplit('.').next().unwrap_or(type_name)
}

/// The type column: `string`, `repeated Thing`, `optional int32`, `map<string, bytes>`.
fn type_of(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    if let Some(entry) = map_entry(message, field) {
        let part = |number| {
            let part = entry.field.iter().find(|f| f.number() == number);
            plain_type(part.expect("a map entry has a key and a value"))
        };
        return format!("map<{}, {}>", part(1), part(2));
    }
    match field.label() {
        Label::Repeated => format!("repeated {}", plain_type(field)),
        _ if field.proto3_optional() => format!("optional {}", plain_type(field)),
        _ => plain_type(field),
    }
}

pub(crate) fn map_entry<'a>(
    message: &'a DescriptorProto,
    field: &FieldDescriptorProto,
) -> Option<&'a DescriptorProto> {
    let is_entry = |m: &&DescriptorProto| {
        m.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry)
    };
    let mut entries = message.nested_type.iter().filter(is_entry);
    entries.find(|m| field.type_name().ends_with(&format!(".{}", m.name())))
}

fn plain_type(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        Type::Double => "double".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Uint64 => "uint64".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::String => "string".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Uint32 => "uint32".to_owned(),
        other => format!("{other:?}"),
    }
}

fn oneof_of<'a>(message: &'a DescriptorProto, field: &FieldDescriptorProto) -> &'a str {
    match field.oneof_index {
        Some(index) if !field.proto3_optional() => message.oneof_decl[index as usize].name(),
        _ => "",
    }
}

/// The comment before a declaration, on one line.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let info = file.source_code_info.as_ref().expect("comments are kept");
    let found = info.location.iter().find(|at: &&Location| at.path == path);
    let text = found.map(Location::leading_comments).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The seen column: `both`, unless the comment says `Seen in … only.`
fn seen(comment: &str) -> &str {
    comment
        .split_once("Seen in ")
        .and_then(|(_, rest)| rest.split_once(" only."))
        .map_or("both", |(capture, _)| capture)
}

/// The enum whose values an integer field takes, where the comment says `Values: Name.`
fn integer_enum<'a>(
    schema: &'a FileDescriptorSet,
    comment: &str,
) -> Option<&'a EnumDescriptorProto> {
    let (_, rest) = comment.split_once("Values: ")?;
    let (name, _) = rest.split_once('.')?;
    let found =
        schema.file.iter().flat_map(|file| &file.enum_type).find(|decl| decl.name() == name);
    Some(found.expect("the comment names an enum of the schema"))
}
