//! Messages: what the JSON looks like, what is refused, and where the limits are.

use agentwire::error::Kind;
use agentwire::inspect::{
    MAX_DEPTH, MAX_VALUES, Side, from_json, from_json_as, inspect, inspect_as, to_json,
};
use agentwire::proto::reflect::{FieldKind, MessageInfo, Shape};
use agentwire::wire;
use serde_json::{Value, json};

use crate::{hex, sorted};

fn info(name: &str) -> &'static MessageInfo {
    MessageInfo::named(name).expect("a message of the schema")
}

/// Message, bytes, JSON. The bytes come back from each.
fn examples() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("InteractionUpdate", "", json!({})),
        ("InteractionUpdate", "0a04 0a02 6869", json!({"text_delta": {"text": "hi"}})),
        ("InteractionUpdate", "6a00", json!({"heartbeat": {}})),
        // Zero on the wire is not the same as nothing.
        ("TokenDeltaUpdate", "0800", json!({"tokens": 0})),
        ("TokenDeltaUpdate", "08 ffffffffffffffffff01", json!({"tokens": -1})),
        (
            "StepStartedUpdate",
            "08 ffffffffffffffffff01",
            json!({"step_id": "18446744073709551615"}),
        ),
        ("TurnEndedUpdate", "08 ffffffffffffffffff01", json!({"input_tokens": "-1"})),
        ("GetBlobArgs", "0a03 00ff10", json!({"blob_id": "AP8Q"})),
        ("McpSuccess", "1001", json!({"is_error": true})),
        ("SelectedConsoleLog", "11 000000000000f83f", json!({"timestamp": 1.5})),
        ("SelectedConsoleLog", "11 000000000000f07f", json!({"timestamp": "Infinity"})),
        ("SelectedConsoleLog", "11 000000000000f87f", json!({"timestamp": "NaN"})),
        ("SelectedConsoleLog", "11 0000000000000080", json!({"timestamp": -0.0})),
        // An enum by its name, or its number; an int32 that stands for an enum as a number.
        ("GitDiff", "1001", json!({"diff_type": "DIFF_TYPE_DIFF_TO_HEAD"})),
        ("GitDiff", "1063", json!({"diff_type": 99})),
        ("UserMessage", "2001", json!({"mode": 1})),
        ("ReadTodosArgs", "0a03 010203", json!({"status_filter": [1, 2, 3]})),
        ("ReadTodosArgs", "1201 61 1200", json!({"id_filter": ["a", ""]})),
        // Maps by ascending key, key and value present.
        (
            "LsDirectoryTreeNode",
            "2a07 0a03 2e7273 1003 2a09 0a05 2e746f6d6c 1000",
            json!({"full_subtree_extension_counts": {".rs": 3, ".toml": 0}}),
        ),
        (
            "ConversationStateStructure",
            "7a08 0a01 61 1203 0a01 62",
            json!({"file_states_v2": {"a": {"content": "Yg=="}}}),
        ),
        // Unknown fields keep their numbers.
        (
            "ClientHeartbeat",
            "08 05 11 0100000000000000 1a02 6869 23 0801 24 2d 07000000",
            json!({
                "1": {"wire_type": "varint", "value": "5"},
                "2": {"wire_type": "i64", "value": "1"},
                "3": {"wire_type": "len", "value": "aGk="},
                "4": {"wire_type": "group", "value": "CAE="},
                "5": {"wire_type": "i32", "value": 7},
            }),
        ),
        (
            "ClientHeartbeat",
            "0805 0806",
            json!({"1": [
                {"wire_type": "varint", "value": "5"},
                {"wire_type": "varint", "value": "6"},
            ]}),
        ),
        // A field of another type is kept under its number too.
        ("TextDeltaUpdate", "0805", json!({"1": {"wire_type": "varint", "value": "5"}})),
        ("ReadTodosArgs", "0a01 80", json!({"1": {"wire_type": "len", "value": "gA=="}})),
        ("TextDeltaUpdate", "0a01 ff", json!({"text": {"raw": "/w=="}})),
        // Other forms on the wire: the exact bytes stay with the message that has them.
        ("TextDeltaUpdate", "0a81 0068", json!({"text": "h", "raw": "CoEAaA=="})),
        ("TextDeltaUpdate", "0a01 61 0a01 62", json!({"text": "b", "raw": "CgFhCgFi"})),
        ("ReadTodosArgs", "0801 0802", json!({"status_filter": [1, 2], "raw": "CAEIAg=="})),
        ("ReadTodosArgs", "0a00", json!({"status_filter": [], "raw": "CgA="})),
        ("McpSuccess", "1002", json!({"is_error": true, "raw": "EAI="})),
        ("TokenDeltaUpdate", "08 ffffffff0f", json!({"tokens": -1, "raw": "CP////8P"})),
        (
            "SelectedImage",
            "1201 61 0a01 62",
            json!({"blob_id": "Yg==", "uuid": "a", "raw": "EgFhCgFi"}),
        ),
        (
            "McpArgs",
            "1206 0a01 62 1201 31 1206 0a01 61 1201 32",
            json!({"args": {"b": "MQ==", "a": "Mg=="}, "raw": "EgYKAWISATESBgoBYRIBMg=="}),
        ),
        ("McpArgs", "1203 0a01 61", json!({"args": {"a": ""}, "raw": "EgMKAWE="})),
        // Two messages in a field for one are joined.
        (
            "RequestContextSuccess",
            "0a06 8201 03 61 62 63 0a03 8801 01",
            json!({"request_context": {"cloud_rule": "abc", "web_search_enabled": true},
                   "raw": "CgaCAQNhYmMKA4gBAQ=="}),
        ),
        // Inside a message that keeps its bytes none has to.
        (
            "InteractionUpdate",
            "0a8400 0a8100 61",
            json!({"text_delta": {"text": "a"}, "raw": "CoQACoEAYQ=="}),
        ),
        // Bytes that are no message.
        (
            "InteractionUpdate",
            "0a02 0a05",
            json!({"text_delta": {
                "damaged": {"offset": 0, "reason": "the message is cut short"}, "raw": "CgU="}}),
        ),
    ]
}

