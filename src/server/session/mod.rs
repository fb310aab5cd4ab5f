//! One Run stream as the server sees it, without I/O: the mirror of the client's session.
//!
//! `handle_*` takes what came in, the command methods say something, [`Session::poll_event`] tells
//! what the client did and [`Session::poll_output`] what the driver is to do. Drain both after
//! each call. Nothing fails: a client that breaks a rule leaves a [`Violation`], and a request that
//! cannot be read ends the stream with an error that says so.
//!
//! The session asks and remembers. [`Session::open_questions`] lists what is unanswered, so that
//! after any run a test can say: every question got exactly one answer and one close.

mod admit;
mod event;
mod ledger;
mod receive;
mod send;
mod violation;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

pub(in crate::server) use self::admit::{Refusal, admit, carries, error_body};
pub use self::event::{Event, Output, RequestHead};
use self::ledger::Ledger;
pub use self::ledger::{Open, Question, answer_field};
pub use self::send::EndError;
pub use self::violation::Violation;
use crate::connect::{Code, Compression, Decoder, Limits};
use crate::secret::Secret;

/// Path of Run.
pub const RUN_PATH: &str = "/agent.v1.AgentService/Run";

/// Content type of a Connect stream of protobuf messages.
pub const STREAM_TYPE: &str = "application/connect+proto";

/// Limits and settings of one session.
#[derive(Debug, Clone)]
pub struct Options {
    /// Limits of what the client sends.
    pub limits: Limits,
    /// The bearer token that a request must carry; `None` takes every request.
    pub token: Option<Secret>,
    /// How long the run request may take to arrive. Default 30 s.
    pub open_within: Duration,
    /// The most questions that one stream may ask, answered ones included: they are remembered to
    /// notice a second answer. Default 1 000 000.
    pub questions: usize,
    /// The most violations that are kept; more are counted. Default 256: the first ones say what is
    /// wrong.
    pub violations: usize,
    /// The most events that wait to be polled; then the run ends with an error. Default 65,536: a
    /// caller that drains after each call never meets it, since a chunk of 512 KiB holds fewer.
    pub events: usize,
    /// Bytes of the client's history that a [`Player`](crate::server::Player) fetches and keeps;
    /// blobs beyond count as missing. Default 64 MiB, as a client keeps of the service's.
    pub history_bytes: usize,
    /// The most blobs of it that are fetched: the last ones. Default 4,096, as a client keeps.
    pub history_blobs: usize,
    /// The largest DATA payload that several messages are packed into; 0 sends each by itself.
    pub pack: usize,
    /// Compress messages when the client accepts gzip.
    pub gzip: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            token: None,
            open_within: Duration::from_secs(30),
            questions: 1_000_000,
            violations: 256,
            events: 1 << 16,
            history_bytes: 64 << 20,
            history_blobs: 4_096,
            pack: 0,
            gzip: false,
        }
    }
}

/// Where the request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The request head is awaited.
    Head,
    /// The run request is awaited.
    First,
    /// A prewarm came; the run request may follow on this stream, whenever it likes.
    Prewarmed,
    /// The run request is there.
    Running,
    /// Nothing more is read: refused, broken, or the client is gone.
    Deaf,
}

/// One Run stream, seen from the server.
pub struct Session {
    options: Options,
    phase: Phase,
    decoder: Decoder,
    ledger: Ledger,
    /// Ids of blobs that this side handed over under an id that is not their hash.
    foreign: HashSet<Vec<u8>>,
    events: VecDeque<Event>,
    output: VecDeque<Output>,
    /// Bytes that wait to be packed with those that follow.
    packed: BytesMut,
    head_sent: bool,
    /// The server said its last word.
    ended: bool,
    gzip: bool,
    opened: Instant,
    violations: Vec<Violation>,
    violation_count: usize,
    heartbeats: u64,
    received: u64,
}

impl Session {
    /// A session that waits for the request head.
    pub fn new(options: Options, now: Instant) -> Self {
        Self {
            decoder: Decoder::new(options.limits, Compression::None),
            options,
            phase: Phase::Head,
            ledger: Ledger::default(),
            foreign: HashSet::new(),
            events: VecDeque::new(),
            output: VecDeque::new(),
            packed: BytesMut::new(),
            head_sent: false,
            ended: false,
            gzip: false,
            opened: now,
            violations: Vec::new(),
            violation_count: 0,
            heartbeats: 0,
            received: 0,
        }
    }

