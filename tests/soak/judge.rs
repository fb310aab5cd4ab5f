//! What is asked, what handlers make of it, and a judge of one client alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use agentwire::codec::RunRequest;
use agentwire::connect::put_envelope;
use agentwire::context::{Context, Tool, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::exec::Refusal;
use agentwire::ids::CountingIds;
use agentwire::proto::agent_client_message::Message as Client;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::interaction_query::Query;
use agentwire::proto::{
    AgentClientMessage, GrepError, GrepResult, McpArgs, ShellStreamExit, ShellStreamStdout,
    exec_client_control_message, exec_client_message, grep_result, shell_stream,
};
use agentwire::redact::Redactor;
use agentwire::run::{
    Event, Flow, Head, Options, Output, ServeKey, ServeResult, Serves, Session, Work,
};
use agentwire::server;
use agentwire::server::session::STREAM_TYPE;
use bytes::Bytes;
use prost::Message as _;

use crate::link::Rng;
use crate::tables;

/// Serves everything, so that everything has a fate.
pub(crate) struct All;

impl Serves for All {
    fn exec(&self, _: &Case) -> bool {
        true
    }
    fn query(&self, _: &Query) -> bool {
        true
    }
}

/// The caller's tool.
const TOOL: &str = "ls";

pub(crate) fn tool() -> Tool {
    Tool {
        name: TOOL.into(),
        description: "List a folder".into(),
        parameters: serde_json::json!({"type": "object"}),
    }
}

/// What calls a tool of the caller.
fn call_of(tool: &str) -> Vec<u8> {
    McpArgs { name: tool.into(), tool_name: tool.into(), ..McpArgs::default() }.encode_to_vec()
}

pub(crate) fn request() -> RunRequest {
    RunRequest {
        request_id: "req-1".into(),
        model: "composer-2".into(),
        context: Context::prompt("hello").tool(tool()),
        ..RunRequest::default()
    }
}

/// What a handler comes to, as its driver reports it.
pub(crate) enum Fate {
    Good,
    Refuses,
    /// What is reported of a panic; `driver.rs` has the panics themselves.
    Fails,
    Prints,
}

impl Fate {
    /// When, in milliseconds, and what; some hang until they are stopped.
    pub(crate) fn of(work: &Work, rng: &mut Rng) -> Option<(u64, Self)> {
        let when = match rng.below(3) {
            0 => 0,
            1 => rng.below(500),
            _ => rng.below(12_000),
        };
        let fate = match (rng.below(10), work) {
            (0, _) => return None,
            (1, _) => Self::Fails,
            (2 | 3, _) => Self::Refuses,
            (_, Work::Exec { case: Case::ShellStreamArgs(_), .. }) => Self::Prints,
            (_, Work::Exec { case: Case::GrepArgs(_), .. }) => Self::Good,
            _ => Self::Refuses,
        };
        Some((when, fate))
    }

    pub(crate) fn done(self) -> (Vec<shell_stream::Event>, ServeResult) {
        match self {
            Self::Good => {
                let error = GrepError { error: "no such file".into() };
                let result = GrepResult { result: Some(grep_result::Result::Error(error)) };
                let reply = exec_client_message::Message::GrepResult(Box::new(result));
                (Vec::new(), ServeResult::Reply(Box::new(reply)))
            }
            Self::Refuses => (Vec::new(), ServeResult::Refused(Refusal::because("not now"))),
            Self::Fails => (Vec::new(), ServeResult::Failed),
            Self::Prints => {
                let out = ShellStreamStdout { data: "out".into() };
                let exit = ShellStreamExit::default();
                let events =
                    vec![shell_stream::Event::Stdout(out), shell_stream::Event::Exit(exit)];
                (events, ServeResult::ShellDone)
            }
        }
    }
}

fn execs() -> &'static [u32] {
    static EXECS: OnceLock<Vec<u32>> = OnceLock::new();
    EXECS.get_or_init(|| tables::execs().into_iter().map(|case| case.number).collect())
}

/// Field number of an exec: mostly one that handlers can make something of, sometimes an unknown.
pub(crate) fn some_exec(rng: &mut Rng) -> u32 {
    let known = execs();
    match rng.below(8) {
        0 => 5,
        1 => 14,
        2 => 11,
        3 => 60 + u32::try_from(rng.below(40)).unwrap(),
        _ => known[usize::try_from(rng.below(known.len() as u64)).unwrap()],
    }
}

