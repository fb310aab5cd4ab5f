//! Fuzz bodies of run requests and kept conversations; `fuzz/` and the property tests call them.

use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};

use super::{BlobLimits, Conversation, EncodedRun, Sent, encode_run};
use crate::codec::{Action, History, Model, Naming, RunRequest};
use crate::context::{
    AssistantPart, Context, Image, Message, Part, Tool, ToolCall, ToolResult, UserContent,
};
use crate::error::Kind;
use crate::ids::CountingIds;
use crate::proto::{
    AgentClientMessage, AgentRunRequest, ConversationTurnStructure, UserMessage,
    agent_client_message, conversation_action, conversation_turn_structure,
};

/// Any history: what is encoded decodes, names only blobs that can be served, says what was said,
/// and is the same whether it comes at once or message by message.
///
/// # Panics
///
/// When a promise is broken.
pub fn request(data: &[u8]) {
    let context = Source(data).context();
    let mut conversation = Conversation::new();
    let whole = encode(&context, History::Full, &mut conversation);
    if context.messages.is_empty() {
        assert!(whole.is_none(), "a context that says nothing is refused");
        return;
    }
    let Some(whole) = whole else { return };
    full(&context, &whole, &conversation);
    let again = encode(&context, History::Full, &mut conversation).map(|again| again.envelope);
    assert_eq!(again.as_ref(), Some(&whole.envelope), "sent again");

    let mut grown = Conversation::new();
    for len in 1..=context.messages.len() {
        let mut part = context.clone();
        part.messages.truncate(len);
        let last = encode(&part, History::Full, &mut grown);
        if len == context.messages.len() {
            let last = last.map(|last| last.envelope);
            assert_eq!(last.as_ref(), Some(&whole.envelope), "message by message");
        }
    }
    full(&context, &whole, &grown);
    let kept = Conversation::from_bytes(&grown.to_bytes(), BlobLimits::default());
    full(&context, &whole, &kept.unwrap_or_default());

    let mut legacy = Conversation::new();
    if let Some(encoded) = encode(&context, History::Legacy, &mut legacy) {
        turns(&run(&encoded), &legacy);
    }
}

/// Any bytes as a conversation that was kept: refused with a typed error, or kept again as the same.
///
/// # Panics
///
/// When a promise is broken.
pub fn state(data: &[u8]) {
    match Conversation::from_bytes(&Bytes::copy_from_slice(data), BlobLimits::default()) {
        Err(error) => {
            assert!(matches!(error.kind(), Kind::InvalidRequest | Kind::LimitExceeded));
        }
        Ok(read) => {
            let again = Conversation::from_bytes(&read.to_bytes(), BlobLimits::default());
            let again = again.unwrap_or_default();
            assert_eq!(again.id(), read.id());
            assert_eq!(again.checkpoint(), read.checkpoint());
            let open = |kept: &Conversation| {
                let open = kept.open_turn();
                open.map(|open| (open.covers(), open.messages().len(), open.pending().len()))
            };
            assert_eq!(open(&again), open(&read));
            assert_eq!(again.blobs().len(), read.blobs().len());
            assert!(read.blobs().iter().all(|(id, data)| again.blobs().get(id) == Some(data)));
        }
    }
}

fn encode(
    context: &Context,
    history: History,
    conversation: &mut Conversation,
) -> Option<EncodedRun> {
    let naming = match history {
        History::Full => Naming::default(),
        History::Legacy => Naming::reference(),
    };
    let request = RunRequest {
        conversation_id: Some("conv".into()),
        request_id: "req".into(),
        model: Model::new("m"),
        context: context.clone(),
        history,
        naming,
        action: Action::UserMessage,
        ..RunRequest::default()
    };
    encode_run(&request, conversation, &mut CountingIds::hex()).ok()
}

#[allow(clippy::panic, reason = "a fuzz body says by a panic what is broken")]
fn run(encoded: &EncodedRun) -> AgentRunRequest {
    let payload = encoded.envelope.get(5..).unwrap_or_default();
    match AgentClientMessage::decode(payload).map(|message| message.message) {
        Ok(Some(agent_client_message::Message::RunRequest(run))) => *run,
        other => panic!("no run request: {other:?}"),
    }
}

fn blob(conversation: &Conversation, id: &[u8]) -> Bytes {
    let blob = conversation.blobs().get(id);
    assert!(blob.is_some(), "a blob that is named is not kept");
    blob.cloned().unwrap_or_default()
}

/// Every turn and what it names can be served and read.
fn turns(run: &AgentRunRequest, conversation: &Conversation) {
    let turns = run.conversation_state.iter().flat_map(|state| &state.turns);
    for id in turns {
        let turn = ConversationTurnStructure::decode(blob(conversation, id));
        let turn = turn.unwrap_or_default().turn;
        let Some(conversation_turn_structure::Turn::AgentConversationTurn(turn)) = turn else {
            assert_eq!(turn, None, "another kind of turn");
            continue;
        };
        assert!(UserMessage::decode(blob(conversation, &turn.user_message)).is_ok());
        for step in &turn.steps {
            let step = crate::proto::ConversationStep::decode(blob(conversation, step));
            assert!(step.is_ok_and(|step| step.message.is_some()));
        }
    }
}

