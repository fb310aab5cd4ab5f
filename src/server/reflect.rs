//! Messages from JSON by proto names, as scripts give them.
//!
//! Members are named as in the protocol tables. Bytes are a text (its UTF-8) or a table with `hex`
//! or `base64`; enums are names or numbers; 64-bit numbers may be strings; `null` is left out.

use serde_json::Value;

use super::script::form;
use crate::proto::reflect::{FieldInfo, FieldKind, MessageInfo, Shape};
use crate::wire::{self, MAX_DEPTH};
use crate::{Error, Result};

/// A case of a oneof.
pub(super) struct Case {
    /// Its field number.
    pub(super) field: u32,
    message: &'static MessageInfo,
}

/// The case of this name in a message with one oneof, whose cases are all messages.
pub(super) fn case(message: &str, name: &str) -> Result<Case> {
    let known = named(message)?.field_named(name).map(|field| (field.number, field.kind));
    match known {
        // `span_context` stands beside the oneof, in both messages that are asked for here.
        Some((field, FieldKind::Message(message))) if name != "span_context" => {
            Ok(Case { field, message })
        }
        _ => Err(Error::invalid(format!("{message} has no case `{}`", name.escape_debug()))),
    }
}

impl Case {
    /// The case's message from its JSON; nothing stands for an empty one.
    pub(super) fn encode(&self, args: &Value) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        match args {
            Value::Null => {}
            args => put_message(&mut out, self.message, args, MAX_DEPTH).map_err(Error::invalid)?,
        }
        Ok(out)
    }
}

/// A message from its JSON.
pub(super) fn encode(message: &str, json: &Value) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    put_message(&mut out, named(message)?, json, MAX_DEPTH).map_err(Error::invalid)?;
    Ok(out)
}

fn named(message: &str) -> Result<&'static MessageInfo> {
    MessageInfo::named(message).ok_or_else(|| Error::invalid(format!("no message `{message}`")))
}

/// Appends the fields of a message, in the order of the schema.
fn put_message(
    out: &mut Vec<u8>,
    info: &MessageInfo,
    json: &Value,
    depth: u32,
) -> Result<(), String> {
    let Some(inside) = depth.checked_sub(1) else {
        return Err("the message nests too deep".into());
    };
    let members = json.as_object().ok_or_else(|| format!("{} is a table", info.name))?;
    for name in members.keys() {
        if info.field_named(name).is_none() {
            return Err(format!("{} has no member `{}`", info.name, name.escape_debug()));
        }
    }
    for field in info.fields {
        let Some(value) = members.get(field.name).filter(|value| !value.is_null()) else {
            continue;
        };
        put_field(out, field, value, inside)
            .map_err(|error| format!("{}.{}: {error}", info.name, field.name))?;
    }
    Ok(())
}

fn put_field(
    out: &mut Vec<u8>,
    field: &FieldInfo,
    value: &Value,
    depth: u32,
) -> Result<(), String> {
    match field.shape {
        Shape::One => put_value(out, field.number, field.kind, value, depth),
        Shape::Many => {
            let values = value.as_array().ok_or("a list is wanted")?;
            // Not packed: every decoder takes both forms, and scripts are small.
            values
                .iter()
                .try_for_each(|value| put_value(out, field.number, field.kind, value, depth))
        }
        Shape::Map => {
            let entries = value.as_object().ok_or("a table is wanted")?;
            for (key, value) in entries {
                wire::put_nested(out, field.number, |out| {
                    wire::put_str(out, 1, key);
                    put_value(out, 2, field.kind, value, depth)
                })?;
            }
            Ok(())
        }
    }
}

