//! From a step of the script to what is said and asked.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;

use super::facts::Called;
use super::outcome::Look;
use super::task::{Task, Waiting, estimate};
use super::{Key, Pending, Player, Purpose, assistant};
use crate::connect::Code;
use crate::proto::{self, interaction_update};
use crate::server::reflect;
use crate::server::script::{
    self, Ask, Call, Condition, GetBlob, Heartbeats, SetBlob, Step, TurnEnd, WaitFor,
};
use crate::server::session::EndError;
use crate::{Error, Result};

/// Blobs that are asked for at the same time. No option: it only paces.
const WINDOW: usize = 32;

impl Player {
    /// Does one task. What cannot be done (a script that asks too much) ends the run.
    pub(super) fn run(&mut self, task: Task, now: Instant) {
        if let Err(error) = self.try_run(task, now) {
            self.stop_with(&EndError::new(Code::Internal, error.message()));
        }
    }

    fn try_run(&mut self, task: Task, now: Instant) -> Result<()> {
        match task {
            Task::Step(step) => return self.step(step, now),
            Task::Repeat(steps, left) => self.repeat(steps, left),
            Task::Await => self.wait_for_answers(now),
            Task::FetchHistory(from) => self.fetch_history(from, now)?,
            Task::ReadHistory => self.read_history(),
            Task::UseTools(left) => self.use_tools(left),
            Task::Call(call) => self.start_call(&call, now)?,
            Task::SendCheckpoint(state) => self.session.checkpoint(&state),
        }
        Ok(())
    }

    fn step(&mut self, step: Step, now: Instant) -> Result<()> {
        match step {
            Step::Text(say) => self.say(&say, false, now),
            Step::Thinking(say) => self.say(&say, true, now),
            Step::Tokens(tokens) => self.count_tokens(tokens),
            Step::Call(call) => self.next([Task::Call(call), Task::Await]),
            Step::Calls(calls) => self.next(calls.into_iter().map(Task::Call).chain([Task::Await])),
            Step::UseTools(tools) => self.use_tools(tools.max),
            Step::UseWorkspace => self.use_workspace(now)?,
            Step::Context => self.ask_context(now)?,
            Step::History => {
                self.history = vec![None; self.roots.len()];
                self.history_bytes = 0;
                let first = self.roots.len().saturating_sub(self.session.options().history_blobs);
                self.next([Task::FetchHistory(first), Task::ReadHistory]);
            }
            Step::GetBlob(blob) => self.get_blob(&blob, now)?,
            Step::SetBlob(blob) => self.set_blob(&blob, now)?,
            Step::Ask(ask) => self.ask(&ask, now)?,
            Step::Answers => {
                self.pending.values_mut().for_each(|pending| pending.awaited = true);
                self.wait_for_answers(now);
            }
            Step::Checkpoint(checkpoint) => self.make_checkpoint(&checkpoint, now)?,
            Step::Update(json) => {
                let update = reflect::encode("InteractionUpdate", &json)?;
                let mut payload = Vec::with_capacity(update.len() + 8);
                crate::wire::put_bytes(&mut payload, 1, &update);
                self.session.send_payload(&payload);
            }
            Step::Send(json) => {
                self.session.send_payload(&reflect::encode("AgentServerMessage", &json)?);
            }
            Step::TurnEnd(end) => self.end_turn(&end),
            Step::If(condition) => self.choose(condition),
            Step::Repeat(script::Repeat { times, steps }) => {
                self.next([Task::Repeat(steps, times)]);
            }
            other => return self.wait_or_end(other, now),
        }
        Ok(())
    }