#[test]
fn examples_look_like_this_and_come_back() {
    for (name, bytes, expected) in examples() {
        let bytes = hex(bytes);
        let shown = inspect_as(info(name), &bytes).expect(name).value;
        assert_eq!(shown, expected, "{name}");
        assert_eq!(from_json_as(info(name), &sorted(&shown)), Ok(bytes), "{name}");
    }
}

/// One field alone, in the form that is written: its bytes, and the JSON of its value.
fn alone(number: u32, shape: Shape, kind: FieldKind) -> (Vec<u8>, Value) {
    let mut bytes = Vec::new();
    let (mut value, shown) = match kind {
        FieldKind::Message(_) => (vec![0], json!({})),
        FieldKind::Bytes => (hex("02 00ff"), json!("AP8=")),
        FieldKind::String => (hex("02 c3a9"), json!("é")),
        FieldKind::Double => (hex("0000000000000040"), json!(2.0)),
        FieldKind::Int64 | FieldKind::Uint64 => (vec![7], json!("7")),
        FieldKind::Bool => (vec![1], json!(true)),
        FieldKind::Enum(info) => (vec![1], json!(info.name_of(1).expect("a value"))),
        FieldKind::Int32 | FieldKind::Uint32 => (vec![7], json!(7)),
    };
    let wire_type = match kind {
        FieldKind::Message(_) | FieldKind::Bytes | FieldKind::String => wire::WireType::Len,
        FieldKind::Double => wire::WireType::I64,
        _ => wire::WireType::Varint,
    };
    match shape {
        Shape::Map => {
            let mut entry = hex("0a01 6b");
            wire::put_tag(&mut entry, 2, wire_type);
            entry.append(&mut value);
            wire::put_bytes(&mut bytes, number, &entry);
            (bytes, json!({"k": shown}))
        }
        Shape::Many if kind.is_packable() => {
            wire::put_bytes(&mut bytes, number, &value);
            (bytes, json!([shown]))
        }
        Shape::Many | Shape::One => {
            wire::put_tag(&mut bytes, number, wire_type);
            bytes.append(&mut value);
            (bytes, if shape == Shape::Many { json!([shown]) } else { shown })
        }
    }
}

