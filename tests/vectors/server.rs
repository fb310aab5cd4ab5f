//! `server-messages.json` and the server frames of `reference-golden.json`: what a message becomes
//! and what is sent back. `conversations.json`: the same over several runs of one conversation.

use std::collections::HashMap;

use agentwire::codec::hot::{Incoming, decode};
use agentwire::codec::{Policy, ToolContext, call, reply, value};
use agentwire::conversation::{Conversation, encode_run};
use agentwire::ids::{CountingIds, IdSource};
use agentwire::proto::{ExecServerMessage, exec_server_message::Message as Exec};
use agentwire::wire::Reader;
use serde_json::{Value, json};

use crate::control::{refuse, same_refusal};
use crate::framework::{Suite, hex, same, text, unhex};
use crate::requests::{context, legacy};

/// Exec cases that the reference knows beside tool calls and the request context (BEHAVIOUR 4).
const KNOWN: [u32; 15] = [2, 3, 4, 5, 7, 8, 9, 14, 16, 17, 18, 20, 21, 22, 23];

/// A message in the reference's words, and the answer to it.
struct Message {
    words: Value,
    answer: Answer,
}

enum Answer {
    /// The reference sends nothing here, and neither do we.
    None,
    Bytes(Vec<u8>),
    /// To be compared in structure: the text is ours.
    Refusal(Vec<u8>),
}

/// A codec of the reference: one conversation and what its run knows.
struct Codec<'a> {
    conversation: &'a mut Conversation,
    tools: &'a ToolContext,
    ids: &'a mut dyn IdSource,
}

impl Codec<'_> {
    fn messages(&mut self, payload: &[u8]) -> agentwire::Result<Vec<Message>> {
        let plain = |words| vec![Message { words, answer: Answer::None }];
        Ok(match decode(payload)? {
            Incoming::Text(text) if !text.is_empty() => {
                plain(json!({"type": "textDelta", "text": text}))
            }
            Incoming::Thinking(text) if !text.is_empty() => {
                plain(json!({"type": "thinkingDelta", "text": text}))
            }
            Incoming::Tokens(tokens) => {
                plain(json!({"type": "usage", "kind": "outputDelta", "outputTokens": tokens}))
            }
            Incoming::Checkpoint(checkpoint) => {
                self.conversation.commit(checkpoint.raw.to_vec().into())?;
                let raw = hex(&checkpoint.raw);
                let mut messages =
                    plain(json!({"type": "conversationCheckpoint", "checkpoint": raw}));
                if let Some(used) = checkpoint.used_tokens {
                    let words = json!({"type": "usage", "kind": "checkpoint", "usedTokens": used});
                    messages.extend(plain(words));
                }
                messages
            }
            Incoming::GetBlob { id, blob_id } => {
                let words = json!({"type": "kvGetBlob", "id": id, "blobId": hex(blob_id)});
                let bytes = reply::blob(id, self.conversation.blobs().get(blob_id)).concat();
                vec![Message { words, answer: Answer::Bytes(bytes[5..].to_vec()) }]
            }
            Incoming::SetBlob { id, blob_id, data } => {
                let words = json!({
                    "type": "kvSetBlob", "id": id, "blobId": hex(blob_id), "blobData": hex(data)});
                let refused = self.conversation.set_blob(blob_id, data).err();
                let why = refused.map(|refused| refused.to_string());
                let bytes = reply::blob_stored(id, why.as_deref());
                vec![Message { words, answer: Answer::Bytes(bytes[5..].to_vec()) }]
            }
            Incoming::Exec(exec, _) => self.exec(payload, &exec)?.into_iter().collect(),
            // What the reference leaves unanswered is answered by us: tests/session.rs.
            _ => Vec::new(),
        })
    }

    fn exec(
        &mut self,
        payload: &[u8],
        exec: &ExecServerMessage,
    ) -> agentwire::Result<Option<Message>> {
        let Some(case) = &exec.message else { return Ok(None) };
        let mut words = json!({"execNumericId": exec.id});
        if !exec.exec_id.is_empty() {
            words["execId"] = exec.exec_id.as_str().into();
        }
        let answer = match case {
            Exec::McpArgs(_) => {
                let call = call::tool_call(payload, self.ids)?;
                words["type"] = "toolCall".into();
                words["id"] = call.id.into();
                words["name"] = call.name.into();
                words["argumentsJson"] = value::to_text(&call.arguments, Policy::Reference)?.into();
                Answer::None
            }
            Exec::RequestContextArgs(_) => {
                words["type"] = "requestContext".into();
                let bytes = reply::request_context(exec.id, &exec.exec_id, self.tools);
                Answer::Bytes(bytes[5..].to_vec())
            }
            _ => {
                let mut field = Vec::new();
                case.encode(&mut field);
                let number = Reader::new(&field).tag()?.0;
                if !KNOWN.contains(&number) {
                    return Ok(None);
                }
                words["type"] = "nonMcpExec".into();
                words["fieldNumber"] = number.into();
                Answer::Refusal(refuse(exec).unwrap_or_default())
            }
        };
        Ok(Some(Message { words, answer }))
    }
}

