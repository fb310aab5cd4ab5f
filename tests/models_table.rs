//! `src/models/table.rs` is what `src/models/table.toml` says.
//!
//! `AGENTWIRE_REGENERATE=1 cargo test -p agentwire --test models_table` writes it.
#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::fmt::Write as _;
use std::path::PathBuf;

use toml::{Table, Value};

#[test]
fn the_table_is_what_its_source_says() {
    let (path, made) = (room().join("table.rs"), generate());
    if std::env::var_os("AGENTWIRE_REGENERATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), made, "run with AGENTWIRE_REGENERATE=1");
}

fn room() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/models")
}

const HEAD: &str = "\
//! Made from `table.toml` by `tests/models_table.rs`; change that file, not this one.

/// A family of models: what its members can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) patterns: &'static [&'static str],
    pub(super) reasons: bool,
    pub(super) images: bool,
}

/// Limits of models, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) patterns: &'static [&'static str],
    pub(super) context: u64,
    pub(super) output: u64,
    pub(super) source: &'static str,
    pub(super) date: &'static str,
}
";

fn generate() -> String {
    let text = std::fs::read_to_string(room().join("table.toml")).unwrap();
    let table: Table = text.parse().unwrap();
    let mut out = HEAD.to_owned();
    out.push_str("\npub(super) const FAMILIES: &[Family] = &[\n");
    for row in table["family"].as_array().unwrap() {
        let (patterns, reasons, images) = (&row["match"], &row["reasons"], &row["images"]);
        writeln!(out, "    // {}, {}", text_of(&row["source"]), text_of(&row["date"])).unwrap();
        writeln!(
            out,
            "    Family {{ patterns: &{patterns}, reasons: {reasons}, images: {images} }},"
        )
        .unwrap();
    }
    out.push_str("];\n\npub(super) const LIMITS: &[Limit] = &[\n");
    for row in table["limit"].as_array().unwrap() {
        let (patterns, source, date) = (&row["match"], &row["source"], &row["date"]);
        let (context, output) = (&row["context"], &row["output"]);
        writeln!(out, "    Limit {{\n        patterns: &{patterns},").unwrap();
        writeln!(out, "        context: {context},\n        output: {output},").unwrap();
        writeln!(out, "        source: {source},\n        date: {date},\n    }},").unwrap();
    }
    out.push_str("];\n\n");
    let estimated = &table["estimated"];
    let (source, date) = (&estimated["source"], &estimated["date"]);
    writeln!(out, "/// Id and name, from {} of {}.", text_of(source), text_of(date)).unwrap();
    out.push_str("pub(super) const ESTIMATED: &[(&str, &str)] = &[\n");
    for pair in estimated["models"].as_array().unwrap() {
        writeln!(out, "    ({}, {}),", pair[0], pair[1]).unwrap();
    }
    out.push_str("];\n");
    out
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}
