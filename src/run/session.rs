//! [`Session`]: input in, events and outputs out. What a message means is in `core`.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::codec::RunRequest;
use crate::connect::{Decoder, Envelope};
use crate::context::ToolResult;
use crate::conversation::Conversation;
use crate::error::{Error, Result};
use crate::ids::IdSource;
use crate::proto::conversation_action::Action;
use crate::proto::shell_stream;
use crate::redact::Redactor;

use super::core::{Core, InputEnd};
use super::event::EventRef;
use super::head::{Head, check_head};
use super::options::Options;
use super::output::Output;
use super::serve::ServeKey;
use super::serving::ServeResult;
use super::tools::ToolTable;

/// What a sink answers to an event. The event has been taken either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Give me more.
    Continue,
    /// Stop after this one: the consumer is full. Nothing further is decoded until the next poll.
    Stop,
}

/// Where events go. A closure will do; the hot path of a run has types of its own, because a method can
/// be told to be inlined: a call for each token is a seventh of its instructions.
pub(crate) trait Sink {
    fn take(&mut self, event: EventRef<'_>) -> Flow;
}

impl<F: FnMut(EventRef<'_>) -> Flow> Sink for F {
    #[inline]
    fn take(&mut self, event: EventRef<'_>) -> Flow {
        self(event)
    }
}

/// Why [`Session::poll_events`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// Everything that arrived has been handled.
    Drained,
    /// The sink said stop; call again when there is room.
    Stopped,
    /// Replies wait to be written; call again when [`Session::handle_sent`] made room.
    Writing,
    /// The last event has been given.
    Ended,
}

/// What is left of a session that is over.
pub(super) struct Remains {
    /// Its farewell to the stream.
    pub(super) outputs: Vec<Output>,
    /// The service said something.
    pub(super) heard: bool,
    /// It ended because its tool calls were not answered in time.
    pub(super) pause_expired: bool,
    pub(super) output_tokens: u64,
    pub(super) tools: ToolTable,
    pub(super) last_key: u64,
    pub(super) conversation: Conversation,
    pub(super) ids: Box<dyn IdSource>,
}

/// One attempt of a run: the client's half of one `AgentService.Run` stream.
pub struct Session {
    /// Set once the response head has passed.
    decoder: Option<Decoder>,
    inbox: VecDeque<Bytes>,
    pub(super) core: Core,
    held_up: bool,
}

