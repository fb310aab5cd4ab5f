//! A [`Player`] plays a script over a session: a pure machine like the session below it.
//!
//! It holds a list of tasks. A step becomes one task or several; a task says something, asks
//! something, or sets what is waited for. Time comes in, nothing is read from a clock.

mod answers;
mod assistant;
mod checkpoint;
mod facts;
mod outcome;
mod playbook;
mod steps;
mod task;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::checkpoint::Spoken;
use self::facts::Facts;
pub(in crate::server) use self::playbook::Call as UnaryCall;
pub use self::playbook::Playbook;
pub(in crate::server) use self::task::name_of;
use self::task::{Speech, Task, Waiting};
use super::script::{Script, assistant_steps};
use super::session::{self, EndError, Output, RequestHead, Session, Violation};
use crate::connect::Code;
use crate::proto::{self, interaction_update};

/// Tasks that may pass without anything being said or waited for: a loop in a script that says
/// nothing ends here. No option: the script is this side's own.
const MAX_SILENT_TASKS: usize = 10_000;

/// One question that waits, by its channel: numeric ids of different channels may be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Exec(u32),
    Blob(u32),
    Query(u32),
}

/// What a question is for.
#[derive(Debug)]
struct Pending {
    purpose: Purpose,
    /// Whether the present step waits for it.
    awaited: bool,
    /// When to abort it.
    abort: Option<Instant>,
}

#[derive(Debug)]
enum Purpose {
    /// Nothing but an answer is wanted.
    Plain,
    /// The request context.
    Context,
    /// A call; the index in [`Facts::calls`], and whether its updates are left out.
    Call { index: usize, quiet: bool },
    /// A look at the client's files; the index in [`Facts::calls`].
    Look(usize),
    /// A blob of the root prompt; its index in `history`.
    History(usize),
}

/// Plays a script on one Run stream.
pub struct Player {
    playbook: Playbook,
    session: Session,
    facts: Option<Facts>,
    tasks: VecDeque<Task>,
    speech: Option<Speech>,
    waiting: Waiting,
    pending: HashMap<Key, Pending>,
    heartbeat_at: Option<Instant>,
    /// Bytes of the request's conversation state, and the root prompt's ids out of it.
    state: Bytes,
    roots: Vec<Bytes>,
    history: Vec<Option<Bytes>>,
    history_bytes: usize,
    spoken: Spoken,
    tokens: i64,
    thinking_tokens: i64,
    half_closed: bool,
    cancelled: bool,
}

impl Player {
    /// A player that waits for the request head.
    pub fn new(playbook: Playbook, options: session::Options, now: Instant) -> Self {
        let script = playbook.script();
        let options = session::Options { pack: script.pack, gzip: script.gzip, ..options };
        Self {
            session: Session::new(options, now),
            playbook,
            facts: None,
            tasks: VecDeque::new(),
            speech: None,
            waiting: Waiting::Nothing,
            pending: HashMap::new(),
            heartbeat_at: None,
            state: Bytes::new(),
            roots: Vec::new(),
            history: Vec::new(),
            history_bytes: 0,
            spoken: Spoken::default(),
            tokens: 0,
            thinking_tokens: 0,
            half_closed: false,
            cancelled: false,
        }
    }

    /// The request head came.
    pub fn handle_head(&mut self, head: &RequestHead, now: Instant) {
        self.session.handle_head(head, now);
        self.drain(now);
    }

    /// Bytes of the request body came.
    pub fn handle_body(&mut self, chunk: &[u8], now: Instant) {
        self.session.handle_body(chunk, now);
        self.drain(now);
    }

    /// The request body ended.
    pub fn handle_end(&mut self, now: Instant) {
        self.session.handle_end(now);
        self.drain(now);
    }