#[test]
fn every_field_of_every_message_has_its_name() {
    let mut fields = 0;
    for info in MessageInfo::all() {
        for field in info.fields {
            let (bytes, value) = alone(field.number, field.shape, field.kind);
            let inspected = inspect_as(info, &bytes).expect(info.name);
            assert_eq!(inspected.damage, None, "{}.{}", info.name, field.name);
            assert_eq!(inspected.value, json!({field.name: value}), "{}", info.name);
            assert_eq!(from_json_as(info, &inspected.value), Ok(bytes), "{}", info.name);
            fields += 1;
        }
    }
    assert_eq!((MessageInfo::all().len(), fields), (574, 1752));
}

/// Members that the JSON adds must not be fields of the schema.
#[test]
fn no_field_is_called_like_a_member_of_ours() {
    for info in MessageInfo::all() {
        for name in ["raw", "damaged"] {
            assert!(info.field_named(name).is_none(), "{}.{name}", info.name);
        }
    }
}

#[test]
fn damage_says_where_it_is() {
    let cases = [
        ("0a", 0, "the message is cut short"),
        ("0a05 6869", 0, "the message is cut short"),
        ("0a00 ff", 2, "the message is cut short"),
        ("0a00 00", 2, "a tag is not valid"),
        ("0a00 0e", 2, "a tag is not valid"),
        ("0a00 48 ffffffffffffffffffff01", 2, "a varint is longer than 64 bits"),
        ("4b 0a00 54", 0, "a group does not end where it should"),
        ("4c", 0, "a group does not end where it should"),
    ];
    for (bytes, offset, reason) in cases {
        let error = to_json(Side::Server, &hex(bytes)).expect_err(bytes);
        assert_eq!((error.offset(), error.reason()), (Some(offset), reason), "{bytes}");
        assert_eq!(error.to_string(), format!("at byte {offset}: {reason}"));
        assert_eq!(error.path(), None);
    }
}

#[test]
fn damage_inside_is_shown_and_said() {
    // The text of a delta in an update: the offset is that in the outermost message.
    let cases = [
        ("0a04 0a02 0a05", 4, "the message is cut short"),
        ("0a05 0a03 0a01 ff", 6, "a string is not valid UTF-8"),
        ("0a05 0a03 0a01 c3", 6, "a string is not valid UTF-8"),
        ("0a06 0a04 0a02 61 ff", 7, "a string is not valid UTF-8"),
        ("0805", 0, "the bytes of AgentServerMessage.interaction_update do not fit its type"),
        ("0a04 6a00 0801", 4, "the bytes of InteractionUpdate.text_delta do not fit its type"),
    ];
    for (bytes, offset, reason) in cases {
        let inspected = inspect(Side::Server, &hex(bytes)).expect(bytes);
        let damage = inspected.damage.expect(bytes);
        assert_eq!((damage.offset(), damage.reason()), (Some(offset), reason), "{bytes}");
        assert_eq!(from_json(Side::Server, &inspected.value), Ok(hex(bytes)), "{bytes}");
    }
}

