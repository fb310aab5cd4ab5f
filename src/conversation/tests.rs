//! What a conversation sends in full mode, and what it keeps.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};

use super::*;
use crate::codec::{Action, History, Model, PromptRoutes, RunRequest, reply};
use crate::context::{Context, Message, ToolResult};
use crate::error::Kind;
use crate::ids::CountingIds;
use crate::proto::{
    AgentClientMessage, AgentRunRequest, ConversationStateStructure, ConversationStep,
    ConversationTurnStructure, UserMessage, agent_client_message, conversation_action,
    conversation_step, conversation_turn_structure,
};

fn context(messages: impl Into<Value>) -> Context {
    let messages = messages.into();
    serde_json::from_value(json!({"systemPrompt": "be terse", "messages": messages})).unwrap()
}

fn request(context: Context) -> RunRequest {
    RunRequest {
        conversation_id: Some("conv".into()),
        request_id: "req".into(),
        model: Model::new("m"),
        context,
        ..RunRequest::default()
    }
}

fn encode(request: &RunRequest, conversation: &mut Conversation) -> EncodedRun {
    encode_run(request, conversation, &mut CountingIds::hex()).unwrap()
}

/// The run request, as prost reads it; encoding it again must give the same bytes, so that order
/// and defaults are right. (No oneof straddles other fields in it but images'.)
fn decoded(encoded: &EncodedRun) -> AgentRunRequest {
    let (header, payload) = encoded.envelope.split_at(5);
    assert_eq!(header, [&[0][..], &(payload.len() as u32).to_be_bytes()].concat());
    let message = AgentClientMessage::decode(payload).unwrap();
    match message.message.unwrap() {
        agent_client_message::Message::RunRequest(run) => *run,
        other => panic!("{other:?}"),
    }
}

fn state(encoded: &EncodedRun) -> ConversationStateStructure {
    decoded(encoded).conversation_state.unwrap()
}

/// The prompt list as JSON.
fn prompt(encoded: &EncodedRun, conversation: &Conversation) -> Vec<Value> {
    let blob = |id: &Bytes| serde_json::from_slice(conversation.blobs().get(id).unwrap()).unwrap();
    state(encoded).root_prompt_messages_json.iter().map(blob).collect()
}

fn user_message(run: &AgentRunRequest) -> Option<UserMessage> {
    match run.action.clone().unwrap().action.unwrap() {
        conversation_action::Action::UserMessageAction(action) => action.user_message,
        conversation_action::Action::ResumeAction(_) => None,
        other => panic!("{other:?}"),
    }
}

fn history() -> Value {
    json!([
        {"role": "user", "content": "list"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "ok"},
            {"type": "toolCall", "id": "a|1", "name": "ls", "arguments": {"path": "."}}]},
        {"role": "toolResult", "toolCallId": "a|1", "toolName": "ls",
         "content": [{"type": "text", "text": "a.rs"}], "isError": false},
        {"role": "assistant", "content": [{"type": "text", "text": "a.rs it is"}]},
        {"role": "user", "content": [{"type": "text", "text": "and this?"},
            {"type": "image", "data": "aG\nk=", "mimeType": "image/png"}]},
    ])
}

