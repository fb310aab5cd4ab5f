//! A client machine and a server machine, joined by a link that re-chunks, delays and cuts, on one
//! virtual clock. No socket, no sleep.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use agentwire::codec::RunRequest;
use agentwire::context::{ToolCall, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::error::{Error, NetworkFault};
use agentwire::exec::Refusal;
use agentwire::ids::CountingIds;
use agentwire::redact::Redactor;
use agentwire::run::{self, Ended, Event, Flow, Head, Polled, ServeResult, ServeTask, Session};
use agentwire::server::session::{RUN_PATH, STREAM_TYPE};
use agentwire::server::{Exchange, Options, Output, Playbook, RequestHead, Script};
use bytes::Bytes;

/// Random numbers that a seed repeats (xorshift64*).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit.max(1)
    }
}

/// What the link does to the bytes.
#[derive(Clone)]
pub(crate) struct Weather {
    pub(crate) seed: u64,
    /// Largest piece a write is cut into.
    pub(crate) piece: u64,
    /// Longest time a piece is under way.
    pub(crate) delay: Duration,
    /// Cut the connection after this many bytes of the answer.
    pub(crate) cut_after: Option<usize>,
    /// Events that the consumer takes before it rests for a while.
    pub(crate) rest_every: Option<usize>,
}

impl Default for Weather {
    fn default() -> Self {
        Self { seed: 1, piece: u64::MAX, delay: Duration::ZERO, cut_after: None, rest_every: None }
    }
}

/// One direction: pieces with the time of their arrival, in order.
struct Pipe<T> {
    under_way: VecDeque<(Instant, T)>,
    last: Instant,
}

impl<T> Pipe<T> {
    fn new(now: Instant) -> Self {
        Self { under_way: VecDeque::new(), last: now }
    }

    fn put(&mut self, now: Instant, delay: Duration, item: T) {
        self.last = self.last.max(now + delay);
        self.under_way.push_back((self.last, item));
    }

    fn due(&mut self, now: Instant) -> Option<T> {
        match self.under_way.front() {
            Some((at, _)) if *at <= now => self.under_way.pop_front().map(|(_, item)| item),
            _ => None,
        }
    }

    fn next(&self) -> Option<Instant> {
        self.under_way.front().map(|(at, _)| *at)
    }
}

enum Up {
    Body(Bytes),
    End,
    Reset(u32),
}

enum Down {
    Head(u16, Vec<(String, String)>),
    Body(Bytes),
    End,
    Lost(Error),
}

pub(crate) struct Pair {
    pub(crate) client: Session,
    pub(crate) server: Exchange,
    pub(crate) now: Instant,
    pub(crate) events: Vec<Event>,
    /// What a tool answers; `None`: the call stays open.
    pub(crate) tool: fn(&ToolCall) -> Option<ToolResult>,
    /// What a handler answers.
    pub(crate) handler: fn(&ServeTask) -> Option<ServeResult>,
    weather: Weather,
    rng: Rng,
    up: Pipe<Up>,
    down: Pipe<Down>,
    sent_down: usize,
    client_at: Option<Instant>,
    server_at: Option<Instant>,
    taken: usize,
    resting_until: Option<Instant>,
    over: bool,
}

pub(crate) fn playbook(script: &str) -> Playbook {
    Playbook::new(Script::from_json(script).expect("a script")).expect("a script that plays")
}

impl Pair {
    #[allow(clippy::disallowed_methods, reason = "the anchor of the virtual clock")]
    pub(crate) fn new(
        request: &RunRequest,
        conversation: Conversation,
        options: run::Options,
        playbook: Playbook,
        weather: Weather,
    ) -> Self {
        let now = Instant::now();
        let ids = Box::new(CountingIds::hex());
        let client = Session::new(request, conversation, options, Redactor::default(), ids, now)
            .map_err(|failed| failed.0)
            .expect("a request that can be sent");
        let mut server = Exchange::new(playbook, Options::default());
        let headers = [("content-type", STREAM_TYPE), ("connect-protocol-version", "1")];
        server.handle_head(&RequestHead::post(RUN_PATH, headers), now);
        Self {
            client,
            server,
            now,
            events: Vec::new(),
            tool: |call| Some(ToolResult::text(&call.id, &call.name, "done")),
            handler: |_| Some(ServeResult::Refused(Refusal::because("not in this test"))),
            rng: Rng::new(weather.seed),
            weather,
            up: Pipe::new(now),
            down: Pipe::new(now),
            sent_down: 0,
            client_at: None,
            server_at: None,
            taken: 0,
            resting_until: None,
            over: false,
        }
    }

    /// Plays until nothing is under way and nobody waits, or `limit` of virtual time has passed.
    pub(crate) fn play(&mut self, limit: Duration) -> Ended {
        let end = self.now + limit;
        loop {
            self.turn();
            let ended = self.events.iter().find_map(|event| match event {
                Event::Ended(ended) => Some(ended.clone()),
                _ => None,
            });
            let waits = [self.up.next(), self.down.next(), self.server_at, self.client_at];
            let next = waits.into_iter().chain([self.resting_until]).flatten().min();
            match (ended, next) {
                (Some(ended), None) => return ended,
                (Some(ended), Some(at)) if at > end => return ended,
                (None, at) => assert!(at.is_some_and(|at| at <= end), "the run hangs: {self:?}"),
                _ => {}
            }
            self.now = self.now.max(next.unwrap_or(self.now));
        }
    }

