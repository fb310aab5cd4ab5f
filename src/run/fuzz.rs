//! Fuzz bodies of the run machine. They live here so that they compile with it; `fuzz/` and the
//! property tests call them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use prost::Message as _;

use crate::codec::RunRequest;
use crate::connect::put_envelope;
use crate::context::{Context, ToolResult};
use crate::conversation::Conversation;
use crate::error::{Error, NetworkFault};
use crate::exec::Refusal;
use crate::ids::CountingIds;
use crate::proto::agent_client_message::Message as Client;
use crate::proto::exec_server_message::Message as Case;
use crate::proto::interaction_query::Query;
use crate::proto::{AgentClientMessage, exec_client_control_message};
use crate::redact::Redactor;

use super::{Event, Flow, Head, Options, Output, Polled, ServeKey, ServeResult, Serves, Session};

pub use super::turn::turn_operations;

/// A session under random operations, with the promises that hold whatever comes.
struct Machine {
    session: Session,
    now: Instant,
    deadline: Option<Instant>,
    open_calls: Vec<String>,
    ended: bool,
    closes: HashMap<u32, u32>,
    asked: HashMap<u32, u32>,
    tasks: Vec<ServeKey>,
}

/// The machine under wild input: `data` picks operations and feeds them (raw bytes, valid
/// envelopes with wild inside, time, answers, cancel, a full consumer, end, loss).
///
/// # Panics
/// When a promise is broken: an event after `Ended` or a second `Ended`, a timer or an answer
/// after it, an exec closed more often than it was asked.
pub fn session_operations(data: &[u8]) {
    let mut machine = Machine::new();
    let mut input = Input(data);
    while let Some(op) = input.byte() {
        machine.operate(op, &mut input);
        machine.turn(if op & 0x80 == 0 { usize::MAX } else { 1 });
    }
    machine.session.cancel(machine.now);
    while machine.turn(usize::MAX) != Polled::Ended {}
    assert!(machine.ended, "a run that is cancelled ends");
    for (exec, closed) in &machine.closes {
        let asked = machine.asked.get(exec).copied().unwrap_or(0);
        assert!(*closed <= asked, "exec {exec} was asked {asked} times and closed {closed} times");
    }
}

/// Any split of a response body gives the same events as the whole.
///
/// One difference is meant: a stream is over as soon as its end-stream has come (FAULTS M13), so
/// bytes behind it are a breach of the protocol only when they arrive with it (M12).
///
/// # Panics
/// When it does not. `cuts` are sizes of the pieces, used in turn; zeros are skipped.
pub fn session_split(body: &[u8], cuts: &[u8]) {
    let whole = events_of(std::iter::once(Bytes::copy_from_slice(body)));
    let mut rest = body;
    let mut sizes = cuts.iter().map(|cut| usize::from(*cut)).filter(|cut| *cut > 0).cycle();
    let pieces = std::iter::from_fn(|| {
        let size = sizes.next().unwrap_or(1).min(rest.len());
        let (piece, tail) = rest.split_at(size);
        rest = tail;
        (!piece.is_empty()).then(|| Bytes::copy_from_slice(piece))
    });
    let split = events_of(pieces);
    let (split_end, split) = split.split_last().unzip();
    let (whole_end, whole) = whole.split_last().unzip();
    assert!(whole_end.is_some(), "a body that ends gives at least the last event");
    assert_eq!(split, whole, "the split changed what the body means");
    if !whole_end.is_some_and(is_late_data) && !split_end.is_some_and(is_late_data) {
        assert_eq!(split_end, whole_end, "the split changed how the run ends");
    }
}

fn is_late_data(event: &Event) -> bool {
    matches!(event, Event::Ended(Err(error)) if error.message().contains("after the end-stream"))
}

