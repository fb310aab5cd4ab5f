//! Messages from JSON by proto names, as scripts give them: the JSON of `agentwire decode`.

use serde_json::Value;

use crate::inspect;
use crate::proto::reflect::{FieldKind, MessageInfo};
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
        match args {
            Value::Null => Ok(Vec::new()),
            args => from_json(self.message, args),
        }
    }
}

/// A message from its JSON.
pub(super) fn encode(message: &str, json: &Value) -> Result<Vec<u8>> {
    from_json(named(message)?, json)
}

fn from_json(message: &'static MessageInfo, json: &Value) -> Result<Vec<u8>> {
    inspect::from_json_as(message, json).map_err(|error| Error::invalid(error.to_string()))
}

fn named(message: &str) -> Result<&'static MessageInfo> {
    MessageInfo::named(message).ok_or_else(|| Error::invalid(format!("no message `{message}`")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
    fn what_is_no_case_or_no_member_is_refused() {
        assert!(case("ExecServerMessage", "span_context").is_err());
        assert!(case("ExecServerMessage", "id").is_err());
        let error = encode("InteractionUpdate", &json!({"txt": 1})).unwrap_err();
        assert!(error.message().contains("txt"), "{error}");
        // A number where the wire has 64 bits, as a person writes it.
        let update = encode("InteractionUpdate", &json!({"step_started": {"step_id": 7}})).unwrap();
        assert_eq!(update, [0x82, 1, 2, 8, 7]);
    }
}
