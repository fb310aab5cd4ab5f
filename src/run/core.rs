//! The rules of a run: what each message, timer and command does. `session` feeds it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::codec::{RunRequest, ToolContext, reply};
use crate::connect::classify::{Circumstances, RunSoFar, refine};
use crate::connect::{Code, Compression, Decoder, EndStream, error_from_http};
use crate::conversation::{Conversation, encode_run};
use crate::error::{Error, Kind, NetworkFault, Result};
use crate::ids::IdSource;
use crate::redact::Redactor;

use super::event::{Ended, Event, Finish, Notice};
use super::head::Head;
use super::options::Options;
use super::output::{Outbox, Output, ResetReason};
use super::progress::Reporter;
use super::serve::ServeTable;
use super::timer::{Timer, Timers};
use super::tools::ToolTable;
use super::usage::Usage;

/// How the response body came to its end.
#[derive(Debug)]
pub(super) enum InputEnd {
    Clean,
    Lost(Error),
}

#[derive(Debug)]
enum Phase {
    /// The request is on its way; no response head yet.
    Opening,
    /// The head was an error; its body is being read.
    Refused(Box<Head>, Vec<u8>),
    /// The turn goes on.
    Streaming,
    /// `turn_ended` came; the stream has a short while to end.
    TurnEnded,
    /// The last event is out or queued.
    Over,
}

/// How to leave the stream.
#[derive(Clone, Copy)]
enum Farewell {
    /// Nothing to add: half-close, and reset if the service leaves its side open.
    Close,
    /// The service still works for us: tell it to stop, then reset.
    Tell,
    /// The stream cannot be used: reset.
    Reset,
}

pub(super) struct Core {
    pub(super) options: Options,
    pub(super) conversation: Conversation,
    phase: Phase,
    timers: Timers,
    pub(super) outbox: Outbox,
    pub(super) tools: ToolTable,
    pub(super) serves: ServeTable,
    pub(super) tool_context: ToolContext,
    pub(super) usage: Usage,
    pub(super) reporter: Reporter,
    pub(super) ids: Box<dyn IdSource>,
    redactor: Redactor,
    events: VecDeque<Event>,
    end_stream: Option<EndStream>,
    input_end: Option<InputEnd>,
    /// The service has ended its side, one way or another.
    input_done: bool,
    request_size: usize,
    heartbeat_queued: bool,
    held_up: bool,
    progressed: bool,
    completed_message: bool,
    /// The service said something: it may be at work on the turn.
    pub(super) heard_message: bool,
    /// The turn's tool calls were not answered in time.
    pub(super) pause_expired: bool,
}

impl Core {
    pub(super) fn new(
        request: &RunRequest,
        mut conversation: Conversation,
        options: Options,
        redactor: Redactor,
        mut ids: Box<dyn IdSource>,
        now: Instant,
    ) -> Result<Self, Box<(Error, Conversation)>> {
        let encoded = match encode_run(request, &mut conversation, ids.as_mut()) {
            Ok(encoded) => encoded,
            Err(error) => return Err(Box::new((error, conversation))),
        };
        let mut core = Self {
            conversation,
            phase: Phase::Opening,
            timers: Timers::default(),
            outbox: Outbox::default(),
            tools: ToolTable::default(),
            serves: ServeTable::default(),
            tool_context: encoded.tools,
            usage: Usage::default(),
            reporter: Reporter::new(&options),
            ids,
            redactor,
            events: VecDeque::new(),
            end_stream: None,
            input_end: None,
            input_done: false,
            request_size: encoded.envelope.len(),
            heartbeat_queued: false,
            held_up: false,
            progressed: false,
            completed_message: false,
            heard_message: false,
            pause_expired: false,
            options,
        };
        core.outbox.send(encoded.envelope);
        core.timers.arm(Timer::FirstByte, now, core.options.first_byte);
        if let Some(deadline) = core.options.deadline {
            core.timers.arm(Timer::Deadline, now, deadline);
        }
        Ok(core)
    }

    // Questions of `session`.

    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    pub(super) fn turn_has_ended(&self) -> bool {
        matches!(self.phase, Phase::TurnEnded)
    }

    /// More replies wait than the limit allows: no message is taken in until some have left.
    pub(super) fn must_write_first(&self) -> bool {
        self.outbox.unsent() > self.options.queued_writes
            && self.outbox.unsent() > self.request_size
    }

    pub(super) fn wants_attention(&self) -> bool {
        !self.events.is_empty() || self.is_over() || self.must_write_first()
    }

    pub(super) fn has_end_stream(&self) -> bool {
        self.end_stream.is_some() && !self.is_over()
    }

