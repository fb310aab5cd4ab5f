//! A turn on a virtual clock against the scripted server: one exchange for each stream it opens.

use std::time::{Duration, Instant, SystemTime};

use agentwire::codec::RunRequest;
use agentwire::context::{Context, Tool, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::error::{Error, NetworkFault};
use agentwire::ids::CountingIds;
use agentwire::proto::agent_client_message::Message as Client;
use agentwire::proto::{AgentClientMessage, AgentRunRequest, conversation_action};
use agentwire::redact::Redactor;
use agentwire::run::{
    self, Ended, Event, Flow, Head, Notice, Options, Polled, RetryBudget, ServeTask, Turn,
};
use agentwire::server::session::{RUN_PATH, STREAM_TYPE};
use agentwire::server::{Exchange, Output, Playbook, RequestHead, Script};
use prost::Message as _;

pub(crate) struct Rig {
    pub(crate) turn: Turn,
    playbook: Playbook,
    server: Option<Exchange>,
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) events: Vec<Event>,
    /// Each run request as it was sent, and when, in milliseconds from the start.
    pub(crate) requests: Vec<(u128, AgentRunRequest)>,
    /// Other client messages of the stream that is open.
    pub(crate) sent: Vec<Client>,
    pub(crate) tasks: Vec<ServeTask>,
    /// Cut the stream after this many bytes of its answer, once each, in order.
    pub(crate) cuts: Vec<usize>,
    down: usize,
    pub(crate) keeps: usize,
    /// How often other credentials were wanted.
    pub(crate) renewals: usize,
    /// Whether there are any.
    other_token: bool,
    renewing: bool,
    turn_at: Option<Instant>,
    server_at: Option<Instant>,
    over: bool,
}

pub(crate) fn tool(name: &str) -> Tool {
    let parameters = serde_json::json!({"type": "object"});
    Tool { name: name.into(), description: String::new(), parameters }
}

pub(crate) fn request() -> RunRequest {
    RunRequest {
        request_id: "req-1".into(),
        model: "composer-2".into(),
        context: Context::prompt("hello").system("Be brief.").tool(tool("ls")),
        ..RunRequest::default()
    }
}

pub(crate) fn playbook(rules: &str) -> Playbook {
    Playbook::new(Script::from_json(rules).expect("a script")).expect("a script that plays")
}

impl Rig {
    pub(crate) fn new(rules: &str) -> Self {
        Self::with(request(), Conversation::with_id("conv"), Options::default(), rules)
    }

    pub(crate) fn with(
        request: RunRequest,
        conversation: Conversation,
        options: Options,
        rules: &str,
    ) -> Self {
        Self::within(&RetryBudget::default(), request, conversation, options, rules)
    }

    #[allow(clippy::disallowed_methods, reason = "the anchor of the virtual clock")]
    pub(crate) fn within(
        budget: &RetryBudget,
        request: RunRequest,
        conversation: Conversation,
        options: Options,
        rules: &str,
    ) -> Self {
        let now = Instant::now();
        let (redactor, ids) = (Redactor::default(), Box::new(CountingIds::hex()));
        let budget = budget.clone();
        let turn = Turn::new(request, conversation, options, budget, redactor, ids, now)
            .map_err(|refused| refused.0)
            .expect("a request that can be sent")
            .kept();
        let mut rig = Self {
            turn,
            playbook: playbook(rules),
            server: None,
            now,
            start: now,
            events: Vec::new(),
            requests: Vec::new(),
            sent: Vec::new(),
            tasks: Vec::new(),
            cuts: Vec::new(),
            down: 0,
            keeps: 0,
            renewals: 0,
            other_token: false,
            renewing: false,
            turn_at: None,
            server_at: None,
            over: false,
        };
        if rig.turn.is_under_way() {
            rig.open();
        }
        rig
    }

    /// The same for a caller who may have other credentials, and has them or not.
    pub(crate) fn renewable(self, other_token: bool) -> Self {
        Self { turn: self.turn.renewable(true), other_token, ..self }
    }

    fn open(&mut self) {
        if std::mem::take(&mut self.renewing) {
            if !self.other_token {
                return self.turn.handle_not_renewed(None);
            }
            self.turn.handle_renewed(Redactor::default());
        }
        let mut server =
            Exchange::new(self.playbook.clone(), agentwire::server::Options::default());
        let headers = [("content-type", STREAM_TYPE), ("connect-protocol-version", "1")];
        server.handle_head(&RequestHead::post(RUN_PATH, headers), self.now);
        self.server = Some(server);
        self.down = 0;
        self.sent.clear();
    }

    /// Plays until the turn is over, or waits for the test, or `limit` of virtual time has passed.
    pub(crate) fn play(&mut self, limit: Duration) {
        let until = self.now + limit;
        loop {
            self.round();
            let next = [self.turn_at, self.server_at].into_iter().flatten().min();
            match next.filter(|at| *at <= until && !self.over) {
                None => break,
                Some(at) => self.now = self.now.max(at),
            }
            if self.turn_at.is_some_and(|at| at <= self.now) {
                self.turn.handle_timeout(self.now);
            }
            if let (Some(server), Some(at)) = (&mut self.server, self.server_at)
                && at <= self.now
            {
                server.handle_timeout(self.now);
            }
        }
        if !self.over {
            self.now = until;
        }
    }

    fn round(&mut self) {
        loop {
            self.poll_events();
            let sent = self.drain_turn();
            let came = self.drain_server();
            if !sent && !came {
                return;
            }
        }
    }

