//! [`Turn`]: the loop of an agent as a machine that does no I/O, reads no clock and spawns nothing.
//!
//! ```text
//!            CallModel                 tool calls
//!   Ready ──────────────▶ Streaming ──────────────▶ Tools
//!     ▲                     │     │                   │ CallTools, as many as may run
//!     │  failed, next model │     │ whole answer      │
//!     ├─────────────────────┘     ▼                   │
//!     │◀──────────────── said in between?             │
//!     │                           │ no                │
//!     │                         Over: Done            │
//!     └───────────────────────────────────────────────┘ all results are in
//! ```
//!
//! The driver's contract is one sentence: after every call that changes the machine take its step,
//! then write all its records, then hand out all its events, then do what the step says, and wake
//! it at [`Turn::deadline`]. The order matters: what is done was on record before.
//!
//! A `Turn` can be serialised at any moment and goes on in another process after
//! [`Turn::reopen`].

mod batch;
mod compact;
mod fold;
mod inputs;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use agentwire::context::{Message, ToolCall, ToolResult};
use agentwire::run::Usage;
use serde::{Deserialize, Serialize};

use crate::event::{Event, Notice, ToolStatus};
use crate::failure::{Failure, FailureClass, millis};
use crate::limits::{LimitKind, Limits};
use crate::outcome::{Attempt, Outcome, Stop, sum};
use crate::record::{Record, compacted, interrupted, text_of};

use batch::Batch;
pub use compact::ContextBudget;
use fold::Fold;

/// What the driver has to do next. Deliberately exhaustive: a new step is meant to break every
/// driver.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Ask the model, and hand what it says to [`Turn::handle_event`].
    CallModel(ModelCall),
    /// Run these tools side by side, and hand each result to [`Turn::handle_tool`]. A tool whose
    /// call is no longer awaited ([`Turn::awaits`]) is stopped.
    CallTools(Vec<ToolCall>),
    /// It is over: end the model's run and every tool. Given once.
    Done(Box<Outcome>),
}

/// How the model is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelCall {
    /// Start a run with all of [`Turn::messages`]. One that is open is ended first.
    Start {
        /// The model.
        model: String,
        /// The messages are no longer those that the service's state is of: drop the state.
        fresh: bool,
    },
    /// Answer the tool calls in the open run; when it no longer waits for them, say so with
    /// [`Turn::handle_refused`].
    Answer {
        /// The results, in the order of the calls.
        results: Vec<ToolResult>,
        /// What the caller said meanwhile, to be said to the model.
        say: Vec<String>,
    },
    /// Ask for a summary in a run of its own: without tools, without the service's state. An open
    /// run is ended first.
    Summarise {
        /// The model.
        model: String,
        /// What to summarise, the instruction at the end.
        messages: Vec<Arc<Message>>,
    },
}

/// Settings of a [`Turn`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TurnOptions {
    /// Models in the order they are asked.
    pub models: Vec<String>,
    /// What it may use.
    pub limits: Limits,
    /// When the conversation is summarised; `None`: as [`TurnOptions::by_window`] says.
    pub budget: Option<ContextBudget>,
    /// Without a budget: whether the conversation is summarised when it fills three quarters of the
    /// model's context window, where the service names that. A quarter is left for an answer and
    /// what tools give.
    #[serde(default)]
    pub by_window: bool,
}

/// One task, from its prompt to its answer. See the [module](self).
#[derive(Clone, Serialize, Deserialize)]
pub struct Turn {
    options: TurnOptions,
    messages: Vec<Arc<Message>>,
    /// Index of the message that began the task.
    task: usize,
    state: State,
    steers: VecDeque<String>,
    follow_ups: VecDeque<String>,
    /// Index of the model in use.
    model: usize,
    /// The model in use is the one that answered last in the session, not the first of the list:
    /// when it fails, all of the list are asked.
    #[serde(default)]
    settled: bool,
    /// Times in a row that the stream broke off.
    interruptions: u32,
    attempts: Vec<Attempt>,
    usage: Usage,
    /// Of the run that is open.
    run_usage: Usage,
    turns: u32,
    tool_calls: u32,
    elapsed: Duration,
    /// The service's state is of other messages.
    stale: bool,
    /// Messages after the last compaction: it takes more than those to do it again.
    compacted: usize,
    /// The driver holds a run that waits for answers.
    #[serde(skip)]
    open: bool,
    /// What the run said while tools were at work.
    #[serde(skip)]
    late: Vec<agentwire::run::Event>,
    #[serde(skip)]
    events: VecDeque<Event>,
    #[serde(skip)]
    records: VecDeque<Record>,
}

