//! The least client that can talk to a server machine: it answers what it is told to answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use agentwire::connect;
use agentwire::proto::{self, agent_client_message as ask, agent_server_message as said};
use agentwire::server::session::{RUN_PATH, STREAM_TYPE};
use agentwire::server::{Exchange, Output, Playbook, RequestHead, Script};
use bytes::Bytes;
use prost::Message as _;

/// What the server did, as far as a client sees it.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) status: Option<u16>,
    pub(crate) headers: Vec<(String, String)>,
    /// The raw body.
    pub(crate) body: Vec<u8>,
    pub(crate) messages: Vec<said::Message>,
    /// JSON of the end-stream envelope.
    pub(crate) end: Option<serde_json::Value>,
    /// The last output that ended the stream.
    pub(crate) last: Option<Output>,
    pub(crate) goaway: Option<u32>,
    /// When each message came, from the start.
    pub(crate) times: Vec<Duration>,
}

impl Seen {
    pub(crate) fn text(&self) -> String {
        use proto::interaction_update::Message as U;
        let texts = self.updates().filter_map(|update| match update {
            U::TextDelta(delta) => Some(delta.text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    pub(crate) fn thinking(&self) -> String {
        use proto::interaction_update::Message as U;
        let texts = self.updates().filter_map(|update| match update {
            U::ThinkingDelta(delta) => Some(delta.text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    pub(crate) fn updates(&self) -> impl Iterator<Item = &proto::interaction_update::Message> {
        self.messages.iter().filter_map(|message| match message {
            said::Message::InteractionUpdate(update) => update.message.as_ref(),
            _ => None,
        })
    }

    pub(crate) fn turn_ended(&self) -> Option<&proto::TurnEndedUpdate> {
        use proto::interaction_update::Message as U;
        self.updates().find_map(|update| match update {
            U::TurnEnded(end) => Some(&**end),
            _ => None,
        })
    }

    pub(crate) fn checkpoint(&self) -> Option<&proto::ConversationStateStructure> {
        self.messages.iter().rev().find_map(|message| match message {
            said::Message::ConversationCheckpointUpdate(state) => Some(&**state),
            _ => None,
        })
    }

    pub(crate) fn error_code(&self) -> Option<&str> {
        self.end.as_ref()?.get("error")?.get("code")?.as_str()
    }

    /// Names of the updates in order, runs of the same one once.
    pub(crate) fn outline(&self) -> Vec<&'static str> {
        use proto::interaction_update::Message as U;
        use said::Message as M;
        let mut names: Vec<_> = self
            .messages
            .iter()
            .map(|message| match message {
                M::InteractionUpdate(update) => match update.message.as_ref().unwrap() {
                    U::TextDelta(_) => "text",
                    U::ThinkingDelta(_) => "thinking",
                    U::ThinkingCompleted(_) => "thought",
                    U::TokenDelta(_) => "tokens",
                    U::ToolCallStarted(_) => "started",
                    U::PartialToolCall(_) => "partial",
                    U::ToolCallCompleted(_) => "completed",
                    U::Heartbeat(_) => "heartbeat",
                    U::TurnEnded(_) => "turn_ended",
                    U::UserMessageAppended(_) => "appended",
                    _ => "update",
                },
                M::ExecServerMessage(exec) => match &exec.message {
                    Some(proto::exec_server_message::Message::RequestContextArgs(_)) => "context",
                    Some(proto::exec_server_message::Message::McpArgs(_)) => "mcp",
                    Some(_) => "exec",
                    None => "unknown exec",
                },
                M::ConversationCheckpointUpdate(_) => "checkpoint",
                M::KvServerMessage(kv) => match kv.message {
                    Some(proto::kv_server_message::Message::GetBlobArgs(_)) => "get_blob",
                    _ => "set_blob",
                },
                M::ExecServerControlMessage(_) => "abort",
                M::InteractionQuery(_) => "query",
            })
            .collect();
        names.dedup();
        names
    }
}

/// How the client behaves.
pub(crate) struct Client {
    pub(crate) exchange: Exchange,
    pub(crate) seen: Seen,
    pub(crate) blobs: HashMap<Vec<u8>, Bytes>,
    pub(crate) tools: Vec<proto::McpToolDefinition>,
    /// Answers questions at all.
    pub(crate) answers: bool,
    /// What a tool answers.
    pub(crate) tool: fn(&proto::McpArgs) -> String,
    start: Instant,
    pub(crate) now: Instant,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn new(script: Script) -> Self {
        Self::with(Playbook::new(script).unwrap())
    }

    pub(crate) fn with(playbook: Playbook) -> Self {
        // The one clock reading of a test: virtual time starts here.
        #[allow(clippy::disallowed_methods)]
        let start = Instant::now();
        Self {
            exchange: Exchange::new(playbook, Default::default()),
            seen: Seen::default(),
            blobs: HashMap::new(),
            tools: Vec::new(),
            answers: true,
            tool: |args| format!("result of {}", args.tool_name),
            start,
            now: start,
            unread: Vec::new(),
        }
    }

    /// Starts a run with this prompt and plays it to where it ends or waits for ever.
    pub(crate) fn ask(&mut self, prompt: &str) -> &Seen {
        self.open();
        self.send(run(prompt, Default::default()));
        self.play();
        &self.seen
    }

    /// Sends the request head of a run.
    pub(crate) fn open(&mut self) {
        self.exchange.handle_head(&head(), self.now);
    }

    pub(crate) fn send(&mut self, message: ask::Message) {
        let message = proto::AgentClientMessage { message: Some(message) };
        self.send_raw(&message.encode_to_vec());
    }

    pub(crate) fn send_raw(&mut self, payload: &[u8]) {
        let mut out = Vec::new();
        connect::put_envelope(&mut out, 0, payload);
        self.exchange.handle_body(&out, self.now);
    }

    /// Takes every output until the server waits, and answers what it asks; then jumps to the
    /// time that it waits for. Ends when there is none, or after an hour.
    pub(crate) fn play(&mut self) {
        while let Some(wake) = self.step() {
            if wake > self.start + Duration::from_secs(3_600) {
                return;
            }
            self.now = self.now.max(wake);
            self.exchange.handle_timeout(self.now);
        }
    }

    /// As [`Client::play`], up to a time from the start.
    pub(crate) fn play_until(&mut self, since_start: Duration) {
        while let Some(wake) = self.step() {
            if wake > self.start + since_start {
                break;
            }
            self.now = self.now.max(wake);
            self.exchange.handle_timeout(self.now);
        }
        self.now = self.start + since_start;
        self.exchange.handle_timeout(self.now);
        self.step();
    }

    fn step(&mut self) -> Option<Instant> {
        loop {
            match self.exchange.poll_output(self.now) {
                Output::Head { status, headers } => {
                    assert!(self.seen.status.is_none(), "one head");
                    self.seen.status = Some(status);
                    self.seen.headers = headers;
                }
                Output::Send(bytes) => {
                    assert!(self.seen.status.is_some(), "the head comes first");
                    assert!(self.seen.last.is_none(), "nothing after the end");
                    self.receive(&bytes);
                }
                Output::GoAway(code) => self.seen.goaway = Some(code),
                Output::Wait(wake) => return wake,
                last => {
                    assert!(self.seen.last.is_none(), "one end");
                    self.seen.last = Some(last);
                }
            }
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.seen.body.extend_from_slice(bytes);
        if !self
            .seen
            .headers
            .iter()
            .any(|(name, value)| name == "content-type" && value == STREAM_TYPE)
        {
            return;
        }
        self.unread.extend_from_slice(bytes);
        while let [flags, a, b, c, d, rest @ ..] = self.unread.as_slice() {
            let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let (flags, Some(payload)) = (*flags, rest.get(..len).map(<[u8]>::to_vec)) else {
                return;
            };
            self.unread.drain(..5 + len);
            match flags {
                0 => {
                    if let Ok(message) = proto::AgentServerMessage::decode(payload.as_slice()) {
                        let Some(message) = message.message else { continue };
                        self.seen.messages.push(message.clone());
                        self.seen.times.push(self.now - self.start);
                        if self.answers {
                            self.answer(message);
                        }
                    }
                }
                2 => self.seen.end = serde_json::from_slice(&payload).ok(),
                _ => {}
            }
        }
    }

    fn answer(&mut self, message: said::Message) {
        match message {
            said::Message::ExecServerMessage(exec) => self.answer_exec(*exec),
            said::Message::KvServerMessage(kv) => self.answer_kv(*kv),
            said::Message::InteractionQuery(query) => {
                use proto::interaction_query::Query as Q;
                use proto::interaction_response::Result as R;
                let result = query.query.map(|query| match query {
                    Q::WebSearchRequestQuery(_) => R::WebSearchRequestResponse(Default::default()),
                    Q::SwitchModeRequestQuery(_) => {
                        R::SwitchModeRequestResponse(Default::default())
                    }
                    _ => R::AskQuestionInteractionResponse(Default::default()),
                });
                let answer = proto::InteractionResponse { id: query.id, result };
                self.send(ask::Message::InteractionResponse(Box::new(answer)));
            }
            _ => {}
        }
    }

    fn answer_exec(&mut self, exec: proto::ExecServerMessage) {
        use proto::exec_client_message::Message as R;
        use proto::exec_server_message::Message as A;
        let result = match exec.message {
            Some(A::RequestContextArgs(_)) => R::RequestContextResult(Box::new(self.context())),
            Some(A::McpArgs(args)) => R::McpResult(Box::new(mcp_text((self.tool)(&args)))),
            Some(A::ShellArgs(_)) => R::ShellResult(Box::new(shell_rejected())),
            _ => return self.throw(exec.id),
        };
        self.result(exec.id, &exec.exec_id, result);
        self.close(exec.id);
    }

    pub(crate) fn result(
        &mut self,
        id: u32,
        exec_id: &str,
        result: proto::exec_client_message::Message,
    ) {
        let message = proto::ExecClientMessage {
            id,
            exec_id: exec_id.into(),
            message: Some(result),
            ..Default::default()
        };
        self.send(ask::Message::ExecClientMessage(Box::new(message)));
    }

    pub(crate) fn close(&mut self, id: u32) {
        self.control(proto::exec_client_control_message::Message::StreamClose(
            proto::ExecClientStreamClose { id },
        ));
    }

    pub(crate) fn control(&mut self, message: proto::exec_client_control_message::Message) {
        let control = proto::ExecClientControlMessage { message: Some(message) };
        self.send(ask::Message::ExecClientControlMessage(control));
    }

    fn throw(&mut self, id: u32) {
        let throw =
            proto::ExecClientThrow { id, error: "not known here".into(), ..Default::default() };
        self.control(proto::exec_client_control_message::Message::Throw(throw));
        self.close(id);
    }

    fn answer_kv(&mut self, kv: proto::KvServerMessage) {
        use proto::kv_client_message::Message as R;
        use proto::kv_server_message::Message as A;
        let message = match kv.message.unwrap() {
            A::GetBlobArgs(get) => {
                let blob_data = self.blobs.get(get.blob_id.as_ref()).cloned();
                R::GetBlobResult(proto::GetBlobResult { blob_data })
            }
            A::SetBlobArgs(set) => {
                self.blobs.insert(set.blob_id.to_vec(), set.blob_data);
                R::SetBlobResult(Default::default())
            }
        };
        let answer = proto::KvClientMessage { id: kv.id, message: Some(message) };
        self.send(ask::Message::KvClientMessage(Box::new(answer)));
    }

    fn context(&self) -> proto::RequestContextResult {
        let context = proto::RequestContext { tools: self.tools.clone(), ..Default::default() };
        let success =
            proto::RequestContextSuccess { request_context: Some(context), ..Default::default() };
        let result = proto::request_context_result::Result::Success(success);
        proto::RequestContextResult { result: Some(result) }
    }

    /// Stores a blob; gives its id.
    pub(crate) fn blob(&mut self, content: &str) -> Bytes {
        use sha2::Digest as _;
        let id = sha2::Sha256::digest(content.as_bytes()).to_vec();
        self.blobs.insert(id.clone(), Bytes::copy_from_slice(content.as_bytes()));
        Bytes::from(id)
    }
}

pub(crate) fn head() -> RequestHead {
    RequestHead::post(
        RUN_PATH,
        [("content-type", STREAM_TYPE), ("connect-accept-encoding", "gzip")],
    )
}

/// A run request that asks one thing of a conversation in this state.
pub(crate) fn run(prompt: &str, state: proto::ConversationStateStructure) -> ask::Message {
    let message = proto::UserMessage { text: prompt.into(), ..Default::default() };
    let action = proto::UserMessageAction { user_message: Some(message), ..Default::default() };
    let action = proto::conversation_action::Action::UserMessageAction(Box::new(action));
    run_action(action, state)
}

pub(crate) fn run_action(
    action: proto::conversation_action::Action,
    state: proto::ConversationStateStructure,
) -> ask::Message {
    ask::Message::RunRequest(Box::new(proto::AgentRunRequest {
        conversation_state: Some(state),
        action: Some(proto::ConversationAction { action: Some(action) }),
        model_details: Some(proto::ModelDetails {
            model_id: "composer-2".into(),
            ..Default::default()
        }),
        conversation_id: Some("conv-1".into()),
        ..Default::default()
    }))
}

pub(crate) fn tool(name: &str) -> proto::McpToolDefinition {
    proto::McpToolDefinition {
        name: name.into(),
        tool_name: name.into(),
        provider_identifier: "host".into(),
        input_schema_json: Some(
            r#"{"type":"object","properties":{"path":{"type":"string"}},"required":["path"]}"#
                .into(),
        ),
        ..Default::default()
    }
}

pub(crate) fn mcp_text(text: String) -> proto::McpResult {
    let text = proto::McpTextContent { text, ..Default::default() };
    let item = proto::McpToolResultContentItem {
        content: Some(proto::mcp_tool_result_content_item::Content::Text(text)),
    };
    let success = proto::McpSuccess { content: vec![item], is_error: false };
    proto::McpResult { result: Some(proto::mcp_result::Result::Success(success)) }
}

pub(crate) fn shell_rejected() -> proto::ShellResult {
    let rejected = proto::ShellRejected { reason: "not here".into(), ..Default::default() };
    proto::ShellResult {
        result: Some(proto::shell_result::Result::Rejected(rejected)),
        ..Default::default()
    }
}
