//! A session on a virtual clock: what goes in and comes out is written down as a transcript.

use std::time::{Duration, Instant, SystemTime};

use agentwire::codec::RunRequest;
use agentwire::connect::put_envelope;
use agentwire::context::{Context, Tool};
use agentwire::conversation::Conversation;
use agentwire::ids::CountingIds;
use agentwire::proto::agent_client_message::Message as Client;
use agentwire::proto::agent_server_message::Message as Server;
use agentwire::proto::interaction_update::Message as Update;
use agentwire::proto::{
    AgentClientMessage, AgentServerMessage, ExecServerMessage, InteractionUpdate, McpArgs,
    TextDeltaUpdate, TurnEndedUpdate, exec_client_control_message, exec_client_message,
    exec_server_message, kv_client_message,
};
use agentwire::redact::Redactor;
use agentwire::run::{
    Event, Flow, Head, Options, Output, Polled, ResetReason, ServeKey, ServeTask, Session,
};
use bytes::Bytes;
use prost::Message as _;

/// One session, its clock, and what has come out so far.
pub(crate) struct Rig {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    pub(crate) events: Vec<Event>,
    /// What was sent, one word or two a message, in order.
    pub(crate) sent: Vec<String>,
    pub(crate) sent_messages: Vec<AgentClientMessage>,
    /// The beginning of an envelope whose rest is to come.
    piece: Vec<u8>,
    /// Stop the sink after this many more events.
    pub(crate) room: usize,
    /// Report writes as done at once (the default), or hold them back.
    pub(crate) writes_through: bool,
    pub(crate) unreported: usize,
    pub(crate) deadline: Option<Instant>,
    /// Work for handlers, in order.
    pub(crate) tasks: Vec<ServeTask>,
    pub(crate) stopped: Vec<ServeKey>,
}

pub(crate) fn ok_head() -> Head {
    Head {
        status: 200,
        headers: vec![("content-type".into(), "application/connect+proto".into())],
        received_at: SystemTime::UNIX_EPOCH,
    }
}

pub(crate) fn request(prompt: &str) -> RunRequest {
    let tool = Tool {
        name: "ls".into(),
        description: "List a folder".into(),
        parameters: serde_json::json!({"type": "object"}),
    };
    RunRequest {
        request_id: "req-1".into(),
        model: "composer-2".into(),
        context: Context::prompt(prompt).system("Be brief.").tool(tool),
        ..RunRequest::default()
    }
}

