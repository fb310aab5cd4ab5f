//! What the client says after its request: every function gives complete envelopes.
//!
//! Fields stand in ascending order whatever the case of a oneof. Answers carry the ids of their
//! question exactly; ids that are 0 or empty are left out, as proto3 does (BEHAVIOUR 5).

mod refuse;

use bytes::Bytes;

pub use refuse::{QueryKind, Refusable, Refuse, refuse_exec, refuse_query};

use super::back::{Back, envelope};
use super::model::{Model, model_details, requested_model};
use super::tools::ToolContext;
use super::turn::{result_size, tool_result};
use crate::context::ToolResult;
use crate::error::Result;
use crate::proto::{conversation_action, exec_client_message, interaction_response};
use crate::wire::{Reader, put_len, put_str, put_uint, size_bytes, size_uint};

/// Room for the framing of a small answer.
const SMALL: usize = 64;
/// Blobs from this size on leave as header and content, without a copy.
const LARGE: usize = 16 * 1024;

/// `client_heartbeat`.
pub fn heartbeat() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 2, 0x3a, 0])
}

/// `conversation_action.cancel_action`.
pub fn cancel() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 4, 0x22, 2, 0x1a, 0])
}

/// The answer to `get_blob_args`: the blob, or nothing when we do not have it (FAULTS M81).
///
/// The parts are to be sent in order, one behind the other: a large blob is a part of its own, so
/// that it is not copied.
pub fn blob(id: u32, data: Option<&Bytes>) -> Vec<Bytes> {
    match data {
        Some(data) if data.len() >= LARGE => {
            // Lengths are those of the whole message: the content is written as if it were there.
            let mut out = Back::new(SMALL);
            let content = data.len();
            out.head(1, content);
            out.head(2, out.len() + content);
            out.uint_unless_zero(1, u64::from(id));
            out.head(3, out.len() + content);
            let len = u32::try_from(out.len() + content).unwrap_or(u32::MAX);
            out.raw(&len.to_be_bytes());
            out.raw(&[0]);
            vec![out.finish(), data.clone()]
        }
        _ => vec![kv(id, data.map_or(0, Bytes::len), |out| {
            let mark = out.len();
            if let Some(data) = data {
                out.bytes(1, data);
            }
            out.wrap(2, mark);
        })],
    }
}

/// The answer to `set_blob_args`: kept, or why it is not (FAULTS M78, M80).
pub fn blob_stored(id: u32, refused: Option<&str>) -> Bytes {
    kv(id, refused.map_or(0, str::len), |out| {
        let mark = out.len();
        if let Some(why) = refused {
            out.message(1, |out| out.text(1, why));
        }
        out.wrap(3, mark);
    })
}

