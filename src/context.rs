//! What a caller says to a model: system prompt, messages, tools.
//!
//! The JSON form (serde) is the one of the vectors and of `--context FILE` on the command line:
//!
//! ```
//! let context: agentwire::context::Context = serde_json::from_str(r#"{
//!   "systemPrompt": "You are terse.",
//!   "messages": [
//!     {"role": "user", "content": "list the files"},
//!     {"role": "assistant", "content": [
//!       {"type": "toolCall", "id": "call_1", "name": "ls", "arguments": {"path": "."}}]},
//!     {"role": "toolResult", "toolCallId": "call_1", "toolName": "ls", "isError": false,
//!      "content": [{"type": "text", "text": "a.rs"}]},
//!     {"role": "user", "content": [{"type": "text", "text": "and this?"},
//!       {"type": "image", "data": "aGk=", "mimeType": "image/png"}]}],
//!   "tools": [{"name": "ls", "description": "List a folder", "parameters": {"type": "object"}}],
//!   "about": {"rules": [{"content": "Answer in French."}],
//!     "environment": {"osVersion": "linux", "shell": "bash", "timeZone": "Europe/Paris"}}
//! }"#)?;
//! assert_eq!(context.messages.len(), 4);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod request;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use request::{
    DebugMode, Environment, Folder, GitRepo, McpFiles, McpInstructions, McpServer, McpServerTool,
    Repository, RequestContext, Rule, RuleScope, RuleSource, Skill, Subagent, SubagentPermission,
};

/// Everything one request says: the last message is what is asked now, those before are history.
///
/// Messages and tools are shared pointers, so that a context is cheap to clone and a conversation
/// recognises what it has sent before by the pointer instead of by reading it again: keep the
/// `Arc`s from turn to turn and a new turn costs what is new (PERFORMANCE goal 16).
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Context {
    /// The host's system prompt; `None` and empty are the same on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// History and the current message, oldest first.
    pub messages: Vec<Arc<Message>>,
    /// Tools that the model may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Arc<Tool>>,
    /// What the model is told about the host and its workspace. Empty by default.
    #[serde(skip_serializing_if = "is_nothing")]
    pub about: Arc<RequestContext>,
}

fn is_nothing(about: &Arc<RequestContext>) -> bool {
    about.is_empty()
}

/// One message of a conversation.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "camelCase")]
pub enum Message {
    /// What the person (or the program) said.
    User {
        /// Plain text, or parts of text and images.
        content: UserContent,
    },
    /// What the model said and which tools it called.
    Assistant {
        /// Text, thinking and tool calls in the order they came.
        content: Vec<AssistantPart>,
    },
    /// The answer to one tool call.
    ToolResult(ToolResult),
}

/// Content of a user message.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UserContent {
    /// Plain text.
    Text(String),
    /// Text and images in order.
    Parts(Vec<Part>),
}

/// A piece of a user message or of a tool result.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image.
    Image(Image),
}

/// An image as base64 text (standard alphabet, padded; TAB, LF, FF, CR and SPACE may stand anywhere).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Base64 of the image file.
    pub data: String,
    /// MIME type, for instance `image/png`; sent as given.
    pub mime_type: String,
}

/// A piece of an assistant message.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum AssistantPart {
    /// Answer text.
    Text {
        /// The text.
        text: String,
    },
    /// Reasoning that the model showed.
    Thinking {
        /// The text.
        thinking: String,
    },
    /// A tool call.
    ToolCall(ToolCall),
}

/// A tool call of the model.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Id that the result names again.
    pub id: String,
    /// Name of the tool as the caller defined it.
    pub name: String,
    /// Arguments; an object for every well-behaved model, anything else is kept as it came.
    #[serde(default = "empty_object")]
    pub arguments: Value,
}

/// The answer to a tool call.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolResult {
    /// Id of the call.
    pub tool_call_id: String,
    /// Name of the tool.
    #[serde(default)]
    pub tool_name: String,
    /// Text and images; an error sends its text only.
    #[serde(default)]
    pub content: Vec<Part>,
    /// Whether the tool failed.
    #[serde(default)]
    pub is_error: bool,
}

