//! Starts the peer, `peer.mjs`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use prost::Message as _;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::socket::{self, Identity};

/// What the peer says of one case.
#[derive(Debug, Deserialize)]
#[allow(dead_code, reason = "the name is there to be printed")]
pub(crate) struct Line {
    case: String,
    pub(crate) error: Option<String>,
}

/// The peer as a server; ends with this value.
pub(crate) struct Node {
    pub(crate) url: String,
    _process: Child,
    _descriptors: TempDir,
}

impl Node {
    pub(crate) async fn serve(identity: Option<&Identity>) -> Self {
        let (folder, descriptors) = descriptors();
        let mut command = peer("serve", &descriptors);
        if let Some(identity) = identity {
            command.arg(identity.certificate_file()).arg(identity.key_file());
        }
        let mut process = command.stdin(Stdio::piped()).spawn().expect("node starts");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().expect("the peer prints its port");
        let url = socket::url(port.parse().unwrap(), identity);
        Self { url, _process: process, _descriptors: folder }
    }
}

/// Runs every case of the peer's client.
pub(crate) async fn run_client(echo: &str, agent: &str, identity: Option<&Identity>) -> Vec<Line> {
    let (_folder, descriptors) = descriptors();
    let mut command = peer("client", &descriptors);
    command.arg(echo).arg(agent).stdin(Stdio::null());
    if let Some(identity) = identity {
        command.arg(identity.certificate_file());
    }
    let output = command.spawn().expect("node starts").wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "the peer failed; its stderr is above. It said:\n{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

fn peer(mode: &str, descriptors: &Path) -> Command {
    let mut command = Command::new("node");
    command.arg(folder().join("peer.mjs")).arg(mode).arg(descriptors);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// Both schemas as descriptors, from which the peer makes its codec.
fn descriptors() -> (TempDir, PathBuf) {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = [folder().join("interop.proto"), proto.join("agent/v1/service.proto")];
    let set = protox::compile(files, [folder(), proto]).expect("the schemas compile");
    let target = tempfile::tempdir().unwrap();
    let file = target.path().join("descriptors.bin");
    std::fs::write(&file, set.encode_to_vec()).unwrap();
    (target, file)
}