    fn poll_events(&mut self) {
        if self.over {
            return;
        }
        let events = &mut self.events;
        // One at a time: an order that holds then holds always.
        while self.turn.poll_events(self.now, |event| {
            events.push(event.to_event());
            Flow::Stop
        }) == Polled::Stopped
        {}
        self.over = self.turn.is_over();
    }

    fn drain_turn(&mut self) -> bool {
        let mut sent = false;
        loop {
            match self.turn.poll_output() {
                run::Output::Send(bytes) => {
                    sent = true;
                    self.record(&bytes);
                    if let Some(server) = &mut self.server {
                        server.handle_body(&bytes, self.now);
                    }
                    self.turn.handle_sent(bytes.len(), self.now);
                }
                run::Output::HalfClose => {
                    if let Some(server) = &mut self.server {
                        server.handle_end(self.now);
                    }
                }
                run::Output::Reset(_) => self.server = None,
                run::Output::Open => {
                    sent = true;
                    self.open();
                }
                run::Output::Serve(task) => self.tasks.push(task),
                run::Output::StopServing(_) => {}
                run::Output::Keep => self.keeps += 1,
                run::Output::Renew => {
                    self.renewals += 1;
                    self.renewing = true;
                }
                run::Output::Wait(at) => {
                    self.turn_at = at;
                    return sent;
                }
            }
        }
    }

    fn record(&mut self, bytes: &[u8]) {
        let message = AgentClientMessage::decode(&bytes[5..]).expect("a client message");
        match message.message.expect("a case") {
            Client::RunRequest(request) => {
                let at = self.now.duration_since(self.start).as_millis();
                self.requests.push((at, *request));
            }
            other => self.sent.push(other),
        }
    }

    fn drain_server(&mut self) -> bool {
        let mut came = false;
        while let Some(server) = &mut self.server {
            match server.poll_output(self.now) {
                Output::Head { status, headers } => {
                    came = true;
                    let received_at = SystemTime::UNIX_EPOCH;
                    self.turn.handle_head(Head { status, headers, received_at }, self.now);
                }
                Output::Send(bytes) => {
                    came = true;
                    let room = self.cuts.first().map(|cut| cut.saturating_sub(self.down));
                    self.down += bytes.len();
                    match room.filter(|room| *room < bytes.len()) {
                        None => self.turn.handle_body(bytes, self.now),
                        Some(room) => {
                            self.cuts.remove(0);
                            self.turn.handle_body(bytes.slice(..room), self.now);
                            self.lose(NetworkFault::Cut);
                        }
                    }
                }
                Output::End { .. } => {
                    came = true;
                    self.turn.handle_end(self.now);
                }
                Output::Reset(code) => self.lose(NetworkFault::Reset(code)),
                Output::Cut => self.lose(NetworkFault::Cut),
                Output::GoAway(_) => {}
                Output::Wait(at) => {
                    self.server_at = at;
                    return came;
                }
            }
            // The consumer is quick: what came is seen before more comes.
            self.poll_events();
        }
        self.server_at = None;
        came
    }

    pub(crate) fn lose(&mut self, fault: NetworkFault) {
        self.server = None;
        self.turn.handle_lost(Error::network(fault, "the link was cut"), self.now);
        self.poll_events();
    }

    pub(crate) fn answer(&mut self, id: &str, text: &str) {
        self.turn.answer(&[ToolResult::text(id, "ls", text)], self.now).expect("a fitting answer");
        self.round();
    }

    /// The answer as a caller shows it who heeds the notices.
    pub(crate) fn text(&self) -> String {
        let mut shown = String::new();
        for event in &self.events {
            match event {
                Event::Text(text) => shown.push_str(text),
                Event::Notice(Notice::Restarted { text, .. }) => {
                    shown.truncate(shown.len() - text);
                }
                _ => {}
            }
        }
        shown
    }

    pub(crate) fn thinking(&self) -> String {
        let pieces = self.events.iter().filter_map(|event| match event {
            Event::Thinking(text) => Some(text.as_str()),
            _ => None,
        });
        pieces.collect()
    }

    pub(crate) fn notices(&self) -> Vec<Notice> {
        let notices = self.events.iter().filter_map(|event| match event {
            Event::Notice(notice) => Some(notice.clone()),
            _ => None,
        });
        notices.collect()
    }

    /// Ids of the tool calls, in the order they were handed out.
    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = self.events.iter().filter_map(|event| match event {
            Event::ToolCalls(calls) => Some(calls.iter().map(|call| call.id.clone())),
            _ => None,
        });
        calls.flatten().collect()
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        match self.events.last() {
            Some(Event::Ended(end)) => Some(end),
            _ => None,
        }
    }

    #[track_caller]
    pub(crate) fn error(&self) -> &Error {
        match self.ended() {
            Some(Err(error)) => error,
            _ => panic!("an error was expected: {:?}", self.events),
        }
    }

    #[track_caller]
    pub(crate) fn assert_complete(&self) {
        assert!(matches!(self.ended(), Some(Ok(_))), "{:?}", self.events);
        let ends = self.events.iter().filter(|event| matches!(event, Event::Ended(_))).count();
        assert_eq!(ends, 1);
    }

    /// `user` or `resume`, for each request.
    pub(crate) fn actions(&self) -> Vec<&'static str> {
        let name = |request: &AgentRunRequest| match request.action.as_ref()?.action.as_ref()? {
            conversation_action::Action::UserMessageAction(_) => Some("user"),
            conversation_action::Action::ResumeAction(_) => Some("resume"),
            _ => None,
        };
        self.requests.iter().map(|(_, request)| name(request).unwrap_or("other")).collect()
    }
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