#[test]
fn the_whole_history_is_in_the_prompt_list_and_in_turns() {
    let mut conversation = Conversation::new();
    let encoded = encode(&request(context(history())), &mut conversation);
    let list = prompt(&encoded, &conversation);
    let wire = list[2]["content"][2]["toolCallId"].as_str().unwrap().to_owned();
    assert!(wire.starts_with("a_1_") && !wire.contains('|'));
    assert_eq!(
        Value::Array(list),
        json!([
            {"role": "system", "content": "be terse"},
            {"role": "user", "content": [{"type": "text", "text": "list"}]},
            {"role": "assistant", "content": [
                {"type": "reasoning", "text": "hm"}, {"type": "text", "text": "ok"},
                {"type": "tool-call", "toolCallId": wire, "toolName": "ls", "args": {"path": "."}}]},
            {"role": "tool", "content": [{"type": "tool-result", "toolCallId": wire,
                "toolName": "ls", "result": "a.rs", "isError": false}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a.rs it is"}]},
        ])
    );
    assert_eq!(conversation.calls().to_host(&wire), "a|1");

    let state = state(&encoded);
    assert_eq!((state.mode, &state.client_name[..]), (Some(1), "agentwire"));
    let [turn] = &state.turns[..] else { panic!() };
    let blob = |id: &Bytes| conversation.blobs().get(id).unwrap().clone();
    let turn = ConversationTurnStructure::decode(blob(turn)).unwrap().turn.unwrap();
    let conversation_turn_structure::Turn::AgentConversationTurn(turn) = turn else { panic!() };
    assert_eq!(UserMessage::decode(blob(&turn.user_message)).unwrap().text, "list");
    let steps: Vec<_> = turn
        .steps
        .iter()
        .map(|id| ConversationStep::decode(blob(id)).unwrap().message.unwrap())
        .collect();
    use conversation_step::Message::{AssistantMessage, ThinkingMessage, ToolCall};
    assert!(matches!(&steps[0], ThinkingMessage(thinking) if thinking.text == "hm"));
    assert!(matches!(&steps[1], AssistantMessage(text) if text.text == "ok"));
    assert!(matches!(&steps[2], ToolCall(_)) && format!("{:?}", steps[2]).contains("a.rs"));
    assert!(matches!(&steps[3], AssistantMessage(text) if text.text == "a.rs it is"));

    let current = user_message(&decoded(&encoded)).unwrap();
    let image = &current.selected_context.as_ref().unwrap().selected_images[0];
    assert_eq!(current.text, "and this?");
    assert!(
        image.path.starts_with("/agentwire/inline-images/8f434346648f6b96")
            && image.path.ends_with("-0.png")
    );
    assert_eq!(current.message_id, current.correlation_id);
    assert_eq!(encoded.sent, Sent::UserMessage);
}

#[test]
fn the_same_history_gives_the_same_bytes_however_it_comes() {
    let mut first = Conversation::new();
    let whole = encode(&request(context(history())), &mut first);
    // Message by message, with the state kept; and with contexts that share nothing.
    for share in [true, false] {
        let mut grown = Conversation::new();
        let all = context(history()).messages;
        for len in 1..all.len() {
            let mut part = context(json!([]));
            let messages = if share { all.clone() } else { context(history()).messages };
            part.messages = messages[..len].to_vec();
            encode(&request(part), &mut grown);
        }
        let mut part = context(json!([]));
        part.messages = all;
        assert_eq!(encode(&request(part), &mut grown).envelope, whole.envelope);
        // Every blob that is named can be served.
        prompt(&whole, &grown);
    }
    let restored = Conversation::from_bytes(&first.to_bytes(), BlobLimits::default()).unwrap();
    assert_eq!(restored.id(), Some("conv"));
    let mut restored = restored;
    assert_eq!(encode(&request(context(history())), &mut restored).envelope, whole.envelope);
}

#[test]
fn a_message_keeps_its_id_when_it_becomes_history() {
    let mut conversation = Conversation::new();
    let mut context = context(json!([{"role": "user", "content": "one"}]));
    let first = encode(&request(context.clone()), &mut conversation);
    let id = user_message(&decoded(&first)).unwrap().message_id;
    context.push(Message::assistant("two"));
    context.push(Message::user("three"));
    let second = encode(&request(context), &mut conversation);
    let blob = |id: &Bytes| conversation.blobs().get(id).unwrap().clone();
    let turn = ConversationTurnStructure::decode(blob(&state(&second).turns[0])).unwrap();
    let Some(conversation_turn_structure::Turn::AgentConversationTurn(turn)) = turn.turn else {
        panic!()
    };
    assert_eq!(UserMessage::decode(blob(&turn.user_message)).unwrap().message_id, id);
    assert_ne!(user_message(&decoded(&second)).unwrap().message_id, id);
}

#[test]
fn a_changed_history_is_made_again_and_old_blobs_stay_for_the_checkpoint() {
    let mut conversation = Conversation::new();
    encode(&request(context(history())), &mut conversation);
    let before = conversation.blobs().len();
    let mut other = history();
    other[0]["content"] = "show".into();
    let encoded = encode(&request(context(other.clone())), &mut conversation);
    let list = prompt(&encoded, &conversation);
    assert_eq!(list[1]["content"][0]["text"], "show");
    assert!(conversation.blobs().len() > before);
    let mut fresh = Conversation::new();
    assert_eq!(encoded.envelope, encode(&request(context(other)), &mut fresh).envelope);
}

#[test]
fn a_checkpoint_keeps_its_fields_and_gets_a_fresh_prompt_list() {
    let mut conversation = Conversation::new();
    encode(&request(context(history())), &mut conversation);
    let raw = ConversationStateStructure {
        root_prompt_messages_json: vec![Bytes::from_static(b"stale"), Bytes::new()],
        turns: vec![Bytes::from_static(b"turn of the service")],
        read_paths: vec!["a.rs".into()],
        ..Default::default()
    };
    let mut raw = raw.encode_to_vec();
    raw.extend_from_slice(&[0x9a, 0x06, 3, b'U', b'N', b'K']);
    conversation.commit(raw.clone().into()).unwrap();
    let mut next = context(history());
    next.push(Message::assistant("a cat"));
    next.push(Message::user("thanks"));
    let encoded = encode(&request(next), &mut conversation);
    let state = state(&encoded);
    assert_eq!(state.turns, [&b"turn of the service"[..]]);
    assert_eq!(state.read_paths, ["a.rs"]);
    assert!(encoded.envelope.windows(6).any(|w| w == &raw[raw.len() - 6..]), "unknown fields stay");
    let list = prompt(&encoded, &conversation);
    assert_eq!(list.len(), 7);
    assert_eq!(list[5]["content"][1]["image"], "aGk=");
    assert_eq!(list[6]["content"][0]["text"], "a cat");
}

#[test]
fn what_does_not_end_with_a_user_message_is_resumed() {
    let mut tail = history();
    tail.as_array_mut().unwrap().truncate(3);
    let mut conversation = Conversation::new();
    let encoded = encode(&request(context(tail)), &mut conversation);
    assert_eq!(encoded.sent, Sent::Resume);
    assert!(user_message(&decoded(&encoded)).is_none());
    let list = prompt(&encoded, &conversation);
    assert_eq!(list.last().unwrap()["content"][0]["result"], "a.rs");

    let error =
        encode_run(&request(Context::default()), &mut conversation, &mut CountingIds::hex());
    assert_eq!(error.unwrap_err().kind(), &Kind::InvalidRequest);
}

#[test]
fn resuming_sends_the_checkpoint_of_this_very_turn_as_it_came() {
    let mut conversation = Conversation::new();
    let mut resume = request(context(history()));
    encode(&resume, &mut conversation);
    let raw = Bytes::from_static(&[0x0a, 3, 1, 2, 3, 0x42, 1, 9, 0x9a, 0x06, 1, 7]);
    conversation.commit(raw.clone()).unwrap();
    resume.action = Action::Resume;
    for _ in 0..2 {
        let encoded = encode(&resume, &mut conversation);
        let at = encoded.envelope.windows(raw.len()).position(|w| w == &raw[..]);
        assert!(at.is_some());
        assert_eq!(encoded.sent, Sent::Resume);
        conversation =
            Conversation::from_bytes(&conversation.to_bytes(), BlobLimits::default()).unwrap();
    }
    // The next turn knows more than the checkpoint.
    resume.context.push(Message::assistant("done"));
    let encoded = encode(&resume, &mut conversation);
    assert_eq!(state(&encoded).root_prompt_messages_json.len(), 7);
}

#[test]
fn calls_and_results_pair_up() {
    let pair = |list: &[Value]| -> Vec<String> {
        let parts = list.iter().filter_map(|m| m["content"].as_array()).flatten();
        parts
            .filter(|part| part["toolCallId"].is_string())
            .map(|p| format!("{} {} {}", p["type"], p["toolCallId"], p["result"]).replace('"', ""))
            .collect()
    };
    let call = |id: &str| json!({"type": "toolCall", "id": id, "name": "ls", "arguments": {}});
    let result = |id: &str, text: &str| {
        json!({"role": "toolResult", "toolCallId": id, "toolName": "ls", "isError": false,
            "content": [{"type": "text", "text": text}]})
    };
    let list = json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [call("c1"), call("c2")]},
        result("c1", "first"), result("c1", "second"), result("c9", "orphan"),
        {"role": "user", "content": "next"},
        {"role": "assistant", "content": [call("c3")]},
        {"role": "user", "content": "last"},
    ]);
    let mut conversation = Conversation::new();
    let encoded = encode(&request(context(list.clone())), &mut conversation);
    let none = "The tool call was interrupted and has no result.";
    let expected = [
        "tool-call c1 null".into(),
        "tool-call c2 null".into(),
        "tool-result c1 second".into(),
        "tool-call c9 null".into(),
        "tool-result c9 orphan".into(),
        format!("tool-result c2 {none}"),
        "tool-call c3 null".into(),
        format!("tool-result c3 {none}"),
    ];
    assert_eq!(pair(&prompt(&encoded, &conversation)), expected);

    // A result that comes late takes the place of the stand-in.
    let mut late = list;
    late.as_array_mut().unwrap().pop();
    encode(&request(context(late.clone())), &mut conversation);
    late.as_array_mut().unwrap().push(result("c3", "late"));
    let encoded = encode(&request(context(late)), &mut conversation);
    let pairs = pair(&prompt(&encoded, &conversation));
    assert_eq!(pairs.last().unwrap(), "tool-result c3 late");
    assert_eq!(pairs.len(), expected.len());
}

