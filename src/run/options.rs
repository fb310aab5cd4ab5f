//! Limits and times of one run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::connect::Limits;
use crate::exec::Effects;
use crate::proto::exec_server_message::Message as Case;
use crate::proto::interaction_query::Query;

use super::retry::RetryOptions;

/// Limits and times of one run. Every default has its reason beside it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Sizes of what the service sends: envelope, decompressed envelope, end-stream.
    pub limits: Limits,
    /// How long the first byte of the answer may take. 60 s: a cold model answers its first
    /// heartbeat well before (FAULTS, promises).
    pub first_byte: Duration,
    /// How long nothing at all may come, heartbeats included. 120 s for a single attempt (FAULTS,
    /// promises); a client that retries uses 30 s, as the official one does (PROTOCOL 3).
    pub silence: Duration,
    /// How long the service may send nothing but heartbeats. 10 minutes: the longest silence of a
    /// model that other clients allow (BEHAVIOUR 6.3, FAULTS M63).
    pub progress: Duration,
    /// How long one envelope may take from its first byte to its last, so that a byte a second
    /// does not count as life for ever (FAULTS M62). 5 minutes: 16 MiB over half a megabit a second.
    pub message: Duration,
    /// Time between our heartbeats, counted from the moment the last one was written. 5 s
    /// (PROTOCOL 3).
    pub heartbeat: Duration,
    /// Time between the heartbeats of a tool at work. 3 s (PROTOCOL 3, exec life cycle).
    pub exec_heartbeat: Duration,
    /// Tool calls that come within this time of each other are handed out together. 100 ms
    /// (BEHAVIOUR 6.3).
    pub tool_batch: Duration,
    /// How long a turn may wait for the answers to its tool calls. 5 minutes (BEHAVIOUR 6.3).
    pub paused_turn: Duration,
    /// How long the stream may stay open after `turn_ended`. 500 ms (PROTOCOL 3).
    pub turn_end: Duration,
    /// The same while tools are still at work. 5 s (PROTOCOL 3).
    pub turn_end_with_tools: Duration,
    /// Limit for the whole run, tools included. None by default: a long answer is not a fault.
    pub deadline: Option<Duration>,
    /// Bytes of replies that may wait to be written before no further message is taken in.
    /// 8 MiB: a few large blobs. A peer that asks without reading is held by its own window and
    /// ends with the writer's deadline.
    pub queued_writes: usize,
    /// Tool calls that may wait for their answers at a time; more are refused one by one with an
    /// error that the model sees. 256: twice what a model was seen to ask for in one go.
    pub pending_calls: usize,
    /// Bytes of messages whose tool calls, execs and queries may wait for their answers; more are
    /// refused one by one, but for the first. 64 MiB: a few files that are written whole.
    pub pending_bytes: usize,
    /// Bytes of a call's partial arguments that are put together as the snapshot of
    /// [`Progress::ToolArguments`](super::Progress::ToolArguments). 256 KiB: arguments beyond that
    /// are a file, which the call itself brings whole.
    pub partial_arguments: usize,
    /// Calls whose partial arguments are put together at a time, one at least; the oldest gives
    /// way, and its snapshot begins anew. 64: a model writes one call after the other, so that these
    /// are calls of which the end was not said; 16 MiB at the limit above.
    pub partial_calls: usize,
    /// Which execs and queries a handler serves; the others are refused at once. Nothing by
    /// default.
    pub serves: Option<Arc<dyn Serves>>,
    /// Execs and queries at work at a time; more wait. 16: a handler's tasks are threads, files
    /// and processes of this machine.
    pub serve_at_once: usize,
    /// Execs and queries that may be at work or wait; more are refused. 256: as for tool calls.
    pub serve_waiting: usize,
    /// How long an exec may take, the wait for a place included, before its handler is dropped and
    /// the service told so. 10 minutes: a long build; shells have their own, shorter limits.
    pub exec_limit: Duration,
    /// How long a person may take for a query. 10 minutes, for the same reason.
    pub query_limit: Duration,
    /// Whether and how the run is tried again. A [`Session`](super::Session) is one attempt; a
    /// [`Turn`](super::Turn) makes the others.
    pub retry: RetryOptions,
    /// Bytes kept of an error answer's body; the rest is not read. 64 KiB (FAULTS, promises).
    pub error_body: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            first_byte: Duration::from_secs(60),
            silence: Duration::from_secs(120),
            progress: Duration::from_secs(600),
            message: Duration::from_secs(300),
            heartbeat: Duration::from_secs(5),
            exec_heartbeat: Duration::from_secs(3),
            tool_batch: Duration::from_millis(100),
            paused_turn: Duration::from_secs(300),
            turn_end: Duration::from_millis(500),
            turn_end_with_tools: Duration::from_secs(5),
            deadline: None,
            queued_writes: 8 << 20,
            pending_calls: 256,
            pending_bytes: 64 << 20,
            partial_arguments: 256 << 10,
            partial_calls: 64,
            serves: None,
            serve_at_once: 16,
            serve_waiting: 256,
            exec_limit: Duration::from_secs(600),
            query_limit: Duration::from_secs(600),
            retry: RetryOptions::default(),
            error_body: 64 << 10,
        }
    }
}

/// Says which questions are given to a handler.
pub trait Serves: Send + Sync {
    /// Whether this exec is served.
    fn exec(&self, case: &Case) -> bool;
    /// Whether this query is served.
    fn query(&self, query: &Query) -> bool;
    /// What serving this exec does to the world. By default it changes something.
    fn effects(&self, case: &Case) -> Effects {
        let _ = case;
        Effects::Changes
    }
}

impl Options {
    pub(super) fn serves_exec(&self, case: &Case) -> bool {
        self.serves.as_ref().is_some_and(|serves| serves.exec(case))
    }

    pub(super) fn effects(&self, case: &Case) -> Effects {
        self.serves.as_ref().map_or(Effects::Changes, |serves| serves.effects(case))
    }

    pub(super) fn serves_query(&self, query: &Query) -> bool {
        self.serves.as_ref().is_some_and(|serves| serves.query(query))
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("limits", &self.limits)
            .field("deadline", &self.deadline)
            .field("serves", &self.serves.is_some())
            .finish_non_exhaustive()
    }
}
