//! The turn machine under wild operations.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::codec::RunRequest;
use crate::connect::put_envelope;
use crate::context::{Context, ToolResult};
use crate::conversation::{BlobLimits, Conversation};
use crate::error::{Error, NetworkFault};
use crate::ids::CountingIds;
use crate::redact::Redactor;
use crate::run::fuzz::{Input, head};
use crate::run::{Event, Flow, Notice, Options, Output, Polled, RetryBudget, Turn};

/// A turn, and what its caller knows.
struct Machine {
    turn: Turn,
    now: Instant,
    deadline: Option<Instant>,
    open_calls: BTreeSet<String>,
    answered: BTreeSet<String>,
    /// Bytes of text and reasoning that the caller shows.
    shown: [usize; 2],
    ended: bool,
    /// The stream that is open has had its request.
    requested: bool,
    streams: u32,
}

/// A turn over many streams: `data` picks operations (messages of every hot kind, tool calls, checkpoints,
/// ends, losses, stated errors, time, answers, messages, a restart of the process, cancel).
///
/// # Panics
/// When a promise is broken: an event after `Ended` or a second `Ended`, a call that was answered and
/// is handed out again, more text taken back than was given, a stream that does not begin with a
/// request, more streams than the retries and remedies allow, a cancelled turn that does not end.
pub fn turn_operations(data: &[u8]) {
    let mut input = Input(data);
    let mut machine = Machine::new(Conversation::with_id("c"));
    while let Some(op) = input.byte() {
        machine.operate(op, &mut input);
        machine.drain(if op & 0x80 == 0 { usize::MAX } else { 1 });
    }
    machine.turn.cancel(machine.now);
    // What is queued, then the end: a turn that does not say so after so many calls never will.
    let ended = (0..64).any(|_| machine.drain(usize::MAX) == Polled::Ended);
    assert!(ended, "a turn that is cancelled says that it is over");
    assert!(machine.ended, "a turn that is cancelled ends");
}

impl Machine {
    #[allow(clippy::disallowed_methods, clippy::expect_used, reason = "a test body")]
    fn new(conversation: Conversation) -> Self {
        let now = Instant::now();
        let request = RunRequest {
            request_id: "r".into(),
            model: "m".into(),
            context: Context::prompt("p"),
            ..RunRequest::default()
        };
        let (redactor, ids) = (Redactor::default(), Box::new(CountingIds::hex()));
        let (options, budget) = (Options::default(), RetryBudget::default());
        let turn = Turn::new(request, conversation, options, budget, redactor, ids, now)
            .map_err(|failed| failed.0)
            .expect("a plain request encodes")
            .kept();
        let streams = u32::from(turn.is_under_way());
        let mut machine = Self {
            turn,
            now,
            deadline: None,
            open_calls: BTreeSet::new(),
            answered: BTreeSet::new(),
            shown: [0; 2],
            ended: false,
            requested: false,
            streams,
        };
        machine.drain(usize::MAX);
        machine
    }

    fn operate(&mut self, op: u8, input: &mut Input<'_>) {
        let few = |input: &mut Input<'_>| b'a' + (input.byte().unwrap_or(0) & 3);
        match op & 0x0f {
            0 => self.turn.handle_head(head(), self.now),
            // Text and reasoning of few letters: it often repeats what was said before.
            1 | 2 => {
                let tag = if op & 1 == 1 { 0x0a } else { 0x22 };
                let letter = few(input);
                self.message(&[0x0a, 5, tag, 3, 0x0a, 1, letter]);
            }
            3 => {
                let (exec, call) = (input.byte().unwrap_or(0) & 0x7f, few(input));
                self.message(&[0x12, 7, 0x08, exec, 0x5a, 3, 0x1a, 1, call]);
            }
            4 => self.message(&[0x1a, 4, 0x2a, 2, 0x08, 0x78]),
            5 => self.message(&[0x0a, 2, 0x72, 0]),
            6 => self.message(input.slice()),
            7 => {
                let ends: [&[u8]; 4] = [
                    b"{}",
                    br#"{"error":{"code":"not_found"}}"#,
                    br#"{"error":{"code":"resource_exhausted","message":"Error"}}"#,
                    br#"{"error":{"code":"internal","message":"Blob not found"}}"#,
                ];
                let end = ends[usize::from(input.byte().unwrap_or(0) & 3)];
                let mut bytes = Vec::new();
                put_envelope(&mut bytes, 2, end);
                self.turn.handle_body(bytes.into(), self.now);
            }
            8 => self.turn.handle_end(self.now),
            9 => self.turn.handle_lost(Error::network(NetworkFault::Cut, "cut"), self.now),
            10 => self.pass(Duration::from_millis(u64::from(input.byte().unwrap_or(0)))),
            11 => self.pass(Duration::from_secs(u64::from(input.byte().unwrap_or(0)))),
            12 | 13 => self.answer(op),
            14 if input.byte().unwrap_or(0) > 250 => self.restart(),
            14 => drop(self.turn.say("more", self.now)),
            _ if input.byte().unwrap_or(0) > 250 => self.turn.cancel(self.now),
            _ => {}
        }
    }

