//! A client session and a server session on one virtual clock, and everything around them that may
//! happen at a random time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use agentwire::context::ToolResult;
use agentwire::conversation::Conversation;
use agentwire::error::{Error, Kind, NetworkFault};
use agentwire::ids::CountingIds;
use agentwire::proto::interaction_update::Message as Update;
use agentwire::redact::Redactor;
use agentwire::run::{self, Ended, Event, Flow, Head, Options, ServeKey, Session};
use agentwire::server::session::{self, RUN_PATH, STREAM_TYPE};
use agentwire::server::{self, RequestHead};
use bytes::Bytes;

use crate::judge::{All, Count, Fate, ask_something, request};
use crate::link::Rng;

/// Something that happens later.
enum Later {
    Up(Bytes),
    Down(Bytes),
    Served(ServeKey, Fate),
    Answer(ToolResult),
    Abort(u32),
    Ask,
    Cut,
}

pub(crate) struct World {
    client: Session,
    server: server::Session,
    now: Instant,
    rng: Rng,
    /// What happens at which time, in the order it was put there.
    later: BTreeMap<(Instant, u64), Later>,
    count: u64,
    /// When the last piece of each direction arrives: a stream keeps its order.
    up_last: Instant,
    down_last: Instant,
    at_work: BTreeSet<ServeKey>,
    wake: Option<Instant>,
    to_ask: usize,
    asked: Count,
    cut: bool,
    ended: Option<Ended>,
}

impl World {
    #[allow(clippy::disallowed_methods, reason = "the anchor of the virtual clock")]
    pub(crate) fn new(conversation: Conversation, rng: Rng, cut: bool) -> Self {
        let now = Instant::now();
        let ids = Box::new(CountingIds::hex());
        let mut options = Options::default();
        options.serves = Some(std::sync::Arc::new(All));
        options.exec_limit = Duration::from_secs(20);
        options.query_limit = Duration::from_secs(20);
        let client = Session::new(&request(), conversation, options, Redactor::default(), ids, now)
            .map_err(|failed| failed.0)
            .expect("a request that can be sent");
        let mut server = server::Session::new(session::Options::default(), now);
        let headers = [("content-type", STREAM_TYPE), ("connect-protocol-version", "1")];
        server.handle_head(&RequestHead::post(RUN_PATH, headers), now);
        server.respond(200, &[("content-type".into(), STREAM_TYPE.into())]);
        Self {
            client,
            server,
            now,
            rng,
            later: BTreeMap::new(),
            count: 0,
            up_last: now,
            down_last: now,
            at_work: BTreeSet::new(),
            wake: None,
            to_ask: 0,
            asked: Count::default(),
            cut,
            ended: None,
        }
    }

    /// Asks so many questions and plays until the run is over.
    pub(crate) fn play(&mut self, questions: usize) {
        self.to_ask = questions;
        let received_at = SystemTime::UNIX_EPOCH;
        let headers = vec![("content-type".into(), STREAM_TYPE.into())];
        self.drain();
        self.client.handle_head(Head { status: 200, headers, received_at }, self.now);
        self.put(0, Later::Ask);
        if self.cut {
            let when = self.rng.below(questions as u64 * 60);
            self.put(when, Later::Cut);
        }
        let end = self.now + Duration::from_secs(3_600);
        while self.ended.is_none() {
            self.drain();
            let next = self.later.first_key_value().map(|((at, _), _)| *at);
            let at = next.into_iter().chain(self.wake).min().expect("somebody waits for something");
            self.now = self.now.max(at);
            assert!(self.now < end, "the run hangs");
            if self.wake.is_some_and(|at| at <= self.now) {
                self.client.handle_timeout(self.now);
            }
            while let Some(entry) = self.later.first_entry()
                && entry.key().0 <= self.now
            {
                let happens = entry.remove();
                self.happens(happens);
            }
        }
        self.drain();
    }

    pub(crate) fn asked(&self) -> Count {
        self.asked
    }

    /// Checks that nothing is left, and gives the conversation back.
    pub(crate) fn end(self) -> Conversation {
        assert!(self.at_work.is_empty(), "handlers were left at work");
        assert!(self.server.violations().is_empty(), "{:?}", self.server.violations());
        match self.ended.expect("the run is over") {
            Ok(_) => assert_eq!(self.server.open_questions().count(), 0),
            Err(error) => {
                assert!(self.cut, "{error}");
                assert_eq!(*error.kind(), Kind::Network(NetworkFault::Cut));
            }
        }
        self.client.into_conversation()
    }

