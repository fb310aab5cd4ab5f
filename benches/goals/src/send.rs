//! Goals 15 to 19: what is sent, and checkpoints.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use agentwire::codec::hot::{self, Incoming};
use agentwire::codec::image::{self, Place};
use agentwire::codec::{RunRequest, ToolRules, reply, value};
use agentwire::connect::put_envelope;
use agentwire::context::{AssistantPart, Context, Image, Message, Part, Tool, UserContent};
use agentwire::conversation::{Conversation, encode_run};
use agentwire::ids::CountingIds;
use agentwire::wire::{put_bytes, put_nested, put_str, put_uint};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::data;
use crate::heap;
use crate::race::{Race, Results, least};
use crate::rivals::full;
use crate::table::Table;

pub fn judge(table: &mut Table) {
    tools(table);
    request(table);
    images(table);
    checkpoint(table);
}

/// What each case took and allocated: a ratio alone hides that its rival has changed.
fn shown(results: Results, cases: &[&str]) -> Results {
    for case in cases {
        let took = results.get(case);
        let us = took.time.as_secs_f64() * 1e6;
        let heap::Count { calls, bytes, .. } = took.heap;
        eprintln!("     {case}: {us:.2} us, {calls} allocations of {} kB", bytes / 1_000);
    }
    results
}

/// 200 tools whose definitions take about 395 KB.
fn tool_list() -> Vec<Arc<Tool>> {
    let property = |n: usize| {
        let about = data::ascii(90, n);
        json!({ "type": "string", "description": about, "minLength": n, "examples": [about] })
    };
    let tool = |n: usize| {
        let properties: serde_json::Map<_, _> =
            (0..7).map(|p| (format!("property_{p}"), property(n + p))).collect();
        let parameters =
            json!({ "type": "object", "properties": properties, "required": ["property_0"] });
        Arc::new(Tool { name: format!("tool_{n}"), description: data::ascii(120, n), parameters })
    };
    (0..200).map(tool).collect()
}

/// The answer to a question for the request context, the way of a client on prost.
fn prost_context(
    tools: &[Arc<Tool>],
    schema: impl Fn(usize, &Tool) -> Vec<u8>,
) -> full::AgentClientMessage {
    let definition = |(at, tool): (usize, &Arc<Tool>)| full::McpToolDefinition {
        name: tool.name.clone(),
        description: tool.description.clone(),
        input_schema: schema(at, tool),
        provider_identifier: "agentwire".to_owned(),
        tool_name: tool.name.clone(),
        ..Default::default()
    };
    let tools = tools.iter().enumerate().map(definition).collect();
    let context = full::RequestContext { tools, ..Default::default() };
    let success =
        full::RequestContextSuccess { request_context: Some(context), ..Default::default() };
    let result = full::RequestContextResult {
        result: Some(full::request_context_result::Result::Success(success)),
    };
    let exec = full::ExecClientMessage {
        id: 7,
        exec_id: "exec-7".to_owned(),
        message: Some(full::exec_client_message::Message::RequestContextResult(result)),
        ..Default::default()
    };
    full::AgentClientMessage {
        message: Some(full::agent_client_message::Message::ExecClientMessage(exec)),
    }
}

/// The same definitions once more, as the run request has them: ours writes both.
fn prost_tools(context: &full::AgentClientMessage) -> Vec<u8> {
    use self::full::agent_client_message::Message as Client;
    use self::full::exec_client_message::Message as Exec;
    use self::full::request_context_result::Result as Answer;
    let Some(Client::ExecClientMessage(exec)) = &context.message else { return Vec::new() };
    let Some(Exec::RequestContextResult(result)) = &exec.message else { return Vec::new() };
    let Some(Answer::Success(success)) = &result.result else { return Vec::new() };
    let tools = success.request_context.as_ref().map(|context| context.tools.clone());
    full::McpTools { mcp_tools: tools.unwrap_or_default() }.encode_to_vec()
}

fn framed(message: &full::AgentClientMessage) -> u64 {
    let payload = message.encode_to_vec();
    let mut out = Vec::with_capacity(payload.len() + 5);
    put_envelope(&mut out, 0, &payload);
    black_box(&out).len() as u64
}

fn schema_bytes(tool: &Tool) -> Vec<u8> {
    let mut out = Vec::new();
    value::from_json(&tool.parameters, &mut out).expect("the schema is not deep");
    out
}

