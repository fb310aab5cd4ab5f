//! What the caller was given, what it answered, and what ran: over all attempts of one turn.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::context::{Message, Part, ToolCall, ToolResult};
use crate::conversation::OpenTurn;
use crate::error::Result;
use crate::exec::Effects;
use crate::run::Progress;
use crate::run::event::{Ended, Event, EventRef, Notice};
use crate::run::retry::RetryOptions;
use crate::run::serve::ServeKey;

use super::echo::{Echo, Heard, Restart};
use super::transcript::Transcript;

/// A message that was sent into the running turn.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) id: String,
    pub(super) text: String,
    /// The service has taken it up: the next checkpoint covers it.
    taken_up: bool,
}

/// The books of one turn.
pub(super) struct Ledger {
    options: RetryOptions,
    text: Echo,
    thinking: Echo,
    transcript: Transcript,
    answers: VecDeque<Answer>,
    answer_bytes: usize,
    /// Tools were answered since the last checkpoint.
    answered: bool,
    /// Calls since the last checkpoint that the service called off after they were handed out.
    aborted: BTreeMap<String, String>,
    /// Names of the calls that were handed out and not answered.
    names: BTreeMap<String, String>,
    /// Execs at work that may change something.
    working: BTreeMap<ServeKey, &'static str>,
    /// Those that were at work since the last checkpoint.
    changed: BTreeMap<ServeKey, &'static str>,
    /// Shells that have printed: a refusal of theirs comes too late.
    printed: BTreeSet<ServeKey>,
    said: Vec<Said>,
    /// The caller has text or a tool call.
    handed_out: bool,
    /// The service said something, in any attempt.
    pub(super) heard: bool,
    /// There was an attempt before this one.
    earlier_attempts: bool,
    /// Output tokens of the attempts before this one.
    earlier_tokens: u64,
    /// Answers for calls that were asked again, to be given at once.
    pub(super) replies: Vec<ToolResult>,
    /// How the attempt under way ended.
    pub(super) end: Option<Ended>,
    /// Something has changed that a restarted process would want to know.
    pub(super) worth_keeping: bool,
}

struct Answer {
    id: String,
    message: Arc<Message>,
    bytes: usize,
}

impl Ledger {
    pub(super) fn new(options: &RetryOptions) -> Self {
        Self {
            transcript: Transcript::new(options.turn_bytes),
            options: options.clone(),
            text: Echo::default(),
            thinking: Echo::default(),
            answers: VecDeque::new(),
            answer_bytes: 0,
            answered: false,
            aborted: BTreeMap::new(),
            names: BTreeMap::new(),
            working: BTreeMap::new(),
            changed: BTreeMap::new(),
            printed: BTreeSet::new(),
            said: Vec::new(),
            handed_out: false,
            heard: false,
            earlier_attempts: false,
            earlier_tokens: 0,
            replies: Vec::new(),
            end: None,
            worth_keeping: false,
        }
    }

    /// The books of a turn that an earlier process kept.
    pub(super) fn restored(options: &RetryOptions, open: &OpenTurn) -> Self {
        let mut ledger = Self::new(options);
        ledger.transcript = Transcript::restored(open.messages(), options.turn_bytes);
        ledger.answered = open.needs_history();
        ledger.heard = true;
        ledger.handed_out = !open.messages().is_empty();
        for message in open.messages() {
            if let Message::ToolResult(result) = &**message {
                ledger.remember(&result.tool_call_id, message, result_size(result));
            }
        }
        ledger.names = open.pending().into_iter().map(|call| (call.id, call.name)).collect();
        ledger
    }

    // Events.

