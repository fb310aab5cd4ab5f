//! Writes `fuzz/corpus/TARGET/` from the vectors, so that a fuzzer starts from what the protocol
//! looks like: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let vectors = root.join("../tests/data/vectors");
    let mut written = 0;
    for (target, seeds) in seeds(&vectors)? {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("vector-{number:04}")), seed)?;
        }
        written += seeds.len();
    }
    println!("{written} seeds");
    Ok(())
}

type Seeds = Vec<Vec<u8>>;

fn seeds(vectors: &Path) -> Result<Vec<(&'static str, Seeds)>> {
    let messages = messages(vectors)?;
    let streams = streams(vectors, &messages)?;
    Ok(vec![
        ("decoder", streams.iter().map(|body| with_cuts(body)).collect()),
        ("inspect", [messages.as_slice(), &streams].concat()),
        ("envelopes", messages.clone()),
        ("messages", messages),
        ("session_split", streams.iter().map(|body| with_cuts(body)).collect()),
        ("end_stream", inputs(vectors, "end-stream.json", "input")?),
        ("redaction", inputs(vectors, "redaction.json", "text")?),
        ("models_catalog", catalogs(vectors)?),
    ])
}

/// A body, and sizes of the pieces it is cut into.
fn with_cuts(body: &[u8]) -> Vec<u8> {
    [body, &[1, 4, 7, 255]].concat()
}

/// Server messages, one protobuf payload each.
fn messages(vectors: &Path) -> Result<Seeds> {
    let cases = load(vectors.join("server-messages.json"))?;
    strings(&cases, "data").map(hex).collect()
}

/// Bytes as they come over the wire: the chunks of `frames.json`, and each server message in an
/// envelope.
fn streams(vectors: &Path, messages: &Seeds) -> Result<Seeds> {
    let cases = load(vectors.join("frames.json"))?;
    let mut seeds = Vec::new();
    for case in cases.as_array().into_iter().flatten() {
        let chunks = case["chunks"].as_array().into_iter().flatten();
        let bytes: Result<Vec<_>> = chunks.filter_map(Value::as_str).map(hex).collect();
        seeds.push(bytes?.concat());
    }
    for message in messages {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(message.len())?.to_be_bytes());
        bytes.extend(message);
        seeds.push(bytes);
    }
    Ok(seeds)
}

/// Catalogs as JSON.
fn catalogs(vectors: &Path) -> Result<Seeds> {
    let cases = load(vectors.join("model-catalogs.json"))?;
    let cases = cases.as_array().into_iter().flatten();
    Ok(cases.map(|case| case["catalog"].to_string().into_bytes()).collect())
}

fn inputs(vectors: &Path, file: &str, member: &str) -> Result<Seeds> {
    let cases = load(vectors.join(file))?;
    Ok(strings(&cases, member).map(String::into_bytes).collect())
}

fn strings<'a>(cases: &'a Value, member: &'a str) -> impl Iterator<Item = String> + 'a {
    let cases = cases.as_array().into_iter().flatten();
    cases.filter_map(move |case| case[member].as_str()).map(str::to_owned)
}

fn load(path: PathBuf) -> Result<Value> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn hex(text: impl AsRef<str>) -> Result<Vec<u8>> {
    let digits = text.as_ref().as_bytes().chunks(2);
    digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
