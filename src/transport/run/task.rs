//! The task of one run: it moves bytes between a stream, a [`Session`] and a [`Mailbox`], and keeps
//! the session's timer. It decides nothing.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Blame, Error, Kind};
use crate::run::{Event, EventRef, FLUSH_LIMIT, Flow, Output, Polled, Session};

use super::again::{Refused, refusal};
use super::batch::{Batch, BatchLimits};
use super::handlers::{Handlers, Host, Report};
use super::link::{Link, Opening};
use super::mailbox::{Command, Mailbox};

/// Drives one run; a future to be spawned. Dropped early (the runtime shuts down), it tells the
/// consumer so: nobody hangs (FAULTS M77b). Its value is a run that may be tried with another token,
/// see [`Task::with_second_chance`].
pub(crate) struct Task {
    /// Gone once the last event is out.
    session: Option<Session>,
    /// Everything else, apart from it so that a panic leaves the session to be saved.
    io: Io,
    /// The run was given back: its consumer goes on waiting for another task.
    parked: bool,
}

struct Io {
    mailbox: Arc<Mailbox>,
    limits: BatchLimits,
    credit_due: usize,
    way: Way,
    /// What the session wants written, until the stream has room.
    outgoing: VecDeque<Bytes>,
    handlers: Handlers,
    /// Events about to be published; empty between rounds.
    filling: Batch,
    /// The consumer has been given something.
    published: bool,
    /// A refusal of the token is kept from the consumer.
    second_chance: bool,
    refused: Option<Refused>,
    /// As many events wait as may: nothing is decoded, so that bytes wait in the session, which
    /// then knows that it is not the service that is silent.
    full: bool,
    credit: Credit,
    /// When the session wants to be called, and the sleep until then.
    wake_at: Option<std::time::Instant>,
    sleep: Pin<Box<Sleep>>,
    sleep_at: Option<std::time::Instant>,
}

/// The way to the service.
enum Way {
    /// Waiting for a connection and a place on it.
    Opening(Opening),
    Open(Link),
    /// The run is over; the stream gets its end.
    Leaving(Link, Farewell),
    /// No stream: never, or not any more.
    Gone,
}

/// What is left to do on a stream whose run is over.
struct Farewell {
    /// Whether our side ends in good order.
    finish: bool,
    /// The code of the reset that the session wants once everything has left.
    reset: Option<u32>,
    /// When it is done in any case.
    until: Pin<Box<Sleep>>,
}

/// Bytes of the body that have not been given back to the peer's window.
#[derive(Default)]
struct Credit {
    /// In the session, perhaps not decoded.
    in_session: usize,
    /// Decoded, with events that the consumer has not taken.
    in_batch: usize,
    /// Done with, until it is worth an update of the window.
    owed: usize,
    /// The session stopped before it had decoded everything.
    stopped: bool,
    /// Something was read after that: the session knows that bytes wait, and no more are read.
    held: bool,
}

/// Limits of a run's task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskLimits {
    /// Events that may wait for the consumer.
    pub(crate) batch: BatchLimits,
    /// Bytes that are given back to the peer's window at a time. With as many waiting for the
    /// consumer, the task asks to be woken when they are taken. A part of the stream's window, so
    /// that the peer never runs out.
    pub(crate) credit_due: usize,
}

impl Task {
    pub(crate) fn new(
        mailbox: Arc<Mailbox>,
        limits: TaskLimits,
        session: Session,
        opening: Opening,
        handlers: Handlers,
    ) -> Self {
        let io = Io {
            mailbox,
            limits: limits.batch,
            credit_due: limits.credit_due,
            way: Way::Opening(opening),
            outgoing: VecDeque::new(),
            handlers,
            filling: Batch::default(),
            published: false,
            second_chance: false,
            refused: None,
            full: false,
            credit: Credit::default(),
            wake_at: None,
            sleep: Box::pin(sleep_until(Instant::now())),
            sleep_at: None,
        };
        Self { session: Some(session), io, parked: false }
    }

    /// A run whose token is refused before it gave anything does not end for its consumer: the task
    /// gives it back instead.
    pub(crate) fn with_second_chance(mut self, chance: bool) -> Self {
        self.io.second_chance = chance;
        self
    }
}

impl Future for Task {
    type Output = Option<Refused>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Refused>> {
        let Self { session, io, parked } = self.get_mut();
        loop {
            let Some(running) = session else {
                ready!(io.leave(cx));
                let refused = io.refused.take();
                *parked |= refused.is_some();
                return Poll::Ready(refused);
            };
            match io.round(running, cx) {
                Again::Now => {}
                Again::Later => return Poll::Pending,
                Again::Never => {
                    if let Some(session) = session.take() {
                        io.end(session);
                    }
                }
            }
        }
    }
}

/// When the next round is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Now,
    /// When something wakes the task.
    Later,
    /// The last event is out.
    Never,
}

