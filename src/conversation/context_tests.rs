//! The request context and the tools, as a request and the answer to its question carry them.

use std::sync::Arc;

use prost::Message as _;
use serde_json::{Value, json};

use super::*;
use crate::codec::{History, Model, Schemas, reply};
use crate::context::{Context, Environment, Message, Rule};
use crate::error::Kind;
use crate::ids::CountingIds;
use crate::proto::{
    self, AgentClientMessage, AgentRunRequest, agent_client_message, conversation_action,
    exec_client_message, request_context_result,
};

fn tool(name: &str, schema: Value) -> Tool {
    Tool { name: name.into(), description: String::new(), parameters: schema }
}

fn request(context: Context) -> RunRequest {
    RunRequest {
        request_id: "req".into(),
        model: Model::new("m"),
        context,
        ..RunRequest::default()
    }
}

fn encode(request: &RunRequest) -> Result<EncodedRun> {
    encode_run(request, &mut Conversation::with_id("conv"), &mut CountingIds::hex())
}

fn about() -> RequestContext {
    RequestContext {
        rules: vec![Rule::always("Answer in French.")],
        environment: Environment { time_zone: "Europe/Paris".into(), ..Environment::default() },
        user_intent: Some("learn".into()),
        ..RequestContext::default()
    }
}

fn message(envelope: &[u8]) -> agent_client_message::Message {
    AgentClientMessage::decode(&envelope[5..]).unwrap().message.unwrap()
}

fn run(encoded: &EncodedRun) -> AgentRunRequest {
    match message(&encoded.envelope) {
        agent_client_message::Message::RunRequest(run) => *run,
        other => panic!("{other:?}"),
    }
}

/// What the service gets when it asks for the context.
fn asked(encoded: &EncodedRun) -> proto::RequestContext {
    let answer = reply::request_context(1, "e", &encoded.tools);
    let agent_client_message::Message::ExecClientMessage(exec) = message(&answer) else { panic!() };
    let Some(exec_client_message::Message::RequestContextResult(result)) = exec.message else {
        panic!()
    };
    match result.result.unwrap() {
        request_context_result::Result::Success(success) => success.request_context.unwrap(),
        other => panic!("{other:?}"),
    }
}