    /// Steps that wait, and those that end the stream or break it.
    fn wait_or_end(&mut self, step: Step, now: Instant) -> Result<()> {
        match step {
            Step::WaitMs(millis) => {
                self.waiting = Waiting::Time(now + Duration::from_millis(millis));
            }
            Step::WaitFor(wait) => self.wait_for(&wait, now),
            Step::Silence => self.waiting = Waiting::Silence,
            Step::Heartbeats(Heartbeats { every_ms, count }) => {
                let every = Duration::from_millis(every_ms.max(1));
                self.waiting = Waiting::Heartbeats { every, left: count, next: now + every };
            }
            Step::Bytes(bytes) => {
                let content = bytes.content().map_err(Error::invalid)?;
                match bytes.flags {
                    Some(flags) => self.session.send_envelope(flags, &content),
                    None => self.session.send_bytes(Bytes::from(content)),
                }
            }
            Step::Head(head) => {
                let headers: Vec<_> = head.headers.into_iter().collect();
                self.session.respond(head.status.unwrap_or(200), &headers);
            }
            Step::Status(status) => {
                let body = Bytes::from(status.bytes());
                self.session.answer_http(status.status, status.headers.into_iter().collect(), body);
            }
            Step::End => self.session.finish(),
            Step::Error(error) => self.session.end_with(&error.into()),
            Step::Close => self.session.close(),
            Step::Reset(reset) => self.session.reset(reset.code),
            Step::Goaway(code) => self.session.go_away(code),
            Step::Cut => self.session.cut(),
            _ => return Err(Error::invalid("a step that nobody plays")),
        }
        Ok(())
    }

    /// Puts tasks before those that are planned.
    fn next(&mut self, tasks: impl IntoIterator<Item = Task, IntoIter: DoubleEndedIterator>) {
        for task in tasks.into_iter().rev() {
            self.tasks.push_front(task);
        }
    }

    fn repeat(&mut self, steps: Vec<Step>, left: Option<u32>) {
        if left == Some(0) {
            return;
        }
        let tasks: Vec<_> = steps.iter().cloned().map(Task::Step).collect();
        self.next([Task::Repeat(steps, left.map(|left| left - 1))]);
        self.next(tasks);
    }

    fn choose(&mut self, condition: Condition) {
        let Some(facts) = &self.facts else { return };
        let called = facts.calls.iter().rev().find(|call| call.text.is_some());
        let holds = condition.tools.is_none_or(|tools| tools != facts.tools.is_empty())
            && condition.history.is_none_or(|history| history == (facts.turn > 1))
            && condition.results.is_none_or(|results| results == called.is_some())
            && condition
                .failed
                .is_none_or(|failed| failed == called.is_some_and(|call| call.is_error));
        let steps = if holds { condition.then } else { condition.otherwise };
        self.next(steps.into_iter().map(Task::Step));
    }

    fn wait_for_answers(&mut self, now: Instant) {
        let most = Duration::from_millis(self.script().answer_ms);
        self.waiting = Waiting::Answers(now + most);
        self.lost_answers();
    }

    fn wait_for(&mut self, wait: &WaitFor, now: Instant) {
        let most = wait.timeout_ms.unwrap_or_else(|| self.script().answer_ms);
        self.waiting = Waiting::Event {
            event: wait.event,
            until: now + Duration::from_millis(most),
            strict: wait.timeout_ms.is_none(),
            happened: self.half_closed && wait.event == script::WaitEvent::HalfClose,
        };
    }

    fn pend(&mut self, key: Key, purpose: Purpose) {
        self.pending.insert(key, Pending { purpose, awaited: true, abort: None });
    }

    fn ask_context(&mut self, now: Instant) -> Result<()> {
        let id = self.session.ask_exec(10, &[], None, None, now)?;
        self.pend(Key::Exec(id), Purpose::Context);
        self.wait_for_answers(now);
        Ok(())
    }

    fn get_blob(&mut self, blob: &GetBlob, now: Instant) -> Result<()> {
        let id = self.session.get_blob(&blob.bytes().map_err(Error::invalid)?, now)?;
        self.pend(Key::Blob(id), Purpose::Plain);
        self.wait_for_answers(now);
        Ok(())
    }

    fn set_blob(&mut self, blob: &SetBlob, now: Instant) -> Result<()> {
        let (blob_id, data) = blob.bytes().map_err(Error::invalid)?;
        self.store(&blob_id, &data, now)?;
        self.wait_for_answers(now);
        Ok(())
    }

    /// Hands a blob over; the step that does this waits for the receipt.
    pub(super) fn store(&mut self, blob_id: &[u8], data: &[u8], now: Instant) -> Result<()> {
        let id = self.session.set_blob(blob_id, data, now)?;
        self.pend(Key::Blob(id), Purpose::Plain);
        Ok(())
    }

