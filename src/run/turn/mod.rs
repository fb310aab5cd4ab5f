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

mod echo;
mod ledger;
mod transcript;
mod verdict;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::codec::{Action as Asked, History, RunRequest};
use crate::context::ToolResult;
use crate::conversation::Conversation;
use crate::error::{Error, Kind, Result};
use crate::ids::IdSource;
use crate::proto::conversation_action::Action;
use crate::proto::shell_stream;
use crate::redact::Redactor;

use super::core::past_deadline;
use super::event::{Ended, Event, EventRef, Notice, Remedy};
use super::head::Head;
use super::options::Options;
use super::output::Output;
use super::retry::{Retry, RetryBudget};
use super::serve::{ServeKey, ServeTask, Work};
use super::serving::ServeResult;
use super::session::{Flow, Polled, Session};
use super::tools::ToolTable;

use ledger::Ledger;
pub(crate) use transcript::unanswered;
use verdict::{Facts, Repairs, Verdict};

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
        let read_only = options.retry.read_only_tools.clone();
        let given = request.context.messages.len();
        let open = conversation.take_open_turn(given).filter(|_| request.history == History::Full);
        let ledger = match &open {
            Some(open) => Ledger::restored(read_only, open),
            None => Ledger::new(read_only),
        };
        let mut turn = Self {
            phase: Phase::Waiting(now),
            given,
            retry: Retry::new(options.retry.retries),
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
        if let Some(session) = self.session() {
            session.handle_shell_event(key, event);
        }
    }

    /// As [`Session::handle_served`].
    pub fn handle_served(&mut self, key: ServeKey, result: ServeResult, now: Instant) {
        self.ledger.served(key);
        if let Some(session) = self.session() {
            session.handle_served(key, result, now);
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
        match &mut self.phase {
            Phase::Attempt(session) => session.cancel(now),
            Phase::Waiting(_) | Phase::Parked(_) => {
                self.over(Err(Error::new(Kind::Cancelled, "the run was cancelled")));
            }
            Phase::Over => {}
        }
    }

    // Output.

    /// As [`Session::poll_events`].
    pub fn poll_events<S>(&mut self, now: Instant, mut sink: S) -> Polled
    where
        S: FnMut(EventRef<'_>) -> Flow,
    {
        loop {
            while let Some(event) = self.events.pop_front() {
                if sink(EventRef::Other(event)) == Flow::Stop {
                    return Polled::Stopped;
                }
            }
            let Self { phase, ledger, events, .. } = self;
            let session = match phase {
                Phase::Attempt(session) => session,
                Phase::Waiting(_) | Phase::Parked(_) => return Polled::Drained,
                Phase::Over => return Polled::Ended,
            };
            let mut full = false;
            let polled = session.poll_events(now, |event| match ledger.pass(event, events) {
                Some(event) => {
                    let flow = sink(event);
                    full |= flow == Flow::Stop;
                    flow
                }
                None if events.is_empty() => Flow::Continue,
                // What was queued comes before what follows in the stream.
                None => Flow::Stop,
            });
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

    /// Whether events have to be polled although the consumer is full: the attempt under way is
    /// over, and what follows is decided there.
    pub fn must_be_polled(&self) -> bool {
        match &self.phase {
            Phase::Attempt(session) => session.is_over(),
            Phase::Waiting(_) | Phase::Parked(_) => false,
            Phase::Over => true,
        }
    }

    /// The conversation as it stands, with what a restarted process needs to go on with this turn.
    pub fn snapshot(&self) -> Conversation {
        let mut conversation = match &self.phase {
            Phase::Attempt(session) => session.conversation().clone(),
            _ => self.conversation.clone(),
        };
        let open = (!self.is_over()).then(|| self.ledger.open_turn(self.given)).flatten();
        conversation.set_open_turn(open);
        conversation
    }

    /// Ends the turn and gives the conversation back. Whatever was committed stays committed.
    pub fn into_conversation(self) -> Conversation {
        match self.phase {
            Phase::Attempt(session) => session.into_conversation(),
            _ => self.conversation,
        }
    }

    // Attempts.

    /// Begins an attempt, from what is known now.
    fn attempt(&mut self, now: Instant) -> Result<()> {
        self.prepare_request();
        let Some(ids) = self.ids.take() else {
            return Err(Error::invalid("two attempts of one turn at the same time"));
        };
        let mut options = self.options.clone();
        options.deadline = None;
        if options.retry.retries > 0 {
            options.silence = options.silence.min(options.retry.silence);
        }
        let conversation = std::mem::take(&mut self.conversation);
        let redactor = self.redactor.clone();
        let started = Session::new(&self.request, conversation, options, redactor, ids, now);
        let mut session = started.map_err(|refused| {
            self.conversation = refused.1;
            refused.0
        })?;
        session.core.tools = std::mem::take(&mut self.tools);
        session.core.serves.count_on(self.last_key);
        for said in self.ledger.to_say_again() {
            session.core.say_as(said.id, &said.text)?;
        }
        self.phase = Phase::Attempt(Box::new(session));
        Ok(())
    }

    /// The request of the next attempt: the same again while the service has said nothing, else to
    /// go on, from the checkpoint or from the history.
    fn prepare_request(&mut self) {
        let covered = self.request.context.messages.len();
        let has_checkpoint =
            self.conversation.checkpoint().is_some_and(|checkpoint| checkpoint.covers == covered);
        // The older way of sending a history has no room for a turn that is under way.
        let can_resume = self.request.history == History::Full || has_checkpoint;
        let anew = std::mem::take(&mut self.ask_anew) || !self.ledger.heard || !can_resume;
        let from_history = !anew && self.ledger.needs_history();
        if from_history {
            let messages = &mut self.request.context.messages;
            messages.truncate(self.given);
            messages.extend(self.ledger.history());
        }
        if !anew {
            self.request.action = Asked::Resume;
        }
        self.ledger.begin(from_history);
    }

    /// An attempt is over: what follows?
    fn attempt_over(&mut self, end: Ended, now: Instant) {
        let Phase::Attempt(session) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return;
        };
        let mut remains = session.dismantle();
        self.outputs.extend(remains.outputs);
        remains.tools.keep_open(|id| self.ledger.knows_answer(id));
        self.tools = remains.tools;
        self.last_key = remains.last_key;
        self.conversation = remains.conversation;
        let random = remains.ids.next_id().as_u64_pair().1;
        self.ids = Some(remains.ids);
        self.ledger.attempt_over(remains.heard, remains.output_tokens);
        let error = match end {
            Ok(finish) => {
                self.budget.give_back();
                return self.over(Ok(finish));
            }
            Err(error) => error,
        };
        let verdict = self.judge(&error, remains.pause_expired);
        match verdict {
            Verdict::Over => self.over(Err(error)),
            Verdict::Interrupted(why) => self.over(Err(interrupted(&error, &why))),
            Verdict::Repair(remedy) => self.repair(remedy, now),
            Verdict::Park if remains.pause_expired => self.park(now),
            Verdict::Park => {
                if let Some((at, _)) = self.next_at(error, random, now) {
                    self.park(at);
                }
            }
            Verdict::Again => {
                if let Some((at, notice)) = self.next_at(error, random, now) {
                    self.events.push_back(Event::Notice(notice));
                    self.phase = Phase::Waiting(at);
                }
            }
        }
    }

    fn judge(&mut self, error: &Error, pause_expired: bool) -> Verdict {
        let facts = Facts {
            retries: self.options.retry.retries > 0,
            pause_expired,
            pending: !self.tools.is_empty(),
            handed_out: self.ledger.handed_out(),
            changed: self.ledger.changed(),
            answered: self.ledger.needs_history(),
            rebuildable: self.request.history == History::Full && self.ledger.has_history(),
        };
        self.repairs.judge(error, &facts)
    }

    fn park(&mut self, not_before: Instant) {
        self.events.push_back(Event::Notice(Notice::Parked));
        self.phase = Phase::Parked(not_before);
    }

    /// When the next attempt may begin, and what the caller is told. None: the error stands, and
    /// that has been said.
    fn next_at(&mut self, error: Error, random: u64, now: Instant) -> Option<(Instant, Notice)> {
        let Some(delay) = self.retry.after(&error, random) else {
            let tried = self.retry.tried();
            let hint = format!("gave up after {tried} more attempts");
            self.over(Err(if tried > 0 { hinted(error, &hint) } else { error }));
            return None;
        };
        let at = now.checked_add(delay)?;
        let too_late = self.deadline.is_some_and(|deadline| deadline <= at);
        if too_late || !self.budget.take() {
            let hint = match too_late {
                true => "another attempt would begin after the deadline",
                false => "all runs of this client together have used up their retries",
            };
            self.over(Err(hinted(error, hint)));
            return None;
        }
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Some((at, Notice::Retrying { attempt: self.retry.tried(), delay_ms }))
    }

    fn repair(&mut self, remedy: Remedy, now: Instant) {
        let form = self.request.model.form;
        match (remedy, &mut self.ids) {
            (Remedy::OtherModelForm, _) => {
                self.request.model.form = form.other(&self.request.model);
            }
            (Remedy::FreshConversation | Remedy::Rebuild, Some(ids)) => {
                if remedy == Remedy::Rebuild {
                    self.conversation.discard();
                }
                self.conversation.rotate(ids.as_mut());
                self.request.conversation_id = None;
            }
            (Remedy::FreshConversation | Remedy::Rebuild, None) => {}
        }
        self.ask_anew = true;
        self.events.push_back(Event::Notice(Notice::Repairing { remedy }));
        self.phase = Phase::Waiting(now);
    }

    fn over(&mut self, end: Ended) {
        self.phase = Phase::Over;
        self.events.push_back(Event::Ended(end));
    }
}

fn note_serving(ledger: &mut Ledger, options: &Options, task: &ServeTask) {
    if let Work::Exec { case, .. } = &task.work {
        ledger.serving(task.key, crate::exec::name(case), options.effects(case));
    }
}

/// The error with one more thing to know.
fn hinted(error: Error, hint: &str) -> Error {
    let hint = error.hint().map_or_else(|| hint.to_owned(), |known| format!("{known}; {hint}"));
    error.with_hint(hint)
}

/// The error of a turn that cannot be made again.
fn interrupted(error: &Error, why: &str) -> Error {
    let message = format!("the turn broke off and cannot be repeated: {why} ({})", error.message());
    Error::new(Kind::Interrupted, message)
        .with_code(error.code())
        .with_blame(error.blame())
        .with_hint("what was received stands; look at what the tool did before you ask again")
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