impl Io {
    /// One round: commands, input, time, events, output.
    fn round(&mut self, session: &mut Session, cx: &mut Context<'_>) -> Again {
        let now = Instant::now().into_std();
        let crowded = !self.outgoing.is_empty();
        let answered = self.take_commands(session, cx, now);
        self.read(session, cx, now);
        if self.sleep_at.is_some() && self.sleep.as_mut().poll(cx).is_ready() {
            self.sleep_at = None;
            session.handle_timeout(now);
        }
        let polled = self.pump(session, now);
        if polled == Polled::Ended {
            return Again::Never;
        }
        let wrote = self.write(session, cx, now);
        let room = self.credit.stopped && !self.mailbox.wait_until_taken();
        let more = match polled {
            Polled::Stopped => room,
            Polled::Writing => wrote,
            Polled::Drained | Polled::Ended => session.is_over(),
        };
        let uncrowded = crowded && self.outgoing.is_empty();
        let again = answered || more || uncrowded || self.set_sleep(cx);
        if again { Again::Now } else { Again::Later }
    }

    /// What the consumer and the handlers want. True when there may be more.
    fn take_commands(
        &mut self,
        session: &mut Session,
        cx: &mut Context<'_>,
        now: std::time::Instant,
    ) -> bool {
        let wishes = self.mailbox.look(cx);
        if wishes.cancel || wishes.gone {
            session.cancel(now);
        }
        // Commands are taken one at a time, and only when those before have left this queue: memory
        // stays bounded when a peer stops reading (FAULTS M70).
        if !self.outgoing.is_empty() || session.is_over() {
            return false;
        }
        if let Poll::Ready(report) = self.handlers.poll(cx) {
            match report {
                Report::Shell(key, event) => session.handle_shell_event(key, event),
                Report::Done(key, result) => session.handle_served(key, result, now),
            }
            return true;
        }
        let Some(command) = self.mailbox.take_command() else { return false };
        obey(session, command, now);
        true
    }

    /// Opens the stream, and takes what has come on it. While the consumer is behind, the receiver
    /// keeps the rest as bytes, bounded by the stream's window.
    fn read(&mut self, session: &mut Session, cx: &mut Context<'_>, now: std::time::Instant) {
        if !session.is_over() {
            self.take_outputs(session);
        }
        if let Way::Opening(opening) = &mut self.way
            && !session.is_over()
        {
            match opening.poll(cx, &mut self.outgoing) {
                Poll::Pending => return,
                Poll::Ready(Ok(link)) => self.way = Way::Open(link),
                Poll::Ready(Err(error)) => {
                    self.way = Way::Gone;
                    session.handle_lost(error, now);
                }
            }
        }
        if let Way::Open(link) = &mut self.way
            && !self.credit.held
        {
            let came = link.read(session, cx, now);
            self.credit.in_session += came;
            self.credit.held = self.credit.stopped && came > 0;
        }
    }