#[test]
fn tools_and_the_system_prompt_go_where_they_work() {
    let tool = json!({"name": "ls", "description": "List", "parameters": {"type": "object"}});
    let mut context = context(history());
    context.tools = vec![Arc::new(serde_json::from_value(tool).unwrap())];
    let mut request = request(context);
    request.model = Model::new("m").parameter("effort", "high");
    request.prompt = PromptRoutes { custom: true, ..PromptRoutes::default() };
    let mut conversation = Conversation::new();
    let encoded = encode(&request, &mut conversation);
    let run = decoded(&encoded);
    assert_eq!(run.custom_system_prompt.as_deref(), Some("be terse"));
    assert!(run.model_details.is_none());
    let model = run.requested_model.unwrap();
    assert_eq!((&model.model_id[..], model.max_mode), ("m", false));
    assert_eq!((&model.parameters[0].id[..], &model.parameters[0].value[..]), ("effort", "high"));
    let definitions = run.mcp_tools.unwrap().mcp_tools;
    assert_eq!(definitions[0].provider_identifier, "agentwire");

    let answer = reply::request_context(1, "e", &encoded.tools);
    let answer = AgentClientMessage::decode(&answer[5..]).unwrap().message.unwrap();
    let agent_client_message::Message::ExecClientMessage(answer) = answer else { panic!() };
    let Some(crate::proto::exec_client_message::Message::RequestContextResult(answer)) =
        answer.message
    else {
        panic!()
    };
    let Some(crate::proto::request_context_result::Result::Success(answer)) = answer.result else {
        panic!()
    };
    let answer = answer.request_context.unwrap();
    assert_eq!(answer.tools, definitions);
    assert_eq!((&answer.rules[0].content[..], answer.rules[0].source), ("be terse", 2));

    request.prompt = PromptRoutes { system_entry: false, rule: false, custom: false };
    let encoded = encode(&request, &mut conversation);
    assert_eq!(prompt(&encoded, &conversation)[0]["role"], "user");
    assert!(decoded(&encoded).custom_system_prompt.is_none());
    assert_eq!(encoded.tools.context().first(), Some(&0x3a), "tools and no rule");
}

