//! What the tests of agents share.

use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::tool::{Typed, tool};
use agentwire_agent::{Agent, AgentBuilder, Event, ToolContext, ToolError, ToolStatus};
use serde_json::{Value, json};

#[derive(serde::Deserialize, schemars::JsonSchema)]
pub(crate) struct Add {
    /// The first number.
    pub(crate) a: i64,
    /// The second number.
    pub(crate) b: i64,
}

type Sum = std::future::Ready<Result<String, ToolError>>;

pub(crate) fn add() -> Typed<Add, impl Fn(ToolContext, Add) -> Sum + Send + Sync + 'static> {
    tool("add", "Adds two numbers", |_, Add { a, b }| std::future::ready(Ok((a + b).to_string())))
}

pub(crate) fn agent(replies: impl IntoIterator<Item = Reply>) -> AgentBuilder {
    Agent::builder(Scripted::replies(replies)).model("m")
}

/// A model that calls one tool with these arguments and then says what came back.
pub(crate) fn calls(name: &'static str, args: &Value) -> Scripted {
    let args = args.clone();
    Scripted::new(move |request| match request.context.messages.last().map(|last| &**last) {
        Some(agentwire::context::Message::ToolResult(result)) => {
            Reply::new().text(text(&result.content))
        }
        _ => Reply::new().call("c1", name, args.clone()),
    })
}

pub(crate) fn text(parts: &[agentwire::context::Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            agentwire::context::Part::Text { text: piece } => text.push_str(piece),
            agentwire::context::Part::Image(image) => text.push_str(&image.mime_type),
        }
    }
    text
}

pub(crate) fn statuses(events: &[Event]) -> Vec<ToolStatus> {
    let status = |event: &Event| match event {
        Event::ToolFinished { status, .. } => Some(*status),
        _ => None,
    };
    events.iter().filter_map(status).collect()
}

pub(crate) fn no_arguments() -> Value {
    json!({"type": "object"})
}
