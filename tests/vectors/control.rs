//! `client-control.json`, and the replies and values of `reference-golden.json`.

use agentwire::codec::reply::{self, Refuse};
use agentwire::codec::{Policy, ToolContext, value};
use agentwire::connect::put_envelope;
use agentwire::context::{Image, Part, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::proto::ExecServerMessage;
use agentwire::wire::{Reader, put_bytes};
use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::framework::{Suite, hex, same, text, unhex};

fn controls(case: &Value) -> Result<(), String> {
    for (name, ours) in [("heartbeat", reply::heartbeat()), ("cancel", reply::cancel())] {
        same(name, &hex(&ours[5..]), &text(case, name)?.to_owned())?;
    }
    // The unary request is an empty message, without an envelope.
    let request = agentwire::proto::GetUsableModelsRequest::default().encode_to_vec();
    same("getUsableModels", &hex(&request), &text(case, "getUsableModels")?.to_owned())
}

#[test]
fn client_control() {
    let expected = &["heartbeat", "cancel", "getUsableModels"];
    Suite { file: "client-control.json", cases: "", expected, check: controls }.run();
}

/// A tool result as the reference takes it: a content list, or a text.
fn tool_result(input: &Value) -> Result<ToolResult, String> {
    let mut result: ToolResult = serde_json::from_value(json!({
        "toolCallId": input["toolCallId"], "toolName": input["toolName"],
        "isError": input["isError"], "content": input.get("content").unwrap_or(&json!([])),
    }))
    .map_err(|error| error.to_string())?;
    if input.get("content").is_none() || result.is_error {
        result.content = vec![Part::Text { text: text(input, "text")?.to_owned() }];
    }
    Ok(result)
}

fn tool_results(case: &Value) -> Result<(), String> {
    let input = &case["input"];
    let result = tool_result(input)?;
    let id = input["execNumericId"].as_u64().unwrap_or(0) as u32;
    match reply::mcp_result(id, input["execId"].as_str().unwrap_or(""), &result) {
        Ok(bytes) => same("bytes", &Value::String(hex(&bytes[5..])), &case["output"]),
        Err(error) => {
            let bad = result.content.iter().enumerate().find_map(|(index, part)| match part {
                Part::Image(Image { mime_type, .. }) => {
                    let ours = format!("MCP image at index {index} ({mime_type})");
                    let words = format!(
                        "Invalid MCP image base64 image data at index {index} for MIME type {mime_type}"
                    );
                    error.message().contains(&ours).then_some(words)
                }
                Part::Text { .. } => None,
            });
            same("error", &bad.as_deref(), &case["error"].as_str())
        }
    }
}

#[test]
fn live_tool_results() {
    Suite {
        file: "client-control.json",
        cases: "/toolResults",
        expected: &["output", "error"],
        check: tool_results,
    }
    .run();
}

/// SHA-256 of the one reason text of the reference, which is not ours to use.
const REFERENCE_REASON: &str = "84fdd429b965926ba187d1638d953cee778620d2e33389e0d4adda4ab11eab9c";

/// The fields of a refusal from the outside in: numbers, integers and texts, with a reason replaced
/// by the same word on both sides.
fn structure(bytes: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Some(field) = reader.field().ok()? {
        let number = field.number;
        match field.value {
            agentwire::wire::Value::Varint(value) => found.push(format!("{number}={value}")),
            agentwire::wire::Value::Len(content) => {
                let is_ours = content.starts_with(b"This client does not serve");
                let is_theirs = hex(&Sha256::digest(content)) == REFERENCE_REASON;
                let inner = structure(content).filter(|inner| !inner.is_empty());
                match inner {
                    _ if is_theirs => found.push(format!("{number}=reason")),
                    Some(inner) => found.extend(inner.iter().map(|i| format!("{number}.{i}"))),
                    None if is_ours => found.push(format!("{number}=reason")),
                    None => found.push(format!("{number}={}", hex(content))),
                }
            }
            _ => return None,
        }
    }
    Some(found)
}

/// Compares a refusal in structure: same fields, ids and case; the reason is ours.
pub fn same_refusal(ours: &[u8], expected: &str) -> Result<(), String> {
    same("refusal", &structure(ours), &structure(&unhex(expected)?))
}

/// Our refusal of an exec message, as the reference would make it.
pub fn refuse(exec: &ExecServerMessage) -> Option<Vec<u8>> {
    let tools = ToolContext::default();
    let refuse = Refuse { policy: Policy::Reference, ..Refuse::new(&tools) };
    let envelopes = reply::refuse_exec(exec.id, &exec.exec_id, exec.message.as_ref()?, &refuse);
    Some(envelopes.first()?[5..].to_vec())
}

fn golden_reply(case: &Value) -> Result<(), String> {
    let name = text(case, "name")?;
    let expected = text(case, "hex")?;
    let tools = ToolContext::default();
    let text_result = |text: &str| ToolResult::text("tool-1", "Read", text);
    let image = Part::Image(Image { data: "aGk=".into(), mime_type: "image/png".into() });
    let envelope = match name {
        "cancel" => reply::cancel(),
        "heartbeat" => reply::heartbeat(),
        "models request" => return same(name, &String::new(), &expected.to_owned()),
        "kv get missing id=5" => reply::blob(5, None).concat().into(),
        "kv set id=5 blob 01 -> 6869" => {
            let stored = Conversation::new().set_blob(&[1], b"hi");
            reply::blob_stored(5, stored.err().map(|_| "refused"))
        }
        "kv get found id=6" => {
            let mut conversation = Conversation::new();
            conversation.set_blob(&[1], b"hi").map_err(|error| error.to_string())?;
            reply::blob(6, conversation.blobs().get(&[1])).concat().into()
        }
        "request context no tools id=3 exec_id=abc" => reply::request_context(3, "abc", &tools),
        "request context id absent" => reply::request_context(0, "", &tools),
        "mcp success text id=7 exec_id=exec-1" => mcp(7, "exec-1", &text_result("file contents"))?,
        "mcp error text id=7 exec_id=exec-1" => {
            mcp(7, "exec-1", &ToolResult::error("tool-1", "Read", "boom"))?
        }
        "mcp mixed text+png id=7 exec_id=exec-1" => {
            let mut result = text_result("c");
            result.content.push(image);
            mcp(7, "exec-1", &result)?
        }
        "mcp empty content, no ids" => {
            mcp(0, "", &ToolResult { content: Vec::new(), ..text_result("") })?
        }
        "connect frame of 010203 flags 2" => {
            let mut frame = Vec::new();
            put_envelope(&mut frame, 2, &[1, 2, 3]);
            return same(name, &hex(&frame), &expected.to_owned());
        }
        _ => return golden_refusal(name, expected),
    };
    same(name, &hex(&envelope[5..]), &expected.to_owned())
}

fn mcp(id: u32, exec_id: &str, result: &ToolResult) -> Result<bytes::Bytes, String> {
    reply::mcp_result(id, exec_id, result).map_err(|error| error.to_string())
}

fn golden_refusal(name: &str, expected: &str) -> Result<(), String> {
    let number = name
        .strip_prefix("native exec rejection field ")
        .and_then(|rest| rest.strip_suffix(" id=7 exec_id=E"))
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| format!("a reply that this test does not know: {name}"))?;
    let mut bytes = vec![0x08, 7, 0x7a, 1, b'E'];
    put_bytes(&mut bytes, number, &[]);
    let exec = ExecServerMessage::decode(&bytes[..]).map_err(|error| error.to_string())?;
    same_refusal(&refuse(&exec).ok_or("no refusal")?, expected)
}

#[test]
fn golden_replies() {
    Suite {
        file: "reference-golden.json",
        cases: "/replies",
        expected: &["hex"],
        check: golden_reply,
    }
    .run();
}

fn golden_value(case: &Value) -> Result<(), String> {
    let bytes = unhex(text(case, "hex")?)?;
    let mut ours = Vec::new();
    value::from_json(&case["json"], &mut ours).map_err(|error| error.to_string())?;
    same("bytes", &hex(&ours), &hex(&bytes))?;
    same("json", &value::to_json(&bytes).ok(), &Some(case["json"].clone()))
}

#[test]
fn golden_values() {
    Suite {
        file: "reference-golden.json",
        cases: "/values",
        expected: &["hex", "json"],
        check: golden_value,
    }
    .run();
}
