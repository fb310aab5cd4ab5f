//! Every message of the vectors, as the reference wrote it.

use std::fs;
use std::path::Path;

use agentwire::inspect::{Side, from_json, inspect};
use agentwire::proto::reflect::{FieldKind, MessageInfo, Shape};
use serde_json::{Map, Value};

use crate::{hex, sorted};

fn file(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vectors").join(name);
    let text = fs::read_to_string(path).expect("the vectors are there");
    serde_json::from_str(&text).expect("JSON")
}

fn cases(vectors: &Value) -> &Vec<Value> {
    vectors.as_array().expect("a list of cases")
}

/// The message as JSON, after the way back was tried.
fn round_trip(side: Side, bytes: &[u8]) -> Result<Value, String> {
    let shown = inspect(side, bytes).map_err(|error| error.to_string())?;
    let again = from_json(side, &sorted(&shown.value)).map_err(|error| error.to_string())?;
    assert_eq!(again, bytes);
    match shown.damage {
        Some(damage) => Err(damage.to_string()),
        None => Ok(shown.value),
    }
}

#[test]
fn server_messages_come_back() {
    let vectors = file("server-messages.json");
    let mut compared = 0;
    for case in cases(&vectors) {
        let name = case["name"].as_str().unwrap_or_default();
        let shown = round_trip(Side::Server, &hex(case["data"].as_str().expect(name)));
        // What the reference cannot decode is damaged here too. It reads text that is not UTF-8
        // with replacement characters.
        let refused = case.get("error").is_some() || name == "bad utf8 text";
        assert_eq!(shown.is_err(), refused, "{name}: {shown:?}");
        if let (Some(expected), Ok(shown)) = (case.get("protoJson"), shown) {
            let expected = from_proto_json(Side::Server.message(), expected);
            assert_eq!(without_defaults(Side::Server.message(), &shown), expected, "{name}");
            compared += 1;
        }
        for reply in case["replies"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            round_trip(Side::Client, &hex(reply)).expect(name);
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn run_requests_come_back() {
    let vectors = file("run-requests.json");
    let mut seen = 0;
    for case in cases(&vectors) {
        let name = case["name"].as_str().unwrap_or_default();
        for output in ["request", "requestContextReply"] {
            let Some(bytes) = case["output"][output].as_str() else { continue };
            round_trip(Side::Client, &hex(bytes)).expect(name);
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen}");
}

#[test]
fn control_messages_come_back() {
    let vectors = file("client-control.json");
    let heartbeat = round_trip(Side::Client, &hex(vectors["heartbeat"].as_str().expect("bytes")));
    assert_eq!(heartbeat, Ok(serde_json::json!({"client_heartbeat": {}})));
    let cancel = round_trip(Side::Client, &hex(vectors["cancel"].as_str().expect("bytes")));
    assert_eq!(cancel, Ok(serde_json::json!({"conversation_action": {"cancel_action": {}}})));
    let results = cases(&vectors["toolResults"]);
    for bytes in results.iter().filter_map(|case| case["output"].as_str()) {
        round_trip(Side::Client, &hex(bytes)).expect(bytes);
    }
}

/// proto JSON as protobuf-es writes it, with our names.
fn from_proto_json(info: &MessageInfo, json: &Value) -> Value {
    let members = json.as_object().expect("a message is an object");
    let renamed = members.iter().map(|(name, value)| {
        let field = info
            .fields
            .iter()
            .find(|field| camel(field.name) == *name || field.name == name)
            .expect("a field of the schema");
        let FieldKind::Message(inner) = field.kind else {
            return (field.name.to_owned(), value.clone());
        };
        let value = match field.shape {
            Shape::One => from_proto_json(inner, value),
            Shape::Many => cases(value).iter().map(|item| from_proto_json(inner, item)).collect(),
            Shape::Map => {
                let entries = value.as_object().expect("a map is an object");
                let entry =
                    |(key, value): (&String, &Value)| (key.clone(), from_proto_json(inner, value));
                Value::Object(entries.iter().map(entry).collect())
            }
        };
        (field.name.to_owned(), value)
    });
    without_defaults(info, &Value::Object(renamed.collect()))
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        name + &head.to_uppercase() + tail
    })
}

/// Leaves out what one writer of JSON mentions and another does not: zeros and empty values.
fn without_defaults(info: &MessageInfo, value: &Value) -> Value {
    let members = value.as_object().expect("a message is an object");
    let kept = members.iter().filter_map(|(name, value)| {
        let field = info.field_named(name)?;
        let value = match (field.kind, field.shape, value) {
            (FieldKind::Message(inner), Shape::One, value) => without_defaults(inner, value),
            (FieldKind::Message(inner), Shape::Many, Value::Array(items)) => {
                items.iter().map(|item| without_defaults(inner, item)).collect()
            }
            (_, _, value) => value.clone(),
        };
        let is_default = ["", "0"].map(Value::from).contains(&value)
            || value == 0
            || value == false
            || value.as_array().is_some_and(Vec::is_empty)
            || (field.shape == Shape::Map && value.as_object().is_some_and(Map::is_empty));
        (!is_default).then(|| (name.clone(), value))
    });
    Value::Object(kept.collect())
}