    fn put(&mut self, millis: u64, later: Later) {
        self.put_at(self.now + Duration::from_millis(millis), later);
    }

    fn put_at(&mut self, at: Instant, later: Later) {
        self.count += 1;
        self.later.insert((at, self.count), later);
    }

    fn happens(&mut self, later: Later) {
        match later {
            Later::Up(bytes) => self.server.handle_body(&bytes, self.now),
            Later::Down(bytes) => self.client.handle_body(bytes, self.now),
            Later::Served(key, fate) => {
                if self.at_work.contains(&key) {
                    let (events, result) = fate.done();
                    for event in events {
                        self.client.handle_shell_event(key, event);
                    }
                    self.at_work.remove(&key);
                    self.client.handle_served(key, result, self.now);
                }
            }
            // Refused when the service has aborted it, or the run is over.
            Later::Answer(result) => drop(self.client.answer_some(&[result], self.now)),
            Later::Abort(id) => self.server.abort(id),
            Later::Ask => self.ask(),
            Later::Cut => {
                let error = Error::network(NetworkFault::Cut, "the link was cut");
                self.client.handle_lost(error, self.now);
                self.server.handle_reset(None, self.now);
            }
        }
        self.drain();
    }

    /// Asks the next question, or ends the turn when all are settled.
    fn ask(&mut self) {
        if self.asked.all() < self.to_ask {
            let id = ask_something(&mut self.server, &mut self.rng, &mut self.asked, self.now);
            if self.rng.below(5) == 0 {
                let when = self.rng.below(8_000);
                self.put(when, Later::Abort(id));
            }
            let pause = self.rng.below(100);
            return self.put(pause, Later::Ask);
        }
        if self.server.open_questions().count() > 0 || !self.at_work.is_empty() {
            return self.put(500, Later::Ask);
        }
        self.server.update(Update::TurnEnded(Box::default()));
        self.server.finish();
    }

    fn drain(&mut self) {
        let mut calls = Vec::new();
        let ended = &mut self.ended;
        self.client.poll_events(self.now, |event| {
            match event.to_event() {
                Event::ToolCalls(called) => calls.extend(called),
                Event::Ended(end) => *ended = Some(end),
                _ => {}
            }
            Flow::Continue
        });
        for call in calls {
            let when = self.rng.below(5_000);
            self.put(when, Later::Answer(ToolResult::text(call.id, call.name, "done")));
        }
        self.drain_client();
        self.drain_server();
    }

    fn drain_client(&mut self) {
        loop {
            match self.client.poll_output() {
                run::Output::Send(bytes) => {
                    self.client.handle_sent(bytes.len(), self.now);
                    self.up_last = self.arrival(self.up_last);
                    self.put_at(self.up_last, Later::Up(bytes));
                }
                run::Output::Serve(task) => {
                    self.at_work.insert(task.key);
                    if let Some((when, fate)) = Fate::of(&task.work, &mut self.rng) {
                        self.put(when, Later::Served(task.key, fate));
                    }
                }
                run::Output::StopServing(key) => {
                    assert!(self.at_work.remove(&key), "stopped and not at work");
                }
                run::Output::HalfClose | run::Output::Reset(_) => {}
                run::Output::Open | run::Output::Renew | run::Output::Keep => {
                    panic!("a session has one stream")
                }
                run::Output::Wait(at) => return self.wake = at,
            }
        }
    }

    fn drain_server(&mut self) {
        let mut out = VecDeque::new();
        loop {
            match self.server.poll_output() {
                server::Output::Send(bytes) => out.push_back(bytes),
                server::Output::Wait(_) => break,
                _ => {}
            }
        }
        while self.server.poll_event().is_some() {}
        for bytes in out {
            self.down_last = self.arrival(self.down_last);
            self.put_at(self.down_last, Later::Down(bytes));
        }
    }

    fn arrival(&mut self, last: Instant) -> Instant {
        last.max(self.now + Duration::from_millis(self.rng.below(40)))
    }
}