fn kv(id: u32, size: usize, write: impl FnOnce(&mut Back<'_>)) -> Bytes {
    envelope(size + SMALL, |out| {
        write(out);
        out.uint_unless_zero(1, u64::from(id));
        out.wrap(3, 0);
    })
}

/// The answer to `request_context_args`, in one piece.
pub fn request_context(id: u32, exec_id: &str, tools: &ToolContext) -> Bytes {
    // Exactly as large as it gets: written once, in memory that nobody clears first.
    let mut out = Vec::new();
    before_context(&mut out, id, exec_id, tools.context().len(), tools.context().len());
    out.extend_from_slice(tools.context());
    behind_context(&mut out, exec_id);
    out.into()
}

/// The answer to `request_context_args` as it is best sent: in one piece, or in parts that share a
/// large context.
pub fn request_context_answer(id: u32, exec_id: &str, tools: &ToolContext) -> Vec<Bytes> {
    if tools.context().len() < LARGE {
        return vec![request_context(id, exec_id, tools)];
    }
    request_context_parts(id, exec_id, tools).into_iter().filter(|part| !part.is_empty()).collect()
}

/// The same answer in parts that are to be sent in order, one behind the other: the context itself
/// is shared and not copied, which pays when it is large and asked for again and again.
pub fn request_context_parts(id: u32, exec_id: &str, tools: &ToolContext) -> [Bytes; 3] {
    let mut around = Vec::new();
    before_context(&mut around, id, exec_id, tools.context().len(), 0);
    let head = around.len();
    behind_context(&mut around, exec_id);
    // Both share one small buffer.
    let mut head_and_tail = Bytes::from(around);
    let tail = head_and_tail.split_off(head);
    [head_and_tail, tools.context().clone(), tail]
}

/// Writes what stands before a context of `content` bytes in its envelope, and makes room for what
/// stands behind and for `room` bytes more.
fn before_context(out: &mut Vec<u8>, id: u32, exec_id: &str, content: usize, room: usize) {
    let success = size_bytes(1, content);
    let result = size_bytes(1, success);
    let own_id = if id == 0 { 0 } else { size_uint(1, u64::from(id)) };
    let behind = if exec_id.is_empty() { 0 } else { size_bytes(15, exec_id.len()) };
    let message = own_id + size_bytes(10, result) + behind;
    let envelope = size_bytes(2, message);
    out.reserve_exact(5 + envelope - content + room);
    out.push(0);
    out.extend_from_slice(&u32::try_from(envelope).unwrap_or(u32::MAX).to_be_bytes());
    put_len(out, 2, message);
    if id != 0 {
        put_uint(out, 1, u64::from(id));
    }
    put_len(out, 10, result);
    put_len(out, 1, success);
    put_len(out, 1, content);
}

fn behind_context(out: &mut Vec<u8>, exec_id: &str) {
    if !exec_id.is_empty() {
        put_str(out, 15, exec_id);
    }
}

/// The answer to `mcp_args`: text and images, or the text of an error. The id of the tool call is
/// not on the wire: the ids of the exec connect both (BEHAVIOUR 5).
///
/// # Errors
///
/// `InvalidRequest` when an image is not base64; an error result has none.
pub fn mcp_result(id: u32, exec_id: &str, result: &ToolResult) -> Result<Bytes> {
    let mut written = Ok(());
    let bytes = exec(id, exec_id, 11, result_size(result), |out| {
        let mark = out.len();
        written = tool_result(out, result);
        out.wrap(11, mark);
    });
    written.map(|()| bytes)
}

/// The result of an exec that a handler served.
pub fn exec_result(id: u32, exec_id: &str, result: &exec_client_message::Message) -> Bytes {
    let mut field = Vec::with_capacity(result.encoded_len());
    result.encode(&mut field);
    let number = Reader::new(&field).tag().map_or(0, |(number, _)| number);
    exec(id, exec_id, number, field.len(), |out| out.raw(&field))
}

/// Whether a result says something: an empty message has no case, and the service could not read
/// it. That of an allow list is a plain "no".
pub fn says_something(result: &exec_client_message::Message) -> bool {
    use exec_client_message::Message as R;
    match result {
        R::ShellAllowlistPrecheckResult(_)
        | R::McpAllowlistPrecheckResult(_)
        | R::WebFetchAllowlistPrecheckResult(_) => true,
        // A tag of one or two bytes and a length of 0.
        result => result.encoded_len() > 3,
    }
}

/// An `ExecClientMessage` with one result, which `write` writes with its tag.
fn exec(
    id: u32,
    exec_id: &str,
    result: u32,
    size: usize,
    write: impl FnOnce(&mut Back<'_>),
) -> Bytes {
    envelope(size + exec_id.len() + SMALL, |out| {
        if result > 15 {
            write(out);
            out.text_unless_empty(15, exec_id);
        } else {
            out.text_unless_empty(15, exec_id);
            write(out);
        }
        out.uint_unless_zero(1, u64::from(id));
        out.wrap(2, 0);
    })
}

/// `throw`: the exec cannot be answered; `stream_close` follows.
pub fn throw(id: u32, error: &str) -> Bytes {
    control(2, error.len(), |out| {
        out.text_unless_empty(2, error);
        out.uint_unless_zero(1, u64::from(id));
    })
}

/// `stream_close`: the exec is done. Exactly one for each exec.
pub fn stream_close(id: u32) -> Bytes {
    control(1, 0, |out| out.uint_unless_zero(1, u64::from(id)))
}

/// `heartbeat`: the exec is still being worked on.
pub fn exec_heartbeat(id: u32) -> Bytes {
    control(3, 0, |out| out.uint_unless_zero(1, u64::from(id)))
}

fn control(field: u32, size: usize, write: impl FnOnce(&mut Back<'_>)) -> Bytes {
    envelope(size + SMALL, |out| {
        write(out);
        out.wrap(field, 0);
        out.wrap(5, 0);
    })
}

/// The answer that a person gave to an interaction query.
pub fn query_result(id: u32, result: &interaction_response::Result) -> Bytes {
    let mut field = Vec::with_capacity(result.encoded_len());
    result.encode(&mut field);
    response(id, field.len(), |out| out.raw(&field))
}

/// The answer to a query that we do not know: its id and no result (PROTOCOL 3).
pub fn query_unknown(id: u32) -> Bytes {
    response(id, 0, |_| {})
}

fn response(id: u32, size: usize, write: impl FnOnce(&mut Back<'_>)) -> Bytes {
    envelope(size + SMALL, |out| {
        write(out);
        out.uint_unless_zero(1, u64::from(id));
        out.wrap(6, 0);
    })
}

/// An action sent into the running turn.
pub fn action(action: &conversation_action::Action) -> Bytes {
    let mut field = Vec::with_capacity(action.encoded_len());
    action.encode(&mut field);
    envelope(field.len() + SMALL, |out| {
        out.raw(&field);
        out.wrap(4, 0);
    })
}

/// `prewarm_request`: a run of this conversation with this model is likely to come soon.
pub fn prewarm(model: &Model, conversation_id: &str) -> Bytes {
    envelope(4 * model.id.len() + conversation_id.len() + SMALL, |out| {
        requested_model(out, 9, model);
        out.text_unless_empty(2, conversation_id);
        model_details(out, 1, model);
        out.wrap(8, 0);
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::context::{Image, Part};
    use crate::proto::{AgentClientMessage, agent_client_message as client};

    /// The message of one envelope, which is all there is.
    fn message(envelope: &[u8]) -> client::Message {
        let (header, payload) = envelope.split_at(5);
        assert_eq!(header, [&[0][..], &(payload.len() as u32).to_be_bytes()].concat());
        AgentClientMessage::decode(payload).unwrap().message.unwrap()
    }

    #[test]
    fn parts_are_the_whole() {
        for len in [0, 1, 200, LARGE, 70_000] {
            let data = Bytes::from(vec![7; len]);
            let parts = blob(9, Some(&data));
            assert_eq!(parts.len(), if len < LARGE { 1 } else { 2 });
            let client::Message::KvClientMessage(kv) = message(&parts.concat()) else { panic!() };
            assert_eq!(kv.id, 9);
            let expected = crate::proto::GetBlobResult { blob_data: Some(data) };
            let get = crate::proto::kv_client_message::Message::GetBlobResult(expected);
            assert_eq!(kv.message, Some(get));
        }
        let tool = crate::context::Tool {
            name: "t".into(),
            description: "d".repeat(300),
            parameters: serde_json::json!({}),
        };
        let tools = ToolContext::new(&[tool.into()], Some("rule"), &Default::default()).unwrap();
        for (id, exec_id) in [(0, ""), (7, "exec-1")] {
            let whole = request_context(id, exec_id, &tools);
            assert_eq!(request_context_parts(id, exec_id, &tools).concat(), whole);
            message(&whole);
        }
    }

    #[test]
    fn fields_ascend_on_both_sides_of_the_exec_id() {
        use crate::proto::exec_client_message::Message as Result;
        for (result, expected) in [
            (Result::ReadResult(Default::default()), &[0x08, 3, 0x3a, 0, 0x7a, 1, b'e'][..]),
            (Result::FetchResult(Default::default()), &[0x08, 3, 0x7a, 1, b'e', 0xa2, 1, 0]),
        ] {
            let bytes = exec_result(3, "e", &result);
            assert_eq!(&bytes[7..], expected);
            let client::Message::ExecClientMessage(exec) = message(&bytes) else { panic!() };
            assert_eq!(exec.message, Some(result));
        }
    }

    #[test]
    fn a_bad_image_is_an_error_and_not_in_an_error_result() {
        let image = Image { data: "nonsense!".into(), mime_type: "image/png".into() };
        let mut result = ToolResult::text("c", "t", "text");
        result.content.push(Part::Image(image));
        let error = mcp_result(1, "e", &result).unwrap_err().to_string();
        assert!(error.contains("MCP image at index 1 (image/png)"), "{error}");
        result.is_error = true;
        assert!(mcp_result(1, "e", &result).is_ok());
    }

    #[test]
    fn control_messages() {
        use crate::proto::exec_client_control_message::Message as Control;
        let control = |bytes: Bytes| match message(&bytes) {
            client::Message::ExecClientControlMessage(control) => control.message.unwrap(),
            other => panic!("{other:?}"),
        };
        assert!(matches!(control(stream_close(5)), Control::StreamClose(close) if close.id == 5));
        assert!(matches!(control(exec_heartbeat(5)), Control::Heartbeat(beat) if beat.id == 5));
        let Control::Throw(thrown) = control(throw(5, "why")) else { panic!() };
        assert_eq!((thrown.id, &thrown.error[..]), (5, "why"));
        let client::Message::InteractionResponse(response) = message(&query_unknown(8)) else {
            panic!()
        };
        assert_eq!((response.id, response.result), (8, None));
        assert!(matches!(message(&heartbeat()), client::Message::ClientHeartbeat(_)));
        let client::Message::KvClientMessage(stored) = message(&blob_stored(3, Some("full")))
        else {
            panic!()
        };
        let Some(crate::proto::kv_client_message::Message::SetBlobResult(stored)) = stored.message
        else {
            panic!()
        };
        assert_eq!(stored.error.unwrap().message, "full");
        let client::Message::PrewarmRequest(prewarm) = message(&prewarm(&"m".into(), "conv"))
        else {
            panic!()
        };
        assert_eq!(prewarm.model_details.unwrap().model_id, "m");
        assert_eq!(prewarm.conversation_id.as_deref(), Some("conv"));
    }
}