    fn message(&mut self, payload: &[u8]) {
        let mut bytes = Vec::new();
        put_envelope(&mut bytes, 0, payload);
        self.turn.handle_body(bytes.into(), self.now);
    }

    fn answer(&mut self, op: u8) {
        let some = if op & 1 == 0 { usize::MAX } else { 1 };
        let ids: Vec<_> = self.open_calls.iter().take(some).cloned().collect();
        let results: Vec<_> = ids.iter().map(|id| ToolResult::text(id, "ls", "r")).collect();
        if !results.is_empty() && self.turn.answer_some(&results, self.now).is_ok() {
            assert!(!self.ended, "an answer after the end was taken");
            self.open_calls.retain(|id| !ids.contains(id));
            self.answered.extend(ids);
        }
    }

    /// The process ends and another goes on from what was kept.
    fn restart(&mut self) {
        let kept = self.turn.snapshot().to_bytes();
        let kept = Conversation::from_bytes(&kept, BlobLimits::default());
        let now = self.now;
        *self = Self::new(kept.unwrap_or_default());
        self.now = self.now.max(now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.deadline.is_some_and(|at| at <= self.now) {
            self.turn.handle_timeout(self.now);
        }
    }

    fn drain(&mut self, room: usize) -> Polled {
        let mut left = room;
        let mut events = Vec::new();
        let polled = self.turn.poll_events(self.now, |event| {
            events.push(event.to_event());
            left = left.saturating_sub(1);
            if left == 0 { Flow::Stop } else { Flow::Continue }
        });
        events.into_iter().for_each(|event| self.see(event));
        self.drain_output();
        polled
    }

    fn see(&mut self, event: Event) {
        assert!(!self.ended, "an event after Ended");
        match event {
            Event::Ended(_) => self.ended = true,
            Event::Text(text) => self.shown[0] += text.len(),
            Event::Thinking(text) => self.shown[1] += text.len(),
            Event::Notice(Notice::Restarted { text, thinking }) => {
                for (shown, dropped) in self.shown.iter_mut().zip([text, thinking]) {
                    assert!(*shown >= dropped, "more is taken back than was given");
                    *shown -= dropped;
                }
            }
            Event::ToolCalls(calls) => {
                assert!(!calls.is_empty(), "a batch of no calls");
                for call in calls {
                    assert!(!self.answered.contains(&call.id), "a call is handed out again");
                    self.open_calls.insert(call.id);
                }
            }
            Event::ToolsAborted(ids) => self.open_calls.retain(|id| !ids.contains(id)),
            _ => {}
        }
    }

    fn drain_output(&mut self) {
        /// The first, ten retries, five remedies, and what pauses and restarts add.
        const STREAMS: u32 = 4_096;
        loop {
            match self.turn.poll_output() {
                Output::Send(bytes) => self.sent(&bytes),
                Output::Open => {
                    self.requested = false;
                    self.streams += 1;
                    assert!(self.streams < STREAMS, "streams without end");
                }
                Output::Keep => drop(self.turn.snapshot()),
                Output::Renew => unreachable!("there are no other credentials"),
                Output::Wait(at) => {
                    self.deadline = at;
                    return;
                }
                _ => {}
            }
        }
    }

    fn sent(&mut self, bytes: &Bytes) {
        // `run_request` is field 1 of the message.
        let is_request = bytes.get(5) == Some(&0x0a);
        assert!(self.requested || is_request, "a stream begins with its request");
        self.requested = true;
        self.turn.handle_sent(bytes.len(), self.now);
    }
}