    pub(super) fn pop_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    pub(super) fn poll_output(&mut self) -> Output {
        self.outbox.pop().unwrap_or_else(|| Output::Wait(self.timers.next()))
    }

    // Input.

    pub(super) fn decoder(&self, compression: Compression) -> Decoder {
        Decoder::new(self.options.limits, compression).with_redactor(self.redactor.clone())
    }

    /// The head passed: listen.
    pub(super) fn open(&mut self, now: Instant) {
        self.phase = Phase::Streaming;
        self.listen(now);
    }

    /// The head was an HTTP error; the body says more.
    pub(super) fn refused(&mut self, head: Head) {
        self.phase = Phase::Refused(Box::new(head), Vec::new());
    }

    /// Takes body bytes of an HTTP error. False when this is no error answer.
    pub(super) fn refusal_body(&mut self, chunk: &[u8]) -> bool {
        let Phase::Refused(_, body) = &mut self.phase else { return false };
        let room = self.options.error_body.saturating_sub(body.len());
        body.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
        if chunk.len() > room {
            self.conclude_refusal();
        }
        true
    }

    fn conclude_refusal(&mut self) {
        if let Phase::Refused(head, body) = &self.phase {
            let error =
                error_from_http(head.status, &head.headers, body, &self.redactor, head.received_at);
            self.fail(error);
        }
    }

    /// Any byte at all arrived.
    pub(super) fn heard(&mut self, now: Instant) {
        self.timers.stop(Timer::FirstByte);
        if self.is_listening() || matches!(self.phase, Phase::Opening | Phase::Refused(..)) {
            self.timers.arm(Timer::Silence, now, self.options.silence);
        }
    }

    pub(super) fn input_ended(&mut self, end: InputEnd) {
        self.input_done = true;
        if matches!(self.phase, Phase::Refused(..)) {
            self.conclude_refusal();
        } else if !self.is_over() && self.input_end.is_none() {
            self.input_end = Some(end);
        }
    }

    pub(super) fn take_input_end(&mut self) -> Option<InputEnd> {
        self.input_end.take()
    }

    pub(super) fn end_stream(&mut self, end: EndStream) {
        self.end_stream = Some(end);
    }

    /// A chunk has been decoded; `partial` when it ended inside an envelope.
    pub(super) fn chunk_done(&mut self, partial: bool, now: Instant) {
        if self.is_over() {
            return;
        }
        if std::mem::take(&mut self.completed_message) || !partial {
            self.timers.stop(Timer::Message);
        }
        if !self.is_listening() {
            return;
        }
        if partial && !self.timers.is_armed(Timer::Message) {
            self.timers.arm(Timer::Message, now, self.options.message);
        }
        if std::mem::take(&mut self.progressed) {
            self.timers.arm(Timer::Progress, now, self.options.progress);
        }
    }

    pub(super) fn message_completed(&mut self, progress: bool) {
        self.completed_message = true;
        self.heard_message = true;
        self.progressed |= progress;
    }

    // Who waits for whom.

    /// The service owes us something: not while tools are at work here, nor while the consumer
    /// holds everything up.
    fn is_listening(&self) -> bool {
        matches!(self.phase, Phase::Streaming) && !self.held_up && !self.is_working()
    }

    /// Tools or handlers are at work here: the service waits for us.
    fn is_working(&self) -> bool {
        !self.tools.is_empty() || !self.serves.is_empty()
    }

    /// Starts or stops the timers on the service, after something that decides it has changed.
    pub(super) fn listen(&mut self, now: Instant) {
        if self.is_listening() {
            self.timers.arm(Timer::Silence, now, self.options.silence);
            self.timers.arm(Timer::Progress, now, self.options.progress);
        } else {
            for timer in [Timer::Silence, Timer::Progress, Timer::Message] {
                self.timers.stop(timer);
            }
        }
    }

    /// The consumer (or our own writer) holds up decoding, or no longer does.
    pub(super) fn held_up(&mut self, held_up: bool, now: Instant) {
        self.held_up = held_up;
        if matches!(self.phase, Phase::Streaming) {
            self.listen(now);
        }
    }

    /// Tool calls or served questions came or went.
    pub(super) fn work_changed(&mut self, now: Instant) {
        self.listen(now);
        if self.tools.is_empty() {
            self.timers.stop(Timer::PausedTurn);
            self.timers.stop(Timer::ToolBatch);
        }
        if self.turn_has_ended() && !self.is_working() {
            self.timers.arm(Timer::TurnEnd, now, self.options.turn_end);
        }
        match self.serves.next_deadline() {
            Some(at) => self.timers.set(Timer::Serving, at),
            None => self.timers.stop(Timer::Serving),
        }
        self.arm_exec_heartbeats(now);
    }