fn tools(table: &mut Table) {
    let tools = tool_list();
    // More than the service takes; the caller says so. The definitions are encoded for the request,
    // too, as every run does.
    let rules = ToolRules { schema_bytes: None, ..ToolRules::default() };
    let context = Context { tools: tools.clone(), ..Context::prompt("go") };
    let request = RunRequest { tool_rules: rules, ..run(context) };
    let encode = || {
        let mut conversation = Conversation::with_id("c");
        let encoded = encode_run(&request, &mut conversation, &mut CountingIds::hex());
        encoded.expect("the tools can be sent").tools
    };
    let encoded = encode();
    let schemas: Vec<_> = tools.iter().map(|tool| schema_bytes(tool)).collect();
    let prebuilt = prost_context(&tools, |at, _| schemas[at].clone());
    let frame = reply::request_context(7, "exec-7", &encoded);
    let results = Race::new(60)
        .case("ours", || reply::request_context(7, "exec-7", &encoded).len() as u64)
        .case("ours, parts", || {
            let parts = reply::request_context_parts(7, "exec-7", &encoded);
            black_box(&parts).iter().map(|part| part.len() as u64).sum()
        })
        // As a run sends it.
        .case("ours, from JSON", || {
            let parts = reply::request_context_answer(7, "exec-7", &encode());
            black_box(&parts).iter().map(|part| part.len() as u64).sum()
        })
        .case("memcpy", || black_box(Bytes::copy_from_slice(black_box(&frame))).len() as u64)
        .case("build, encode, copy", || framed(&prost_context(&tools, |at, _| schemas[at].clone())))
        // No frame around it: the goal was measured against `encode_to_vec` alone. The five bytes
        // make the lengths comparable.
        .case("prebuilt", || black_box(prebuilt.encode_to_vec()).len() as u64 + 5)
        .case("from JSON", || {
            let context = prost_context(&tools, |_, tool| prost_value(&tool.parameters));
            black_box(prost_tools(&context));
            framed(&context)
        })
        .run();
    let ours = ["ours", "ours, parts", "ours, from JSON"];
    let results = shown(results, &ours);
    let results = shown(results, &["build, encode, copy", "prebuilt", "from JSON", "memcpy"]);
    let size = frame.len() / 1_000;
    let what = |rest: &str| format!("200 tools, {size} kB, {rest}");
    let build = results.times_faster("ours", "build, encode, copy");
    table.at_least("15", what("against prost build, encode, copy"), 30.0, build);
    let prebuilt = results.times_faster("ours", "prebuilt");
    table.at_least("15", what("against prost encode of a prebuilt message"), 1.8, prebuilt);
    let from_json = results.times_faster("ours, from JSON", "from JSON");
    let both = what("from JSON schemas, for the request and for the answer, against prost");
    table.at_least("15", both, 8.0, from_json);
    let again = results.times_faster("ours, parts", "build, encode, copy");
    table.at_least("15", what("second use in a session, shared"), 1_000.0, again);
    let calls = results.get("ours").heap.calls as f64;
    table.at_most("15", what("allocations"), 1.0, calls, "");
    let floor = results.times_faster("memcpy", "ours");
    table.told("15", what("in one piece, time of a copy of the finished frame"), "x", floor);
}

