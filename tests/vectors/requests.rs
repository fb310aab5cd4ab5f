//! `run-requests.json` and the runs of `reference-golden.json`: requests in legacy mode, byte for
//! byte, the blobs they name, and what a question for the request context is answered with.

use agentwire::codec::reply::request_context;
use agentwire::codec::{History, Model, Naming, RunRequest};
use agentwire::context::{Context, Message, Part, UserContent};
use agentwire::conversation::{Conversation, encode_run};
use agentwire::ids::{CountingIds, IdSource};
use agentwire::{Error, Result};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::framework::{Suite, hex, same, text, unhex};

/// A request of the reference.
pub fn legacy(
    model: &str,
    conversation: Option<&str>,
    request: &str,
    context: Context,
) -> RunRequest {
    RunRequest {
        conversation_id: conversation.map(ToOwned::to_owned),
        request_id: request.to_owned(),
        model: Model::new(model),
        context,
        history: History::Legacy,
        naming: Naming::reference(),
        ..RunRequest::default()
    }
}

pub fn context(case: &Value) -> std::result::Result<Context, String> {
    serde_json::from_value(case.clone()).map_err(|error| format!("context: {error}"))
}

/// The reference's words for the first image that is not base64, as our error names it.
fn reference_image_error(context: &Context, error: &Error) -> Option<String> {
    context.messages.iter().find_map(|message| {
        let (parts, kind) = match &**message {
            Message::User { content: UserContent::Parts(parts) } => (parts, "selected image"),
            Message::ToolResult(result) => (&result.content, "MCP image"),
            _ => return None,
        };
        let mut images = 0;
        parts.iter().enumerate().find_map(|(place, part)| {
            let Part::Image(image) = part else { return None };
            let index = if kind == "MCP image" { place } else { images };
            images += 1;
            let ours = format!("{kind} at index {index} ({})", image.mime_type);
            error.message().contains(&ours).then(|| {
                let mime = &image.mime_type;
                format!("Invalid {kind} base64 image data at index {index} for MIME type {mime}")
            })
        })
    })
}

/// Runs one request; gives the envelope's message, the blobs, and the answer to a question for the
/// request context.
fn run(
    request: &RunRequest,
    ids: &mut dyn IdSource,
    checkpoint: Option<Vec<u8>>,
    question: (u32, &str),
) -> Result<(String, Map<String, Value>, String)> {
    let mut conversation = Conversation::new();
    if let Some(checkpoint) = checkpoint {
        conversation.commit(Bytes::from(checkpoint))?;
    }
    let encoded = encode_run(request, &mut conversation, ids)?;
    let blobs = conversation.blobs().iter();
    let blobs = blobs.map(|(id, data)| (hex(id), Value::String(hex(data)))).collect();
    let reply = request_context(question.0, question.1, &encoded.tools);
    Ok((hex(&encoded.envelope[5..]), blobs, hex(&reply[5..])))
}

fn check(case: &Value) -> std::result::Result<(), String> {
    let input = &case["input"];
    let context = context(&input["context"])?;
    let conversation = input["conversationId"].as_str();
    let request = legacy(text(input, "modelId")?, conversation, "req-1", context);
    match run(&request, &mut CountingIds::hex(), None, (7, "exec-ctx")) {
        Err(error) => {
            let ours = reference_image_error(&request.context, &error);
            same("error", &ours.as_deref(), &case["error"].as_str())
        }
        Ok((bytes, blobs, reply)) => {
            let output = &case["output"];
            same("request", &Value::String(bytes), &output["request"])?;
            same("blobs", &Value::Object(blobs), &output["blobs"])?;
            same("reply", &Value::String(reply), &output["requestContextReply"])
        }
    }
}

#[test]
fn run_requests() {
    Suite { file: "run-requests.json", cases: "", expected: &["output", "error"], check }.run();
}

fn golden(case: &Value) -> std::result::Result<(), String> {
    let context = context(&case["context"])?;
    let id = text(case, "conversation_id")?;
    let request = legacy(text(case, "model_id")?, Some(id), "req-1", context);
    let checkpoint = case["checkpoint_hex"].as_str().map(unhex).transpose()?;
    let mut ids = CountingIds::decimal();
    let (bytes, blobs, reply) =
        run(&request, &mut ids, checkpoint, (31, "ctx")).map_err(|error| error.to_string())?;
    same("request", &Value::String(bytes), &case["request_hex"])?;
    if let Some(expected) = case["blobs"].as_array() {
        let expected: Map<String, Value> = expected
            .iter()
            .map(|blob| Ok((text(blob, "id")?.to_owned(), blob["data_hex"].clone())))
            .collect::<std::result::Result<_, String>>()?;
        same("blobs", &blobs, &expected)?;
    }
    if let Some(expected) = case.get("request_context_reply_hex") {
        same("reply", &Value::String(reply), expected)?;
    }
    // The next id says how many were drawn.
    let drawn = ids.next_id().to_string();
    let count = case["uuid_count"].as_u64().ok_or("no uuid_count")?;
    same("ids drawn", &drawn[24..].to_owned(), &format!("{:012}", count + 1))
}

#[test]
fn golden_runs() {
    let expected = &["request_hex", "blobs", "request_context_reply_hex", "uuid_count"];
    Suite { file: "reference-golden.json", cases: "/runs", expected, check: golden }.run();
}