/// Appends one value with its tag. Zeros are written too: a script that gives one means it.
fn put_value(
    out: &mut Vec<u8>,
    number: u32,
    kind: FieldKind,
    value: &Value,
    depth: u32,
) -> Result<(), String> {
    match kind {
        FieldKind::Bool => {
            wire::put_bool(out, number, value.as_bool().ok_or("true or false is wanted")?);
        }
        FieldKind::String => wire::put_str(out, number, value.as_str().ok_or("a text is wanted")?),
        FieldKind::Bytes => wire::put_bytes(out, number, &bytes(value)?),
        FieldKind::Double => {
            wire::put_double(out, number, value.as_f64().ok_or("a number is wanted")?);
        }
        FieldKind::Int32 => wire::put_int32(out, number, integer(value)?),
        FieldKind::Int64 => wire::put_uint(out, number, integer::<i64>(value)? as u64),
        FieldKind::Uint32 => wire::put_uint(out, number, u64::from(integer::<u32>(value)?)),
        FieldKind::Uint64 => wire::put_uint(out, number, integer(value)?),
        FieldKind::Enum(info) => {
            let known = value.as_str().map(|name| {
                info.number_of(name)
                    .ok_or_else(|| format!("{} has no value of this name", info.name))
            });
            wire::put_int32(out, number, known.unwrap_or_else(|| integer(value))?);
        }
        FieldKind::Message(info) => {
            wire::put_nested(out, number, |out| put_message(out, info, value, depth))?;
        }
    }
    Ok(())
}

/// A whole number that fits, given as a number or as its digits.
fn integer<T: TryFrom<i128>>(value: &Value) -> Result<T, String> {
    let number = match value {
        Value::String(digits) => digits.parse::<i128>().ok(),
        other => other.as_i64().map(i128::from).or_else(|| other.as_u64().map(i128::from)),
    };
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| "a whole number that fits is wanted".into())
}

fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    let wanted = "a text, or a table with `hex` or `base64`, is wanted";
    if let Some(text) = value.as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let members = value.as_object().filter(|members| members.len() == 1).ok_or(wanted)?;
    match (members.get("hex"), members.get("base64")) {
        (Some(Value::String(hex)), None) => form::hex(hex),
        (None, Some(Value::String(base64))) => form::base64(base64),
        _ => Err(wanted.into()),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::proto;

    #[test]
    fn messages_of_all_kinds_of_fields() {
        let json = json!({
            "root_prompt_messages_json": ["text", {"hex": "00ff"}, {"base64": "aGk="}],
            "token_details": {"used_tokens": 7, "max_tokens": "4000000000"},
            "mode": -1,
            "file_states": {"a": {"hex": "01"}},
            "summary": null,
        });
        let bytes = encode("ConversationStateStructure", &json).unwrap();
        let state = proto::ConversationStateStructure::decode(bytes.as_slice()).unwrap();
        let roots: Vec<_> = state.root_prompt_messages_json.iter().map(|root| &root[..]).collect();
        assert_eq!(roots, [b"text".as_slice(), &[0, 255], b"hi"]);
        assert_eq!(state.token_details.unwrap().max_tokens, 4_000_000_000);
        assert_eq!((state.mode, state.file_states["a"][0]), (Some(-1), 1));

        let json = json!({"turn_ended": {"input_tokens": "9007199254740993"}});
        let bytes = encode("InteractionUpdate", &json).unwrap();
        let update = proto::InteractionUpdate::decode(bytes.as_slice()).unwrap();
        let Some(proto::interaction_update::Message::TurnEnded(end)) = update.message else {
            panic!()
        };
        assert_eq!(end.input_tokens, Some(9_007_199_254_740_993));
    }

    #[test]
    fn every_case_of_both_channels_has_a_name() {
        for (message, numbers) in [("ExecServerMessage", 40), ("InteractionQuery", 7)] {
            let info = MessageInfo::named(message).unwrap();
            let cases = info.fields.iter().filter_map(|field| case(message, field.name).ok());
            let fields: Vec<_> = cases.map(|case| case.field).collect();
            assert_eq!(fields.len(), numbers, "{message}: {fields:?}");
        }
    }

    #[test]
    fn faults_name_the_member() {
        for (json, part) in [
            (json!({"txt": 1}), "InteractionUpdate has no member `txt`"),
            (json!({"text_delta": {"text": 1}}), "TextDeltaUpdate.text: a text is wanted"),
            (json!({"token_delta": {"tokens": 1.5}}), "a whole number"),
            (json!({"token_delta": {"tokens": 1_u64 << 40}}), "a whole number"),
            (json!([]), "is a table"),
        ] {
            let error = encode("InteractionUpdate", &json).unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
        let deep = (0..200).fold(json!({}), |inner, _| json!({"tool_call_delta": inner}));
        assert!(encode("InteractionUpdate", &deep).is_err());
        assert!(case("ExecServerMessage", "span_context").is_err());
        assert!(case("ExecServerMessage", "id").is_err());
    }
}