/// Field number of a query, sometimes an unknown.
pub(crate) fn some_query(rng: &mut Rng) -> u32 {
    2 + u32::try_from(rng.below(9)).unwrap()
}

/// How much was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) execs: usize,
    pub(crate) queries: usize,
}

impl Count {
    pub(crate) fn all(self) -> usize {
        self.execs + self.queries
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.execs += more.execs;
        self.queries += more.queries;
    }
}

/// An exec or, now and then, a query. Gives its id.
pub(crate) fn ask_something(
    server: &mut server::Session,
    rng: &mut Rng,
    count: &mut Count,
    now: Instant,
) -> u32 {
    let asked = if rng.below(10) == 0 {
        count.queries += 1;
        server.ask_query(some_query(rng), &[], None, now)
    } else {
        count.execs += 1;
        let field = some_exec(rng);
        let args = if field == 11 { call_of(TOOL) } else { Vec::new() };
        server.ask_exec(field, &args, None, None, now)
    };
    asked.expect("an id that is free")
}

/// One client session, and what is open. What is settled is forgotten.
pub(crate) struct Lone {
    session: Session,
    now: Instant,
    rng: Rng,
    next: u32,
    /// Whether the answer is there, by exec.
    open: BTreeMap<u32, bool>,
    /// Queries without an answer.
    queries: BTreeSet<u32>,
    asked: Count,
    aborted: BTreeSet<u32>,
    at_work: BTreeMap<ServeKey, Option<(Instant, Fate)>>,
    wake: Option<Instant>,
}

impl Lone {
    #[allow(clippy::disallowed_methods, reason = "the anchor of the virtual clock")]
    pub(crate) fn new(rng: Rng) -> Self {
        let now = Instant::now();
        let mut options = Options::default();
        options.serves = Some(std::sync::Arc::new(All));
        options.exec_limit = Duration::from_secs(20);
        options.query_limit = Duration::from_secs(20);
        options.paused_turn = Duration::from_secs(86_400);
        let (conversation, ids) = (Conversation::with_id("conv"), Box::new(CountingIds::hex()));
        let session =
            Session::new(&request(), conversation, options, Redactor::default(), ids, now)
                .map_err(|failed| failed.0)
                .expect("a request that can be sent");
        let mut lone = Self {
            session,
            now,
            rng,
            next: 0,
            open: BTreeMap::new(),
            queries: BTreeSet::new(),
            asked: Count::default(),
            aborted: BTreeSet::new(),
            at_work: BTreeMap::new(),
            wake: None,
        };
        let received_at = SystemTime::UNIX_EPOCH;
        let headers = vec![("content-type".into(), STREAM_TYPE.into())];
        lone.session.handle_head(Head { status: 200, headers, received_at }, now);
        lone.drain();
        lone
    }

    /// So many tool calls, answered one by one.
    pub(crate) fn calls(&mut self, count: usize) {
        for _ in 0..count {
            self.ask(11);
            self.pass(Duration::from_millis(100));
        }
        self.settle();
    }

    pub(crate) fn asked(&self) -> Count {
        self.asked
    }

    /// So many execs of all kinds with queries between them, and time for all of them.
    pub(crate) fn execs(&mut self, count: usize) {
        for _ in 0..count {
            if self.rng.below(10) == 0 {
                let field = some_query(&mut self.rng);
                self.query(field);
            }
            let field = some_exec(&mut self.rng);
            let id = self.ask(field);
            if self.rng.below(5) == 0 && self.open.contains_key(&id) {
                // Aborts go out at once or after a while, to whatever is open.
                let open: Vec<u32> = self.open.keys().copied().collect();
                let which = usize::try_from(self.rng.below(open.len() as u64)).unwrap();
                self.abort(open[which]);
            }
            let pause = self.rng.below(1_500);
            self.pass(Duration::from_millis(pause));
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.pass(Duration::from_secs(60));
        assert_eq!(self.open, BTreeMap::new(), "execs without an answer or a close");
        assert_eq!(self.queries, BTreeSet::new(), "queries without an answer");
        assert!(self.at_work.is_empty(), "handlers were left at work");
        self.aborted.clear();
    }

    fn ask(&mut self, field: u32) -> u32 {
        let (id, question) = self.question(field);
        self.asked.execs += 1;
        self.open.insert(id, false);
        self.say(2, &question);
        id
    }

    fn query(&mut self, field: u32) {
        let (id, question) = self.question(field);
        self.asked.queries += 1;
        self.queries.insert(id);
        self.say(7, &question);
    }

    /// A fresh id, and the question with an empty message in this field.
    fn question(&mut self, field: u32) -> (u32, Vec<u8>) {
        self.next += 1;
        let mut bytes = vec![0x08];
        prost::encoding::encode_varint(u64::from(self.next), &mut bytes);
        prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut bytes);
        bytes.push(0);
        (self.next, bytes)
    }