#[test]
fn ids_are_settled_once() {
    let mut fresh = Conversation::new();
    let mut anonymous = request(context(history()));
    anonymous.conversation_id = None;
    let first = encode(&anonymous, &mut fresh);
    assert_eq!(first.conversation_id, "00000000-0000-4000-8000-000000000001");
    assert_eq!(encode(&anonymous, &mut fresh).envelope, first.envelope);

    let other = RunRequest { conversation_id: Some("other".into()), ..anonymous.clone() };
    let error = encode_run(&other, &mut fresh, &mut CountingIds::hex()).unwrap_err();
    assert_eq!(error.kind(), &Kind::InvalidRequest);
    assert_eq!(fresh.id(), Some(&first.conversation_id[..]));

    fresh.commit(Bytes::from_static(&[0x52, 1, 1])).unwrap();
    let mut ids = CountingIds::hex();
    ids.next_id();
    let rotated = fresh.rotate(&mut ids).to_owned();
    assert_ne!(rotated, first.conversation_id);
    assert!(fresh.checkpoint().is_some(), "the state comes along");
    assert_eq!(encode(&anonymous, &mut fresh).conversation_id, rotated);

    let derived = Conversation::of_session("session-1");
    assert_eq!(derived.id(), Some("8bf21936-13c5-4858-9300-9a9081da60b8"));
}