    /// The client reset the stream, or the connection is gone.
    pub fn handle_reset(&mut self, code: Option<u32>, now: Instant) {
        self.session.handle_reset(code, now);
        self.drain(now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        self.drain(now);
    }

    /// What the driver is to do next. It is made when it is asked for, so a driver that writes
    /// one at a time never has a queue.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        for _ in 0..MAX_SILENT_TASKS {
            if let Some(output) = self.session.take_output() {
                return output;
            }
            if let Some(wake) = self.advance(now) {
                return match self.session.poll_output() {
                    Output::Wait(deadline) => Output::Wait(earlier(wake.0, deadline)),
                    output => output,
                };
            }
        }
        self.stop_with(&EndError::new(
            Code::Internal,
            "the script goes round without saying anything",
        ));
        self.session.poll_output()
    }

    /// Whether the server said its last word, or the client is gone.
    pub fn is_ended(&self) -> bool {
        self.session.is_ended()
    }

    /// Whether the client cancelled the run: said so, not merely went away.
    pub fn was_cancelled(&self) -> bool {
        self.cancelled
    }

    /// The session below, for what it recorded.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What the client did wrong so far.
    pub fn violations(&self) -> &[Violation] {
        self.session.violations()
    }

    fn script(&self) -> &Script {
        self.playbook.script()
    }

    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.session.poll_event() {
            self.on_event(event, now);
        }
    }

    /// Does the next thing. `None`: something was done, go on; else when to wake.
    fn advance(&mut self, now: Instant) -> Option<Wake> {
        if self.facts.is_none() || self.session.is_ended() {
            return Some(Wake(None));
        }
        if self.abort_due(now) {
            return None;
        }
        if let Some(speech) = &mut self.speech {
            if now < speech.next {
                return Some(Wake(Some(speech.next)));
            }
            self.speak(now);
            return None;
        }
        match self.wait_over(now) {
            Waited::Over => {
                self.waiting = Waiting::Nothing;
                self.heartbeat_at = None;
                match self.tasks.pop_front() {
                    Some(task) => self.run(task, now),
                    None => self.session.finish(),
                }
                None
            }
            Waited::Said => None,
            Waited::Until(wake) => Some(Wake(wake)),
        }
    }

    /// Aborts the execs whose time has come.
    fn abort_due(&mut self, now: Instant) -> bool {
        let due =
            self.pending.iter().find(|(_, pending)| pending.abort.is_some_and(|at| at <= now));
        let Some((&key, _)) = due else { return false };
        self.pending.remove(&key);
        if let Key::Exec(id) = key {
            self.session.abort(id);
        }
        true
    }

    /// Whether what is waited for has come, and what there is to say meanwhile.
    fn wait_over(&mut self, now: Instant) -> Waited {
        let abort = self.pending.values().filter_map(|pending| pending.abort).min();
        let until = match &mut self.waiting {
            Waiting::Nothing => return Waited::Over,
            Waiting::Silence => return Waited::Until(abort),
            Waiting::Heartbeats { every, left, next } => {
                if *left == Some(0) {
                    return Waited::Over;
                }
                if now < *next {
                    return Waited::Until(earlier(Some(*next), abort));
                }
                *left = left.map(|left| left - 1);
                *next = now + *every;
                self.heartbeat();
                return Waited::Said;
            }
            Waiting::Time(until) if now >= *until => return Waited::Over,
            Waiting::Time(until) => *until,
            Waiting::Answers(until) => {
                let until = *until;
                if !self.pending.values().any(|pending| pending.awaited) {
                    return Waited::Over;
                }
                if now >= until {
                    return self.too_late("an answer did not come");
                }
                until
            }
            Waiting::Event { until, strict, happened, .. } => {
                let (until, strict) = (*until, *strict);
                match (*happened, now >= until) {
                    (true, _) => return Waited::Over,
                    (false, true) if strict => {
                        return self.too_late("what the script waits for did not come");
                    }
                    (false, true) => return Waited::Over,
                    (false, false) => until,
                }
            }
        };
        self.keep_alive(now, earlier(Some(until), abort))
    }

    /// A heartbeat when one is due; else when to wake.
    fn keep_alive(&mut self, now: Instant, until: Option<Instant>) -> Waited {
        let every = self.script().heartbeat_ms;
        if every == 0 {
            return Waited::Until(until);
        }
        let every = Duration::from_millis(every);
        let next = *self.heartbeat_at.get_or_insert(now + every);
        if now < next {
            return Waited::Until(earlier(Some(next), until));
        }
        self.heartbeat_at = Some(now + every);
        self.heartbeat();
        Waited::Said
    }

    fn heartbeat(&mut self) {
        self.session.update(interaction_update::Message::Heartbeat(proto::HeartbeatUpdate {}));
    }

    fn too_late(&mut self, message: &str) -> Waited {
        self.stop_with(&EndError::new(Code::DeadlineExceeded, message));
        Waited::Said
    }

    /// Ends the stream with an error; what was still planned is dropped.
    fn stop_with(&mut self, error: &EndError) {
        self.tasks.clear();
        self.speech = None;
        self.waiting = Waiting::Silence;
        self.session.end_with(error);
    }

    /// Chooses the rule for a run request.
    fn start(&mut self, request: &proto::AgentRunRequest, state: Bytes) {
        let facts = Facts::of(request);
        self.state = state;
        if let Some(state) = &request.conversation_state {
            self.roots.clone_from(&state.root_prompt_messages_json);
        }
        let playbook = self.playbook.clone();
        let rule = playbook.choose(&facts.facets());
        self.facts = Some(facts);
        let (steps, hold_head) = match rule {
            Some(rule) => (rule.steps.clone(), rule.hold_head),
            None if self.script().rules.is_empty() => (assistant_steps(), false),
            None => {
                let message = "no rule of the script fits this request";
                return self.stop_with(&EndError::new(Code::FailedPrecondition, message));
            }
        };
        self.tasks = steps.into_iter().map(Task::Step).collect();
        if !hold_head && !self.head_is_scripted() {
            self.session.respond(200, &[]);
        }
    }

    /// Whether the first step says what the head looks like.
    fn head_is_scripted(&self) -> bool {
        matches!(self.tasks.front(), Some(Task::Step(step)) if step.makes_head())
    }
}

/// When to wake.
struct Wake(Option<Instant>);

/// What came of waiting.
enum Waited {
    /// The next task may run.
    Over,
    /// Something was said.
    Said,
    /// Not yet.
    Until(Option<Instant>),
}

/// The earlier of two times that may be missing.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Player")
            .field("session", &self.session)
            .field("tasks", &self.tasks.len())
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}