#[test]
fn doubles_keep_their_bits() {
    let info = info("SelectedConsoleLog");
    let special = [0, 1, u64::MAX, f64::MAX.to_bits(), f64::NAN.to_bits(), f64::NAN.to_bits() | 1];
    let mut state = 7_u64;
    let random = (0..20_000).map(|_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    });
    for bits in special.into_iter().chain(random) {
        let mut bytes = vec![0x11];
        bytes.extend(bits.to_le_bytes());
        let shown = inspect_as(info, &bytes).expect("a double").value;
        assert_eq!(from_json_as(info, &sorted(&shown)), Ok(bytes), "{shown}");
        let is_odd_nan = f64::from_bits(bits).is_nan() && bits != f64::NAN.to_bits();
        assert_eq!(shown.get("raw").is_some(), is_odd_nan, "{shown}");
    }
}

#[test]
fn json_that_people_write_is_read() {
    let cases = [
        ("StepStartedUpdate", json!({"step_id": 7}), "0807"),
        ("TokenDeltaUpdate", json!({"tokens": "7"}), "0807"),
        ("TokenDeltaUpdate", json!({"tokens": null}), ""),
        ("GitDiff", json!({"diff_type": 1}), "1001"),
        ("GetBlobArgs", json!({"blob_id": "AP8"}), "0a02 00ff"),
        ("SelectedConsoleLog", json!({"timestamp": 1}), "11 000000000000f03f"),
        ("ReadTodosArgs", json!({"status_filter": []}), ""),
        ("RequestContextResult", json!({"raw": "/w=="}), "ff"),
        // Fields go by number, whatever the order of the members.
        (
            "AgentRunRequest",
            json!({"12": {"wire_type": "varint", "value": 1}, "conversation_id": "c",
            "action": {}}),
            "1200 2a01 63 6001",
        ),
    ];
    for (name, value, bytes) in cases {
        assert_eq!(from_json_as(info(name), &value), Ok(hex(bytes)), "{name}");
    }
}

#[test]
fn json_that_means_nothing_is_refused_with_its_path() {
    let cases = [
        (json!([]), "", "expected an object"),
        (json!({"text_delta": {}}), "", "AgentServerMessage has no field \"text_delta\""),
        (json!({"0": {}}), "", "AgentServerMessage has no field \"0\""),
        (json!({"536870912": {}}), "", "AgentServerMessage has no field \"536870912\""),
        (json!({"interaction_update": 5}), "interaction_update", "expected an object"),
        (
            json!({"interaction_update": {"text_delta": {"text": 5}}}),
            "interaction_update.text_delta.text",
            "expected a string",
        ),
        (
            json!({"interaction_update": {"token_delta": {"tokens": 2_147_483_648_u32}}}),
            "interaction_update.token_delta.tokens",
            "expected a whole number of 32 bits",
        ),
        (
            json!({"kv_server_message": {"id": -1}}),
            "kv_server_message.id",
            "expected a whole number of 32 bits without a sign",
        ),
        (
            json!({"kv_server_message": {"get_blob_args": {"blob_id": "?"}}}),
            "kv_server_message.get_blob_args.blob_id",
            "expected a string of base64",
        ),
        (
            json!({"exec_server_message": {"mcp_args": {"args": {"secret": 1}}}}),
            "exec_server_message.mcp_args.args.{}",
            "expected a string of base64",
        ),
        (
            json!({"exec_server_message": {"shell_args": {"simple_commands": ["a", 1]}}}),
            "exec_server_message.shell_args.simple_commands.1",
            "expected a string",
        ),
        (
            json!({"9": {"wire_type": "tiny", "value": 1}}),
            "9",
            "expected an object with `wire_type` (varint, i64, len, group or i32) and `value`",
        ),
        (json!({"raw": "*"}), "raw", "expected a string of base64"),
    ];
    for (value, path, reason) in cases {
        let error = from_json(Side::Server, &value).expect_err(path);
        assert_eq!((error.path(), error.reason()), (Some(path), reason), "{value}");
        assert_eq!(error.offset(), None);
        assert!(!error.to_string().contains("secret"));
    }
}