    /// Events of the session into the mailbox, as many as may wait there.
    fn pump(&mut self, session: &mut Session, now: std::time::Instant) -> Polled {
        if self.full {
            self.publish();
        }
        if self.full && !session.is_over() {
            self.credit.stopped = true;
            return Polled::Stopped;
        }
        let (filling, limits) = (&mut self.filling, &self.limits);
        let polled = loop {
            let polled = session.poll_events(now, |event: EventRef<'_>| {
                filling.push(event);
                if filling.is_full(limits) { Flow::Stop } else { Flow::Continue }
            });
            // A run that is over hands out all it has; there is nothing to hold back any more.
            if polled != Polled::Stopped || !session.is_over() {
                break polled;
            }
        };
        if polled == Polled::Ended {
            return polled;
        }
        self.credit.stopped = polled != Polled::Drained;
        self.credit.held &= self.credit.stopped;
        self.publish();
        polled
    }

    /// Hands the events over, and settles the peer's window: back goes what the consumer has taken,
    /// and what came to nothing that waits for it.
    fn publish(&mut self) {
        self.published |= !self.filling.is_empty();
        let queue = self.mailbox.publish(&mut self.filling, &self.limits);
        self.full = queue.is_full;
        let credit = &mut self.credit;
        if queue.was_taken {
            credit.owed += std::mem::take(&mut credit.in_batch);
        }
        if !credit.stopped {
            credit.in_batch += std::mem::take(&mut credit.in_session);
        }
        let waiting = credit.in_batch.min(queue.weight);
        credit.owed += std::mem::replace(&mut credit.in_batch, waiting) - waiting;
        if waiting >= self.credit_due && !self.mailbox.wait_until_taken() {
            credit.owed += std::mem::take(&mut credit.in_batch);
        }
        if credit.owed >= self.credit_due
            && let Way::Open(link) = &mut self.way
        {
            link.release(std::mem::take(&mut credit.owed));
        }
    }

    /// What the session wants written goes to the stream. True when bytes left, or never will.
    fn write(
        &mut self,
        session: &mut Session,
        cx: &mut Context<'_>,
        now: std::time::Instant,
    ) -> bool {
        let mut wrote = false;
        while !session.is_over() {
            self.take_outputs(session);
            let sent = match &mut self.way {
                Way::Open(link) => match link.write(cx, &mut self.outgoing) {
                    Poll::Pending => return wrote,
                    Poll::Ready(Ok(sent)) => sent,
                    Poll::Ready(Err((sent, error))) => {
                        session.handle_lost(error, now);
                        sent
                    }
                },
                Way::Opening(_) => return false,
                Way::Leaving(..) | Way::Gone => self.outgoing.drain(..).map(|b| b.len()).sum(),
            };
            if sent == 0 {
                return wrote;
            }
            wrote = true;
            session.handle_sent(sent, now);
        }
        wrote
    }

    /// Everything that the session wants done, but for its end: that comes after the last event.
    fn take_outputs(&mut self, session: &mut Session) {
        loop {
            match session.poll_output() {
                Output::Send(bytes) => self.outgoing.push_back(bytes),
                Output::Serve(task) => self.handlers.start(task),
                Output::StopServing(key) => self.handlers.stop(key),
                Output::Wait(at) => {
                    self.wake_at = at;
                    return;
                }
                Output::HalfClose | Output::Reset(_) => {}
            }
        }
    }

    /// Sets the alarm to what the session waits for. True when that is now.
    fn set_sleep(&mut self, cx: &mut Context<'_>) -> bool {
        if self.wake_at != self.sleep_at {
            self.sleep_at = self.wake_at;
            if let Some(at) = self.wake_at {
                self.sleep.as_mut().reset(Instant::from_std(at));
            }
        }
        self.sleep_at.is_some() && self.sleep.as_mut().poll(cx).is_ready()
    }

    /// The last event is out: the caller is released, the stream gets its farewell.
    fn end(&mut self, mut session: Session) {
        let mut reset = None;
        let mut finish = false;
        loop {
            match session.poll_output() {
                Output::Send(bytes) => self.outgoing.push_back(bytes),
                Output::HalfClose => finish = true,
                Output::Reset(reason) => reset = Some(reason.h2_code()),
                // All of them end here.
                Output::Serve(_) | Output::StopServing(_) => {}
                Output::Wait(_) => break,
            }
        }
        self.handlers = Handlers::new(Host::default());
        if let Way::Open(link) = std::mem::replace(&mut self.way, Way::Gone) {
            let until = Box::pin(sleep_until(Instant::now() + FLUSH_LIMIT));
            self.way = Way::Leaving(link, Farewell { finish, reset, until });
        }
        let conversation = session.into_conversation();
        match refusal(&self.filling, self.published).filter(|_| self.second_chance) {
            Some(error) => {
                self.refused = Some(Refused::new(Arc::clone(&self.mailbox), error, conversation));
            }
            None => self.mailbox.close(&mut self.filling, conversation),
        }
    }

    /// Flushes, ends and resets, for [`FLUSH_LIMIT`] at most. The caller has its last event; only [`Run::finish`](super::Run::finish) waits for this.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Way::Leaving(link, farewell) = &mut self.way {
            if farewell.until.as_mut().poll(cx).is_pending() {
                let Farewell { finish, reset, .. } = *farewell;
                ready!(link.poll_closed(cx, &mut self.outgoing, finish, reset));
            }
            if let Some(code) = farewell.reset {
                link.reset(code);
            }
            self.way = Way::Gone;
        }
        Poll::Ready(())
    }
}

/// Whether the caller still waits for the reply or not, the command counts.
fn obey(session: &mut Session, command: Command, now: std::time::Instant) {
    match command {
        Command::Answer(results, true, reply) => {
            let _ = reply.send(session.answer(&results, now));
        }
        Command::Answer(results, false, reply) => {
            let _ = reply.send(session.answer_some(&results, now));
        }
        Command::Say(text, reply) => {
            let _ = reply.send(session.say(&text, now));
        }
        Command::Act(action, reply) => {
            let _ = reply.send(session.act(&action, now));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.io.filling.append(&mut broken_off());
            self.io.mailbox.close(&mut self.io.filling, session.into_conversation());
        }
        if !self.parked {
            self.io.mailbox.leave();
        }
    }
}

/// The last event of a run whose task ended before its time.
fn broken_off() -> Batch {
    let error = Error::new(
        Kind::Interrupted,
        "the task that drives this run ended before the run: its runtime was shut down, or it panicked",
    )
    .with_blame(Blame::Local);
    let mut batch = Batch::default();
    batch.push(EventRef::Other(Event::Ended(Err(error))));
    batch
}