    /// What of an event of the attempt under way goes to the caller: the event, or a part of it, or
    /// what is put into `queue`, or nothing.
    #[inline(always)]
    pub(super) fn pass<'a>(
        &mut self,
        event: EventRef<'a>,
        queue: &mut VecDeque<Event>,
    ) -> Option<EventRef<'a>> {
        match event {
            EventRef::Text(text) => match self.text.hear(text) {
                Heard::New(new) => {
                    self.handed_out = true;
                    self.transcript.text(new);
                    Some(EventRef::Text(new))
                }
                Heard::Known => None,
                Heard::Differs(restart) => {
                    self.restart_text(restart, queue);
                    None
                }
            },
            EventRef::Thinking(text) => match self.thinking.hear(text) {
                Heard::New(new) => {
                    self.transcript.thinking(new);
                    Some(EventRef::Thinking(new))
                }
                Heard::Known => None,
                Heard::Differs(restart) => {
                    self.restart_thinking(restart, queue);
                    None
                }
            },
            EventRef::OutputTokens(_) => Some(event),
            EventRef::Other(event) => self.boxed(event, queue),
        }
    }

    /// Apart, so that what is hot does not pay for the room that an event takes on the stack.
    #[cold]
    #[expect(clippy::boxed_local, reason = "it is taken out here, and not where it is hot")]
    fn boxed(
        &mut self,
        event: Box<Event>,
        queue: &mut VecDeque<Event>,
    ) -> Option<EventRef<'static>> {
        self.cold(*event, queue).map(|event| EventRef::Other(Box::new(event)))
    }

    fn cold(&mut self, event: Event, queue: &mut VecDeque<Event>) -> Option<Event> {
        match event {
            Event::ToolCalls(calls) => self.tool_calls(calls, queue),
            Event::ToolsAborted(ids) => {
                for id in &ids {
                    let name = self.names.remove(id).unwrap_or_default();
                    if !self.options.read_only_tools.contains(&name) {
                        self.aborted.insert(id.clone(), name);
                    }
                }
                Some(Event::ToolsAborted(ids))
            }
            Event::Checkpoint(info) => {
                self.checkpoint();
                Some(Event::Checkpoint(info))
            }
            Event::Progress(progress) => self.progress(progress).map(Event::Progress),
            Event::Usage(mut usage) => {
                if !usage.billed {
                    usage.output = usage.output.saturating_add(self.earlier_tokens);
                }
                Some(Event::Usage(usage))
            }
            Event::Ended(mut end) => {
                if let Ok(finish) = &mut end {
                    self.settle(queue);
                    if !finish.usage.billed {
                        let output = finish.usage.output.saturating_add(self.earlier_tokens);
                        finish.usage.output = output;
                    }
                }
                self.end = Some(end);
                None
            }
            other => Some(other),
        }
    }

    /// Calls that were answered before are answered again from memory; the others are handed out.
    fn tool_calls(&mut self, calls: Vec<ToolCall>, queue: &mut VecDeque<Event>) -> Option<Event> {
        self.settle(queue);
        let mut fresh = Vec::with_capacity(calls.len());
        for call in calls {
            match self.answer(&call.id) {
                Some(result) => self.replies.push(result),
                None => {
                    self.transcript.call(&call, call_size(&call));
                    self.names.insert(call.id.clone(), call.name.clone());
                    fresh.push(call);
                }
            }
        }
        if fresh.is_empty() {
            return None;
        }
        self.handed_out = true;
        self.worth_keeping = true;
        let event = Event::ToolCalls(fresh);
        if queue.is_empty() {
            return Some(event);
        }
        queue.push_back(event);
        None
    }

    /// Whether the caller has answered this call.
    pub(super) fn knows_answer(&self, id: &str) -> bool {
        self.answer(id).is_some()
    }

    fn answer(&self, id: &str) -> Option<ToolResult> {
        let answer = self.answers.iter().find(|answer| answer.id == id)?;
        match &*answer.message {
            Message::ToolResult(result) => Some(result.clone()),
            _ => None,
        }
    }

    fn progress(&mut self, progress: Progress) -> Option<Progress> {
        let known = match &progress {
            Progress::UserMessageAppended { message_id } => {
                let said = self.said.iter_mut().find(|said| said.id == *message_id);
                said.into_iter().for_each(|said| said.taken_up = true);
                false
            }
            Progress::ToolStarted { call_id, .. }
            | Progress::ToolArguments { call_id, .. }
            | Progress::ToolCompleted { call_id, .. } => {
                self.earlier_attempts && self.knows_answer(call_id)
            }
            _ => false,
        };
        (!known).then_some(progress)
    }

    /// The service's state covers everything that it has heard of and said.
    fn checkpoint(&mut self) {
        self.text.checkpoint();
        self.thinking.checkpoint();
        if self.text.bytes() + self.thinking.bytes() == 0 {
            self.transcript.checkpoint();
        }
        self.answered = false;
        self.aborted.clear();
        self.changed = self.working.clone();
        self.said.retain(|said| !said.taken_up);
        self.worth_keeping = true;
    }

    /// The turn moves on: text that was not said again no longer holds. Reasoning may stay.
    fn settle(&mut self, queue: &mut VecDeque<Event>) {
        if let Some(restart) = self.text.settle() {
            self.restart_text(restart, queue);
        }
    }

    #[cold]
    fn restart_text(&mut self, restart: Restart, queue: &mut VecDeque<Event>) {
        let Restart { dropped, instead } = restart;
        self.transcript.unsay_text(dropped);
        self.transcript.text(&instead);
        queue.push_back(Event::Notice(Notice::Restarted { text: dropped, thinking: 0 }));
        if !instead.is_empty() {
            queue.push_back(Event::Text(instead));
        }
    }

    #[cold]
    fn restart_thinking(&mut self, restart: Restart, queue: &mut VecDeque<Event>) {
        let Restart { dropped, instead } = restart;
        self.transcript.unsay_thinking(dropped);
        self.transcript.thinking(&instead);
        queue.push_back(Event::Notice(Notice::Restarted { text: 0, thinking: dropped }));
        if !instead.is_empty() {
            queue.push_back(Event::Thinking(instead));
        }
    }

    // The caller's side.

    /// The caller answered these calls, and the answers were accepted.
    pub(super) fn answered(&mut self, results: &[ToolResult]) {
        for result in results {
            let (id, size) = (&result.tool_call_id, result_size(result));
            let message = Arc::new(Message::ToolResult(result.clone()));
            self.transcript.result(&message, size);
            self.remember(id, &message, size);
            self.names.remove(id);
            self.aborted.remove(id);
        }
        self.answered |= !results.is_empty();
        self.worth_keeping = true;
    }

    fn remember(&mut self, id: &str, message: &Arc<Message>, bytes: usize) {
        self.answers.push_back(Answer { id: id.to_owned(), message: Arc::clone(message), bytes });
        self.answer_bytes += bytes;
        while self.answers.len() > self.options.answers
            || self.answer_bytes > self.options.answer_bytes
        {
            let Some(oldest) = self.answers.pop_front() else { break };
            self.answer_bytes -= oldest.bytes;
        }
    }

    /// A message was sent into the turn.
    pub(super) fn said(&mut self, id: &str, text: &str) {
        self.said.push(Said { id: id.to_owned(), text: text.to_owned(), taken_up: false });
    }

    /// Messages that no checkpoint covers: another attempt has to hear them again.
    pub(super) fn to_say_again(&self) -> Vec<Said> {
        self.said.clone()
    }

    /// A handler begins to work.
    pub(super) fn serving(&mut self, key: ServeKey, name: &'static str, effects: Effects) {
        if effects == Effects::Changes {
            self.working.insert(key, name);
            self.changed.insert(key, name);
        }
    }

    /// A shell at work has printed.
    pub(super) fn printed(&mut self, key: ServeKey) {
        self.printed.insert(key);
    }

    /// A handler is done. One that refused has changed nothing.
    pub(super) fn served(&mut self, key: ServeKey, refused: bool) {
        self.working.remove(&key);
        if !self.printed.remove(&key) && refused {
            self.changed.remove(&key);
        }
    }

    // Between attempts.

    /// An attempt is over.
    pub(super) fn attempt_over(&mut self, heard: bool, output_tokens: u64) {
        self.heard |= heard;
        self.earlier_attempts = true;
        self.earlier_tokens = self.earlier_tokens.saturating_add(output_tokens);
        self.working.clear();
        self.printed.clear();
        self.replies.clear();
    }

    /// The next attempt begins, from the last checkpoint or from the history.
    pub(super) fn begin(&mut self, from_history: bool) {
        if from_history {
            let (text, thinking) = self.transcript.tail();
            self.text.begin_after(text);
            self.thinking.begin_after(thinking);
        } else {
            self.text.begin(|bytes| self.transcript.last_text(bytes));
            self.thinking.begin(|bytes| self.transcript.last_thinking(bytes));
        }
    }

    /// The turn so far as messages, to send in the history.
    pub(super) fn history(&self) -> Vec<Arc<Message>> {
        self.transcript.up_to_tools()
    }

    pub(super) fn handed_out(&self) -> bool {
        self.handed_out
    }

    pub(super) fn needs_history(&self) -> bool {
        self.answered
    }

    pub(super) fn has_history(&self) -> bool {
        self.transcript.is_complete()
    }

    /// What may have changed something since the last checkpoint, its answer not at hand.
    pub(super) fn changed(&self) -> Option<&str> {
        let served = self.changed.values().next().copied();
        served.or_else(|| self.aborted.values().next().map(String::as_str))
    }

    /// What a restarted process needs to go on; `covers` messages of the context come before it.
    pub(super) fn open_turn(&self, covers: usize) -> Option<OpenTurn> {
        if !self.transcript.is_complete() || self.changed().is_some() {
            return None;
        }
        let from_history = self.answered || !self.names.is_empty();
        let messages = if from_history {
            self.transcript.up_to_tools()
        } else {
            // What is not in the checkpoint will be said again.
            let mut covered =
                Transcript::restored(&self.transcript.whole(), self.options.turn_bytes);
            covered.unsay_text(self.text.bytes());
            covered.unsay_thinking(self.thinking.bytes());
            covered.whole()
        };
        Some(OpenTurn::new(covers, from_history, messages))
    }
}

/// Bytes of a call, roughly.
fn call_size(call: &ToolCall) -> usize {
    Event::ToolCalls(vec![call.clone()]).weight()
}

/// Bytes of a result, roughly.
fn result_size(result: &ToolResult) -> usize {
    let part = |part: &Part| match part {
        Part::Text { text } => text.len(),
        Part::Image(image) => image.data.len(),
    };
    result.tool_call_id.len() + result.content.iter().map(part).sum::<usize>() + 64
}

/// Checks that a result can be sent at all, before it is kept.
pub(super) fn check(result: &ToolResult) -> Result<()> {
    crate::codec::reply::mcp_result(0, "", result).map(drop)
}