#[test]
fn what_survives_and_what_does_not() {
    let mut conversation = Conversation::new();
    encode(&request(context(history())), &mut conversation);
    conversation.set_blob(b"theirs", b"x").unwrap();
    conversation.commit(Bytes::from_static(&[0x42, 1, 9])).unwrap();
    conversation.commit(Bytes::new()).unwrap();
    assert!(conversation.commit(Bytes::from_static(&[0x42, 9])).is_err());
    assert_eq!(conversation.checkpoint().unwrap().raw(), &[0x42, 1, 9][..]);

    let kept = Conversation::from_bytes(&conversation.to_bytes(), BlobLimits::default()).unwrap();
    assert_eq!(kept.checkpoint(), conversation.checkpoint());
    assert_eq!(kept.blobs().len(), conversation.blobs().len());
    assert_eq!(kept.blobs().get(b"theirs").unwrap(), &b"x"[..]);

    conversation.discard();
    assert!(conversation.checkpoint().is_none() && conversation.blobs().is_empty());
    assert_eq!(conversation.id(), Some("conv"));
    let encoded = encode(&request(context(history())), &mut conversation);
    assert_eq!(prompt(&encoded, &conversation).len(), 5);
}

#[test]
fn damaged_states_are_refused() {
    let mut conversation = Conversation::with_id("conv");
    conversation.set_blob(b"a", b"1").unwrap();
    let good = conversation.to_bytes();
    let limits = BlobLimits { count: 0, ..BlobLimits::default() };
    let error = Conversation::from_bytes(&good, limits).unwrap_err();
    assert_eq!(error.kind(), &Kind::LimitExceeded);
    let other_version = [&[0x08, 2][..], &good[2..]].concat();
    let bad_blob = [&good[..], &[0x2a, 6, 0x0a, 1, b'x', 0x12, 1, b'y']].concat();
    for bytes in [&good[1..], &good[..good.len() - 1], &other_version, &bad_blob, b""] {
        let bytes = Bytes::copy_from_slice(bytes);
        let error = Conversation::from_bytes(&bytes, BlobLimits::default()).unwrap_err();
        assert_eq!(error.kind(), &Kind::InvalidRequest);
        assert!(error.message().starts_with("the kept conversation is damaged"));
    }
}

#[test]
fn an_error_leaves_a_conversation_that_works() {
    let mut bad = history();
    bad[4]["content"][1]["data"] = "nope!".into();
    bad.as_array_mut().unwrap().push(json!({"role": "user", "content": "x"}));
    let mut conversation = Conversation::new();
    encode(&request(context(history())), &mut conversation);
    for mode in [History::Full, History::Legacy] {
        let bad = RunRequest { history: mode, ..request(context(bad.clone())) };
        let error = encode_run(&bad, &mut conversation, &mut CountingIds::hex()).unwrap_err();
        assert!(error.to_string().contains("selected image at index 0 (image/png)"), "{error}");
    }
    let mut fresh = Conversation::new();
    let again = encode(&request(context(history())), &mut conversation);
    assert_eq!(again.envelope, encode(&request(context(history())), &mut fresh).envelope);
    prompt(&again, &conversation);
}