impl Rig {
    /// A run whose head has arrived.
    pub(crate) fn streaming() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let mut rig = Self::opening(options, Conversation::with_id("conv"));
        rig.session.handle_head(ok_head(), rig.now);
        rig.turn();
        rig
    }

    pub(crate) fn opening(options: Options, conversation: Conversation) -> Self {
        Self::of(&request("hello"), options, conversation)
    }

    #[allow(clippy::disallowed_methods, reason = "the anchor of the virtual clock")]
    pub(crate) fn of(request: &RunRequest, options: Options, conversation: Conversation) -> Self {
        let now = Instant::now();
        let session = Session::new(
            request,
            conversation,
            options,
            Redactor::default(),
            Box::new(CountingIds::hex()),
            now,
        )
        .expect("a request that can be sent");
        let mut rig = Self {
            session,
            now,
            events: Vec::new(),
            sent: Vec::new(),
            sent_messages: Vec::new(),
            piece: Vec::new(),
            room: usize::MAX,
            writes_through: true,
            unreported: 0,
            deadline: None,
            tasks: Vec::new(),
            stopped: Vec::new(),
        };
        rig.turn();
        rig
    }

    /// The driver's duty after every call: events, then outputs.
    pub(crate) fn turn(&mut self) -> Polled {
        let polled = if self.room > 0 || self.session.is_over() {
            self.poll_events()
        } else {
            Polled::Stopped
        };
        self.drain();
        polled
    }

    fn poll_events(&mut self) -> Polled {
        let (events, room) = (&mut self.events, &mut self.room);
        self.session.poll_events(self.now, |event| {
            events.push(event.to_event());
            *room = room.saturating_sub(1);
            if *room == 0 { Flow::Stop } else { Flow::Continue }
        })
    }

    fn drain(&mut self) {
        loop {
            match self.session.poll_output() {
                Output::Send(bytes) => {
                    self.record(&bytes);
                    if self.writes_through {
                        self.session.handle_sent(bytes.len(), self.now);
                    } else {
                        self.unreported += bytes.len();
                    }
                }
                Output::HalfClose => self.sent.push("half-close".into()),
                Output::Reset(ResetReason::Complete) => self.sent.push("reset complete".into()),
                Output::Reset(ResetReason::Cancel) => self.sent.push("reset cancel".into()),
                Output::Serve(task) => self.tasks.push(task),
                Output::StopServing(key) => self.stopped.push(key),
                Output::Open | Output::Renew | Output::Keep => panic!("a session has one stream"),
                Output::Wait(deadline) => {
                    self.deadline = deadline;
                    break;
                }
            }
        }
    }

    /// Large replies leave as several pieces; the pieces of one envelope are joined here.
    fn record(&mut self, bytes: &[u8]) {
        self.piece.extend_from_slice(bytes);
        let Some((header, payload)) = self.piece.split_first_chunk::<5>() else { return };
        assert_eq!(header[0], 0, "flags");
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let missing = (length as usize).checked_sub(payload.len()).expect("one envelope at a time");
        if missing > 0 {
            return;
        }
        let message = AgentClientMessage::decode(payload).expect("a client message");
        self.piece.clear();
        self.sent.push(word(&message));
        self.sent_messages.push(message);
    }

    pub(crate) fn writes_done(&mut self) {
        let bytes = std::mem::take(&mut self.unreported);
        self.session.handle_sent(bytes, self.now);
        self.turn();
    }

    /// Lets time pass, stopping at every deadline on the way.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(deadline) = self.deadline.filter(|at| *at <= until) {
            self.now = self.now.max(deadline);
            self.session.handle_timeout(self.now);
            self.turn();
        }
        self.now = until;
    }

    pub(crate) fn body(&mut self, bytes: impl Into<Bytes>) -> Polled {
        self.session.handle_body(bytes.into(), self.now);
        self.turn()
    }

    pub(crate) fn message(&mut self, message: Server) -> Polled {
        self.body(envelope(message))
    }

    pub(crate) fn update(&mut self, update: Update) -> Polled {
        self.message(Server::InteractionUpdate(InteractionUpdate { message: Some(update) }))
    }

    pub(crate) fn text(&mut self, text: &str) -> Polled {
        self.update(text_update(text))
    }

    pub(crate) fn call(&mut self, exec: u32, call_id: &str) -> Polled {
        self.message(call(exec, call_id))
    }

    pub(crate) fn turn_ended(&mut self) -> Polled {
        self.update(Update::TurnEnded(TurnEndedUpdate::default().into()))
    }

    pub(crate) fn end_stream(&mut self, json: &str) -> Polled {
        self.body(end_stream(json))
    }

    pub(crate) fn end(&mut self) -> Polled {
        self.session.handle_end(self.now);
        self.turn()
    }

    /// What was sent since the last look.
    pub(crate) fn take_sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn texts(&self) -> String {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn ended(&self) -> Option<&agentwire::run::Ended> {
        match self.events.last() {
            Some(Event::Ended(end)) => Some(end),
            _ => None,
        }
    }

    pub(crate) fn error(&self) -> &agentwire::Error {
        match self.ended() {
            Some(Err(error)) => error,
            other => panic!("expected an error, got {other:?}"),
        }
    }
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn text_update(text: &str) -> Update {
    Update::TextDelta(TextDeltaUpdate { text: text.into() })
}

pub(crate) fn call(exec: u32, call_id: &str) -> Server {
    exec_message(
        exec,
        exec_server_message::Message::McpArgs(Box::new(McpArgs {
            name: "ls".into(),
            tool_name: "ls".into(),
            tool_call_id: call_id.into(),
            ..McpArgs::default()
        })),
    )
}

pub(crate) fn exec_message(id: u32, message: exec_server_message::Message) -> Server {
    Server::ExecServerMessage(Box::new(ExecServerMessage {
        id,
        exec_id: format!("exec-{id}"),
        message: Some(message),
        ..ExecServerMessage::default()
    }))
}

pub(crate) fn envelope(message: Server) -> Vec<u8> {
    let mut out = Vec::new();
    put_envelope(&mut out, 0, &AgentServerMessage { message: Some(message) }.encode_to_vec());
    out
}

pub(crate) fn end_stream(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_envelope(&mut out, 2, json.as_bytes());
    out
}

/// The transcript word of a client message.
fn word(message: &AgentClientMessage) -> String {
    match message.message.as_ref().expect("a case") {
        Client::RunRequest(_) => "run".into(),
        Client::ClientHeartbeat(_) => "heartbeat".into(),
        Client::ConversationAction(_) => "cancel".into(),
        Client::KvClientMessage(kv) => match &kv.message {
            Some(kv_client_message::Message::GetBlobResult(blob)) => {
                format!("blob {} {}", kv.id, blob.blob_data.as_ref().map_or(0, Bytes::len))
            }
            Some(kv_client_message::Message::SetBlobResult(set)) => {
                let word = if set.error.is_some() { "refused" } else { "stored" };
                format!("{word} {}", kv.id)
            }
            None => "kv without a case".into(),
        },
        Client::ExecClientMessage(exec) => match &exec.message {
            Some(exec_client_message::Message::McpResult(_)) => format!("result {}", exec.id),
            Some(exec_client_message::Message::RequestContextResult(_)) => {
                format!("context {}", exec.id)
            }
            Some(_) => format!("refusal {}", exec.id),
            None => format!("exec {} without a case", exec.id),
        },
        Client::ExecClientControlMessage(control) => match &control.message {
            Some(exec_client_control_message::Message::StreamClose(close)) => {
                format!("close {}", close.id)
            }
            Some(exec_client_control_message::Message::Throw(throw)) => {
                format!("throw {}", throw.id)
            }
            Some(exec_client_control_message::Message::Heartbeat(beat)) => {
                format!("beat {}", beat.id)
            }
            None => "control without a case".into(),
        },
        Client::InteractionResponse(response) => {
            let result = if response.result.is_some() { "refused" } else { "empty" };
            format!("query {} {result}", response.id)
        }
        Client::PrewarmRequest(_) => "prewarm".into(),
    }
}
