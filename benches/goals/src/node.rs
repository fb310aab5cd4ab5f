//! The reference's way on its own platform: TypeScript's usual stack on Node, where it is installed
//! (`tests/interop/run` fetches it).

use std::path::Path;
use std::process::Command;

/// Seconds for each message, or `None` without Node and the packages.
pub fn split_and_decode(body: &[u8], size: usize, count: usize) -> Option<f64> {
    let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/interop");
    if !interop.join("node_modules").is_dir() {
        eprintln!("     (no TypeScript rival: run tests/interop/run once)");
        return None;
    }
    let folder = std::env::temp_dir().join(format!("agentwire-goals-{}", std::process::id()));
    std::fs::create_dir_all(&folder).ok()?;
    let input = folder.join("body.bin");
    std::fs::write(&input, body).ok()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rival.mjs");
    let output = Command::new("node")
        .arg(script)
        .arg(&input)
        .arg(size.to_string())
        .arg(count.to_string())
        .arg(interop.join("node_modules/@bufbuild/protobuf/dist/esm"))
        .output();
    // Only the copy of the input is lost when this fails.
    let _ = std::fs::remove_dir_all(&folder);
    let output = output.ok()?;
    if !output.status.success() {
        eprintln!("     (no TypeScript rival: {})", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    let nanos: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().ok()?;
    Some(nanos / 1e9)
}
