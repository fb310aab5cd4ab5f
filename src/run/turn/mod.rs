//! [`Turn`]: one turn over as many attempts as it takes.
//!
//! ```text
//!                    end that stands
//!           ┌──────────────────────────────────────────┐
//!           │        worth another attempt              ▼
//!  ──▶ Attempt ───────────────────────▶ Waiting      Over
//!        ▲  │                            │  ▲
//!        │  └── tool calls unanswered ──▶ Parked
//!        └────────── its time has come ──┘  (all answered)
//! ```
//!
//! An attempt is a [`Session`] on a stream of its own. The next one goes on from the last
//! checkpoint, or from the history when tools were answered after it. The caller sees one stream of
//! events: what it has already is not handed out again.

mod attempts;
mod echo;
#[cfg(feature = "testing")]
mod fuzz;
mod ledger;
mod transcript;
mod verdict;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::codec::{History, RunRequest};
use crate::context::ToolResult;
use crate::conversation::Conversation;
use crate::error::{Error, Kind, Result};
use crate::ids::IdSource;
use crate::proto::conversation_action::Action;
use crate::proto::shell_stream;
use crate::redact::Redactor;

use super::core::{cancelled, past_deadline};
use super::event::{Event, EventRef, Notice};
use super::head::Head;
use super::options::Options;
use super::output::Output;
use super::retry::{Retry, RetryBudget};
use super::serve::{ServeKey, ServeTask, Work};
use super::serving::ServeResult;
use super::session::{Flow, Polled, Session, Sink};
use super::tools::ToolTable;

#[cfg(feature = "testing")]
pub use fuzz::turn_operations;
use ledger::Ledger;
pub(crate) use transcript::unanswered;
use verdict::Repairs;

enum Phase {
    /// A stream is open, or on its way.
    Attempt(Box<Session>),
    /// The next attempt begins then.
    Waiting(Instant),
    /// The next attempt begins when all tool calls are answered, and not before this.
    Parked(Instant),
    Over,
}

/// One turn of a conversation: the [`Session`]s that it takes, as one.
///
/// The driver's contract is that of a session; [`Output::Open`] asks it for another stream.
pub struct Turn {
    phase: Phase,
    request: RunRequest,
    /// Messages of the context that the caller gave.
    given: usize,
    options: Options,
    redactor: Redactor,
    budget: RetryBudget,
    /// Away while an attempt has them.
    conversation: Conversation,
    ids: Option<Box<dyn IdSource>>,
    tools: ToolTable,
    last_key: u64,
    ledger: Ledger,
    retry: Retry,
    repairs: Repairs,
    /// What the next attempt asks for, where it is not what the last one left undone.
    ask_anew: bool,
    events: VecDeque<Event>,
    outputs: VecDeque<Output>,
    deadline: Option<Instant>,
    kept: bool,
    /// It ended with an error.
    failed: bool,
    /// The caller has said stop.
    cancelled: bool,
    renewable: bool,
    /// What the service said of the credentials that are being renewed.
    refused: Option<Error>,
}

/// What a session gives goes through the books to the caller.
struct Books<'a, S> {
    ledger: &'a mut Ledger,
    events: &'a mut VecDeque<Event>,
    /// The caller said stop.
    full: bool,
    sink: &'a mut S,
}

impl<S: Sink> Sink for Books<'_, S> {
    #[inline(always)]
    fn take(&mut self, event: EventRef<'_>) -> Flow {
        match self.ledger.pass(event, self.events) {
            Some(event) => {
                let flow = self.sink.take(event);
                self.full |= flow == Flow::Stop;
                flow
            }
            None if self.events.is_empty() => Flow::Continue,
            // What was queued comes before what follows in the stream.
            None => Flow::Stop,
        }
    }
}

