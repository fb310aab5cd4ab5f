//! Goal 20: what the crate asks of those who build it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::table::Table;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

pub fn judge(table: &mut Table) {
    let Some(crates) = crates() else {
        eprintln!("     (goal 20 not counted: cargo tree failed)");
        return;
    };
    table.at_most("20", "crates with default features", 75.0, crates.len() as f64, "");
    let foreign = ["cmake", "cxx", "link-cplusplus", "protoc-bin-vendored", "aws-lc-sys"];
    let found = foreign
        .into_iter()
        .filter(|name| crates.iter().any(|found| found.split(' ').next() == Some(*name)))
        .count();
    table.at_most("20", "crates that want protoc, cmake or C++", 0.0, found as f64, "");
}

/// The crates that a user's program is built of, without those that only build others.
fn crates() -> Option<BTreeSet<String>> {
    let output = Command::new("cargo")
        .args(["tree", "-p", "agentwire", "-e", "normal", "--prefix", "none", "--no-dedupe"])
        .current_dir(ROOT)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    // Two versions of one crate are two.
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Some(text.lines().map(name).collect())
}

/// A clean build of a program with the crate, and one with connectrpc: CPU of all of it, so that
/// what else the machine does counts less. Takes minutes, so it has to be asked for by name.
pub fn judge_build(table: &mut Table) {
    let ours = format!("agentwire = {{ path = {:?} }}", Path::new(ROOT));
    let theirs = "connectrpc = { version = \"0.9\", default-features = false, \
                  features = [\"client\", \"client-tls\"] }";
    match (build("ours", &ours), build("connectrpc", theirs)) {
        (Some(ours), Some(theirs)) => {
            table.at_most("20", "clean build, CPU of connectrpc's", 0.5, ours / theirs, "x");
        }
        _ => eprintln!("     (goal 20: a build failed)"),
    }
}

/// CPU seconds of a release build of an empty program with one dependency.
fn build(name: &str, dependency: &str) -> Option<f64> {
    let folder =
        std::env::temp_dir().join(format!("agentwire-build-{}-{name}", std::process::id()));
    let took = build_in(&folder, dependency);
    // A leftover in the temporary folder is no reason to fail.
    let _ = std::fs::remove_dir_all(&folder);
    took
}

fn build_in(folder: &Path, dependency: &str) -> Option<f64> {
    std::fs::create_dir_all(folder.join("src")).ok()?;
    let manifest = format!(
        "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n{dependency}\n"
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).ok()?;
    std::fs::write(folder.join("src/main.rs"), "fn main() {}\n").ok()?;
    let cargo = |words: &[&str]| {
        let mut cargo = Command::new("cargo");
        cargo.args(words).current_dir(folder).env("CARGO_TARGET_DIR", folder.join("target"));
        cargo.stderr(Stdio::null()).status().ok().filter(|status| status.success())
    };
    // Downloads are not the crate's weight.
    cargo(&["fetch"])?;
    let before = children_cpu()?;
    cargo(&["build", "--release", "--offline"])?;
    Some(children_cpu()? - before)
}

/// CPU time of all children that ended and were waited for, in clock ticks.
fn children_cpu() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything, fields are numbers: cutime and cstime are 14 and 15.
    let fields: Vec<_> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some(fields.get(13)?.parse::<f64>().ok()? + fields.get(14)?.parse::<f64>().ok()?)
}