/// Whoever changes a member beside `raw` is told, instead of seeing no effect.
#[test]
fn raw_and_the_members_beside_it_must_agree() {
    let bytes = hex("0a06 0a04 0a81 00 68");
    let shown = to_json(Side::Server, &hex("0a07 0a05 0a82 00 6869")).expect("well-formed");
    let mut edited = shown;
    edited["interaction_update"]["text_delta"]["text"] = json!("ho");
    let error = from_json(Side::Server, &edited).expect_err("edited");
    assert_eq!(error.path(), Some("interaction_update.text_delta"));
    assert!(error.reason().contains("remove `raw`"), "{error}");
    let text_delta = edited["interaction_update"]["text_delta"].as_object_mut().expect("an object");
    text_delta.remove("raw");
    assert_eq!(from_json(Side::Server, &edited), Ok(hex("0a06 0a04 0a02 686f")));
    let only = json!({"interaction_update": {"text_delta": {"raw": "CoEAaA=="}}});
    assert_eq!(from_json(Side::Server, &only), Ok(bytes));
}

/// `message` inside field `path` of itself, `times` over.
fn nested(path: &[u32], times: usize, innermost: &[u8]) -> Vec<u8> {
    let mut bytes = innermost.to_vec();
    for _ in 0..times {
        for number in path.iter().rev() {
            let mut outer = Vec::new();
            wire::put_bytes(&mut outer, *number, &bytes);
            bytes = outer;
        }
    }
    bytes
}

#[test]
fn messages_nest_to_the_limit_and_no_further() {
    // tool_call_delta -> tool_call_delta -> task_tool_call_delta -> interaction_update
    let (info, path) = (info("InteractionUpdate"), [15, 2, 2, 1]);
    let deepest = nested(&path, MAX_DEPTH as usize / 4, &[]);
    let shown = inspect_as(info, &deepest).expect("100 levels").value;
    assert_eq!(from_json_as(info, &sorted(&shown)), Ok(deepest));

    let error =
        inspect_as(info, &nested(&path, MAX_DEPTH as usize / 4, &[0x0a, 0])).expect_err("101");
    assert_eq!(error.reason(), "messages are nested more than 100 levels");
    let deeper = (0..26).fold(json!({}), |inner, _| {
        json!({"tool_call_delta": {"tool_call_delta": {"task_tool_call_delta": {
            "interaction_update": inner}}}})
    });
    let error = from_json_as(info, &deeper).expect_err("104");
    assert_eq!(error.reason(), "messages are nested more than 100 levels");
}

/// Where arrays lie between the messages, the JSON gets too deep for readers before that.
#[test]
fn deep_trees_are_shown_by_their_bytes() {
    let info = info("LsDirectoryTreeNode");
    for levels in [54, 55, 56, 99] {
        let bytes = nested(&[2], levels, &hex("0a01 2f"));
        let shown = inspect_as(info, &bytes).expect("within the limit").value;
        assert_eq!(from_json_as(info, &sorted(&shown)), Ok(bytes), "{levels}");
        assert_eq!(shown.to_string().contains("raw"), levels > 55, "{levels}");
    }
}

#[test]
fn a_message_of_too_many_fields_is_refused() {
    let most = hex("0801").repeat(MAX_VALUES);
    assert!(to_json(Side::Server, &most).is_ok());
    let error = to_json(Side::Server, &[most, hex("0801")].concat()).expect_err("one more");
    assert_eq!(error.offset(), Some(2 * MAX_VALUES as u64));
    let mut packed = Vec::new();
    wire::put_bytes(&mut packed, 1, &vec![1; MAX_VALUES]);
    assert!(inspect_as(info("ReadTodosArgs"), &packed).is_err());
}

#[test]
fn errors_become_errors_of_the_crate() {
    let damaged = to_json(Side::Server, &[0]).expect_err("damaged");
    assert_eq!(agentwire::Error::from(damaged).kind(), &Kind::Protocol);
    let refused = from_json(Side::Server, &json!(1)).expect_err("refused");
    assert_eq!(agentwire::Error::from(refused).kind(), &Kind::InvalidRequest);
}