#[derive(Clone, Serialize, Deserialize)]
enum State {
    /// A run is to be started.
    Start,
    /// The open run is to be answered; the results are in the messages already.
    Answer {
        results: Vec<ToolResult>,
        say: Vec<String>,
    },
    Streaming(Fold),
    Tools(Batch),
    Summarising {
        boundary: usize,
        fold: Fold,
    },
    /// Over; the outcome until it was given.
    Over(Option<Box<Outcome>>),
}

impl Turn {
    /// A task that begins with `prompt`, after the messages of `history`.
    pub fn new(options: TurnOptions, history: Vec<Arc<Message>>, prompt: Message) -> Self {
        let mut turn = Self::resume(options, history);
        turn.task = turn.messages.len();
        turn.say(Arc::new(prompt), true);
        turn
    }

    /// A task that was begun in `messages` and broke off.
    pub fn resume(options: TurnOptions, messages: Vec<Arc<Message>>) -> Self {
        let is_user = |message: &Arc<Message>| matches!(**message, Message::User { .. });
        let task = messages.iter().rposition(is_user).unwrap_or(0);
        let mut turn = Self {
            options,
            messages,
            task,
            state: State::Start,
            steers: VecDeque::new(),
            follow_ups: VecDeque::new(),
            model: 0,
            settled: false,
            interruptions: 0,
            attempts: Vec::new(),
            usage: Usage::default(),
            run_usage: Usage::default(),
            turns: 0,
            tool_calls: 0,
            elapsed: Duration::ZERO,
            stale: false,
            compacted: 0,
            open: false,
            late: Vec::new(),
            events: VecDeque::new(),
            records: VecDeque::new(),
        };
        turn.events.push_back(Event::Started { model: turn.model().to_owned() });
        turn
    }

    /// To be called first on a turn that was read back: what was under way died with its process.
    /// Calls that were started are closed as interrupted, the others are run.
    pub fn reopen(&mut self) {
        self.open = false;
        match &mut self.state {
            State::Streaming(_) | State::Summarising { .. } | State::Answer { .. } => {
                self.state = State::Start;
            }
            State::Tools(batch) => {
                for (call, started) in batch.unanswered() {
                    if started {
                        let (result, status) = interrupted(&call, true);
                        self.settle(result, status);
                    }
                }
            }
            State::Start | State::Over(_) => {}
        }
    }

    // What it knows.

    /// The messages so far, without what is being said right now. Every call in it has its result,
    /// but for those of the last message while tools are at work.
    pub fn messages(&self) -> &[Arc<Message>] {
        &self.messages
    }

    /// The model that is asked now.
    pub fn model(&self) -> &str {
        self.options.models.get(self.model).map_or("", String::as_str)
    }

