//! What a [`Turn`] is told: by the model, by tools, by the clock, by its caller.

use std::sync::Arc;
use std::time::Duration;

use agentwire::context::{AssistantPart, Message, ToolCall, ToolResult};
use agentwire::error::{Error, Kind};
use agentwire::run::{self, Event as Said, Finish};

use super::{
    Attempt, Batch, Event, Failure, FailureClass, LimitKind, Notice, Record, State, Stop,
    ToolStatus, Turn, compacted,
};

impl Turn {
    /// What the model's run said, as the last [`ModelCall`](super::ModelCall) started it.
    pub fn handle_event(&mut self, event: Said, now: Duration) {
        let failure = match &event {
            Said::Ended(Err(error)) => Some(Failure::from(error)),
            _ => None,
        };
        self.handle(event, failure, now);
    }

    /// As [`Turn::handle_event`], for an end that the model itself classified
    /// ([`Model::classify`](crate::Model::classify)).
    pub fn handle_failure(&mut self, failure: Failure, now: Duration) {
        let error = Error::new(Kind::Interrupted, "the run failed");
        self.handle(Said::Ended(Err(error)), Some(failure), now);
    }

    /// A whole message of the model, folded by the same rules as its deltas. Without tool calls it
    /// is the end of the run.
    pub fn handle_message(&mut self, content: Vec<AssistantPart>, now: Duration) {
        let mut calls: Vec<ToolCall> = Vec::new();
        for part in content {
            match part {
                AssistantPart::Text { text } => self.handle_event(Said::Text(text), now),
                AssistantPart::Thinking { thinking } => {
                    self.handle_event(Said::Thinking(thinking), now);
                }
                AssistantPart::ToolCall(call) => calls.push(call),
            }
        }
        let end = if calls.is_empty() {
            Said::Ended(Ok(Finish::default()))
        } else {
            Said::ToolCalls(calls)
        };
        self.handle_event(end, now);
    }

    fn handle(&mut self, event: Said, failure: Option<Failure>, now: Duration) {
        self.at(now);
        if self.is_over() {
            return;
        }
        match event {
            Said::Usage(usage) => {
                self.run_usage = usage;
                self.events.push_back(Event::Usage { usage: self.total() });
            }
            Said::Checkpoint(info) => {
                let used = info.used_tokens.map(u64::from);
                self.run_usage.context_used = used.or(self.run_usage.context_used);
            }
            Said::Notice(of) => {
                if let run::Notice::Restarted { text, thinking } = of
                    && let State::Streaming(fold) | State::Summarising { fold, .. } =
                        &mut self.state
                {
                    fold.unsay(text, thinking);
                }
                self.events.push_back(Event::Notice { notice: Notice::Transport { of } });
            }
            Said::Progress(progress) => self.events.push_back(Event::Progress { progress }),
            Said::ToolsAborted(ids) => self.aborted(&ids),
            event => self.said(event, failure),
        }
    }

    fn said(&mut self, event: Said, failure: Option<Failure>) {
        match &mut self.state {
            State::Streaming(fold) | State::Summarising { fold, .. } => {
                match &event {
                    Said::Text(text) => fold.text(text),
                    Said::Thinking(text) => fold.thinking(text),
                    _ => {}
                }
                let most = self.options.limits.message;
                if fold.bytes() > most {
                    let text = format!("a message of the model is longer than {most} bytes");
                    let error = Error::limit(text);
                    return self.failed(Failure::from(&error));
                }
            }
            State::Tools(_) | State::Answer { .. } if self.open => {
                if matches!(event, Said::Ended(_)) {
                    // The results go into a run of their own; what the end says is no news.
                    self.open = false;
                    self.late.clear();
                } else {
                    self.late.push(event);
                }
                return;
            }
            _ => return,
        }
        match (event, failure) {
            (_, Some(failure)) => self.failed(failure),
            (Said::Ended(_), None) => self.ended(),
            (Said::ToolCalls(calls), None) => self.called(calls),
            (Said::Text(text), None) if matches!(self.state, State::Streaming(_)) => {
                self.events.push_back(Event::Text { text });
            }
            (Said::Thinking(text), None) if matches!(self.state, State::Streaming(_)) => {
                self.events.push_back(Event::Thinking { text });
            }
            _ => {}
        }
    }

    fn called(&mut self, calls: Vec<ToolCall>) {
        let State::Streaming(fold) = &mut self.state else { return };
        let mut fold = std::mem::take(fold);
        let calls = fold.calls(calls);
        if calls.is_empty() {
            self.state = State::Streaming(fold);
            return;
        }
        self.interruptions = 0;
        self.keep(fold);
        let count = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        self.state = State::Tools(Batch::new(calls));
        let after = self.tool_calls.saturating_add(count);
        if self.options.limits.tool_calls.is_some_and(|limit| after > limit) {
            self.finish(Stop::Limit { limit: LimitKind::ToolCalls });
        } else {
            self.tool_calls = after;
        }
    }

