//! `frames.json`: the bare splitter, before any rule about flags.

use agentwire::connect::{FLAG_END_STREAM, FrameError, Splitter};
use serde_json::{Value, json};

use crate::framework::{Suite, hex, same, unhex};

/// The reference's words for the two ways to end too early.
fn reference_error(error: FrameError) -> String {
    let part = match error {
        FrameError::TruncatedHeader { .. } => "header",
        FrameError::TruncatedBody { .. } => "body",
        other => return other.to_string(),
    };
    format!("Incomplete Cursor Connect frame {part}.")
}

fn check(case: &Value) -> Result<(), String> {
    let mut splitter = Splitter::new(1 << 20);
    let mut frames = Vec::new();
    for chunk in case["chunks"].as_array().ok_or("no chunks")? {
        let chunk = unhex(chunk.as_str().ok_or("a chunk is no text")?)?;
        let mut chunk = chunk.as_slice();
        while let Some(frame) = splitter.next(&mut chunk).map_err(|error| error.to_string())? {
            frames.push(json!({
                "flags": frame.flags,
                "data": hex(frame.payload),
                "endStream": frame.flags & FLAG_END_STREAM != 0,
            }));
        }
    }
    same("frames", &Value::Array(frames), &case["frames"])?;
    let error = splitter.finish().err().map(reference_error);
    same("error", &error.as_deref(), &case["error"].as_str())
}

#[test]
fn frames() {
    Suite { file: "frames.json", cases: "", expected: &["frames", "error"], check }.run();
}