/// The prompt list and the action say what the context says.
fn full(context: &Context, encoded: &EncodedRun, conversation: &Conversation) {
    let run = run(encoded);
    turns(&run, conversation);
    let state = run.conversation_state.clone().unwrap_or_default();
    let list: Vec<Value> = state
        .root_prompt_messages_json
        .iter()
        .map(|id| serde_json::from_slice(&blob(conversation, id)).unwrap_or_default())
        .collect();
    let mut called = Vec::new();
    let mut texts = Vec::new();
    for part in list.iter().skip(1).filter_map(|m| m["content"].as_array()).flatten() {
        match part["type"].as_str() {
            Some("text" | "reasoning") => texts.push(part["text"].clone()),
            Some("tool-call") => called.push(part["toolCallId"].clone()),
            Some("tool-result") => {
                let id = &part["toolCallId"];
                assert!(called.contains(id), "a result without its call");
                let safe = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
                assert!(id.as_str().is_some_and(|id| !id.is_empty() && id.bytes().all(safe)));
            }
            kind => assert_eq!(kind, Some("image")),
        }
    }
    let action = run.action.and_then(|action| action.action);
    match (&action, encoded.sent) {
        (Some(conversation_action::Action::UserMessageAction(action)), Sent::UserMessage) => {
            let message = action.user_message.clone().unwrap_or_default();
            assert!(message.selected_context.is_some());
            texts.extend(message.text.split('\n').map(|text| json!(text)));
        }
        (Some(conversation_action::Action::ResumeAction(_)), Sent::Resume) => {}
        _ => assert_eq!(format!("{action:?}"), "", "another action"),
    }
    for message in &context.messages {
        for said in said(message) {
            let found = texts.iter().any(|text| text.as_str() == Some(said));
            assert!(found, "something that was said is missing");
        }
    }
}

/// The texts of a user's or the model's message.
fn said(message: &Message) -> Vec<&str> {
    fn part(part: &Part) -> &str {
        match part {
            Part::Text { text } => text,
            Part::Image(_) => "",
        }
    }
    let texts: Vec<&str> = match message {
        Message::User { content: UserContent::Text(text) } => vec![text],
        Message::User { content: UserContent::Parts(parts) } => parts.iter().map(part).collect(),
        Message::Assistant { content } => content
            .iter()
            .map(|part| match part {
                AssistantPart::Text { text } => text.as_str(),
                AssistantPart::Thinking { thinking } => thinking,
                AssistantPart::ToolCall(_) => "",
            })
            .collect(),
        Message::ToolResult(_) => Vec::new(),
    };
    texts.into_iter().filter(|text| !text.is_empty()).collect()
}

/// Bytes that are read as a context.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte() % 24).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes.to_vec()
    }

    /// Text without line breaks, which join texts.
    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).replace('\n', " ")
    }

    fn image(&mut self) -> Part {
        let mut data = base64::engine::general_purpose::STANDARD.encode(self.bytes());
        if self.byte().is_multiple_of(4) {
            data.push('\n');
        }
        Part::Image(Image { data, mime_type: "image/png".into() })
    }

    fn parts(&mut self) -> Vec<Part> {
        (0..self.byte() % 4)
            .map(|_| match self.byte() % 3 {
                0 => self.image(),
                _ => Part::Text { text: self.text() },
            })
            .collect()
    }

    /// Few ids, so that calls and results meet; one needs another form.
    fn id(&mut self) -> String {
        ["c1", "c2", "c|3"].get(usize::from(self.byte() % 3)).copied().unwrap_or("c1").into()
    }

    fn assistant(&mut self) -> Vec<AssistantPart> {
        (0..self.byte() % 4)
            .map(|_| match self.byte() % 3 {
                0 => AssistantPart::Text { text: self.text() },
                1 => AssistantPart::Thinking { thinking: self.text() },
                _ => AssistantPart::ToolCall(ToolCall {
                    id: self.id(),
                    name: self.text(),
                    arguments: json!({"b": self.text(), "a": [self.byte(), null]}),
                }),
            })
            .collect()
    }

    fn message(&mut self) -> Message {
        match self.byte() % 4 {
            0 => Message::user(self.text()),
            1 => Message::User { content: UserContent::Parts(self.parts()) },
            2 => Message::Assistant { content: self.assistant() },
            _ => Message::ToolResult(ToolResult {
                tool_call_id: self.id(),
                tool_name: self.text(),
                content: self.parts(),
                is_error: self.byte().is_multiple_of(2),
            }),
        }
    }

    fn context(&mut self) -> Context {
        let mut context = Context::default().system(self.text());
        if self.byte().is_multiple_of(2) {
            let (name, description) = (self.text(), self.text());
            let parameters = json!({"type": "object"});
            context.tools.push(Arc::new(Tool { name, description, parameters }));
        }
        while !self.0.is_empty() && context.messages.len() < 12 {
            let message = self.message();
            context.push(message);
        }
        context
    }
}