fn same_answers(messages: &[Message], expected: &Value) -> Result<(), String> {
    let expected = expected.as_array().ok_or("no replies")?;
    same("replies", &messages.len(), &expected.len())?;
    for (message, expected) in messages.iter().zip(expected) {
        match (&message.answer, expected.as_str()) {
            (Answer::Refusal(ours), Some(expected)) => same_refusal(ours, expected)?,
            (Answer::Bytes(ours), _) => same("reply", &Value::String(hex(ours)), expected)?,
            (Answer::None | Answer::Refusal(_), _) => same("reply", &Value::Null, expected)?,
        }
    }
    Ok(())
}

/// What the reference's protobuf library says about bytes that are no message.
fn is_decode_error(text: &str) -> bool {
    let prefix = "Cursor protocol error: Cursor protobuf Run decoding failed: ";
    text.strip_prefix(prefix).is_some_and(|cause| {
        matches!(cause, "premature EOF" | "invalid varint")
            || cause.starts_with("illegal tag: field no ")
            || cause.starts_with("cant skip wire type ")
            || cause.starts_with("invalid end group tag")
            || cause.starts_with("invalid wire type")
    })
}

fn check(case: &Value) -> Result<(), String> {
    let payload = unhex(text(case, "data")?)?;
    let mut conversation = Conversation::new();
    let mut codec = Codec {
        conversation: &mut conversation,
        tools: &ToolContext::default(),
        ids: &mut CountingIds::hex(),
    };
    match codec.messages(&payload) {
        Err(_) => same("a decode error", &case["error"].as_str().map(is_decode_error), &Some(true)),
        Ok(messages) => {
            let words = messages.iter().map(|message| message.words.clone()).collect();
            same("messages", &Value::Array(words), &case["messages"])?;
            same_answers(&messages, &case["replies"])
        }
    }
}

#[test]
fn server_messages() {
    Suite {
        file: "server-messages.json",
        cases: "",
        expected: &["messages", "replies", "error"],
        check,
    }
    .run();
}

/// `{"hex": …}` becomes the text itself.
fn plain_hex(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(plain_hex).collect(),
        Value::Object(map) if map.len() == 1 && map.contains_key("hex") => map["hex"].clone(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), plain_hex(value))).collect())
        }
        other => other.clone(),
    }
}

fn golden(case: &Value) -> Result<(), String> {
    let mut conversation = Conversation::new();
    let mut codec = Codec {
        conversation: &mut conversation,
        tools: &ToolContext::default(),
        ids: &mut CountingIds::decimal(),
    };
    let messages = codec.messages(&unhex(text(case, "hex")?)?).map_err(|e| e.to_string())?;
    let words: Value = messages.into_iter().map(|message| message.words).collect();
    same("messages", &words, &plain_hex(&case["messages"]))
}

#[test]
fn golden_server_frames() {
    Suite {
        file: "reference-golden.json",
        cases: "/server_frames",
        expected: &["messages"],
        check: golden,
    }
    .run();
}

fn conversation(case: &Value) -> Result<(), String> {
    let mut ids = CountingIds::hex();
    let mut conversations: HashMap<String, Conversation> = HashMap::new();
    let mut runs: HashMap<String, (String, ToolContext)> = HashMap::new();
    for (i, step) in case["steps"].as_array().ok_or("no steps")?.iter().enumerate() {
        let run = text(step, "requestId")?;
        let done = match text(step, "op")? {
            "run" => {
                let id = text(step, "conversationId")?;
                let context = context(&step["context"])?;
                let request = legacy(text(step, "modelId")?, Some(id), run, context);
                let conversation = conversations.entry(id.to_owned()).or_default();
                let encoded =
                    encode_run(&request, conversation, &mut ids).map_err(|e| e.to_string())?;
                runs.insert(run.to_owned(), (id.to_owned(), encoded.tools));
                same("request", &hex(&encoded.envelope[5..]), &text(step, "out")?.to_owned())
            }
            "frame" => {
                let (id, tools) = runs.get(run).ok_or("a frame of a run that is over")?;
                let conversation = conversations.get_mut(id).ok_or("no conversation")?;
                let mut codec = Codec { conversation, tools, ids: &mut ids };
                let messages =
                    codec.messages(&unhex(text(step, "data")?)?).map_err(|e| e.to_string())?;
                same_answers(&messages, &step["replies"])
            }
            // The run is over; what it committed stays.
            "dispose" => runs.remove(run).map(drop).ok_or_else(|| "no such run".to_owned()),
            "discard" => {
                let (id, _) = runs.remove(run).ok_or("no such run")?;
                conversations.get_mut(&id).ok_or("no conversation")?.discard();
                Ok(())
            }
            other => Err(format!("a step that this test does not know: {other}")),
        };
        done.map_err(|error| format!("step {i}: {error}"))?;
    }
    Ok(())
}

#[test]
fn conversations() {
    Suite {
        file: "conversations.json",
        cases: "",
        expected: &["steps/*/out", "steps/*/replies"],
        check: conversation,
    }
    .run();
}