    /// The run ended well.
    fn ended(&mut self) {
        match std::mem::replace(&mut self.state, State::Start) {
            State::Streaming(fold) => {
                self.interruptions = 0;
                self.open = false;
                self.keep(fold);
                let steers = std::mem::take(&mut self.steers);
                for text in &steers {
                    self.say(Arc::new(Message::user(text)), false);
                    self.events.push_back(Event::Notice { notice: Notice::Steered });
                }
                if !steers.is_empty() {
                    return;
                }
                if let Some(text) = self.follow_ups.pop_front() {
                    self.say(Arc::new(Message::user(text)), false);
                    self.events.push_back(Event::Notice { notice: Notice::FollowedUp });
                    return;
                }
                self.finish(Stop::Completed);
            }
            State::Summarising { boundary, fold } => {
                let summary = fold.finish().map(|m| crate::record::text_of(&m)).unwrap_or_default();
                if summary.trim().is_empty() {
                    let error = Error::new(Kind::Rejected, "the model gave no summary");
                    return self.finish(Stop::Failed { failure: Failure::from(&error) });
                }
                let task = Some(self.task).filter(|task| *task < boundary);
                self.messages = compacted(&self.messages, boundary, task, &summary);
                self.task = if task.is_some() { 1 } else { self.task - boundary + 1 };
                self.compacted = self.messages.len();
                self.stale = true;
                self.end_run();
                self.usage.context_used = None;
                self.records.push_back(Record::Compaction { boundary, task, summary });
                let notice = Notice::Compacted { messages: boundary };
                self.events.push_back(Event::Notice { notice });
            }
            other => self.state = other,
        }
    }

    /// The run failed: the next model, or the end. What was said before an end stays in the
    /// transcript: who goes on shows it to the model.
    fn failed(&mut self, failure: Failure) {
        let discarded = match &self.state {
            State::Streaming(fold) => fold.text_bytes(),
            _ => 0,
        };
        let again = match failure.class {
            FailureClass::Interrupted if self.interruptions < self.options.limits.interruptions => {
                self.interruptions += 1;
                Some(self.model)
            }
            FailureClass::Interrupted | FailureClass::Retryable => {
                self.interruptions = 0;
                self.next_model()
            }
            _ => None,
        };
        let model = self.model().to_owned();
        self.attempts.push(Attempt { model: model.clone(), failure: failure.clone() });
        self.open = false;
        let Some(next) = again else {
            let stop = match failure.class {
                FailureClass::Cancelled => Stop::Cancelled,
                _ => Stop::Failed { failure },
            };
            return self.stop(stop);
        };
        self.model = next;
        self.state = State::Start;
        let next = self.model().to_owned();
        let notice = Notice::Again { model, next, failure, discarded };
        self.events.push_back(Event::Notice { notice });
    }

    /// The open run no longer waited for the answer: another is started.
    pub fn handle_refused(&mut self) {
        if self.open && matches!(self.state, State::Streaming(_)) {
            self.open = false;
            self.turns = self.turns.saturating_sub(1);
            self.state = State::Start;
        }
    }

    /// The result of a tool. One that nobody waits for is dropped.
    pub fn handle_tool(&mut self, result: ToolResult, now: Duration) {
        self.at(now);
        let status = if result.is_error { ToolStatus::Error } else { ToolStatus::Ok };
        self.settle(result, status);
    }

    /// A tool says how far it is.
    pub fn handle_tool_progress(&mut self, call_id: &str, text: String) {
        if self.awaits(call_id) {
            self.events.push_back(Event::ToolProgress { id: call_id.to_owned(), text });
        }
    }

    fn aborted(&mut self, ids: &[String]) {
        let State::Tools(batch) = &self.state else { return };
        let unanswered = batch.unanswered();
        for (call, started) in unanswered.iter().filter(|(call, _)| ids.contains(&call.id)) {
            let (result, status) = crate::record::interrupted(call, *started);
            self.settle(result, status);
        }
    }

    /// The deadline may have come.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.at(now);
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.stop(Stop::Limit { limit: LimitKind::Wall });
        }
    }

    /// The last message is the whole answer, only its end is not on record: ends the task as
    /// completed, without asking a model.
    pub fn conclude_answered(&mut self) {
        self.finish(Stop::Completed);
    }

    /// Ends the task now. What was said so far stays, calls without a result are closed.
    pub fn cancel(&mut self) {
        self.stop(Stop::Cancelled);
    }

    /// Ends the task because of a fault of the driver, for instance a log that cannot be written.
    pub fn fail(&mut self, failure: Failure) {
        self.stop(Stop::Failed { failure });
    }

    fn stop(&mut self, stop: Stop) {
        if let State::Streaming(fold) = &mut self.state {
            let fold = std::mem::take(fold);
            self.keep(fold);
        }
        self.finish(stop);
    }

    /// Says something to the running task: the model sees it with the next results, or after its
    /// answer. `false`: the task is over, or [`Limits::waiting`](crate::Limits::waiting) messages
    /// wait already.
    pub fn steer(&mut self, text: impl Into<String>) -> bool {
        let takes = !self.is_over() && self.steers.len() < self.options.limits.waiting;
        if takes {
            self.steers.push_back(text.into());
        }
        takes
    }

    /// Asks something more when the answer is there. `false`: as for [`Turn::steer`].
    pub fn follow_up(&mut self, text: impl Into<String>) -> bool {
        let takes = !self.is_over() && self.follow_ups.len() < self.options.limits.waiting;
        if takes {
            self.follow_ups.push_back(text.into());
        }
        takes
    }
}
