//! Which tool a small model would call next, and with what.

use serde_json::{Map, Value, json};

use super::facts::{Facts, Offered};
use crate::server::script::Call;

/// The next call, or `None` when the assistant has what it needs.
///
/// First the tool that the prompt names, else one that lists, else the first. After a list, one
/// that reads, with the first file that the list has. Then it is enough: a task of list, read,
/// answer works, and every other set of tools gets one call.
pub(super) fn next_call(facts: &Facts) -> Option<Call> {
    let offered = match facts.calls.as_slice() {
        [] => first_tool(facts)?,
        [listed] if !listed.is_error && is_list(&listed.tool) => {
            let read = facts.tools.iter().find(|tool| is_read(&tool.tool_name))?;
            let file = first_file(listed.text.as_deref()?)?;
            return Some(call(read, arguments(&read.schema, &file)));
        }
        _ => return None,
    };
    let about = if is_list(&offered.tool_name) { "." } else { &facts.prompt };
    Some(call(offered, arguments(&offered.schema, about)))
}

fn call(tool: &Offered, args: Map<String, Value>) -> Call {
    Call { tool: tool.tool_name.clone(), args, ..Call::default() }
}

fn first_tool(facts: &Facts) -> Option<&Offered> {
    let prompt = facts.prompt.to_lowercase();
    let words = |name: &str| {
        prompt
            .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
            .any(|word| word == name)
    };
    let named = facts.tools.iter().find(|tool| words(&tool.tool_name.to_lowercase()));
    let lists = || facts.tools.iter().find(|tool| is_list(&tool.tool_name));
    named.or_else(lists).or_else(|| facts.tools.first())
}

/// Whether a name is that of a tool that lists a folder.
fn is_list(name: &str) -> bool {
    let name = name.to_lowercase();
    name == "ls" || name == "list" || name.starts_with("list_")
}

/// Whether a name is that of a tool that reads a file.
fn is_read(name: &str) -> bool {
    let name = name.to_lowercase();
    name == "read" || name == "cat" || name.starts_with("read_")
}

/// The first thing in a list that looks like a file name.
fn first_file(list: &str) -> Option<String> {
    let words =
        list.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '[' | ']' | '\''));
    let looks = |word: &&str| {
        let name = word.rsplit('/').next().unwrap_or_default();
        name.split_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && !ending.is_empty())
    };
    words.filter(|word| !word.is_empty()).find(looks).map(str::to_owned)
}

/// Arguments for the required properties of a schema; `about` goes into the strings.
fn arguments(schema: &Value, about: &str) -> Map<String, Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    let names = required.into_iter().flatten().filter_map(Value::as_str);
    names
        .map(|name| {
            let property = properties.and_then(|properties| properties.get(name));
            (
                name.to_owned(),
                property.map_or_else(|| json!(about), |property| sample(property, about, 8)),
            )
        })
        .collect()
}

/// A value that a schema allows, as far as simple keywords say; `depth` bounds the nesting.
fn sample(schema: &Value, about: &str, depth: u32) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    for keyword in ["const", "default"] {
        if let Some(value) = schema.get(keyword) {
            return value.clone();
        }
    }
    for keyword in ["enum", "examples"] {
        if let Some(value) =
            schema.get(keyword).and_then(Value::as_array).and_then(|all| all.first())
        {
            return value.clone();
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.iter().find_map(Value::as_str).unwrap_or("string"),
        _ if schema.get("properties").is_some() => "object",
        _ => "string",
    };
    match kind {
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        "boolean" => json!(true),
        "null" => Value::Null,
        "array" => {
            let wanted = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0).min(4);
            let item = schema.get("items").unwrap_or(&Value::Null);
            (0..wanted).map(|_| sample(item, about, depth - 1)).collect()
        }
        "object" => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let required = schema.get("required").and_then(Value::as_array);
            let names = required.into_iter().flatten().filter_map(Value::as_str);
            let fields = names.map(|name| {
                let property = properties.and_then(|properties| properties.get(name));
                (name.to_owned(), sample(property.unwrap_or(&Value::Null), about, depth - 1))
            });
            Value::Object(fields.collect())
        }
        _ => json!(about),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::AgentRunRequest;
    use crate::server::player::facts::Called;

    fn facts(prompt: &str, tools: &[(&str, Value)]) -> Facts {
        let tools = tools.iter().map(|(name, schema)| Offered {
            tool_name: (*name).to_owned(),
            schema: schema.clone(),
            ..Offered::default()
        });
        let tools = tools.collect();
        Facts { prompt: prompt.into(), tools, ..Facts::of(&AgentRunRequest::default()) }
    }

    #[test]
    fn list_then_read_then_enough() {
        let path = json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
        let mut facts = facts("what is in here?", &[("read", path.clone()), ("ls", path)]);
        let listed = next_call(&facts).unwrap();
        assert_eq!((listed.tool.as_str(), json!(listed.args)), ("ls", json!({"path": "."})));
        facts.calls.push(Called {
            tool: "ls".into(),
            text: Some("src/\nREADME.md\n".into()),
            ..Called::default()
        });
        let read = next_call(&facts).unwrap();
        assert_eq!((read.tool.as_str(), json!(read.args)), ("read", json!({"path": "README.md"})));
        facts.calls.push(Called {
            tool: "read".into(),
            text: Some("hello".into()),
            ..Called::default()
        });
        assert!(next_call(&facts).is_none());
    }

    #[test]
    fn the_tool_that_is_named_comes_first() {
        let facts = facts("please use add", &[("sub", json!({})), ("add", json!({}))]);
        assert_eq!(next_call(&facts).unwrap().tool, "add");
    }

    #[test]
    fn arguments_fit_the_schema() {
        let schema = json!({
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 2},
                "unit": {"enum": ["c", "f"]},
                "deep": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
                "list": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "spare": {"type": "string"},
            },
            "required": ["city", "days", "unit", "deep", "list"],
        });
        let expected =
            json!({"city": "x", "days": 2, "unit": "c", "deep": {"on": true}, "list": ["x"]});
        assert_eq!(Value::Object(arguments(&schema, "x")), expected);
    }

    #[test]
    fn a_schema_that_nests_for_ever_is_cut() {
        let mut schema = json!({"type": "string"});
        for _ in 0..60 {
            schema = json!({"type": "array", "minItems": 4, "items": schema});
        }
        assert!(sample(&schema, "x", 8).is_array());
    }
}