fn events_of(pieces: impl Iterator<Item = Bytes>) -> Vec<Event> {
    let mut machine = Machine::new();
    let mut events = Vec::new();
    machine.session.handle_head(head(), machine.now);
    let mut poll = |machine: &mut Machine| {
        machine.session.poll_events(machine.now, |event| {
            events.push(event.to_event());
            Flow::Continue
        });
        while let Output::Send(bytes) = machine.session.poll_output() {
            machine.session.handle_sent(bytes.len(), machine.now);
        }
    };
    for piece in pieces {
        machine.session.handle_body(piece, machine.now);
        poll(&mut machine);
    }
    machine.session.handle_end(machine.now);
    poll(&mut machine);
    events
}

/// Every exec and query is served, so that the life of a served question is fuzzed too.
fn options() -> Options {
    struct All;
    impl Serves for All {
        fn exec(&self, _: &Case) -> bool {
            true
        }
        fn query(&self, _: &Query) -> bool {
            true
        }
    }
    Options { serves: Some(Arc::new(All)), ..Options::default() }
}

pub(super) fn head() -> Head {
    let headers = vec![("content-type".to_owned(), super::head::CONTENT_TYPE.to_owned())];
    Head { status: 200, headers, received_at: SystemTime::UNIX_EPOCH }
}

impl Machine {
    #[allow(clippy::disallowed_methods, clippy::expect_used, reason = "a test body")]
    fn new() -> Self {
        let now = Instant::now();
        let request = RunRequest {
            request_id: "r".into(),
            model: "m".into(),
            context: Context::prompt("p"),
            ..RunRequest::default()
        };
        let session = Session::new(
            &request,
            Conversation::with_id("c"),
            options(),
            Redactor::default(),
            Box::new(CountingIds::hex()),
            now,
        )
        .map_err(|failed| failed.0)
        .expect("a plain request encodes");
        Self {
            session,
            now,
            deadline: None,
            open_calls: Vec::new(),
            ended: false,
            closes: HashMap::new(),
            asked: HashMap::new(),
            tasks: Vec::new(),
        }
    }

    fn operate(&mut self, op: u8, input: &mut Input<'_>) {
        match op & 0x0f {
            0 => self.session.handle_head(head(), self.now),
            1 => {
                let headers = vec![("content-type".to_owned(), input.text())];
                let status = u16::from(input.byte().unwrap_or(0)) * 3;
                self.session.handle_head(
                    Head { status, headers, received_at: SystemTime::UNIX_EPOCH },
                    self.now,
                );
            }
            2 => self.session.handle_body(Bytes::copy_from_slice(input.slice()), self.now),
            3 => self.envelope(input),
            4..=6 => self.exec(op, input),
            7 => self.pass(Duration::from_millis(u64::from(input.byte().unwrap_or(0)) * 10)),
            8 => self.pass(Duration::from_secs(u64::from(input.byte().unwrap_or(0)))),
            9 | 10 => self.answer(op, input),
            11 => self.serve(input),
            12 => self.session.handle_end(self.now),
            13 => {
                let lost = Error::network(NetworkFault::Cut, "cut");
                self.session.handle_lost(lost, self.now);
            }
            14 => {
                let mut bytes = Vec::new();
                put_envelope(&mut bytes, 2, input.slice());
                self.session.handle_body(bytes.into(), self.now);
            }
            _ => self.session.cancel(self.now),
        }
    }

    /// A valid envelope with wild bytes inside. They may hold an exec: its id cannot be known
    /// here, so such bytes are only fed when they are no message or no exec.
    fn envelope(&mut self, input: &mut Input<'_>) {
        let payload = input.slice();
        if let Ok(message) = crate::proto::AgentServerMessage::decode(payload)
            && let Some(crate::proto::agent_server_message::Message::ExecServerMessage(exec)) =
                message.message
        {
            *self.asked.entry(exec.id).or_default() += 1;
        }
        let mut bytes = Vec::new();
        put_envelope(&mut bytes, 0, payload);
        self.session.handle_body(bytes.into(), self.now);
    }