/// `google.protobuf.Value` by prost.
fn prost_value(value: &serde_json::Value) -> Vec<u8> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Value {
        #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
        kind: Option<Kind>,
    }
    #[derive(Clone, PartialEq, prost::Oneof)]
    enum Kind {
        #[prost(int32, tag = "1")]
        Null(i32),
        #[prost(double, tag = "2")]
        Number(f64),
        #[prost(string, tag = "3")]
        String(String),
        #[prost(bool, tag = "4")]
        Bool(bool),
        #[prost(message, tag = "5")]
        Struct(Struct),
        #[prost(message, tag = "6")]
        List(List),
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Struct {
        #[prost(btree_map = "string, message", tag = "1")]
        fields: std::collections::BTreeMap<String, Value>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct List {
        #[prost(message, repeated, tag = "1")]
        values: Vec<Value>,
    }
    fn tree(value: &serde_json::Value) -> Value {
        let kind = match value {
            serde_json::Value::Null => Kind::Null(0),
            serde_json::Value::Bool(value) => Kind::Bool(*value),
            serde_json::Value::Number(value) => Kind::Number(value.as_f64().unwrap_or_default()),
            serde_json::Value::String(value) => Kind::String(value.clone()),
            serde_json::Value::Array(items) => {
                Kind::List(List { values: items.iter().map(tree).collect() })
            }
            serde_json::Value::Object(map) => Kind::Struct(Struct {
                fields: map.iter().map(|(key, value)| (key.clone(), tree(value))).collect(),
            }),
        };
        Value { kind: Some(kind) }
    }
    tree(value).encode_to_vec()
}

/// 200 turns of 5.4 KB: 1.09 MB of history.
fn history() -> Context {
    let mut context = Context::prompt("go").system("You are a helpful assistant.");
    let asked = context.messages.pop();
    for turn in 0..200 {
        context.push(Message::user(format!("{turn} {}", data::ascii(1_100, turn))));
        context.push(Message::assistant(format!("{turn} {}", data::ascii(4_350, turn))));
    }
    context.messages.extend(asked);
    context
}

fn run(context: Context) -> RunRequest {
    RunRequest {
        request_id: "00000000-0000-4000-8000-000000000001".to_owned(),
        model: "composer-2".into(),
        context,
        ..RunRequest::default()
    }
}

pub fn encode(request: &RunRequest, conversation: &mut Conversation) -> u64 {
    let encoded =
        encode_run(request, conversation, &mut CountingIds::hex()).expect("it can be sent");
    black_box(&encoded.envelope);
    1
}

/// Texts of the history with their roles.
fn texts(context: &Context) -> Vec<(&'static str, String)> {
    let text = |message: &Message| match message {
        Message::User { content: UserContent::Text(text) } => Some(("user", text.clone())),
        Message::Assistant { content } => match &content[..] {
            [AssistantPart::Text { text }] => Some(("assistant", text.clone())),
            _ => None,
        },
        _ => None,
    };
    context.messages.iter().filter_map(|message| text(message)).collect()
}

/// A blob as the reference keeps it: under its hexadecimal hash.
fn kept(blobs: &mut HashMap<String, Vec<u8>>, blob: Vec<u8>) -> Vec<u8> {
    let id = Sha256::digest(&blob).to_vec();
    let key: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    blobs.insert(key, blob);
    id
}

/// The reference's algorithm: JSON trees, hexadecimal keys, owned messages, a copy into the frame.
/// With `turns` it makes every blob that ours makes, without them the prompt list alone.
fn reference_request(history: &[(&'static str, String)], turns: bool) -> u64 {
    let mut blobs = HashMap::new();
    let mut state = full::ConversationStateStructure::default();
    for (role, text) in history {
        let content = json!([{ "type": "text", "text": text }]);
        let blob = json!({ "role": role, "content": content }).to_string().into_bytes();
        state.root_prompt_messages_json.push(kept(&mut blobs, blob));
    }
    if turns {
        reference_turns(history, &mut state, &mut blobs);
    }
    let run = full::AgentRunRequest { conversation_state: Some(state), ..Default::default() };
    let message = full::agent_client_message::Message::RunRequest(run);
    framed(&full::AgentClientMessage { message: Some(message) });
    black_box(&blobs);
    1
}

/// The display turns: a blob for the user message, one for the step that answers it, one for the
/// turn that names both.
fn reference_turns(
    history: &[(&'static str, String)],
    state: &mut full::ConversationStateStructure,
    blobs: &mut HashMap<String, Vec<u8>>,
) {
    let selected = full::ConversationStateStructure {
        client_name: "agentwire".to_owned(),
        ..Default::default()
    };
    let selected = kept(blobs, selected.encode_to_vec());
    for (at, pair) in history.chunks_exact(2).enumerate() {
        let [(_, asked), (_, answered)] = pair else { continue };
        let id = format!("00000000-0000-4000-8000-{at:012x}");
        let user = full::UserMessage {
            text: asked.clone(),
            message_id: id.clone(),
            selected_context_blob: selected.clone(),
            correlation_id: id.clone(),
            mode: 1,
            ..Default::default()
        };
        let user = kept(blobs, user.encode_to_vec());
        let text = full::AssistantMessage { text: answered.clone(), ..Default::default() };
        let step = full::ConversationStep {
            message: Some(full::conversation_step::Message::AssistantMessage(text)),
        };
        let step = kept(blobs, step.encode_to_vec());
        let turn = full::AgentConversationTurnStructure {
            user_message: user,
            steps: vec![step],
            request_id: Some(id),
            ..Default::default()
        };
        let turn = full::ConversationTurnStructure {
            turn: Some(full::conversation_turn_structure::Turn::AgentConversationTurn(turn)),
        };
        state.turns.push(kept(blobs, turn.encode_to_vec()));
    }
}

/// A request for one more turn, and the conversation as the one before left it.
pub fn next_turn() -> (RunRequest, Conversation) {
    let mut next = run(history());
    let mut known = Conversation::with_id("c");
    encode(&next, &mut known);
    next.context.push(Message::assistant("done"));
    next.context.push(Message::user("and now?"));
    (next, known)
}

fn request(table: &mut Table) {
    let first = run(history());
    let spoken = texts(&first.context);
    let (next, known) = next_turn();
    // The floor: SHA-256 of as many bytes in as many blobs as the request makes.
    let blobs = known.blobs().len();
    let blob = vec![0x5a_u8; known.blobs().bytes() / blobs];
    let results = Race::new(40)
        .case("first", || encode(&first, &mut Conversation::with_id("c")))
        .case("reference", || reference_request(&spoken, true))
        .case("reference, half", || reference_request(&spoken, false))
        .case("sha256", || {
            black_box((0..blobs).fold(0, |sum, _| sum ^ Sha256::digest(black_box(&blob))[0]));
            1
        })
        .run();
    let results = shown(results, &["first", "reference", "reference, half", "sha256"]);
    // The goal was measured against a reference that made the same blobs; with the prompt list,
    // which it did not make, that is twice as many.
    let what = "run request, 1 MB of history, against the reference's way";
    table.at_least("16", what, 2.3, results.times_faster("first", "reference"));
    let half = results.times_faster("first", "reference, half");
    table.told("16", "the same, against the reference's way with half the blobs", "x", half);
    let floor = results.get("first").time.as_secs_f64() / results.get("sha256").time.as_secs_f64();
    table.at_most("16", "the same, time of SHA-256 over the blobs it makes", 1.10, floor, "x");
    // Each round needs the conversation as it was before the turn; the copy is not the work, and
    // neither is dropping it: it goes on.
    let mut after = Vec::with_capacity(60);
    let took = least(
        60,
        || known.clone(),
        |mut conversation| {
            let encoded = encode(&next, &mut conversation);
            after.push(conversation);
            encoded
        },
    );
    eprintln!("     next turn: {:.2} us", took.as_secs_f64() * 1e6);
    let times = |rival: &str| results.get(rival).time.as_secs_f64() / took.as_secs_f64();
    table.at_least("16", "next turn against the reference's way", 200.0, times("reference"));
    let what = "next turn against the reference's way with half the blobs";
    table.told("16", what, "x", times("reference, half"));
}

fn mime(text: &str) -> String {
    let lines: Vec<_> =
        text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap_or("")).collect();
    lines.join("\r\n")
}

/// The usual way: drop separators, then decode.
fn classic(text: &str) -> Vec<u8> {
    let blank = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\x0c' | b'\r' | b' ');
    let stripped: Vec<u8> = text.bytes().filter(|byte| !blank(byte)).collect();
    STANDARD.decode(stripped).expect("it is base64")
}

fn images(table: &mut Table) {
    for megabytes in [1, 10] {
        let pixels: Vec<u8> = (0..megabytes * 1_000_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let flat = STANDARD.encode(&pixels);
        let lines = mime(&flat);
        for (form, text, wanted, floor) in [("flat", &flat, 9.0, 1.25), ("MIME", &lines, 7.0, 1.4)]
        {
            decode_image(table, megabytes, form, text, wanted);
            image_request(table, megabytes, form, text, &pixels, floor);
        }
    }
}

fn decode_image(table: &mut Table, megabytes: u32, form: &str, text: &str, wanted: f64) {
    let place = Place::Selected { index: 0, mime_type: "image/png" };
    let results = Race::new(if megabytes == 1 { 60 } else { 12 })
        .case("ours", || black_box(image::decode(text, place).expect("it is base64")).len() as u64)
        .case("classic", || black_box(classic(text)).len() as u64)
        .run();
    let results = shown(results, &["ours", "classic"]);
    let what = format!("base64, {megabytes} MB, {form}, against base64 0.22 and a filter");
    table.at_least("17", what, wanted, results.times_faster("ours", "classic"));
    let calls = results.get("ours").heap.calls as f64;
    table.at_most("17", format!("base64, {megabytes} MB, {form}, allocations"), 1.0, calls, "");
}

fn image_request(
    table: &mut Table,
    megabytes: u32,
    form: &str,
    text: &str,
    pixels: &[u8],
    floor: f64,
) {
    let image = Image { data: text.to_owned(), mime_type: "image/png".to_owned() };
    let parts = vec![Part::Text { text: "what is this?".to_owned() }, Part::Image(image)];
    let mut context = Context::default();
    context.push(Message::User { content: UserContent::Parts(parts) });
    let request = run(context);
    let results = Race::new(if megabytes == 1 { 60 } else { 12 })
        .case("ours", || encode(&request, &mut Conversation::with_id("c")))
        .case("classic", || {
            let data = classic(text);
            let hash = Sha256::digest(&data);
            let image = full::SelectedImage {
                path: hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
                data_or_blob_id: Some(full::selected_image::DataOrBlobId::Data(data)),
                ..Default::default()
            };
            let selected =
                full::SelectedContext { selected_images: vec![image], ..Default::default() };
            let user = full::UserMessage { selected_context: Some(selected), ..Default::default() };
            let action = full::UserMessageAction { user_message: Some(user), ..Default::default() };
            let action = full::conversation_action::Action::UserMessageAction(action);
            let run = full::AgentRunRequest {
                action: Some(full::ConversationAction { action: Some(action) }),
                ..Default::default()
            };
            let message = full::agent_client_message::Message::RunRequest(run);
            // Encoded, copied into its frame, and the frame once more into the transport's buffer.
            let payload = full::AgentClientMessage { message: Some(message) }.encode_to_vec();
            let mut frame = Vec::with_capacity(payload.len() + 5);
            put_envelope(&mut frame, 0, &payload);
            black_box(Bytes::copy_from_slice(&frame));
            1
        })
        .case("sha256", || {
            black_box(Sha256::digest(pixels));
            1
        })
        .run();
    let results = shown(results, &["ours", "classic", "sha256"]);
    let what = format!("image request, {megabytes} MB, {form}");
    let took = results.get("ours");
    let ratio = took.time.as_secs_f64() / results.get("sha256").time.as_secs_f64();
    table.at_most("18", format!("{what}, time of SHA-256 alone"), floor, ratio, "x");
    let classic = results.times_faster("ours", "classic");
    table.at_least("18", format!("{what}, against the classic way"), 4.5, classic);
    let peak = took.heap.peak as f64 / pixels.len() as f64;
    table.at_most("18", format!("{what}, peak memory of the image"), 1.05, peak, "x");
}

fn checkpoint(table: &mut Table) {
    for turns in [20, 200, 2_000] {
        let mut payload = Vec::new();
        put_nested(&mut payload, 3, |out| {
            put_bytes(out, 1, &[7; 32]);
            put_nested(out, 5, |out| {
                put_uint(out, 1, 12_345);
                put_uint(out, 2, 200_000);
            });
            (0..turns).for_each(|turn| put_bytes(out, 8, &[turn as u8; 32]));
            put_str(out, 9, "file:///srv/project");
        });
        let results = Race::new(100)
            .case("ours", || match hot::decode(black_box(&payload)) {
                Ok(Incoming::Checkpoint(checkpoint)) => {
                    black_box(&checkpoint.raw);
                    u64::from(checkpoint.used_tokens.unwrap_or_default())
                }
                _ => 0,
            })
            .case("prost", || {
                let message =
                    full::AgentServerMessage::decode(black_box(&payload[..])).expect("it decodes");
                let Some(full::agent_server_message::Message::ConversationCheckpointUpdate(state)) =
                    message.message
                else {
                    return 0;
                };
                black_box(state.encode_to_vec());
                u64::from(state.token_details.unwrap_or_default().used_tokens)
            })
            .run();
        let what = format!("checkpoint of {turns} turns against prost decode and encode");
        table.at_least("19", what, 15.0, results.times_faster("ours", "prost"));
    }
}