    pub(super) fn arm_tool_batch(&mut self, now: Instant) {
        self.timers.arm(Timer::ToolBatch, now, self.options.tool_batch);
    }

    /// Whether [`Self::hand_out`] would do anything.
    #[inline]
    pub(super) fn has_call_to_hand_out(&self) -> bool {
        self.timers.is_armed(Timer::ToolBatch) || self.tools.has_unannounced()
    }

    /// The calls that wait to be handed out, as one event.
    pub(super) fn hand_out(&mut self, now: Instant) -> Option<Event> {
        self.timers.stop(Timer::ToolBatch);
        if !self.tools.has_unannounced() {
            return None;
        }
        self.timers.arm(Timer::PausedTurn, now, self.options.paused_turn);
        Some(Event::ToolCalls(self.tools.hand_out()))
    }

    pub(super) fn turn_ended(&mut self, split: [Option<i64>; 5], now: Instant) {
        if !matches!(self.phase, Phase::Streaming) {
            return;
        }
        self.usage.turn_ended(split);
        self.phase = Phase::TurnEnded;
        self.listen(now);
        let grace = match self.is_working() {
            true => self.options.turn_end_with_tools,
            false => self.options.turn_end,
        };
        self.timers.arm(Timer::TurnEnd, now, grace);
    }

    // Writing.