    fn abort(&mut self, id: u32) {
        let mut abort = vec![0x08];
        prost::encoding::encode_varint(u64::from(id), &mut abort);
        let mut control = vec![0x0a, u8::try_from(abort.len()).unwrap()];
        control.extend(abort);
        self.aborted.insert(id);
        self.say(5, &control);
    }

    fn say(&mut self, field: u32, content: &[u8]) {
        let mut message = Vec::new();
        prost::encoding::encode_key(
            field,
            prost::encoding::WireType::LengthDelimited,
            &mut message,
        );
        prost::encoding::encode_varint(content.len() as u64, &mut message);
        message.extend_from_slice(content);
        let mut bytes = Vec::new();
        put_envelope(&mut bytes, 0, &message);
        self.session.handle_body(Bytes::from(bytes), self.now);
        self.drain();
    }

    /// Lets time pass: timers fire and handlers come back.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let done = self.at_work.iter().filter_map(|(key, fate)| Some((fate.as_ref()?.0, *key)));
            let done = done.min();
            let next = done.map(|(at, _)| at).into_iter().chain(self.wake).min();
            let Some(at) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            match done {
                Some((due, key)) if due <= self.now => {
                    let (_, fate) = self.at_work.remove(&key).flatten().expect("it is due");
                    let (events, result) = fate.done();
                    for event in events {
                        self.session.handle_shell_event(key, event);
                    }
                    self.session.handle_served(key, result, self.now);
                }
                _ => self.session.handle_timeout(self.now),
            }
            self.drain();
        }
        self.now = until;
    }

    fn drain(&mut self) {
        let mut calls = Vec::new();
        self.session.poll_events(self.now, |event| {
            match event.to_event() {
                Event::ToolCalls(called) => calls.extend(called),
                Event::Ended(end) => panic!("{end:?}"),
                _ => {}
            }
            Flow::Continue
        });
        for call in calls {
            let result = ToolResult::text(call.id, call.name, "done");
            self.session.answer_some(&[result], self.now).expect("it was just handed out");
        }
        loop {
            match self.session.poll_output() {
                Output::Send(bytes) => {
                    self.session.handle_sent(bytes.len(), self.now);
                    self.judge(&bytes);
                }
                Output::Serve(task) => {
                    let fate = Fate::of(&task.work, &mut self.rng);
                    let due = |(when, fate)| (self.now + Duration::from_millis(when), fate);
                    self.at_work.insert(task.key, fate.map(due));
                }
                Output::StopServing(key) => {
                    assert!(self.at_work.remove(&key).is_some(), "stopped and not at work");
                }
                Output::Wait(at) => return self.wake = at,
                other => panic!("the run goes on: {other:?}"),
            }
        }
    }

    /// One answer, then one close, for an exec that is open; one answer for a query.
    fn judge(&mut self, envelope: &[u8]) {
        use exec_client_control_message::Message as Control;
        let message = AgentClientMessage::decode(&envelope[5..]).expect("a client message");
        match message.message.expect("a case") {
            Client::ExecClientMessage(exec) => {
                let answered = self.open.get_mut(&exec.id).expect("it is open");
                let streams =
                    matches!(exec.message, Some(exec_client_message::Message::ShellStream(_)));
                assert!(!*answered || streams, "{} is answered twice", exec.id);
                *answered = true;
            }
            Client::ExecClientControlMessage(control) => match control.message.expect("a case") {
                Control::Throw(throw) => {
                    let answered = self.open.get_mut(&throw.id).expect("it is open");
                    assert!(!std::mem::replace(answered, true), "{} is answered twice", throw.id);
                }
                Control::StreamClose(close) => {
                    let answered = self.open.remove(&close.id).expect("it is open");
                    assert!(answered || self.aborted.contains(&close.id), "closed unanswered");
                }
                Control::Heartbeat(beat) => assert!(self.open.contains_key(&beat.id)),
            },
            Client::InteractionResponse(response) => {
                assert!(self.queries.remove(&response.id), "{} is answered twice", response.id);
            }
            _ => {}
        }
    }
}