    /// The request head came. Refuses what is not a Run request of somebody who may ask.
    pub fn handle_head(&mut self, head: &RequestHead, now: Instant) {
        if self.phase != Phase::Head {
            return;
        }
        self.opened = now;
        let encoding = match admit(head, STREAM_TYPE, self.options.token.as_ref()) {
            Ok(()) => head.header("connect-content-encoding").unwrap_or("identity"),
            Err(refusal) => return self.refuse(refusal),
        };
        let compression = match encoding {
            "identity" => Compression::None,
            "gzip" => Compression::Gzip,
            _ => {
                self.phase = Phase::Deaf;
                let error =
                    EndError::new(Code::Unimplemented, "only gzip and identity are understood");
                return self.end_with(&error);
            }
        };
        let accepted = head.header("connect-accept-encoding").unwrap_or_default();
        self.gzip = self.options.gzip && accepted.split(',').any(|name| name.trim() == "gzip");
        self.decoder = Decoder::new(self.options.limits, compression);
        self.phase = Phase::First;
    }

    /// Bytes of the request body came.
    pub fn handle_body(&mut self, chunk: &[u8], now: Instant) {
        let _ = now;
        self.received += chunk.len() as u64;
        self.read(chunk);
    }

    /// The request body ended.
    pub fn handle_end(&mut self, now: Instant) {
        let _ = now;
        if matches!(self.phase, Phase::Head | Phase::Deaf) {
            return;
        }
        if let Err(error) = self.decoder.finish() {
            return self.broken(&error);
        }
        if self.phase == Phase::First {
            self.violate(Violation::NotARunRequest);
            self.phase = Phase::Deaf;
            self.end_with(&EndError::new(Code::InvalidArgument, "no run request"));
        }
        self.push(Event::HalfClosed);
    }

    /// The client reset the stream (`Some(code)`), or the connection is gone (`None`). Nothing
    /// more is sent.
    pub fn handle_reset(&mut self, code: Option<u32>, now: Instant) {
        let _ = now;
        self.phase = Phase::Deaf;
        self.ended = true;
        self.output.clear();
        self.packed.clear();
        self.push(Event::Gone { code });
    }

    /// Time passed. The only wait of the session itself is the one for the run request.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.phase == Phase::First && now >= self.deadline() {
            self.phase = Phase::Deaf;
            self.end_with(&EndError::new(Code::DeadlineExceeded, "the run request did not arrive"));
        }
    }

    /// What the client did, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What the driver is to do next; drain until [`Output::Wait`].
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.take_output() {
            return output;
        }
        if !self.packed.is_empty() {
            return Output::Send(self.packed.split().freeze());
        }
        Output::Wait((self.phase == Phase::First && !self.ended).then(|| self.deadline()))
    }

    /// The next thing to do, without closing a pack that more may go into.
    pub(in crate::server) fn take_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Whether the server said its last word on this stream, or the client is gone.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the response head is on its way.
    pub fn is_head_sent(&self) -> bool {
        self.head_sent
    }

    /// What the client did wrong: the first 256, in the order they happened.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How often the client did something wrong.
    pub fn violation_count(&self) -> usize {
        self.violation_count
    }

    /// Questions without an answer, and execs without a close. Empty after a run that went well.
    pub fn open_questions(&self) -> impl Iterator<Item = Open> + '_ {
        self.ledger.open()
    }

    /// Heartbeats that the client sent.
    pub fn heartbeats(&self) -> u64 {
        self.heartbeats
    }

    /// Bytes of the request body so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Limits and settings, for who plays on this session.
    pub(in crate::server) fn options(&self) -> &Options {
        &self.options
    }

    fn deadline(&self) -> Instant {
        self.opened + self.options.open_within
    }

    fn push(&mut self, event: Event) {
        if self.events.len() < self.options.events {
            self.events.push_back(event);
        } else if !self.ended {
            self.phase = Phase::Deaf;
            self.end_with(&EndError::new(Code::ResourceExhausted, "too many messages wait"));
        }
    }

    fn violate(&mut self, violation: Violation) {
        self.violation_count += 1;
        if self.violations.len() < self.options.violations {
            self.violations.push(violation.clone());
        }
        self.push(Event::Violation(violation));
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.phase = Phase::Deaf;
        let Refusal { error, status, headers } = refusal;
        let body = error_body(&error);
        self.events.push_back(Event::Refused(error));
        self.answer_http(status, headers, Bytes::from(body));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase)
            .field("ended", &self.ended)
            .field("received", &self.received)
            .field("violations", &self.violations)
            .finish_non_exhaustive()
    }
}