    /// An exec: a tool call, a request-context question or one that nobody knows.
    fn exec(&mut self, op: u8, input: &mut Input<'_>) {
        let id = input.byte().unwrap_or(0) & 0x7f;
        let case: &[u8] = match op & 0x0f {
            4 => &[0x5a, 3, 0x1a, 1, b'c'],
            5 => &[0x52, 0],
            _ => &[0x9a, 0x06, 0],
        };
        let inner = [&[0x08, id][..], case].concat();
        let length = u8::try_from(inner.len()).unwrap_or(0);
        let mut bytes = Vec::new();
        put_envelope(&mut bytes, 0, &[&[0x12, length][..], &inner].concat());
        *self.asked.entry(u32::from(id)).or_default() += 1;
        self.session.handle_body(bytes.into(), self.now);
    }

    fn answer(&mut self, op: u8, input: &mut Input<'_>) {
        let result = |id: &String| ToolResult::text(id.clone(), "", "r");
        if op & 1 == 1 {
            let results: Vec<_> = self.open_calls.iter().map(result).collect();
            if self.session.answer(&results, self.now).is_ok() {
                assert!(!self.ended, "an answer after the end was taken");
                self.open_calls.clear();
            }
        } else if !self.open_calls.is_empty() {
            let at = usize::from(input.byte().unwrap_or(0)) % self.open_calls.len();
            let id = self.open_calls.swap_remove(at);
            let _ = self.session.answer_some(&[result(&id)], self.now);
        }
    }

    /// A handler comes back: with nothing, with a refusal, or lost.
    fn serve(&mut self, input: &mut Input<'_>) {
        let wild = usize::from(input.byte().unwrap_or(0));
        if self.tasks.is_empty() {
            return;
        }
        let key = self.tasks.swap_remove(wild % self.tasks.len());
        let result = match wild % 3 {
            0 => ServeResult::Failed,
            1 => ServeResult::ShellDone,
            _ => ServeResult::Refused(Refusal::not_served()),
        };
        self.session.handle_served(key, result, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.deadline.is_some_and(|at| at <= self.now) {
            self.session.handle_timeout(self.now);
        }
    }

    fn turn(&mut self, room: usize) -> Polled {
        let mut left = room;
        let (ended, open_calls) = (&mut self.ended, &mut self.open_calls);
        let polled = self.session.poll_events(self.now, |event| {
            assert!(!*ended, "an event after Ended");
            match event.to_event() {
                Event::Ended(_) => *ended = true,
                Event::ToolCalls(calls) => open_calls.extend(calls.into_iter().map(|c| c.id)),
                Event::ToolsAborted(ids) => open_calls.retain(|id| !ids.contains(id)),
                _ => {}
            }
            left = left.saturating_sub(1);
            if left == 0 { Flow::Stop } else { Flow::Continue }
        });
        self.drain();
        polled
    }

    fn drain(&mut self) {
        let mut closed = false;
        loop {
            match self.session.poll_output() {
                Output::Send(bytes) => {
                    assert!(!closed, "bytes after the stream was closed");
                    self.count(&bytes);
                    self.session.handle_sent(bytes.len(), self.now);
                }
                Output::HalfClose | Output::Reset(_) => closed = true,
                Output::Serve(task) => self.tasks.push(task.key),
                Output::StopServing(key) => self.tasks.retain(|task| *task != key),
                Output::Open | Output::Renew | Output::Keep => {
                    unreachable!("a session has one stream")
                }
                Output::Wait(deadline) => {
                    assert!(!self.session.is_over() || deadline.is_none(), "a timer after the end");
                    self.deadline = deadline;
                    return;
                }
            }
        }
    }

    fn count(&mut self, bytes: &Bytes) {
        let Some(payload) = bytes.get(5..) else { return };
        if let Ok(AgentClientMessage {
            message: Some(Client::ExecClientControlMessage(control)),
            ..
        }) = AgentClientMessage::decode(payload)
            && let Some(exec_client_control_message::Message::StreamClose(close)) = control.message
        {
            *self.closes.entry(close.id).or_default() += 1;
        }
    }
}

/// Bytes taken from the front: one, or a slice whose length the first byte gives.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn slice(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        let (slice, rest) = self.0.split_at(length);
        self.0 = rest;
        slice
    }

    fn text(&mut self) -> String {
        String::from_utf8_lossy(self.slice()).into_owned()
    }
}
