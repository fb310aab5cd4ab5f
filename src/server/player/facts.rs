//! What a player knows about the conversation, and the texts made of it.

use serde_json::{Map, Value};

use crate::codec::value;
use crate::proto::{self, conversation_action, selected_image};
use crate::server::script::{ActionKind, Facets};

// None of these is an option: they bound what one run of a script keeps and repeats of a request
// that has its own limits, and a test that needs more of it reads the request itself.

/// The most characters of somebody's text that a template repeats.
const ECHO: usize = 2_000;

/// The largest blob that is read as an entry of the root prompt, in bytes: JSON takes several times
/// its length while it is read.
const MAX_ENTRY: usize = 8 << 20;

/// The most characters of one tool result that are kept.
pub(super) const MAX_RESULT: usize = 256 << 10;

/// The most tool results of one run that are kept with their text.
const MAX_RESULTS: usize = 64;

/// A tool that the client offers.
#[derive(Clone, Default)]
pub(super) struct Offered {
    /// `name` of the definition.
    pub(super) name: String,
    /// `tool_name`: what the client calls it.
    pub(super) tool_name: String,
    /// `provider_identifier`.
    pub(super) provider: String,
    /// The JSON schema of the arguments.
    pub(super) schema: Value,
}

/// A message that came before the present one.
#[derive(Clone, Default)]
pub(super) struct Past {
    /// `system`, `user`, `assistant` or `tool`.
    pub(super) role: String,
    /// Its text.
    pub(super) text: String,
    /// Of a tool's result: the tool's name.
    pub(super) tool: Option<String>,
    /// Of a tool's result: whether it failed.
    pub(super) is_error: bool,
}

/// A tool call of this run, and what came back.
#[derive(Clone, Default)]
pub(super) struct Called {
    /// The tool-call id.
    pub(super) id: String,
    /// What the client calls the tool.
    pub(super) tool: String,
    /// The arguments.
    pub(super) args: Map<String, Value>,
    /// The text of the result; `None` while it is awaited.
    pub(super) text: Option<String>,
    /// Whether the tool failed.
    pub(super) is_error: bool,
    /// Images in the result.
    pub(super) images: usize,
}

/// What is known of the conversation so far.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) action: ActionKind,
    pub(super) prompt: String,
    pub(super) model: String,
    pub(super) conversation: String,
    pub(super) turn: u32,
    pub(super) used_tokens: u32,
    pub(super) images: usize,
    pub(super) tools: Vec<Offered>,
    /// Turns that the state names; a client may send them without a prompt.
    pub(super) turns: usize,
    /// Read from the root prompt's blobs.
    pub(super) past: Vec<Past>,
    /// Blobs that the client did not have.
    pub(super) missing: usize,
    /// Bytes of the blobs that were read.
    pub(super) past_bytes: usize,
    /// Rules of the request context.
    pub(super) rules: usize,
    pub(super) calls: Vec<Called>,
    /// What the last `ask` was answered.
    pub(super) answer: String,
}

impl Facts {
    /// What the run request says by itself.
    pub(super) fn of(request: &proto::AgentRunRequest) -> Self {
        let state = request.conversation_state.as_ref();
        let turns = state.map_or(0, |state| state.turns.len());
        let mut facts = Self {
            action: ActionKind::Other,
            prompt: String::new(),
            model: model_of(request),
            conversation: request.conversation_id.clone().unwrap_or_default(),
            turn: u32::try_from(turns).unwrap_or(u32::MAX).saturating_add(1),
            used_tokens: state
                .and_then(|state| state.token_details.as_ref())
                .map_or(0, |details| details.used_tokens),
            images: 0,
            tools: Vec::new(),
            turns,
            past: Vec::new(),
            missing: 0,
            past_bytes: 0,
            rules: 0,
            calls: Vec::new(),
            answer: String::new(),
        };
        if let Some(tools) = &request.mcp_tools {
            facts.offer(&tools.mcp_tools);
        }
        match request.action.as_ref().and_then(|action| action.action.as_ref()) {
            Some(conversation_action::Action::UserMessageAction(action)) => {
                facts.action = ActionKind::User;
                if let Some(message) = &action.user_message {
                    facts.prompt.clone_from(&message.text);
                    facts.images = images_of(message);
                }
                if let Some(context) = &action.request_context {
                    facts.learn(context);
                }
            }
            Some(conversation_action::Action::ResumeAction(action)) => {
                facts.action = ActionKind::Resume;
                // The state has the turn that is under way.
                facts.turn = u32::try_from(turns).unwrap_or(u32::MAX).max(1);
                if let Some(context) = &action.request_context {
                    facts.learn(context);
                }
            }
            _ => {}
        }
        facts
    }