    pub(super) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.push(Event::Notice(notice));
    }

    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.outbox.sent(bytes);
        if self.outbox.unsent() > 0 || self.is_over() {
            return;
        }
        self.heartbeat_queued = false;
        if !self.timers.is_armed(Timer::Heartbeat) {
            self.timers.arm(Timer::Heartbeat, now, self.options.heartbeat);
        }
        self.arm_exec_heartbeats(now);
    }

    /// The next heartbeat of an exec is armed when everything before it has left (PROTOCOL 3).
    fn arm_exec_heartbeats(&mut self, now: Instant) {
        if self.outbox.unsent() == 0 {
            let next = now.checked_add(self.options.exec_heartbeat);
            self.tools.arm_heartbeats(next);
            self.serves.arm_heartbeats(next);
        }
        self.arm_exec_heartbeat();
    }

    fn arm_exec_heartbeat(&mut self) {
        let next = [self.tools.next_heartbeat(), self.serves.next_heartbeat()];
        match next.into_iter().flatten().min() {
            Some(at) => self.timers.set(Timer::ExecHeartbeat, at),
            None => self.timers.stop(Timer::ExecHeartbeat),
        }
    }

    // Time.

    pub(super) fn timeout(&mut self, now: Instant) {
        while !self.is_over() {
            let Some(timer) = self.timers.take_due(now) else { return };
            self.on_timer(timer, now);
        }
    }

    fn on_timer(&mut self, timer: Timer, now: Instant) {
        let o = &self.options;
        match timer {
            Timer::FirstByte => {
                self.give_up(stalled(format!("no answer within {:?}", o.first_byte)));
            }
            Timer::Silence if matches!(self.phase, Phase::Refused(..)) => self.conclude_refusal(),
            Timer::Silence => {
                self.give_up(stalled(format!("nothing came for {:?}", o.silence)));
            }
            Timer::Progress => {
                self.give_up(stalled(format!("nothing but heartbeats came for {:?}", o.progress)));
            }
            Timer::Message => self.give_up(stalled(format!(
                "a message that began {:?} ago is still not complete",
                o.message
            ))),
            Timer::Deadline => self.give_up(past_deadline(o.deadline.unwrap_or_default())),
            Timer::PausedTurn => {
                let limit = o.paused_turn;
                self.pause_expired = true;
                self.give_up(Error::new(
                    Kind::Interrupted,
                    format!("the turn's tool calls were not answered within {limit:?}"),
                ));
            }
            Timer::Heartbeat => {
                if !self.heartbeat_queued {
                    self.heartbeat_queued = true;
                    self.outbox.send(reply::heartbeat());
                }
            }
            Timer::ExecHeartbeat => {
                let mut due = self.tools.take_due_heartbeats(now);
                due.append(&mut self.serves.take_due_heartbeats(now));
                for exec in due {
                    self.outbox.send(reply::exec_heartbeat(exec));
                }
                self.arm_exec_heartbeat();
            }
            Timer::Serving => self.stop_overdue(now),
            Timer::ToolBatch => {
                if let Some(event) = self.hand_out(now) {
                    self.push(event);
                }
            }
            Timer::TurnEnd => self.succeed(),
        }
    }

    // The end.

    /// The end-stream came and nothing after it.
    pub(super) fn conclude(&mut self) {
        let Some(end) = self.end_stream.take() else { return };
        match end.error {
            Some(error) => {
                let so_far =
                    RunSoFar { tokens: self.usage.output, request_bytes: self.request_size };
                let at = Circumstances { run: Some(so_far), retry_after: retry_after(&error) };
                let error = refine(error, &at);
                if drops_checkpoint(&error) {
                    self.conversation.discard();
                }
                self.finish(Err(error), Farewell::Close);
            }
            None if self.turn_has_ended() => self.succeed(),
            None => self.finish(
                Err(Error::new(
                    Kind::Interrupted,
                    "the service ended the stream before the turn was over",
                )),
                Farewell::Close,
            ),
        }
    }

    /// The body is over and there was no end-stream.
    pub(super) fn input_over(&mut self, end: InputEnd, cut_off: Result<()>) {
        if self.turn_has_ended() {
            if matches!(end, InputEnd::Lost(_)) {
                self.notice(Notice::LostAfterEnd);
            }
            return self.succeed();
        }
        let error = match end {
            InputEnd::Lost(error) => error,
            // Inside an envelope or between two: the turn broke off either way.
            InputEnd::Clean => match cut_off {
                Err(error) => error.with_kind(Kind::Interrupted),
                Ok(()) => {
                    Error::new(Kind::Interrupted, "the stream ended without an end-stream message")
                        .with_code(Code::Internal)
                }
            },
        };
        self.finish(Err(error), Farewell::Reset);
    }

    pub(super) fn succeed(&mut self) {
        self.finish(Ok(Finish { usage: self.usage }), Farewell::Close);
    }

    /// The peer broke the protocol or a limit: the stream cannot be used any more.
    pub(super) fn fail(&mut self, error: Error) {
        self.finish(Err(error), Farewell::Reset);
    }

    /// Takes secrets out of a head before a value of it is cut for an error (FAULTS M88).
    pub(super) fn hide_secrets(&self, head: &mut Head) {
        for (_, value) in &mut head.headers {
            *value = self.redactor.hide(value);
        }
    }

    /// What the service says from here on is cleaned of these secrets.
    pub(super) fn clean_with(&mut self, redactor: Redactor) {
        self.redactor = redactor;
    }

    /// We stop although the service works: it is told so.
    pub(super) fn give_up(&mut self, error: Error) {
        self.finish(Err(error), Farewell::Tell);
    }

    pub(super) fn cancel(&mut self) {
        self.give_up(cancelled());
    }

    fn finish(&mut self, end: Ended, farewell: Farewell) {
        let end = end.map_err(|error| error.cleaned(&self.redactor));
        if self.is_over() {
            return;
        }
        self.phase = Phase::Over;
        self.timers.stop_all();
        self.outbox.forget();
        for key in self.serves.drain_running() {
            self.outbox.work(Output::StopServing(key));
        }
        match farewell {
            Farewell::Close => {
                self.outbox.close(Output::HalfClose);
                if !self.input_done {
                    self.outbox.close(Output::Reset(ResetReason::Complete));
                }
            }
            Farewell::Tell => {
                self.outbox.send(reply::cancel());
                self.outbox.close(Output::Reset(ResetReason::Cancel));
            }
            Farewell::Reset => self.outbox.close(Output::Reset(ResetReason::Cancel)),
        }
        self.push(Event::Ended(end));
    }
}

/// What the parser of the end-stream read of it already.
fn retry_after(error: &Error) -> Option<Duration> {
    match error.kind() {
        Kind::RateLimited { retry_after } | Kind::Overloaded { retry_after } => *retry_after,
        _ => None,
    }
}

pub(super) fn past_deadline(deadline: Duration) -> Error {
    let message = format!("the run took longer than its deadline of {deadline:?}");
    Error::new(Kind::DeadlineExceeded, message)
}

pub(super) fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "the run was cancelled")
}

fn stalled(message: String) -> Error {
    Error::network(NetworkFault::Stalled, message)
}

/// Which stated errors say that the service no longer has what the checkpoint points to
/// (FAULTS M85): every other one leaves the conversation as it is.
fn drops_checkpoint(error: &Error) -> bool {
    error.code() == Code::NotFound || *error.kind() == Kind::BlobMissing
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("phase", &std::mem::discriminant(&self.phase))
            .field("pending_tools", &self.tools.len())
            .field("unsent", &self.outbox.unsent())
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}