/// A tool that the model may call.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Name, unique among the tools of a request.
    pub name: String,
    /// What it does, for the model.
    #[serde(default)]
    pub description: String,
    /// JSON schema of the arguments. The service takes no `oneOf`, `anyOf`, `allOf` and `$ref`: see
    /// [`Schemas`](crate::codec::Schemas) for what becomes of them.
    #[serde(default = "empty_object")]
    pub parameters: Value,
}

fn empty_object() -> Value {
    Value::Object(Map::new())
}

impl Context {
    /// A context that asks one thing.
    pub fn prompt(text: impl Into<String>) -> Self {
        Self::default().message(Message::user(text))
    }

    /// Sets the system prompt.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system_prompt = Some(text.into());
        self
    }

    /// Adds a message at the end.
    #[must_use]
    pub fn message(mut self, message: impl Into<Arc<Message>>) -> Self {
        self.push(message);
        self
    }

    /// Adds a tool.
    #[must_use]
    pub fn tool(mut self, tool: impl Into<Arc<Tool>>) -> Self {
        self.tools.push(tool.into());
        self
    }

    /// Sets what the model is told about the host and its workspace.
    #[must_use]
    pub fn about(mut self, about: impl Into<Arc<RequestContext>>) -> Self {
        self.about = about.into();
        self
    }

    /// Adds a message at the end.
    pub fn push(&mut self, message: impl Into<Arc<Message>>) {
        self.messages.push(message.into());
    }
}

impl Message {
    /// A user message of plain text.
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { content: UserContent::Text(text.into()) }
    }

    /// An assistant message of plain text.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::Assistant { content: vec![AssistantPart::Text { text: text.into() }] }
    }
}

impl ToolResult {
    /// A successful answer of plain text.
    pub fn text(id: impl Into<String>, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            tool_call_id: id.into(),
            tool_name: name.into(),
            content: vec![Part::Text { text: text.into() }],
            is_error: false,
        }
    }

    /// A failed answer: the model is told `text`.
    pub fn error(id: impl Into<String>, name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(id, name, text) }
    }
}

/// Content is a person's: `Debug` shows shapes and sizes, never text (see `tests` below).
mod debug {
    use std::fmt::{Debug, Formatter, Result};

    use super::*;

    impl Debug for Context {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            f.debug_struct("Context")
                .field("system_prompt_len", &self.system_prompt.as_ref().map(String::len))
                .field("messages", &self.messages)
                .field("tools", &self.tools)
                .field("about", &self.about)
                .finish()
        }
    }

    impl Debug for Message {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            match self {
                Self::User { content } => f.debug_tuple("User").field(content).finish(),
                Self::Assistant { content } => f.debug_tuple("Assistant").field(content).finish(),
                Self::ToolResult(result) => result.fmt(f),
            }
        }
    }

    impl Debug for UserContent {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            match self {
                Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
                Self::Parts(parts) => parts.fmt(f),
            }
        }
    }

    impl Debug for Part {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            match self {
                Self::Text { text } => write!(f, "Text({} bytes)", text.len()),
                Self::Image(image) => image.fmt(f),
            }
        }
    }

    impl Debug for Image {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            write!(f, "Image({} characters)", self.data.len())
        }
    }

    impl Debug for AssistantPart {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            match self {
                Self::Text { text } => write!(f, "Text({} bytes)", text.len()),
                Self::Thinking { thinking } => write!(f, "Thinking({} bytes)", thinking.len()),
                Self::ToolCall(call) => call.fmt(f),
            }
        }
    }

    impl Debug for ToolCall {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            f.debug_struct("ToolCall")
                .field("id", &self.id)
                .field("name", &self.name)
                .finish_non_exhaustive()
        }
    }

    impl Debug for ToolResult {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            f.debug_struct("ToolResult")
                .field("tool_call_id", &self.tool_call_id)
                .field("tool_name", &self.tool_name)
                .field("is_error", &self.is_error)
                .field("content", &self.content)
                .finish()
        }
    }

    impl Debug for Tool {
        fn fmt(&self, f: &mut Formatter<'_>) -> Result {
            f.debug_struct("Tool").field("name", &self.name).finish_non_exhaustive()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_content() {
        let mut context = Context::prompt("my secret plan").system("be sly");
        context.push(Message::ToolResult(ToolResult::text("c1", "read", "file content")));
        context.push(Message::assistant("model text"));
        let text = format!("{context:?}");
        for hidden in ["secret", "sly", "file content", "model text"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}
