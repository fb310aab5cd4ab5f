//! What a player makes of what the client says.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;

use super::facts::{Called, Facts};
use super::outcome::{self, Outcome};
use super::task::Waiting;
use super::{Key, Player, Purpose};
use crate::codec::value;
use crate::connect::Code;
use crate::proto::{
    self, conversation_action, exec_client_message, interaction_update, mcp_result,
    mcp_tool_result_content_item, request_context_result, tool_call,
};
use crate::server::script::{Call, WaitEvent};
use crate::server::session::{EndError, Event};

impl Player {
    pub(super) fn on_event(&mut self, event: Event, _now: Instant) {
        match event {
            Event::Run { request, state } => self.start(&request, state),
            Event::ExecResult(result) => self.on_result(*result),
            Event::ExecThrown { id, error } => self.on_thrown(id, &error),
            Event::ExecClosed { id } => self.on_closed(id),
            Event::ExecHeartbeat { .. } => self.happened(WaitEvent::ExecHeartbeat),
            Event::Blob { id, data } => self.on_blob(id, data),
            Event::BlobStored { id, .. } => drop(self.pending.remove(&Key::Blob(id))),
            Event::Answer(answer) => self.on_answer(&answer),
            Event::Action(action) => self.on_action(*action),
            Event::Heartbeat => self.happened(WaitEvent::Heartbeat),
            Event::HalfClosed => {
                self.half_closed = true;
                self.happened(WaitEvent::HalfClose);
                self.lost_answers();
                if self.facts.is_none() {
                    // A prewarm and nothing more.
                    self.session.finish();
                }
            }
            Event::Prewarm(_) => self.session.respond(200, &[]),
            Event::Gone { .. } => {
                self.tasks.clear();
                self.pending.clear();
                self.speech = None;
            }
            Event::Violation(violation) => tracing::warn!(%violation, "the client broke a rule"),
            Event::Refused(error) => tracing::debug!(%error, "request refused"),
        }
    }

    /// Notes that the client did something that the script may wait for.
    fn happened(&mut self, what: WaitEvent) {
        if let Waiting::Event { event, happened, .. } = &mut self.waiting {
            *happened |= *event == what;
        }
    }

    /// A client that ended its side cannot answer any more: waiting for it is over.
    pub(super) fn lost_answers(&mut self) {
        let waits = matches!(self.waiting, Waiting::Answers(_));
        if self.half_closed && waits && self.pending.values().any(|pending| pending.awaited) {
            let message = "the client ended its side with questions unanswered";
            self.stop_with(&EndError::new(Code::FailedPrecondition, message));
        }
    }

    fn on_result(&mut self, result: proto::ExecClientMessage) {
        use exec_client_message::Message as M;

        let pending = self.pending.get(&Key::Exec(result.id));
        let (Some(pending), Some(facts)) = (pending, &mut self.facts) else { return };
        match (&pending.purpose, result.message) {
            (Purpose::Plain, message) => {
                facts.heard(&proto::ExecClientMessage { message, ..<_>::default() });
            }
            (&Purpose::Look(index), message) => {
                let result = proto::ExecClientMessage { message, ..<_>::default() };
                let outcome = Outcome::of(&result);
                facts.answered(index, &outcome.text, 0, outcome.is_error);
            }
            (Purpose::Context, Some(M::RequestContextResult(context))) => {
                if let Some(request_context_result::Result::Success(success)) = context.result {
                    facts.learn(&success.request_context.unwrap_or_default());
                }
            }
            (&Purpose::Call { index, .. }, Some(M::McpResult(result))) => {
                let (text, images, is_error) = outcome(result.result);
                facts.answered(index, &text, images, is_error);
            }
            _ => {}
        }
    }

    fn on_thrown(&mut self, id: u32, error: &str) {
        let pending = self.pending.get(&Key::Exec(id));
        let (Some(pending), Some(facts)) = (pending, &mut self.facts) else { return };
        match pending.purpose {
            Purpose::Call { index, .. } | Purpose::Look(index) => {
                facts.answered(index, error, 0, true);
            }
            _ => facts.answer = error.to_owned(),
        }
    }