    /// Whether the result of this call is waited for.
    pub fn awaits(&self, call_id: &str) -> bool {
        matches!(&self.state, State::Tools(batch) if batch.awaits(call_id))
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    /// Time from the start, as of the last call that named it.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// When [`Turn::handle_timeout`] is to be called, as time from the start.
    pub fn deadline(&self) -> Option<Duration> {
        self.options.limits.wall.filter(|_| !self.is_over())
    }

    // Outputs.

    /// The next record to be written.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    /// The next event to be handed out.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What to do next; `None`: wait for what is under way.
    pub fn poll_step(&mut self, now: Duration) -> Option<Step> {
        self.at(now);
        match &mut self.state {
            State::Start | State::Answer { .. } => Some(self.call_model()),
            State::Tools(batch) => {
                let calls = batch.start(self.options.limits.parallel as usize);
                for call in &calls {
                    self.records.push_back(Record::ToolStarted { id: call.id.clone() });
                    self.events.push_back(Event::ToolStarted { call: call.clone() });
                }
                (!calls.is_empty()).then_some(Step::CallTools(calls))
            }
            State::Over(outcome) => outcome.take().map(Step::Done),
            State::Streaming(_) | State::Summarising { .. } => None,
        }
    }

    fn call_model(&mut self) -> Step {
        if let Some(limit) = self.crossed() {
            return Step::Done(self.conclude(Stop::Limit { limit }));
        }
        if let Some(boundary) = self.due() {
            self.open = false;
            self.late.clear();
            self.end_run();
            let mut messages = self.messages[..boundary].to_vec();
            messages.push(Arc::new(Message::user(compact::INSTRUCTION)));
            self.state = State::Summarising { boundary, fold: Fold::default() };
            return Step::CallModel(ModelCall::Summarise {
                model: self.model().to_owned(),
                messages,
            });
        }
        self.turns += 1;
        let state = std::mem::replace(&mut self.state, State::Streaming(Fold::default()));
        if let State::Answer { results, say } = state
            && self.open
        {
            for event in std::mem::take(&mut self.late) {
                self.handle_event(event, self.elapsed);
            }
            return Step::CallModel(ModelCall::Answer { results, say });
        }
        self.late.clear();
        self.end_run();
        self.open = true;
        let fresh = std::mem::take(&mut self.stale);
        Step::CallModel(ModelCall::Start { model: self.model().to_owned(), fresh })
    }

    fn crossed(&self) -> Option<LimitKind> {
        let limits = &self.options.limits;
        let usage = self.total();
        let tokens = usage.input.unwrap_or(0).saturating_add(usage.output);
        if limits.wall.is_some_and(|wall| self.elapsed >= wall) {
            Some(LimitKind::Wall)
        } else if limits.turns.is_some_and(|turns| self.turns >= turns) {
            Some(LimitKind::Turns)
        } else if limits.tokens.is_some_and(|limit| tokens >= limit) {
            Some(LimitKind::Tokens)
        } else {
            None
        }
    }

    /// The boundary of a compaction that is due.
    fn due(&self) -> Option<usize> {
        let budget = self.options.budget.or_else(|| self.window_budget())?;
        if self.messages.len() <= self.compacted + 2 {
            return None;
        }
        let estimate = compact::estimate(&self.messages);
        let size = self.run_usage.context_used.or(self.usage.context_used).unwrap_or(0);
        (size.max(estimate) > budget.tokens)
            .then(|| compact::boundary(&self.messages, budget.keep))
            .flatten()
    }

    fn window_budget(&self) -> Option<ContextBudget> {
        let window = self.run_usage.context_limit.or(self.usage.context_limit);
        let window = window.filter(|window| *window > 0 && self.options.by_window)?;
        Some(ContextBudget::new(window - window / 4))
    }

    /// Begins with this model, the one that answered last in the session, where it is one of the
    /// list. When it fails, the list is asked from its first on. To be called before the first step.
    pub fn begin_with(&mut self, model: &str) {
        let Some(index) = self.options.models.iter().position(|name| name == model) else { return };
        self.model = index;
        self.settled = index > 0;
        if let Some(Event::Started { model: first }) = self.events.front_mut() {
            model.clone_into(first);
        }
    }

    /// The model that is asked when the one in use has failed.
    fn next_model(&mut self) -> Option<usize> {
        let next = if std::mem::take(&mut self.settled) { 0 } else { self.model + 1 };
        (next < self.options.models.len()).then_some(next)
    }

    /// The context figures of the session's last task: how large the conversation is, and the
    /// model's window. To be called before the first step.
    pub fn recall_context(&mut self, last: &Usage) {
        self.usage.context_used = last.context_used;
        self.usage.context_limit = last.context_limit;
    }

    // What changes it from several places.

    fn at(&mut self, now: Duration) {
        self.elapsed = self.elapsed.max(now);
    }

    fn say(&mut self, message: Arc<Message>, begins: bool) {
        self.messages.push(Arc::clone(&message));
        self.records.push_back(Record::User { message, begins });
    }

    /// Puts what was said into the transcript.
    fn keep(&mut self, fold: Fold) {
        let Some(message) = fold.finish() else { return };
        let message = Arc::new(message);
        self.messages.push(Arc::clone(&message));
        self.records.push_back(Record::Assistant { message, model: self.model().to_owned() });
    }

    /// Takes the result of a call, and goes on when it was the last.
    fn settle(&mut self, result: ToolResult, status: ToolStatus) {
        let State::Tools(batch) = &mut self.state else { return };
        let Some(result) = batch.settle(result) else { return };
        self.records.push_back(Record::ToolResult { result: result.clone(), status });
        self.events.push_back(Event::ToolFinished { result, status });
        if batch.is_done() {
            let results = std::mem::take(batch).into_results();
            self.messages.extend(batch::messages(&results));
            let say: Vec<_> = self.steers.drain(..).collect();
            for text in &say {
                self.say(Arc::new(Message::user(text)), false);
                self.events.push_back(Event::Notice { notice: Notice::Steered });
            }
            self.state = State::Answer { results, say };
        }
    }

    /// Closes every call that has no result.
    fn close_calls(&mut self) {
        let State::Tools(batch) = &self.state else { return };
        for (call, started) in batch.unanswered() {
            let (result, status) = interrupted(&call, started);
            self.settle(result, status);
        }
    }

    fn finish(&mut self, stop: Stop) {
        if !self.is_over() {
            let outcome = self.conclude(stop);
            self.state = State::Over(Some(outcome));
        }
    }

    fn conclude(&mut self, stop: Stop) -> Box<Outcome> {
        // Nothing said in between is lost: it stands in the transcript.
        self.close_calls();
        for text in std::mem::take(&mut self.steers).into_iter().chain(self.follow_ups.drain(..)) {
            let message = Arc::new(Message::user(text));
            self.messages.push(Arc::clone(&message));
            self.records.push_back(Record::User { message, begins: false });
        }
        self.end_run();
        self.open = false;
        let of_model = |message: &&Arc<Message>| matches!(***message, Message::Assistant { .. });
        let said = self.messages.get(self.task..).unwrap_or_default();
        let outcome = Outcome {
            stop,
            text: said.iter().rev().find(of_model).map(|m| text_of(m)).unwrap_or_default(),
            model: self.model().to_owned(),
            attempts: std::mem::take(&mut self.attempts),
            usage: self.usage,
            turns: self.turns,
            tool_calls: self.tool_calls,
            elapsed_ms: millis(self.elapsed),
        };
        self.records.push_back(Record::End { outcome: outcome.clone() });
        self.events.push_back(Event::Finished { outcome: outcome.clone() });
        self.state = State::Over(None);
        Box::new(outcome)
    }

    /// The run that was open is no more: what it used is added up.
    fn end_run(&mut self) {
        self.usage = self.total();
        self.run_usage = Usage::default();
    }

    fn total(&self) -> Usage {
        sum(self.usage, self.run_usage)
    }
}

impl std::fmt::Debug for Turn {
    /// State and sizes: the rest is what people said.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match &self.state {
            State::Start => "start",
            State::Answer { .. } => "answer",
            State::Streaming(_) => "streaming",
            State::Tools(_) => "tools",
            State::Summarising { .. } => "summarising",
            State::Over(_) => "over",
        };
        f.debug_struct("Turn")
            .field("state", &state)
            .field("messages", &self.messages.len())
            .field("turns", &self.turns)
            .field("tool_calls", &self.tool_calls)
            .finish_non_exhaustive()
    }
}