impl Session {
    /// Encodes the request and starts the run; the first [`Output::Send`] carries it.
    ///
    /// `conversation` is moved in and taken back with [`Session::into_conversation`].
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest) when the request cannot be
    /// sent as it is; the conversation is handed back beside the error, unchanged.
    pub fn new(
        request: &RunRequest,
        conversation: Conversation,
        options: Options,
        redactor: Redactor,
        ids: Box<dyn IdSource>,
        now: Instant,
    ) -> Result<Self, Box<(Error, Conversation)>> {
        let core = Core::new(request, conversation, options, redactor, ids, now)?;
        Ok(Self { decoder: None, inbox: VecDeque::new(), core, held_up: false })
    }

    /// The response head arrived.
    pub fn handle_head(&mut self, mut head: Head, now: Instant) {
        if !self.core.is_opening() {
            return;
        }
        self.core.heard(now);
        let mut checked = check_head(&head);
        if checked.is_err() {
            // What is said of it may repeat its values. Of a head that passes nothing is kept.
            self.core.hide_secrets(&mut head);
            checked = check_head(&head);
        }
        match checked {
            Ok(compression) => {
                self.decoder = Some(self.core.decoder(compression));
                self.core.open(now);
            }
            Err(None) => self.core.refused(head),
            Err(Some(error)) => self.core.fail(error),
        }
    }

    /// Bytes of the response body arrived. They are decoded by the next [`Session::poll_events`].
    pub fn handle_body(&mut self, chunk: Bytes, now: Instant) {
        if self.core.is_over() || chunk.is_empty() {
            return;
        }
        self.core.heard(now);
        if !self.core.refusal_body(&chunk) {
            self.inbox.push_back(chunk);
        }
    }

    /// The response body ended in good order. Trailers say nothing in this protocol (FAULTS M44).
    pub fn handle_end(&mut self, _now: Instant) {
        self.core.input_ended(InputEnd::Clean);
    }

    /// The stream or its connection was lost; `error` says how. What arrived before is still
    /// decoded and delivered.
    pub fn handle_lost(&mut self, error: Error, _now: Instant) {
        self.core.input_ended(InputEnd::Lost(error));
    }

    /// The driver has written this many bytes of the [`Output::Send`]s it was given.
    pub fn handle_sent(&mut self, bytes: usize, now: Instant) {
        self.core.sent(bytes, now);
    }

    /// The instant of the last [`Output::Wait`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.note_held_up(now);
        self.core.timeout(now);
    }

    /// Answers all tool calls that were handed out, on the same stream.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest), before anything is written:
    /// an answer to a call that is unknown or answered already, two answers to one, an answer
    /// missing (the message names it), an image that is not base64, or the run is over.
    pub fn answer(&mut self, results: &[ToolResult], now: Instant) -> Result<()> {
        self.core.answer(results, true, now)
    }

    /// Answers some of the tool calls that were handed out; the others may follow.
    ///
    /// # Errors
    /// As [`Session::answer`], but no answer can be missing.
    pub fn answer_some(&mut self, results: &[ToolResult], now: Instant) -> Result<()> {
        self.core.answer(results, false, now)
    }

    /// Sends a user message into the running turn. Gives its id, which the service's
    /// acknowledgement carries: [`Progress::UserMessageAppended`](super::Progress).
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest) when the turn is over.
    pub fn say(&mut self, text: &str, _now: Instant) -> Result<String> {
        self.core.say(text)
    }

    /// Sends an action into the running turn: a summary, a shell command, a plan, the late answer
    /// to a question. `CancelAction` is [`Session::cancel`].
    ///
    /// # Errors
    /// As [`Session::say`].
    pub fn act(&mut self, action: &Action, _now: Instant) -> Result<()> {
        self.core.act(action)
    }

    /// An event of a streaming shell that a handler serves; see
    /// [`ShellSink`](crate::exec::ShellSink). Dropped when nobody awaits it any more.
    pub fn handle_shell_event(&mut self, key: ServeKey, event: shell_stream::Event) {
        self.core.shell_event(key, event);
    }

    /// The task of an [`Output::Serve`] came back. Dropped when nobody awaits it any more.
    pub fn handle_served(&mut self, key: ServeKey, result: ServeResult, now: Instant) {
        self.core.served(key, result, now);
    }

    /// Bytes given to the driver that have not left yet: what a [`ShellSink`](crate::exec::ShellSink)
    /// waits on.
    pub fn unsent(&self) -> usize {
        self.core.outbox.unsent()
    }

    /// Stops the run: tells the service, then resets the stream. Does nothing when it is over.
    pub fn cancel(&mut self, _now: Instant) {
        self.core.cancel();
    }

    /// Decodes what arrived and hands events to `sink` until it stops, the input is used up, or
    /// the run is over. A driver whose consumer is full does not call it until there is room, or
    /// the run [is over](Session::is_over).
    pub fn poll_events<S>(&mut self, now: Instant, mut sink: S) -> Polled
    where
        S: FnMut(EventRef<'_>) -> Flow,
    {
        self.poll_into(now, &mut sink)
    }

    #[inline]
    pub(super) fn poll_into(&mut self, now: Instant, sink: &mut impl Sink) -> Polled {
        let polled = self.pump(now, sink);
        self.note_held_up(now);
        polled
    }

    /// Bytes that wait here are not the service's silence: its window may be used up.
    fn note_held_up(&mut self, now: Instant) {
        let held_up = !self.inbox.is_empty();
        if held_up != self.held_up {
            self.held_up = held_up;
            self.core.held_up(held_up, now);
        }
    }

    fn pump(&mut self, now: Instant, sink: &mut impl Sink) -> Polled {
        loop {
            while let Some(event) = self.core.pop_event() {
                if sink.take(EventRef::Other(Box::new(event))) == Flow::Stop {
                    return Polled::Stopped;
                }
            }
            if self.core.is_over() {
                self.inbox.clear();
                return Polled::Ended;
            }
            if self.core.must_write_first() {
                return Polled::Writing;
            }
            let Some(chunk) = self.inbox.pop_front() else {
                if self.conclude() {
                    continue;
                }
                return Polled::Drained;
            };
            if self.decode_chunk(&chunk, now, sink) == Flow::Stop && !self.core.is_over() {
                return Polled::Stopped;
            }
        }
    }

    /// Handles the messages of one chunk; puts back what it did not get to.
    fn decode_chunk(&mut self, chunk: &Bytes, now: Instant, sink: &mut impl Sink) -> Flow {
        let Some(decoder) = &mut self.decoder else {
            self.core.fail(Error::protocol("body bytes before the response head"));
            return Flow::Continue;
        };
        let core = &mut self.core;
        let mut flow = Flow::Continue;
        let mut rest: &[u8] = chunk;
        while flow == Flow::Continue {
            match decoder.next(&mut rest) {
                Ok(Some(Envelope::Message(payload))) => {
                    if let Some(delta) = core.plain_delta(payload) {
                        flow = sink.take(delta);
                        continue;
                    }
                    core.message(payload, now, &mut |event| {
                        if sink.take(event) == Flow::Stop {
                            flow = Flow::Stop;
                        }
                    });
                }
                Ok(Some(Envelope::EndStream(end))) => core.end_stream(end),
                Ok(None) => break,
                Err(error) => core.fail(error),
            }
            if core.wants_attention() {
                break;
            }
        }
        core.chunk_done(decoder.is_partial(), now);
        if !rest.is_empty() {
            let at = chunk.len() - rest.len();
            self.inbox.push_front(chunk.slice(at..));
        }
        flow
    }

    /// Everything that arrived has been decoded: is the stream over? True when something came of it.
    fn conclude(&mut self) -> bool {
        if self.core.has_end_stream() {
            self.core.conclude();
            return true;
        }
        let Some(end) = self.core.take_input_end() else { return false };
        let cut_off = self.decoder.as_mut().map_or(Ok(()), Decoder::finish);
        self.core.input_over(end, cut_off);
        true
    }

    /// What the driver has to do next; call until it is [`Output::Wait`].
    pub fn poll_output(&mut self) -> Output {
        self.core.poll_output()
    }

    /// Whether the last event has been given or waits to be polled.
    pub fn is_over(&self) -> bool {
        self.core.is_over()
    }

    /// The conversation as it stands: checkpoint and blobs received so far.
    pub fn conversation(&self) -> &Conversation {
        &self.core.conversation
    }

    /// Takes apart what is over: what the next attempt of the same turn needs.
    pub(super) fn dismantle(mut self) -> Remains {
        let mut outputs = Vec::new();
        loop {
            match self.core.poll_output() {
                Output::Wait(_) => break,
                output => outputs.push(output),
            }
        }
        let core = self.core;
        Remains {
            outputs,
            heard: core.heard_message,
            pause_expired: core.pause_expired,
            output_tokens: core.usage.output,
            tools: core.tools,
            last_key: core.serves.last_key(),
            conversation: core.conversation,
            ids: core.ids,
        }
    }

    /// Ends the run and gives the conversation back. Whatever was committed stays committed.
    pub fn into_conversation(self) -> Conversation {
        self.core.conversation
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("inbox_chunks", &self.inbox.len())
            .field("core", &self.core)
            .finish_non_exhaustive()
    }
}