    fn on_answer(&mut self, answer: &proto::InteractionResponse) {
        self.pending.remove(&Key::Query(answer.id));
        if let Some(facts) = &mut self.facts {
            let result = proto::InteractionResponse { result: answer.result.clone(), id: 0 };
            facts.answer =
                outcome::json("InteractionResponse", &result.encode_to_vec()).to_string();
        }
    }

    fn on_closed(&mut self, id: u32) {
        let Some(pending) = self.pending.remove(&Key::Exec(id)) else { return };
        if let Purpose::Call { index, quiet } = pending.purpose {
            self.end_call(index, quiet);
        }
    }

    fn on_blob(&mut self, id: u32, data: Option<Bytes>) {
        let Some(pending) = self.pending.remove(&Key::Blob(id)) else { return };
        if let Purpose::History(index) = pending.purpose
            && let Some(place) = self.history.get_mut(index)
        {
            self.history_bytes += data.as_ref().map_or(0, Bytes::len);
            *place = data.filter(|_| self.history_bytes <= self.session.options().history_bytes);
        }
    }

    fn on_action(&mut self, action: proto::ConversationAction) {
        use conversation_action::Action as A;

        self.happened(WaitEvent::Action);
        match action.action {
            Some(A::CancelAction(_)) => {
                self.cancelled = true;
                self.stop_with(&EndError::new(Code::Canceled, "the client cancelled the run"));
            }
            Some(A::UserMessageAction(action)) => {
                let message = action.user_message.unwrap_or_default();
                self.spoken.user(&message.text);
                let appended = proto::UserMessageAppendedUpdate { user_message: Some(message) };
                self.session
                    .update(interaction_update::Message::UserMessageAppended(Box::new(appended)));
            }
            _ => {}
        }
    }

    /// The call is over: shows it, and remembers it for the checkpoint.
    fn end_call(&mut self, index: usize, quiet: bool) {
        let Some(called) = self.facts.as_ref().and_then(|facts| facts.calls.get(index)).cloned()
        else {
            return;
        };
        if !quiet {
            let completed = proto::ToolCallCompletedUpdate {
                call_id: called.id.clone(),
                tool_call: Some(called.to_proto(self.facts.as_ref())),
                model_call_id: String::new(),
            };
            self.session
                .update(interaction_update::Message::ToolCallCompleted(Box::new(completed)));
        }
        self.spoken.call(called);
    }

    /// Shows that a call begins: its name, its arguments as they are written, in two pieces.
    pub(super) fn show_call(&mut self, call_id: &str, args: &proto::McpArgs) {
        let bare = proto::McpArgs { args: BTreeMap::new(), ..args.clone() };
        let started = proto::ToolCallStartedUpdate {
            call_id: call_id.into(),
            tool_call: Some(mcp_call(bare.clone(), None)),
            model_call_id: String::new(),
        };
        self.session.update(interaction_update::Message::ToolCallStarted(Box::new(started)));
        let called = self
            .facts
            .as_ref()
            .and_then(|facts| facts.calls.iter().find(|call| call.id == call_id));
        let text = called
            .map(|call| serde_json::Value::Object(call.args.clone()).to_string())
            .unwrap_or_default();
        let half = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        let (first, second) = text.split_at(half);
        for (piece, tool_call) in [(first, bare), (second, args.clone())] {
            let partial = proto::PartialToolCallUpdate {
                call_id: call_id.into(),
                tool_call: Some(mcp_call(tool_call, None)),
                args_text_delta: piece.into(),
                model_call_id: String::new(),
            };
            self.session.update(interaction_update::Message::PartialToolCall(Box::new(partial)));
        }
    }
}

impl Facts {
    /// Notes a new call; gives its index and its message.
    pub(super) fn call(&mut self, call: &Call) -> (usize, proto::McpArgs) {
        let index = self.calls.len();
        let id = call.id.clone().unwrap_or_else(|| format!("call_{}_{}", self.turn, index + 1));
        let args = call.args.iter().map(|(name, value)| (name.clone(), self.render_value(value)));
        let called =
            Called { id, tool: call.tool.clone(), args: args.collect(), ..Called::default() };
        let mut message = called.to_args(Some(self));
        if let Some(provider) = &call.provider {
            message.provider_identifier.clone_from(provider);
        }
        self.calls.push(called);
        (index, message)
    }