    /// What rules look at.
    pub(super) fn facets(&self) -> Facets<'_> {
        Facets {
            prompt: &self.prompt,
            model: &self.model,
            turn: self.turn,
            action: self.action,
            used_tokens: self.used_tokens,
            tools: self.tools.len(),
            images: self.images,
        }
    }

    /// Takes over what a request context says.
    pub(super) fn learn(&mut self, context: &proto::RequestContext) {
        self.rules = self.rules.max(context.rules.len());
        self.offer(&context.tools);
    }

    /// Adds tools that are not known yet.
    fn offer(&mut self, tools: &[proto::McpToolDefinition]) {
        for tool in tools {
            let tool_name = if tool.tool_name.is_empty() { &tool.name } else { &tool.tool_name };
            if !self.tools.iter().any(|known| known.tool_name == *tool_name) {
                self.tools.push(Offered {
                    name: tool.name.clone(),
                    tool_name: tool_name.clone(),
                    provider: tool.provider_identifier.clone(),
                    schema: schema_of(tool),
                });
            }
        }
    }

    /// Takes over the blobs of the root prompt, in their order.
    pub(super) fn remember(&mut self, blobs: &[Option<bytes::Bytes>]) {
        self.missing = blobs.iter().filter(|blob| blob.is_none()).count();
        self.past_bytes = blobs.iter().flatten().map(bytes::Bytes::len).sum();
        self.past = blobs.iter().flatten().filter_map(|blob| past(blob)).collect();
        let asked = self.past.iter().filter(|past| past.role == "user").count();
        if self.action == ActionKind::User {
            self.turn = u32::try_from(asked.max(self.turns)).unwrap_or(u32::MAX).saturating_add(1);
        } else {
            let last = self.past.iter().rev().find(|past| past.role == "user");
            self.prompt = last.map(|past| past.text.clone()).unwrap_or_default();
            self.turn = u32::try_from(asked.max(self.turns)).unwrap_or(u32::MAX).max(1);
            self.answered_before();
        }
    }

    /// Tool results at the end of the history of a resumed turn count as this turn's: the tools
    /// are not called again for them.
    fn answered_before(&mut self) {
        let results = self.past.iter().rev().take_while(|past| past.role == "tool");
        let mut calls: Vec<_> = results
            .take(MAX_RESULTS)
            .map(|past| Called {
                tool: past.tool.clone().unwrap_or_else(|| "tool".into()),
                text: Some(cut(&past.text, MAX_RESULT)),
                is_error: past.is_error,
                ..Called::default()
            })
            .collect();
        calls.reverse();
        self.calls = calls;
    }

    /// What is kept of a tool result: a client decides how long it is and how many there are.
    pub(super) fn kept(&self, text: &str) -> String {
        match self.calls.len() <= MAX_RESULTS {
            true => cut(text, MAX_RESULT),
            false => cut(text, ECHO),
        }
    }

    /// Replaces `{{name}}` by what is known; an unknown name stays as it is.
    pub(super) fn render(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len());
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            out.push_str(before);
            let Some((name, tail)) = after.split_once("}}") else {
                out.push_str("{{");
                rest = after;
                continue;
            };
            match self.value(name.trim()) {
                Some(text) => out.push_str(&text),
                None => out.extend(["{{", name, "}}"]),
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }

    fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "prompt" => cut(&self.prompt, ECHO),
            "model" => self.model.clone(),
            "conversation" => self.conversation.clone(),
            "turn" => self.turn.to_string(),
            "history" => self.history(),
            "tools" => self.tool_list(),
            "images" => count(self.images, "image"),
            "rules" => count(self.rules, "rule"),
            "result" => self.calls.last().map(result).unwrap_or_default(),
            "results" => self.results(),
            "answer" => cut(&self.answer, ECHO),
            _ => return None,
        })
    }

    /// `2 earlier turns (the last one asked: "…")`.
    fn history(&self) -> String {
        let earlier = (self.turn as usize).saturating_sub(1);
        let mut text = count(earlier, "earlier turn");
        let mut asked = self.past.iter().rev().filter(|past| past.role == "user");
        let skip = usize::from(self.action != ActionKind::User);
        if let Some(last) = asked.nth(skip).filter(|_| earlier > 0) {
            text.push_str(&format!(" (the last one asked: \"{}\")", cut(&last.text, 120)));
        }
        if self.missing > 0 {
            text.push_str(&format!(" ({} of its blobs missing)", self.missing));
        }
        text
    }

    /// `2 tools (ls, read)`.
    fn tool_list(&self) -> String {
        let mut text = count(self.tools.len(), "tool");
        if !self.tools.is_empty() {
            let names: Vec<_> = self.tools.iter().map(|tool| tool.tool_name.as_str()).collect();
            text.push_str(&format!(" ({})", cut(&names.join(", "), 400)));
        }
        text
    }

    fn results(&self) -> String {
        let lines = self.calls.iter().filter(|call| call.text.is_some()).map(|call| {
            let verb = if call.is_error { "failed" } else { "answered" };
            format!("{} {verb}: {}", call.tool, result(call))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// The text of a result, and how many images came with it.
fn result(call: &Called) -> String {
    let mut text = cut(call.text.as_deref().unwrap_or_default(), ECHO);
    if call.images > 0 {
        text.push_str(&format!(" [{}]", count(call.images, "image")));
    }
    text
}

/// `no images`, `1 image`, `2 images`.
fn count(number: usize, noun: &str) -> String {
    match number {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The first characters of a text.
pub(super) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn model_of(request: &proto::AgentRunRequest) -> String {
    let requested = request.requested_model.as_ref().map(|model| &model.model_id);
    let details = request.model_details.as_ref().map(|model| &model.model_id);
    requested.or(details).cloned().unwrap_or_default()
}

/// Images with data or with the id of a blob.
fn images_of(message: &proto::UserMessage) -> usize {
    use selected_image::DataOrBlobId as D;

    let images = message.selected_context.as_ref().map(|context| &context.selected_images);
    let real = |image: &&proto::SelectedImage| match &image.data_or_blob_id {
        Some(D::Data(data)) => !data.is_empty(),
        Some(D::BlobId(id)) => !id.is_empty(),
        Some(D::BlobIdWithData(_)) => true,
        None => false,
    };
    images.map_or(0, |images| images.iter().filter(real).count())
}

/// The schema of a tool, from either of its forms.
fn schema_of(tool: &proto::McpToolDefinition) -> Value {
    let text = tool.input_schema_json.as_deref();
    text.and_then(|text| serde_json::from_str(text).ok())
        .or_else(|| value::to_json(&tool.input_schema).ok())
        .unwrap_or_default()
}

/// Role and text of one entry of the root prompt.
fn past(blob: &[u8]) -> Option<Past> {
    if blob.len() > MAX_ENTRY {
        return None;
    }
    let entry: Value = serde_json::from_slice(blob).ok()?;
    let role = entry.get("role")?.as_str()?.to_owned();
    let text = match entry.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(part_text).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    };
    let result = entry.get("content").and_then(Value::as_array).and_then(|parts| {
        parts.iter().find(|part| part.get("type").is_some_and(|kind| kind == "tool-result"))
    });
    let tool = result.and_then(|part| part.get("toolName")?.as_str().map(str::to_owned));
    let is_error = result.and_then(|part| part.get("isError")?.as_bool()).unwrap_or(false);
    Some(Past { role, text, tool, is_error })
}

/// The text of a part: that of a text part, or the result of a tool.
fn part_text(part: &Value) -> Option<String> {
    match part.get("type")?.as_str()? {
        "text" => part.get("text")?.as_str().map(str::to_owned),
        "tool-result" => part.get("result").map(|result| match result {
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts
                .iter()
                .filter_map(|part| part.get("text")?.as_str())
                .collect::<Vec<_>>()
                .join("\n"),
            other => other.to_string(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            prompt: "hi".into(),
            model: "composer-2".into(),
            ..Facts::of(&proto::AgentRunRequest::default())
        }
    }

    #[test]
    fn templates() {
        let facts = facts();
        for (template, text) in [
            ("{{prompt}} to {{ model }}", "hi to composer-2"),
            ("{{nothing}} {{", "{{nothing}} {{"),
            ("{{prompt", "{{prompt"),
            ("{{history}}, {{tools}}, {{images}}", "no earlier turns, no tools, no images"),
        ] {
            assert_eq!(facts.render(template), text);
        }
    }

    #[test]
    fn history_is_read_from_the_root_prompt() {
        let blob = |text: &'static str| Some(bytes::Bytes::from_static(text.as_bytes()));
        let mut facts = Facts { action: ActionKind::User, ..facts() };
        facts.remember(&[
            blob(r#"{"role":"system","content":"be kind"}"#),
            blob(r#"{"role":"user","content":[{"type":"text","text":"one"}]}"#),
            blob(r#"{"role":"assistant","content":[{"type":"text","text":"yes"}]}"#),
            None,
            blob(r#"{"role":"user","content":"two"}"#),
            blob("not json"),
        ]);
        assert_eq!(facts.turn, 3);
        assert_eq!(
            facts.render("{{history}}"),
            "2 earlier turns (the last one asked: \"two\") (1 of its blobs missing)"
        );
    }

    #[test]
    fn a_resumed_turn_answers_the_last_question_with_the_results_it_has() {
        let blob = |text: &'static str| Some(bytes::Bytes::from_static(text.as_bytes()));
        let mut facts = Facts { action: ActionKind::Resume, ..facts() };
        facts.remember(&[
            blob(r#"{"role":"user","content":"list"}"#),
            blob(r#"{"role":"tool","content":[{"type":"tool-result","result":"a.rs"}]}"#),
            blob(
                r#"{"role":"tool","content":[{"isError":true,"result":[{"text":"no"}],
                    "toolName":"read","type":"tool-result"}]}"#,
            ),
        ]);
        assert_eq!((facts.prompt.as_str(), facts.turn), ("list", 1));
        assert_eq!(facts.render("{{results}}"), "tool answered: a.rs\nread failed: no");
    }
}