    /// Everything that is due now.
    fn turn(&mut self) {
        if self.server_at.is_some_and(|at| at <= self.now) {
            self.server.handle_timeout(self.now);
        }
        if self.client_at.is_some_and(|at| at <= self.now) {
            self.client.handle_timeout(self.now);
        }
        if self.resting_until.is_some_and(|at| at <= self.now) {
            self.resting_until = None;
        }
        while let Some(up) = self.up.due(self.now) {
            match up {
                Up::Body(bytes) => self.server.handle_body(&bytes, self.now),
                Up::End => self.server.handle_end(self.now),
                Up::Reset(code) => self.server.handle_reset(Some(code), self.now),
            }
        }
        self.drain_server();
        while let Some(down) = self.down.due(self.now) {
            match down {
                Down::Head(status, headers) => {
                    let received_at = std::time::SystemTime::UNIX_EPOCH;
                    self.client.handle_head(Head { status, headers, received_at }, self.now);
                }
                Down::Body(bytes) => self.client.handle_body(bytes, self.now),
                Down::End => self.client.handle_end(self.now),
                Down::Lost(error) => self.client.handle_lost(error, self.now),
            }
            self.drain_client();
        }
        self.drain_client();
    }

    fn drain_client(&mut self) {
        while !self.over && (self.resting_until.is_none() || self.client.is_over()) {
            let before = self.events.len();
            let (events, taken) = (&mut self.events, &mut self.taken);
            let every = self.weather.rest_every.unwrap_or(usize::MAX);
            let polled = self.client.poll_events(self.now, |event| {
                events.push(event.to_event());
                *taken += 1;
                if taken.is_multiple_of(every) { Flow::Stop } else { Flow::Continue }
            });
            self.over = polled == Polled::Ended;
            if polled == Polled::Stopped {
                self.resting_until = Some(self.now + Duration::from_millis(self.rng.below(50)));
            }
            self.answer(before);
            if polled != Polled::Stopped || self.resting_until.is_some() {
                break;
            }
        }
        self.drain_client_output();
    }

    fn answer(&mut self, from: usize) {
        let calls: Vec<ToolCall> = self.events[from..]
            .iter()
            .filter_map(|event| match event {
                Event::ToolCalls(calls) => Some(calls.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        let results: Vec<ToolResult> = calls.iter().filter_map(self.tool).collect();
        if !results.is_empty() && !self.client.is_over() {
            self.client.answer_some(&results, self.now).expect("answers that fit");
        }
    }

    fn drain_client_output(&mut self) {
        loop {
            match self.client.poll_output() {
                run::Output::Send(bytes) => {
                    self.client.handle_sent(bytes.len(), self.now);
                    self.send_up(&bytes);
                }
                run::Output::HalfClose => self.up.put(self.now, Duration::ZERO, Up::End),
                run::Output::Reset(reason) => {
                    self.up.put(self.now, Duration::ZERO, Up::Reset(reason.h2_code()));
                }
                run::Output::Serve(task) => {
                    if let Some(result) = (self.handler)(&task) {
                        self.client.handle_served(task.key, result, self.now);
                    }
                }
                run::Output::StopServing(_) => {}
                run::Output::Open | run::Output::Renew | run::Output::Keep => {
                    panic!("a session has one stream")
                }
                run::Output::Wait(at) => return self.client_at = at,
            }
        }
    }

    fn drain_server(&mut self) {
        loop {
            match self.server.poll_output(self.now) {
                Output::Head { status, headers } => {
                    let delay = self.delay();
                    self.down.put(self.now, delay, Down::Head(status, headers));
                }
                Output::Send(bytes) => self.send_down(&bytes),
                Output::End { .. } => self.down.put(self.now, Duration::ZERO, Down::End),
                Output::Reset(code) => {
                    self.lose(NetworkFault::Reset(code));
                }
                Output::GoAway(_) => {}
                Output::Cut => self.lose(NetworkFault::Cut),
                Output::Wait(at) => return self.server_at = at,
            }
        }
    }

    fn send_up(&mut self, bytes: &Bytes) {
        for piece in self.pieces(bytes) {
            let delay = self.delay();
            self.up.put(self.now, delay, Up::Body(piece));
        }
    }

    fn send_down(&mut self, bytes: &Bytes) {
        for piece in self.pieces(bytes) {
            let delay = self.delay();
            let room = self.weather.cut_after.map(|at| at.saturating_sub(self.sent_down));
            self.sent_down += piece.len();
            match room {
                Some(room) if room < piece.len() => {
                    self.down.put(self.now, delay, Down::Body(piece.slice(..room)));
                    self.weather.cut_after = None;
                    return self.lose(NetworkFault::Cut);
                }
                _ => self.down.put(self.now, delay, Down::Body(piece)),
            }
        }
    }

    fn lose(&mut self, fault: NetworkFault) {
        let error = Error::network(fault, "the link was cut");
        self.down.put(self.now, Duration::ZERO, Down::Lost(error));
        self.server.handle_reset(None, self.now);
    }

    fn pieces(&mut self, bytes: &Bytes) -> Vec<Bytes> {
        let (mut pieces, mut rest) = (Vec::new(), bytes.clone());
        while !rest.is_empty() {
            let size = 1 + self.rng.below(self.weather.piece.min(1 << 32));
            let size = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
            pieces.push(rest.split_to(size));
        }
        pieces
    }

    fn delay(&mut self) -> Duration {
        let longest = u64::try_from(self.weather.delay.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.below(longest + 1))
    }

    pub(crate) fn text(&self) -> String {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("seed", &self.weather.seed)
            .field("client", &self.client)
            .field("events", &self.events)
            .field("violations", &self.server.violations())
            .finish_non_exhaustive()
    }
}