    /// Takes over what a tool answered.
    fn answered(&mut self, index: usize, text: &str, images: usize, is_error: bool) {
        let text = self.kept(text);
        if let Some(called) = self.calls.get_mut(index) {
            called.text = Some(text);
            called.images = images;
            called.is_error = is_error;
        }
    }

    /// Replaces placeholders in a text argument.
    fn render_value(&self, value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::String(text) => self.render(text).into(),
            other => other.clone(),
        }
    }
}

impl Called {
    /// The `McpArgs` of the call.
    fn to_args(&self, facts: Option<&Facts>) -> proto::McpArgs {
        let offered =
            facts.and_then(|facts| facts.tools.iter().find(|tool| tool.tool_name == self.tool));
        let args = self.args.iter().map(|(name, argument)| {
            let mut bytes = Vec::new();
            // An argument that nests too deep was refused when the script was read; an empty value
            // is what is left of one that a template made so.
            let _ = value::from_json(argument, &mut bytes);
            (name.clone(), Bytes::from(bytes))
        });
        proto::McpArgs {
            name: offered.map_or_else(|| self.tool.clone(), |tool| tool.name.clone()),
            args: args.collect(),
            tool_call_id: self.id.clone(),
            provider_identifier: offered.map(|tool| tool.provider.clone()).unwrap_or_default(),
            tool_name: self.tool.clone(),
            ..proto::McpArgs::default()
        }
    }

    /// The whole call with its result, as it is shown and kept.
    pub(super) fn to_proto(&self, facts: Option<&Facts>) -> proto::ToolCall {
        let text = self.text.clone().unwrap_or_default();
        let result = if self.is_error {
            proto::mcp_tool_result::Result::Error(proto::McpToolError {
                error: text,
                ..Default::default()
            })
        } else {
            let text = proto::McpTextContent { text, ..Default::default() };
            let item = proto::McpToolResultContentItem {
                content: Some(mcp_tool_result_content_item::Content::Text(text)),
            };
            proto::mcp_tool_result::Result::Success(proto::McpSuccess {
                content: vec![item],
                is_error: false,
            })
        };
        mcp_call(self.to_args(facts), Some(proto::McpToolResult { result: Some(result) }))
    }
}

/// Text, number of images, and whether the tool failed.
fn outcome(result: Option<mcp_result::Result>) -> (String, usize, bool) {
    use mcp_result::Result as R;

    match result {
        Some(R::Success(success)) => {
            let (text, images) = content(&success.content);
            (text, images, success.is_error)
        }
        Some(R::Error(error)) => (error.error, 0, true),
        Some(R::Rejected(rejected)) => (rejected.reason, 0, true),
        Some(R::PermissionDenied(denied)) => (denied.error, 0, true),
        Some(R::ToolNotFound(_)) => ("tool not found".into(), 0, true),
        Some(R::ServerNotFound(_)) => ("server not found".into(), 0, true),
        Some(R::Approved(_)) => ("approved".into(), 0, false),
        None => ("an empty answer".into(), 0, true),
    }
}

/// Text and number of images of a result.
fn content(items: &[proto::McpToolResultContentItem]) -> (String, usize) {
    use mcp_tool_result_content_item::Content;

    let (mut texts, mut images) = (Vec::new(), 0);
    for item in items {
        match &item.content {
            Some(Content::Text(text)) => texts.push(text.text.as_str()),
            Some(Content::Image(_)) => images += 1,
            None => {}
        }
    }
    (texts.join("\n"), images)
}

fn mcp_call(args: proto::McpArgs, result: Option<proto::McpToolResult>) -> proto::ToolCall {
    let call = proto::McpToolCall { args: Some(args), result, ..Default::default() };
    let tool = tool_call::Tool::McpToolCall(Box::new(call));
    proto::ToolCall { tool: Some(tool), ..Default::default() }
}
