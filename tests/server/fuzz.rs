//! The server's fuzz bodies as property tests: short, but with every change.

use agentwire::proto;
use agentwire::server::fuzz;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use crate::client::{mcp_text, run};

/// Bodies that get somewhere: a run request, then answers to questions that were asked or not.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let answer = (0_u32..6, 0_usize..5).prop_map(|(id, kind)| {
        use proto::agent_client_message::Message as M;
        let exec = |message| {
            let exec_id = format!("exec-{id}");
            M::ExecClientMessage(Box::new(proto::ExecClientMessage {
                id,
                exec_id,
                message,
                ..Default::default()
            }))
        };
        let message = match kind {
            0 => exec(Some(proto::exec_client_message::Message::RequestContextResult(
                Default::default(),
            ))),
            1 => exec(Some(proto::exec_client_message::Message::McpResult(Box::new(mcp_text(
                "x".into(),
            ))))),
            2 => M::ExecClientControlMessage(proto::ExecClientControlMessage {
                message: Some(proto::exec_client_control_message::Message::StreamClose(
                    proto::ExecClientStreamClose { id },
                )),
            }),
            3 => M::KvClientMessage(Box::new(proto::KvClientMessage {
                id,
                message: Some(proto::kv_client_message::Message::SetBlobResult(Default::default())),
            })),
            _ => M::ClientHeartbeat(Default::default()),
        };
        envelope(&proto::AgentClientMessage { message: Some(message) }.encode_to_vec())
    });
    let part = prop_oneof![8 => answer, 1 => vec(any::<u8>(), 0..12)];
    let first = envelope(
        &proto::AgentClientMessage { message: Some(run("hi", Default::default())) }.encode_to_vec(),
    );
    vec(part, 0..10).prop_map(move |parts| [first.clone(), parts.concat()].concat())
}

fn envelope(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    agentwire::connect::put_envelope(&mut out, 0, payload);
    out
}

/// Scripts of known steps in any order.
fn script() -> impl Strategy<Value = String> {
    let step = prop_oneof![
        Just(r#"{"text": "hello {{prompt}}"}"#),
        Just(r#"{"thinking": {"text": "hm", "delta": 1, "pace_ms": 3}}"#),
        Just(r#"{"call": {"tool": "x"}}"#),
        Just(r#"{"use_tools": {}}"#),
        Just(r#""context""#),
        Just(r#""history""#),
        Just(r#"{"ask": {"exec_field": 77, "wait": false, "abort_after_ms": 5}}"#),
        Just(r#"{"ask": {"query_field": 77, "id": 3}}"#),
        Just(r#""answers""#),
        Just(r#"{"checkpoint": {}}"#),
        Just(r#"{"turn_end": {"estimate": true}}"#),
        Just(r#"{"head": {}}"#),
        Just(r#"{"status": {"status": 500, "body": "x"}}"#),
        Just(r#"{"error": "internal"}"#),
        Just(r#"{"heartbeats": {"every_ms": 0, "count": 2}}"#),
        Just(r#"{"wait_for": {"event": "action", "timeout_ms": 7}}"#),
        Just(r#"{"repeat": {"times": 2, "steps": [{"tokens": -1}]}}"#),
        Just(r#"{"repeat": {"steps": ["context"]}}"#),
        Just(r#"{"bytes": {"hex": "00ff"}}"#),
        Just(r#"{"goaway": 0}"#),
        Just(r#""silence""#),
        Just(r#""close""#),
        Just(r#""cut""#),
        Just(r#"{"reset": 8}"#),
        Just(r#""end""#),
    ];
    (vec(step, 0..8), any::<bool>(), 0_usize..200).prop_map(|(steps, hold, pack)| {
        let steps = steps.join(",");
        format!(r#"{{"pack": {pack}, "rules": [{{"hold_head": {hold}, "steps": [{steps}]}}]}}"#)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_cut_of_a_request_gets_the_same_answer(body in body(), cuts in vec(any::<u8>(), 0..8)) {
        fuzz::request(&body, &cuts);
    }

    #[test]
    fn scripts_of_any_steps_are_played(text in script()) {
        agentwire::server::Script::from_json(&text).unwrap();
        fuzz::script(&text);
    }

    #[test]
    fn texts_are_no_scripts(text in r#"[\[\]{}"=a-z_0-9, \n]{0,200}"#) {
        fuzz::script(&text);
    }
}