    fn ask(&mut self, ask: &Ask, now: Instant) -> Result<()> {
        let (case, args) = ask.encode()?;
        let key = match case {
            script::Case::Exec(field) => {
                let exec_id = ask.exec_id.as_deref();
                Key::Exec(self.session.ask_exec(field, &args, ask.id, exec_id, now)?)
            }
            script::Case::Query(field) => {
                Key::Query(self.session.ask_query(field, &args, ask.id, now)?)
            }
        };
        let abort = ask.abort_after_ms.map(|millis| now + Duration::from_millis(millis));
        self.pending.insert(key, Pending { purpose: Purpose::Plain, awaited: ask.wait, abort });
        if ask.wait {
            self.wait_for_answers(now);
        }
        Ok(())
    }

    fn fetch_history(&mut self, from: usize, now: Instant) -> Result<()> {
        let ids: Vec<_> = self.roots.iter().enumerate().skip(from).take(WINDOW).collect();
        let (count, mut asked) = (ids.len(), Vec::new());
        for (index, blob_id) in ids {
            asked.push((self.session.get_blob(blob_id, now)?, index));
        }
        for (id, index) in asked {
            self.pend(Key::Blob(id), Purpose::History(index));
        }
        if count == WINDOW {
            self.next([Task::FetchHistory(from + WINDOW)]);
        }
        self.wait_for_answers(now);
        Ok(())
    }

    fn read_history(&mut self) {
        let blobs = std::mem::take(&mut self.history);
        let first = blobs.len().saturating_sub(self.session.options().history_blobs);
        if let Some(facts) = &mut self.facts {
            facts.remember(blobs.get(first..).unwrap_or_default());
        }
    }

    fn use_tools(&mut self, left: u32) {
        let call = self.facts.as_ref().filter(|_| left > 0).and_then(assistant::next_call);
        if let Some(call) = call {
            self.next([Task::Call(call), Task::Await, Task::UseTools(left - 1)]);
        }
    }

    fn use_workspace(&mut self, now: Instant) -> Result<()> {
        let Some(facts) = &mut self.facts else { return Ok(()) };
        let Some(look) = Look::next(&facts.prompt, &facts.calls) else { return Ok(()) };
        let args = serde_json::Map::from_iter([("path".to_owned(), look.path().into())]);
        facts.calls.push(Called { tool: look.name().into(), args, ..Called::default() });
        let index = facts.calls.len() - 1;
        let (field, args) = look.encode();
        let id = self.session.ask_exec(field, &args, None, None, now)?;
        self.pend(Key::Exec(id), Purpose::Look(index));
        self.next([Task::Await, Task::Step(Step::UseWorkspace)]);
        Ok(())
    }

    fn start_call(&mut self, call: &Call, now: Instant) -> Result<()> {
        let Some(facts) = &mut self.facts else { return Ok(()) };
        let (index, args) = facts.call(call);
        let called = facts.calls.get(index).map(|called| called.id.clone()).unwrap_or_default();
        if !call.quiet {
            self.show_call(&called, &args);
        }
        let id = self.session.ask_exec(11, &args.encode_to_vec(), None, None, now)?;
        self.pend(Key::Exec(id), Purpose::Call { index, quiet: call.quiet });
        Ok(())
    }

    fn end_turn(&mut self, end: &TurnEnd) {
        let estimated = |value: i64| end.estimate.then_some(value);
        let update = proto::TurnEndedUpdate {
            input_tokens: end.input_tokens.or_else(|| estimated(self.input_tokens())),
            output_tokens: end.output_tokens.or_else(|| estimated(self.tokens)),
            cache_read_tokens: end.cache_read_tokens.or_else(|| estimated(self.cached_tokens())),
            cache_write_tokens: end.cache_write_tokens.or_else(|| estimated(0)),
            reasoning_tokens: end.reasoning_tokens.or_else(|| estimated(self.thinking_tokens)),
        };
        self.session.update(interaction_update::Message::TurnEnded(Box::new(update)));
    }

    /// Tokens of what the client sent, the history included.
    pub(super) fn input_tokens(&self) -> i64 {
        let said = self.facts.as_ref().map_or(0, |facts| facts.past_bytes + facts.prompt.len());
        i64::from(estimate(said))
    }

    /// A service with a prompt cache has seen the history before, from the second turn on.
    fn cached_tokens(&self) -> i64 {
        let seen = self.facts.as_ref().filter(|facts| facts.turn > 1);
        i64::from(estimate(seen.map_or(0, |facts| facts.past_bytes)))
    }
}