fn carried(encoded: &EncodedRun) -> Option<proto::RequestContext> {
    match run(encoded).action.unwrap().action.unwrap() {
        conversation_action::Action::UserMessageAction(action) => action.request_context,
        conversation_action::Action::ResumeAction(action) => action.request_context,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_context_is_answered_and_carried_with_the_same_bytes() {
    let context = Context::prompt("hello").system("Be brief.").about(about());
    let mut request = request(context.tool(tool("ls", json!({"type": "object"}))));
    let plain = encode(&request).unwrap();
    let context = asked(&plain);
    let rules: Vec<_> = context.rules.iter().map(|rule| &rule.content[..]).collect();
    assert_eq!(rules, ["Be brief.", "Answer in French."]);
    assert_eq!(context.env.as_ref().unwrap().time_zone, "Europe/Paris");
    assert_eq!(context.user_intent_summary.as_deref(), Some("learn"));
    assert_eq!(context.tools, run(&plain).mcp_tools.unwrap().mcp_tools);
    assert_eq!(carried(&plain), None);

    request.carry_context = true;
    assert_eq!(carried(&encode(&request).unwrap()), Some(context.clone()));
    request.context.push(Message::assistant("bonjour"));
    let resumed = encode(&request).unwrap();
    assert_eq!(resumed.sent, Sent::Resume);
    assert_eq!(carried(&resumed), Some(context));
    // Canonical: prost writes the same bytes, so order and defaults are right.
    let whole = AgentClientMessage::decode(&resumed.envelope[5..]).unwrap();
    assert_eq!(whole.encode_to_vec(), resumed.envelope[5..]);
}

#[test]
fn nothing_of_this_machine_leaves_it_by_default() {
    let mut encoded = encode(&request(Context::prompt("hello").system("Be brief."))).unwrap();
    for _ in 0..2 {
        let context = asked(&encoded);
        let rules = context.rules.clone();
        assert_eq!(context, proto::RequestContext { rules, ..proto::RequestContext::default() });
        let legacy = RunRequest { history: History::Legacy, ..request(Context::prompt("hello")) };
        encoded = encode(&legacy).unwrap();
    }
}

#[test]
fn what_has_not_changed_is_encoded_once() {
    let mut conversation = Conversation::with_id("conv");
    let mut encode = |request: &RunRequest| {
        let encoded = encode_run(request, &mut conversation, &mut CountingIds::hex()).unwrap();
        encoded.tools.context().as_ptr()
    };
    let mut request = request(Context::prompt("hello").about(about()));
    let first = encode(&request);
    // The same by content is the same.
    request.context.about = Arc::new(about());
    assert_eq!(encode(&request), first);
    Arc::make_mut(&mut request.context.about).user_intent = None;
    let second = encode(&request);
    assert_ne!(second, first);
    request.tool_rules.tools = None;
    assert_ne!(encode(&request), second, "rules may refuse what was taken before");
}

#[test]
fn tools_beyond_the_limits_are_refused_with_the_largest() {
    let many = |count: usize, size: usize| {
        let tools = (0..count).map(|n| {
            let text = "x".repeat(if n == 7 { size * 2 } else { size });
            Arc::new(tool(&format!("t{n}"), json!({"description": text})))
        });
        Context { tools: tools.collect(), ..Context::prompt("hello") }
    };
    let mut request = request(many(330, 100));
    assert!(encode(&request).is_ok());
    for (context, words) in [(many(331, 10), "331 tools"), (many(60, 2_000), "123080 bytes")] {
        request.context = context;
        let error = encode(&request).unwrap_err();
        assert_eq!(error.kind(), &Kind::LimitExceeded);
        assert!(error.message().contains(words), "{error}");
        assert!(error.message().contains("largest in bytes: \"t7\" ("), "{error}");
        // Off is unlimited, in either history mode.
        for history in [History::Full, History::Legacy] {
            let mut request = RunRequest { history, ..request.clone() };
            assert!(encode(&request).is_err());
            request.tool_rules.tools = None;
            request.tool_rules.schema_bytes = None;
            assert!(encode(&request).is_ok());
        }
    }
}

#[test]
fn schemas_are_rewritten_or_refused_by_name_and_place() {
    let optional = json!({"type": "object", "properties": {
        "path": {"anyOf": [{"type": "string"}, {"type": "null"}]}}});
    let schema_of = |encoded: &EncodedRun| {
        crate::codec::value::to_json(&asked(encoded).tools[0].input_schema).unwrap()
    };
    let mut good = request(Context::prompt("x").tool(tool("ls", optional.clone())));
    let rewritten = json!({"type": "object", "properties": {"path": {"type": ["string", "null"]}}});
    assert_eq!(schema_of(&encode(&good).unwrap()), rewritten);
    good.history = History::Legacy;
    assert_eq!(schema_of(&encode(&good).unwrap()), optional);
    good.history = History::Full;
    good.tool_rules.schemas = Schemas::AsTheyAre;
    assert_eq!(schema_of(&encode(&good).unwrap()), optional);

    let endless = json!({"properties": {"next": {"$ref": "#"}}});
    let bad = request(Context::prompt("x").tool(tool("list", endless)));
    let error = encode(&bad).unwrap_err();
    assert_eq!(error.kind(), &Kind::InvalidRequest);
    assert!(
        error.message().contains("the tool \"list\" cannot be rewritten at #/properties/next/$ref"),
        "{error}"
    );
}

#[test]
fn every_tool_needs_a_name_of_its_own() {
    let two = Context::prompt("x").tool(tool("a", json!({}))).tool(tool("a", json!({})));
    let error = encode(&request(two)).unwrap_err();
    assert!(error.message().contains("two tools have the name \"a\""), "{error}");
    let none = Context::prompt("x").tool(tool("", json!({})));
    assert!(encode(&request(none)).unwrap_err().message().contains("no name"));
}
