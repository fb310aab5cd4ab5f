//! Messages as the JSON that the service builds the model's prompt from (PROTOCOL 4): one blob each,
//! keys sorted.
//!
//! | message | JSON |
//! |---|---|
//! | system | `{"content":TEXT,"role":"system"}` |
//! | user | `{"content":[PART…],"role":"user"}` |
//! | assistant | `{"content":[PART…],"role":"assistant"}` |
//! | tool result | `{"content":[{"isError":…,"result":…,"toolCallId":…,"toolName":…,"type":"tool-result"}],"role":"tool"}` |
//!
//! Parts: `{"text":…,"type":"text"}`, `{"text":…,"type":"reasoning"}`,
//! `{"image":BASE64,"mediaType":…,"type":"image"}`,
//! `{"args":…,"toolCallId":…,"toolName":…,"type":"tool-call"}`. `result` is the text of the result;
//! one that has images is a list of text and image parts.

use std::borrow::Cow;

use super::image::{self, Place};
use super::json::{self, Keys};
use super::turn::joined;
use crate::context::{AssistantPart, Image, Part, ToolCall, ToolResult, UserContent};
use crate::error::Result;

/// Appends the system entry as the reference writes it, `role` first.
pub(crate) fn reference_system(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(br#"{"role":"system","content":"#);
    json::write_string(out, text);
    out.push(b'}');
}

/// Appends the system entry.
pub(crate) fn system(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(br#"{"content":"#);
    json::write_string(out, text);
    out.extend_from_slice(br#","role":"system"}"#);
}

/// Appends a user message; false, and nothing, when it says nothing: providers refuse an empty one.
pub(crate) fn user(out: &mut Vec<u8>, content: &UserContent) -> Result<bool> {
    message(out, "user", |list| match content {
        UserContent::Text(text) => {
            list.text("text", text);
            Ok(())
        }
        UserContent::Parts(parts) => {
            let mut index = 0;
            for part in parts {
                match part {
                    Part::Text { text } => list.text("text", text),
                    Part::Image(image) => {
                        let mime_type = &image.mime_type;
                        list.image(image, Place::Selected { index, mime_type })?;
                        index += 1;
                    }
                }
            }
            Ok(())
        }
    })
}

/// Appends an assistant message; false, and nothing, when it says nothing. `wire_id` gives the form
/// of a tool call's id that the service may see.
pub(crate) fn assistant<'a>(
    out: &mut Vec<u8>,
    content: &'a [AssistantPart],
    mut wire_id: impl FnMut(&'a ToolCall) -> Cow<'a, str>,
) -> Result<bool> {
    message(out, "assistant", |list| {
        for part in content {
            match part {
                AssistantPart::Text { text } => list.text("text", text),
                AssistantPart::Thinking { thinking } => list.text("reasoning", thinking),
                AssistantPart::ToolCall(call) => {
                    list.next();
                    list.out.extend_from_slice(br#"{"args":"#);
                    json::write(list.out, &call.arguments, Keys::Sorted)?;
                    list.names(&wire_id(call), &call.name, "tool-call");
                }
            }
        }
        Ok(())
    })
}

/// Appends an assistant message that is one call of which only the name is known.
pub(crate) fn bare_call(out: &mut Vec<u8>, id: &str, name: &str) -> Result<bool> {
    message(out, "assistant", |list| {
        list.next();
        list.out.extend_from_slice(br#"{"args":{}"#);
        list.names(id, name, "tool-call");
        Ok(())
    })
}

/// Appends the message of a tool result.
pub(crate) fn tool(out: &mut Vec<u8>, id: &str, name: &str, result: &ToolResult) -> Result<bool> {
    let images = result.content.iter().any(|part| matches!(part, Part::Image(_)));
    message(out, "tool", |list| {
        list.result(result.is_error);
        if images && !result.is_error {
            let mut parts = Parts { out: list.out, count: 0 };
            for (index, part) in result.content.iter().enumerate() {
                match part {
                    Part::Text { text } => parts.text("text", text),
                    Part::Image(image) => {
                        let mime_type = &image.mime_type;
                        parts.image(image, Place::Mcp { index, mime_type })?;
                    }
                }
            }
            parts.close();
        } else {
            json::write_string(list.out, &joined(&result.content));
        }
        list.names(id, name, "tool-result");
        Ok(())
    })
}

/// Appends the message that stands for a result that never came: providers refuse a call without.
pub(crate) fn no_result(out: &mut Vec<u8>, id: &str, name: &str) -> Result<bool> {
    message(out, "tool", |list| {
        list.result(true);
        json::write_string(list.out, "The tool call was interrupted and has no result.");
        list.names(id, name, "tool-result");
        Ok(())
    })
}

/// Appends a message of a role; `false`, and nothing, when `write` writes no part.
fn message(
    out: &mut Vec<u8>,
    role: &str,
    write: impl FnOnce(&mut Parts<'_>) -> Result<()>,
) -> Result<bool> {
    let start = out.len();
    out.extend_from_slice(br#"{"content":"#);
    let mut parts = Parts { out, count: 0 };
    write(&mut parts)?;
    if !parts.close() {
        out.truncate(start);
        return Ok(false);
    }
    out.extend_from_slice(br#","role":"#);
    json::write_string(out, role);
    out.push(b'}');
    Ok(true)
}

/// A list of parts that is being written.
struct Parts<'a> {
    out: &'a mut Vec<u8>,
    count: usize,
}

impl Parts<'_> {
    /// What stands in front of the next part.
    fn next(&mut self) {
        self.out.push(if self.count == 0 { b'[' } else { b',' });
        self.count += 1;
    }

    /// Ends the list and says whether it has a part.
    fn close(&mut self) -> bool {
        self.out.extend_from_slice(if self.count == 0 { b"[]" } else { b"]" });
        self.count > 0
    }

    /// A part of text; empty text is left out.
    fn text(&mut self, kind: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        self.next();
        self.out.extend_from_slice(br#"{"text":"#);
        json::write_string(self.out, text);
        self.kind(kind);
    }

    /// A part that is an image: its base64 text without separators.
    fn image(&mut self, image: &Image, place: Place<'_>) -> Result<()> {
        let data = image::canonical(&image.data, place)?;
        self.next();
        self.out.reserve(data.len() + image.mime_type.len() + 64);
        self.out.extend_from_slice(br#"{"image":""#);
        self.out.extend_from_slice(data.as_bytes());
        self.out.extend_from_slice(br#"","mediaType":"#);
        json::write_string(self.out, &image.mime_type);
        self.kind("image");
        Ok(())
    }

    /// The first half of a tool result, up to what it says.
    fn result(&mut self, is_error: bool) {
        self.next();
        self.out.extend_from_slice(br#"{"isError":"#);
        self.out.extend_from_slice(if is_error { b"true" } else { b"false" });
        self.out.extend_from_slice(br#","result":"#);
    }

    /// The rest of a part about a tool call.
    fn names(&mut self, id: &str, name: &str, kind: &str) {
        self.out.extend_from_slice(br#","toolCallId":"#);
        json::write_string(self.out, id);
        self.out.extend_from_slice(br#","toolName":"#);
        json::write_string(self.out, if name.is_empty() { "tool" } else { name });
        self.kind(kind);
    }

    /// The type of a part, and its end.
    fn kind(&mut self, kind: &str) {
        self.out.extend_from_slice(br#","type":"#);
        json::write_string(self.out, kind);
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The JSON that `write` appends; it must be compact with sorted keys.
    fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<bool>) -> Option<Value> {
        let mut out = b"before".to_vec();
        let some = write(&mut out).unwrap();
        let text = out.strip_prefix(b"before").unwrap();
        if !some {
            assert!(text.is_empty());
            return None;
        }
        let value: Value = serde_json::from_slice(text).unwrap();
        let mut sorted = Vec::new();
        json::write(&mut sorted, &value, Keys::Sorted).unwrap();
        assert_eq!(str::from_utf8(text), str::from_utf8(&sorted));
        Some(value)
    }

    fn image() -> Part {
        Part::Image(Image { data: "aG\nk=".replace("\\n", "\n"), mime_type: "image/png".into() })
    }

    #[test]
    fn users_and_the_system() {
        let text = written(|out| user(out, &UserContent::Text("a \"b\"".into())));
        assert_eq!(
            text,
            Some(json!({"role": "user", "content": [{"type": "text", "text": "a \"b\""}]}))
        );
        let parts = vec![Part::Text { text: String::new() }, image()];
        let parts = written(|out| user(out, &UserContent::Parts(parts)));
        let image = json!({"type": "image", "image": "aGk=", "mediaType": "image/png"});
        assert_eq!(parts, Some(json!({"role": "user", "content": [image]})));
        assert_eq!(written(|out| user(out, &UserContent::Text(String::new()))), None);
        let entry = written(|out| {
            system(out, "be\nterse");
            Ok(true)
        });
        assert_eq!(entry, Some(json!({"role": "system", "content": "be\nterse"})));
    }

    #[test]
    fn assistants() {
        let content = [
            AssistantPart::Thinking { thinking: "hm".into() },
            AssistantPart::Text { text: String::new() },
            AssistantPart::Text { text: "yes".into() },
            AssistantPart::ToolCall(ToolCall {
                id: "a|b".into(),
                name: "ls".into(),
                arguments: json!({"z": 1.0, "a": [{"y": null, "x": true}]}),
            }),
        ];
        let value = written(|out| assistant(out, &content, |_| "a_b".into()));
        assert_eq!(
            value,
            Some(json!({"role": "assistant", "content": [
                {"type": "reasoning", "text": "hm"},
                {"type": "text", "text": "yes"},
                {"type": "tool-call", "toolCallId": "a_b", "toolName": "ls",
                 "args": {"z": 1, "a": [{"y": null, "x": true}]}}]}))
        );
        assert_eq!(written(|out| assistant(out, &[], |_| "".into())), None);
        let call = json!({"type": "tool-call", "toolCallId": "c", "toolName": "tool", "args": {}});
        assert_eq!(
            written(|out| bare_call(out, "c", "")),
            Some(json!({"role": "assistant", "content": [call]}))
        );
    }

    #[test]
    fn tool_results() {
        let part = |result: Value, is_error: bool| {
            json!({"role": "tool", "content": [{"type": "tool-result", "toolCallId": "c",
                "toolName": "shot", "result": result, "isError": is_error}]})
        };
        let mut result = ToolResult::text("c", "shot", "one");
        result.content.push(Part::Text { text: "two".into() });
        let text = written(|out| tool(out, "c", "shot", &result));
        assert_eq!(text, Some(part(json!("one\ntwo"), false)));
        result.content.push(image());
        assert_eq!(
            written(|out| tool(out, "c", "shot", &result)),
            Some(part(
                json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two"},
                       {"type": "image", "image": "aGk=", "mediaType": "image/png"}]),
                false
            ))
        );
        result.is_error = true;
        let error = written(|out| tool(out, "c", "shot", &result));
        assert_eq!(error, Some(part(json!("one\ntwo"), true)));
        let none = written(|out| no_result(out, "c", "shot")).unwrap();
        assert_eq!(none["content"][0]["isError"], true);
    }
}