impl Turn {
    /// Encodes the request and starts the first attempt; the first [`Output::Send`] carries it, for
    /// a stream that the driver opens unasked. `budget` is shared by the runs of a client.
    ///
    /// A conversation that holds an [open turn](Conversation::open_turn) of this same context goes
    /// on with it: calls that wait are handed out again.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn new(
        request: RunRequest,
        mut conversation: Conversation,
        options: Options,
        budget: RetryBudget,
        redactor: Redactor,
        ids: Box<dyn IdSource>,
        now: Instant,
    ) -> Result<Self, Box<(Error, Conversation)>> {
        let given = request.context.messages.len();
        let open = conversation.take_open_turn(given).filter(|_| request.history == History::Full);
        let ledger = match &open {
            Some(open) => Ledger::restored(&options.retry, open),
            None => Ledger::new(&options.retry),
        };
        let mut turn = Self {
            phase: Phase::Waiting(now),
            given,
            retry: Retry::new(&options.retry),
            deadline: options.deadline.and_then(|deadline| now.checked_add(deadline)),
            request,
            options,
            redactor,
            budget,
            conversation,
            ids: Some(ids),
            tools: ToolTable::default(),
            last_key: 0,
            ledger,
            repairs: Repairs::default(),
            ask_anew: open.is_none(),
            events: VecDeque::new(),
            outputs: VecDeque::new(),
            kept: false,
            failed: false,
            cancelled: false,
            renewable: false,
            refused: None,
        };
        let Some(open) = open else {
            return match turn.attempt(now) {
                Ok(()) => Ok(turn),
                Err(error) => Err(Box::new((error, turn.conversation))),
            };
        };
        turn.events.push_back(Event::Notice(Notice::Resuming));
        let pending = open.pending();
        if !pending.is_empty() {
            pending.iter().cloned().for_each(|call| turn.tools.reopen(call));
            turn.events.push_back(Event::ToolCalls(pending));
            turn.phase = Phase::Parked(now);
        }
        Ok(turn)
    }

    /// Wants [`Output::Keep`] whenever a restarted process would miss something.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// Wants [`Output::Renew`] once when the service does not take the credentials.
    #[must_use]
    pub fn renewable(mut self, renewable: bool) -> Self {
        self.renewable = renewable;
        self
    }

    /// Whether the first attempt is under way, so that its stream has to be opened. False for a
    /// turn that waits for answers first; it asks with [`Output::Open`] when they are there.
    pub fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::Attempt(_))
    }

    fn session(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Attempt(session) => Some(session),
            _ => None,
        }
    }

    // Input, for the stream that was opened last.

    /// As [`Session::handle_head`].
    pub fn handle_head(&mut self, head: Head, now: Instant) {
        if let Some(session) = self.session() {
            session.handle_head(head, now);
        }
    }

    /// As [`Session::handle_body`].
    pub fn handle_body(&mut self, chunk: Bytes, now: Instant) {
        if let Some(session) = self.session() {
            session.handle_body(chunk, now);
        }
    }

    /// As [`Session::handle_end`].
    pub fn handle_end(&mut self, now: Instant) {
        if let Some(session) = self.session() {
            session.handle_end(now);
        }
    }

    /// As [`Session::handle_lost`].
    pub fn handle_lost(&mut self, error: Error, now: Instant) {
        if let Some(session) = self.session() {
            session.handle_lost(error, now);
        }
    }

    /// As [`Session::handle_sent`].
    pub fn handle_sent(&mut self, bytes: usize, now: Instant) {
        if let Some(session) = self.session() {
            session.handle_sent(bytes, now);
        }
    }

    /// The instant of the last [`Output::Wait`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|at| at <= now) {
            let error = past_deadline(self.options.deadline.unwrap_or_default());
            match &mut self.phase {
                Phase::Attempt(session) => session.core.give_up(error),
                Phase::Waiting(_) | Phase::Parked(_) => self.over(Err(error)),
                Phase::Over => {}
            }
            return;
        }
        match &mut self.phase {
            Phase::Attempt(session) => session.handle_timeout(now),
            Phase::Waiting(at) if *at <= now => {
                self.outputs.push_back(Output::Open);
                if let Err(error) = self.attempt(now) {
                    self.over(Err(error));
                }
            }
            _ => {}
        }
    }

    /// As [`Session::handle_shell_event`].
    pub fn handle_shell_event(&mut self, key: ServeKey, event: shell_stream::Event) {
        self.ledger.printed(key);
        if let Some(session) = self.session() {
            session.handle_shell_event(key, event);
        }
    }

    /// As [`Session::handle_served`].
    pub fn handle_served(&mut self, key: ServeKey, result: ServeResult, now: Instant) {
        self.ledger.served(key, matches!(result, ServeResult::Refused(_)));
        if let Some(session) = self.session() {
            session.handle_served(key, result, now);
        }
    }

    /// Somebody else served the question of this key and said so to the service: nothing is
    /// written, and it is open no more. What a recording says of a handler.
    pub(crate) fn handle_served_elsewhere(&mut self, key: ServeKey, now: Instant) {
        self.ledger.served(key, false);
        if let Some(session) = self.session() {
            session.core.served_elsewhere(key, now);
        }
    }

    /// The stream begins with these credentials: what the service says is cleaned of them.
    pub fn handle_renewed(&mut self, redactor: Redactor) {
        self.redactor = redactor.clone();
        if let Some(session) = self.session() {
            session.core.clean_with(redactor);
        }
    }

    /// There are no credentials for the stream: `error` says why, or there are none but those that
    /// were refused.
    pub fn handle_not_renewed(&mut self, error: Option<Error>) {
        let error = error.or_else(|| self.refused.take()).unwrap_or_else(|| {
            Error::new(Kind::Unauthenticated, "there are no credentials for this run")
        });
        if let Some(session) = self.session() {
            session.core.give_up(error);
        }
    }

    /// [`Output::Keep`] was tried and failed.
    pub fn handle_not_kept(&mut self, why: impl Into<String>) {
        if !self.is_over() {
            self.events.push_back(Event::Notice(Notice::NotKept { why: why.into() }));
        }
    }

    // Commands.

    /// As [`Session::answer`]; also while there is no stream.
    ///
    /// # Errors
    /// As [`Session::answer`].
    pub fn answer(&mut self, results: &[ToolResult], now: Instant) -> Result<()> {
        self.answer_calls(results, true, now)
    }

    /// As [`Session::answer_some`]; also while there is no stream.
    ///
    /// # Errors
    /// As [`Session::answer_some`].
    pub fn answer_some(&mut self, results: &[ToolResult], now: Instant) -> Result<()> {
        self.answer_calls(results, false, now)
    }

    fn answer_calls(&mut self, results: &[ToolResult], all: bool, now: Instant) -> Result<()> {
        match &mut self.phase {
            Phase::Attempt(session) if all => session.answer(results, now)?,
            Phase::Attempt(session) => session.answer_some(results, now)?,
            Phase::Waiting(_) | Phase::Parked(_) => {
                self.tools.match_answers(results, all)?;
                results.iter().try_for_each(ledger::check)?;
                results.iter().for_each(|result| self.tools.close(&result.tool_call_id));
            }
            Phase::Over => return Err(Error::invalid("the run is over; the answer came too late")),
        }
        self.ledger.answered(results);
        self.note_keep();
        if let Phase::Parked(at) = self.phase
            && self.tools.is_empty()
        {
            self.events.push_back(Event::Notice(Notice::Resuming));
            self.phase = Phase::Waiting(at.max(now));
        }
        Ok(())
    }

    /// As [`Session::say`]. While there is no stream the message waits for the next.
    ///
    /// # Errors
    /// As [`Session::say`].
    pub fn say(&mut self, text: &str, now: Instant) -> Result<String> {
        let id = match (&mut self.phase, &mut self.ids) {
            (Phase::Attempt(session), _) => session.say(text, now)?,
            (Phase::Waiting(_) | Phase::Parked(_), Some(ids)) => ids.next_id().to_string(),
            _ => return Err(Error::invalid("the turn is over; start a new run instead")),
        };
        self.ledger.said(&id, text);
        Ok(id)
    }

    /// As [`Session::act`].
    ///
    /// # Errors
    /// As [`Session::act`]; and while there is no stream, for the service would not know of it.
    pub fn act(&mut self, action: &Action, now: Instant) -> Result<()> {
        match &mut self.phase {
            Phase::Attempt(session) => session.act(action, now),
            _ if matches!(action, Action::CancelAction(_)) => {
                self.cancel(now);
                Ok(())
            }
            Phase::Waiting(_) | Phase::Parked(_) => {
                Err(Error::invalid("the connection was lost and is not back yet; nothing was sent")
                    .with_hint("try again when the run goes on"))
            }
            Phase::Over => Err(Error::invalid("the turn is over; start a new run instead")),
        }
    }

    /// As [`Session::cancel`]; also while there is no stream.
    pub fn cancel(&mut self, now: Instant) {
        self.cancelled = true;
        match &mut self.phase {
            Phase::Attempt(session) => session.cancel(now),
            Phase::Waiting(_) | Phase::Parked(_) => self.over(Err(cancelled())),
            Phase::Over => {}
        }
    }

    // Output.

    /// As [`Session::poll_events`].
    pub fn poll_events<S>(&mut self, now: Instant, mut sink: S) -> Polled
    where
        S: FnMut(EventRef<'_>) -> Flow,
    {
        self.poll_into(now, &mut sink)
    }

    #[inline]
    pub(crate) fn poll_into(&mut self, now: Instant, sink: &mut impl Sink) -> Polled {
        loop {
            while let Some(event) = self.events.pop_front() {
                if sink.take(EventRef::Other(Box::new(event))) == Flow::Stop {
                    return Polled::Stopped;
                }
            }
            let Self { phase, ledger, events, .. } = self;
            let session = match phase {
                Phase::Attempt(session) => session,
                Phase::Waiting(_) | Phase::Parked(_) => return Polled::Drained,
                Phase::Over => return Polled::Ended,
            };
            let mut books = Books { ledger, events, full: false, sink };
            let polled = session.poll_into(now, &mut books);
            let full = books.full;
            self.after_events(now);
            if let Some(end) = self.ledger.end.take() {
                self.attempt_over(end, now);
            } else if polled != Polled::Stopped && self.events.is_empty() {
                return polled;
            }
            if full {
                return Polled::Stopped;
            }
        }
    }

    fn after_events(&mut self, now: Instant) {
        let replies = std::mem::take(&mut self.ledger.replies);
        if let Some(session) = self.session().filter(|_| !replies.is_empty()) {
            // They were accepted once; a stream that ended meanwhile asks again on the next.
            let _ = session.answer_some(&replies, now);
        }
        self.note_keep();
    }

    fn note_keep(&mut self) {
        let worth = std::mem::take(&mut self.ledger.worth_keeping);
        if self.kept && worth && !self.outputs.contains(&Output::Keep) {
            self.outputs.push_back(Output::Keep);
        }
    }

    /// What the driver has to do next; call until it is [`Output::Wait`].
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let at = match &mut self.phase {
            // Its farewell comes when its last event has been seen.
            Phase::Attempt(session) if session.is_over() => None,
            Phase::Attempt(session) => match session.poll_output() {
                Output::Wait(at) => at,
                Output::Serve(task) => {
                    note_serving(&mut self.ledger, &self.options, &task);
                    return Output::Serve(task);
                }
                output => return output,
            },
            Phase::Waiting(at) => Some(*at),
            Phase::Parked(_) => None,
            Phase::Over => return Output::Wait(None),
        };
        Output::Wait(at.into_iter().chain(self.deadline).min())
    }

    /// As [`Session::unsent`].
    pub fn unsent(&self) -> usize {
        match &self.phase {
            Phase::Attempt(session) => session.unsent(),
            _ => 0,
        }
    }

    /// Whether the last event has been given or waits to be polled.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether the last event is an error.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether events have to be polled although the consumer is full: the attempt under way is
    /// over, and what follows is decided there.
    pub fn must_be_polled(&self) -> bool {
        match &self.phase {
            Phase::Attempt(session) => session.is_over(),
            Phase::Waiting(_) | Phase::Parked(_) => false,
            Phase::Over => true,
        }
    }

    /// The conversation as it stands, with what a restarted process needs to go on with this turn:
    /// while it is under way, and from its last checkpoint when it has failed.
    pub fn snapshot(&self) -> Conversation {
        let mut conversation = match &self.phase {
            Phase::Attempt(session) => session.conversation().clone(),
            _ => self.conversation.clone(),
        };
        let broken = self.has_failed() && conversation.checkpoint().is_some();
        let open = (!self.is_over() || broken).then(|| self.ledger.open_turn(self.given)).flatten();
        conversation.set_open_turn(open);
        conversation
    }

    /// `error` as the end of this turn, which its driver cannot go on with.
    pub fn broken_by(&self, error: Error) -> Error {
        self.with_effects(error)
    }

    /// Ends the turn and gives the conversation back. Whatever was committed stays committed.
    pub fn into_conversation(self) -> Conversation {
        match self.phase {
            Phase::Attempt(session) => session.into_conversation(),
            _ => self.conversation,
        }
    }
}

fn note_serving(ledger: &mut Ledger, options: &Options, task: &ServeTask) {
    if let Work::Exec { case, .. } = &task.work {
        ledger.serving(task.key, crate::exec::name(case), options.effects(case));
    }
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match &self.phase {
            Phase::Attempt(_) => "attempt",
            Phase::Waiting(_) => "waiting",
            Phase::Parked(_) => "parked",
            Phase::Over => "over",
        };
        f.debug_struct("Turn")
            .field("phase", &phase)
            .field("tried", &self.retry.tried())
            .field("pending_tools", &self.tools.len())
            .finish_non_exhaustive()
    }
}
