//! From `proto/agent/v1/*.proto` to the checked-in Rust, with a protobuf compiler in Rust.

use std::fs;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

/// Oneofs whose messages are boxed one and all: many kinds, most of them large.
const BOXED_ONEOFS: [&str; 6] = [
    "ConversationAction.action",
    "ExecClientMessage.message",
    "ExecServerMessage.message",
    "InteractionQuery.query",
    "InteractionResponse.result",
    "ToolCall.tool",
];

/// Single members that are boxed, so that a text delta moves as a few words. What is small and
/// frequent (text, thinking, tokens, heartbeats) stays in place.
const BOXED_MEMBERS: [&str; 17] = [
    "AgentClientMessage.message.run_request",
    "AgentClientMessage.message.exec_client_message",
    "AgentClientMessage.message.kv_client_message",
    "AgentClientMessage.message.conversation_action",
    "AgentClientMessage.message.interaction_response",
    "AgentClientMessage.message.prewarm_request",
    "AgentServerMessage.message.exec_server_message",
    "AgentServerMessage.message.conversation_checkpoint_update",
    "AgentServerMessage.message.kv_server_message",
    "AgentServerMessage.message.interaction_query",
    "InteractionUpdate.message.tool_call_started",
    "InteractionUpdate.message.tool_call_completed",
    "InteractionUpdate.message.user_message_appended",
    "InteractionUpdate.message.partial_tool_call",
    "InteractionUpdate.message.shell_output_delta",
    "InteractionUpdate.message.tool_call_delta",
    "InteractionUpdate.message.turn_ended",
];

/// Messages with a secret in them; `src/proto/mod.rs` prints them redacted.
const NO_DEBUG: [&str; 4] =
    ["ApiKeyCredentials", "AzureCredentials", "BedrockCredentials", "RepositoryIndexingInfo"];

/// The root of the package.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles the schema, comments included.
pub(crate) fn compile() -> FileDescriptorSet {
    let include = root().join("proto");
    let mut files: Vec<PathBuf> = fs::read_dir(include.join("agent/v1"))
        .expect("proto/agent/v1 is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "proto"))
        .collect();
    files.sort();
    protox::compile(files, [include]).expect("the schema compiles")
}

/// The text of `src/proto/generated.rs`.
pub(crate) fn messages(schema: FileDescriptorSet) -> String {
    let out = tempfile::tempdir().expect("a temporary folder");
    let mut config = prost_build::Config::new();
    config.out_dir(out.path()).bytes(["."]).btree_map(["."]);
    for path in BOXED_ONEOFS.iter().chain(&BOXED_MEMBERS) {
        config.boxed(format!(".agent.v1.{path}"));
    }
    config.skip_debug(NO_DEBUG.map(|name| format!(".agent.v1.{name}")));
    config.compile_fds(schema).expect("Rust is generated");
    fs::read_to_string(out.path().join("agent.v1.rs")).expect("the package was generated")
}

/// Compares a generated file with the checked-in one, or writes it when asked to.
pub(crate) fn check(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("AGENTWIRE_REGENERATE").is_some() {
        fs::write(&file, text).expect("the generated file can be written");
    }
    let checked_in = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        checked_in == text,
        "{path} is not what proto/agent/v1 says. To write it anew: \
         AGENTWIRE_REGENERATE=1 cargo test -p agentwire --test schema"
    );
}
