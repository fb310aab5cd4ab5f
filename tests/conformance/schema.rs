//! The suite's messages: from the tables to a schema, and from the schema to Rust.
//!
//! `AGENTWIRE_REGENERATE=1 cargo test -p agentwire --test conformance schema` writes the Rust.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

pub(crate) const PACKAGE: &str = "connectrpc.conformance.v1";

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/conformance").join(name)
}

/// One message or enum with what is nested in it.
#[derive(Default)]
struct Node {
    /// `field` lines and oneofs, in the order of the table.
    fields: Vec<(String, String)>,
    values: Vec<String>,
    nested: BTreeMap<String, Self>,
}

fn node<'a>(root: &'a mut Node, path: &str) -> &'a mut Node {
    path.split('.').fold(root, |node, name| node.nested.entry(name.to_owned()).or_default())
}

/// The tables as one proto3 file. `descriptor.proto` is imported since error details carry one.
fn proto() -> String {
    let mut root = Node::default();
    let read = |name| fs::read_to_string(data(name)).unwrap();
    for line in read("fields.tsv").lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [message, number, field, kind, oneof] = cells[..] else { panic!("{line}") };
        let message = node(&mut root, message);
        if !field.is_empty() {
            message.fields.push((oneof.to_owned(), format!("{kind} {field} = {number};")));
        }
    }
    for line in read("enums.tsv").lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let [name, number, value] = cells[..] else { panic!("{line}") };
        node(&mut root, name).values.push(format!("{value} = {number};"));
    }
    let mut text = format!("syntax = \"proto3\";\npackage {PACKAGE};\n");
    for import in ["any", "empty", "struct", "descriptor"] {
        writeln!(text, "import \"google/protobuf/{import}.proto\";").unwrap();
    }
    for (name, node) in &root.nested {
        print(&mut text, name, node);
    }
    text
}

fn print(text: &mut String, name: &str, node: &Node) {
    if !node.values.is_empty() {
        writeln!(text, "enum {name} {{ {} }}", node.values.join(" ")).unwrap();
        return;
    }
    writeln!(text, "message {name} {{").unwrap();
    for (name, nested) in &node.nested {
        print(text, name, nested);
    }
    let mut printed: Vec<&str> = Vec::new();
    for (oneof, field) in &node.fields {
        if oneof.is_empty() {
            writeln!(text, "{field}").unwrap();
        } else if !printed.contains(&oneof.as_str()) {
            printed.push(oneof);
            let members: Vec<&str> = node
                .fields
                .iter()
                .filter(|(other, _)| other == oneof)
                .map(|(_, field)| field.as_str())
                .collect();
            writeln!(text, "oneof {oneof} {{ {} }}", members.join(" ")).unwrap();
        }
    }
    text.push_str("}\n");
}

/// The compiled schema.
pub(crate) fn compile() -> FileDescriptorSet {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("conformance.proto");
    fs::write(&file, proto()).unwrap();
    protox::compile([&file], [folder.path()]).unwrap()
}

#[test]
fn schema_in_rust_is_what_the_tables_say() {
    let out = tempfile::tempdir().unwrap();
    let mut config = prost_build::Config::new();
    config.out_dir(out.path()).compile_fds(compile()).unwrap();
    let text = fs::read_to_string(out.path().join(format!("{PACKAGE}.rs"))).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/conformance/proto.rs");
    if std::env::var_os("AGENTWIRE_REGENERATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert!(fs::read_to_string(&path).unwrap() == text, "{} is out of date", path.display());
}