#[test]
fn debug_shows_no_content() {
    let mut conversation = Conversation::new();
    let encoded = encode(&request(context(history())), &mut conversation);
    let request = request(context(history()));
    conversation.set_blob(b"x", b"be terse").unwrap();
    conversation.commit(Bytes::from_static(b"\x0a\x08be terse")).unwrap();
    let blobs = conversation.blobs();
    let checkpoint = conversation.checkpoint();
    let text = format!("{conversation:?} {encoded:?} {request:?} {blobs:?} {checkpoint:?}");
    for hidden in ["be terse", "a.rs", "and this", "aGk="] {
        assert!(!text.contains(hidden), "{text}");
    }
}

#[test]
fn a_live_call_gets_an_id_that_is_safe() {
    let mut payload = Vec::new();
    crate::wire::put_nested(&mut payload, 2, |out| {
        crate::wire::put_nested(out, 11, |out| {
            crate::wire::put_str(out, 3, "call_1\nfc_2");
            crate::wire::put_str(out, 5, "ls");
        });
    });
    let mut conversation = Conversation::new();
    let call = conversation.tool_call(&payload, &mut CountingIds::hex()).unwrap();
    assert!(call.id.starts_with("call_1_fc_2_"), "{}", call.id);
    let list = json!([{"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "toolCall", "id": call.id, "name": "ls"}]}]);
    let mut context = context(list);
    context.push(Message::ToolResult(ToolResult::text(call.id.clone(), "ls", "a.rs")));
    let encoded = encode(&request(context), &mut conversation);
    assert_eq!(prompt(&encoded, &conversation)[3]["content"][0]["toolCallId"], call.id);
}

#[test]
fn how_an_image_is_laid_out_changes_nothing() {
    let asked = |data: &str| {
        let image = |data: &str| json!({"type": "image", "data": data, "mimeType": "image/png"});
        let said = json!({"type": "text", "text": "and this one?"});
        json!({"role": "user", "content": [image("aGk="), said, image(data)]})
    };
    let encoded = |data: &str, before: &str, history| {
        let answer = json!({"role": "assistant", "content": [{"type": "text", "text": "a cat"}]});
        let context = context(json!([asked(before), answer, asked(data)]));
        let mut conversation = Conversation::new();
        let request = RunRequest { history, ..request(context) };
        let encoded = encode_run(&request, &mut conversation, &mut CountingIds::hex());
        encoded.map(|encoded| (encoded.envelope, conversation))
    };
    let flat = "QUJD".repeat(40);
    // Lines of a length that is guessed, and separators where nobody expects them.
    let lines = format!("{}\r\n{}\r\n{}", &flat[..76], &flat[76..152], &flat[152..]);
    let odd = format!(" {}\t{}\n", &flat[..3], &flat[3..]);
    for history in [History::Full, History::Legacy] {
        let (expected, kept) = encoded(&flat, &flat, history).unwrap();
        for (data, before) in [(&lines, &flat), (&odd, &flat), (&flat, &lines), (&flat, &odd)] {
            let (envelope, conversation) = encoded(data, before, history).unwrap();
            assert_eq!(envelope, expected, "{history:?} {data} {before}");
            let mut ids: Vec<_> = conversation.blobs().own().collect();
            let mut known: Vec<_> = kept.blobs().own().collect();
            ids.sort();
            known.sort();
            assert_eq!(ids, known);
        }
        for (data, before) in [("aGk", &*flat), (&*flat, "a\nGk")] {
            let error = encoded(data, before, history).unwrap_err();
            assert_eq!(*error.kind(), Kind::InvalidRequest);
            let text = error.to_string();
            assert!(text.contains("selected image at index 1 (image/png)"), "{text}");
        }
    }
}
