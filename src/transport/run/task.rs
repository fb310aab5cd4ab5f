//! The task of one run: it moves bytes between streams, a [`Turn`] and a [`Mailbox`], and keeps the
//! turn's timer. It decides nothing.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Blame, Error, Kind};
use crate::exec::Effects;
use crate::run::{Event, EventRef, FLUSH_LIMIT, Flow, Output, Polled, ServeTask, Sink, Turn, Work};

use super::batch::{Batch, BatchLimits};
use super::credit::Credit;
use super::handlers::{Handlers, Report};
use super::keeper::Keeper;
use super::link::{Link, NotOpened, Opening, Router};
use super::mailbox::{Command, Mailbox};
use super::tap::Tap;

/// Drives one run; a future to be spawned. Dropped early (the runtime shuts down), it tells the
/// consumer so: nobody hangs (FAULTS M77b).
pub(crate) struct Task {
    /// Gone once the last event is out. Boxed: it is some kilobytes, and a task is moved when it is
    /// spawned.
    turn: Option<Box<Turn>>,
    /// Everything else, apart from it so that a panic leaves the turn to be saved.
    io: Io,
}

struct Io {
    mailbox: Arc<Mailbox>,
    limits: BatchLimits,
    router: Router,
    way: Way,
    /// Streams whose attempt is over, until they have had their end.
    leaving: Vec<Leaving>,
    /// The end of the stream that is open, as far as the turn has said it.
    farewell: Farewell,
    /// A stream is wanted that nothing was done about.
    to_open: bool,
    /// Where the conversation is kept.
    keeper: Keeper,
    /// What the turn wants written, until the stream has room.
    outgoing: VecDeque<Bytes>,
    handlers: Handlers,
    /// Who writes down what goes over the wire.
    tap: Tap,
    /// Events about to be published; empty between rounds.
    filling: Batch,
    /// As many events wait as may: nothing is decoded, so that bytes wait in the turn, which
    /// then knows that it is not the service that is silent.
    full: bool,
    credit: Credit,
    /// When the turn wants to be called, and the sleep until then.
    wake_at: Option<std::time::Instant>,
    sleep: Pin<Box<Sleep>>,
    sleep_at: Option<std::time::Instant>,
}

/// The way to the service.
enum Way {
    /// Waiting for a connection and a place on it.
    Opening(Opening),
    Open(Box<Link>),
    /// No stream: never, not any more, or not yet again.
    Gone,
}

/// A stream that only gets its end.
struct Leaving {
    link: Box<Link>,
    outgoing: VecDeque<Bytes>,
    farewell: Farewell,
    /// When it is done in any case.
    until: Instant,
    /// The sleep until then, once there is something to wait for.
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What is left to do on a stream whose attempt is over.
#[derive(Clone, Copy, Default)]
struct Farewell {
    /// Whether our side ends in good order.
    finish: bool,
    /// The code of the reset that the turn wants once everything has left.
    reset: Option<u32>,
}

impl Leaving {
    /// Flushes, ends and resets, for [`FLUSH_LIMIT`] at most.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Farewell { finish, reset } = self.farewell;
        if self.link.poll_closed(cx, &mut self.outgoing, finish, reset).is_pending() {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(self.until)));
            ready!(sleep.as_mut().poll(cx));
        }
        if let Some(code) = self.farewell.reset {
            self.link.reset(code);
        }
        Poll::Ready(())
    }
}

/// What goes on beside the streams of a run.
pub(crate) struct Beside {
    pub(crate) handlers: Handlers,
    pub(crate) keeper: Keeper,
    pub(crate) tap: Tap,
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
        turn: Box<Turn>,
        router: Router,
        opening: Opening,
        beside: Beside,
    ) -> Self {
        let Beside { handlers, keeper, mut tap } = beside;
        // A turn that first waits for answers asks for its stream later.
        let way = if turn.is_under_way() { Way::Opening(opening) } else { Way::Gone };
        if turn.is_under_way() {
            tap.open(Instant::now().into_std());
        }
        let io = Io {
            mailbox,
            limits: limits.batch,
            router,
            way,
            leaving: Vec::new(),
            farewell: Farewell::default(),
            to_open: false,
            keeper,
            outgoing: VecDeque::new(),
            handlers,
            tap,
            filling: Batch::default(),
            full: false,
            credit: Credit::new(limits.credit_due),
            wake_at: None,
            sleep: Box::pin(sleep_until(Instant::now())),
            sleep_at: None,
        };
        Self { turn: Some(turn), io }
    }
}

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { turn, io } = self.get_mut();
        loop {
            let Some(running) = turn else { return io.leave(cx) };
            match io.round(running, cx) {
                Again::Now => {}
                Again::Later => return Poll::Pending,
                Again::Never => {
                    if let Some(turn) = turn.take() {
                        io.end(*turn);
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
    fn round(&mut self, turn: &mut Turn, cx: &mut Context<'_>) -> Again {
        let now = Instant::now().into_std();
        let crowded = !self.outgoing.is_empty();
        let held = !self.credit.may_read();
        let answered = self.take_commands(turn, cx, now);
        self.read(turn, cx, now);
        if self.sleep_at.is_some() && self.sleep.as_mut().poll(cx).is_ready() {
            self.sleep_at = None;
            turn.handle_timeout(now);
        }
        let polled = self.pump(turn, now);
        if polled == Polled::Ended {
            return Again::Never;
        }
        let wrote = self.write(turn, cx, now);
        let room = self.credit.is_stopped() && !self.mailbox.wait_until_taken();
        let more = match polled {
            Polled::Stopped => room,
            Polled::Writing => wrote,
            Polled::Drained | Polled::Ended => turn.must_be_polled(),
        };
        let uncrowded = crowded && self.outgoing.is_empty();
        // What came meanwhile has said so already: it is for this task to look.
        let more = more || held && self.credit.may_read();
        let aside = self.look_aside(turn, cx);
        let again = answered || more || uncrowded || aside || self.set_sleep(cx);
        if again { Again::Now } else { Again::Later }
    }

    /// What goes on beside the stream: those that leave, the saves. True when another has to be
    /// opened, or something came of it.
    fn look_aside(&mut self, turn: &mut Turn, cx: &mut Context<'_>) -> bool {
        self.leaving.retain_mut(|leaving| leaving.poll(cx).is_pending());
        if let Poll::Ready(error) = self.keeper.poll(cx) {
            turn.handle_not_kept(error.message());
            return true;
        }
        std::mem::take(&mut self.to_open)
    }

    /// What the consumer and the handlers want. True when there may be more.
    fn take_commands(
        &mut self,
        turn: &mut Turn,
        cx: &mut Context<'_>,
        now: std::time::Instant,
    ) -> bool {
        let wishes = self.mailbox.look(cx);
        if wishes.gone && !wishes.cancel {
            // Nobody said stop: who starts again goes on from here.
            self.keeper.keep_as_last(|| turn.snapshot());
        }
        if wishes.cancel || wishes.gone {
            if !turn.is_over() {
                self.tap.cancel(now);
            }
            turn.cancel(now);
        }
        if wishes.snapshot {
            self.mailbox.give_snapshot(&turn.snapshot());
        }
        // Commands are taken one at a time, and only when those before have left this queue: memory
        // stays bounded when a peer stops reading (FAULTS M70).
        if !self.outgoing.is_empty() || turn.must_be_polled() {
            return false;
        }
        if let Poll::Ready(report) = self.handlers.poll(cx) {
            match report {
                Report::Shell(key, event) => turn.handle_shell_event(key, event),
                Report::Done(key, result) => {
                    self.tap.served(key, &result, now);
                    turn.handle_served(key, result, now);
                }
            }
            return true;
        }
        let Some(command) = self.mailbox.take_command() else { return false };
        obey(turn, command, &mut self.tap, now);
        true
    }

    /// Opens the stream, and takes what has come on it. While the consumer is behind, the receiver
    /// keeps the rest as bytes, bounded by the stream's window.
    fn read(&mut self, turn: &mut Turn, cx: &mut Context<'_>, now: std::time::Instant) {
        if !turn.must_be_polled() {
            self.take_outputs(turn);
        }
        if let Way::Opening(opening) = &mut self.way
            && !turn.must_be_polled()
        {
            match opening.poll(cx, &mut self.outgoing) {
                Poll::Pending => return,
                Poll::Ready(Ok((link, credentials))) => {
                    self.way = Way::Open(Box::new(link));
                    self.tap.hide(&credentials.redactor, now);
                    turn.handle_renewed(credentials.redactor.clone());
                    self.router.used(credentials);
                }
                Poll::Ready(Err(why)) => {
                    self.way = Way::Gone;
                    match why {
                        NotOpened::Lost(error) => {
                            self.tap.lost(&error, now);
                            turn.handle_lost(error, now);
                        }
                        NotOpened::NoCredentials(error) => {
                            self.tap.no_credentials(now);
                            turn.handle_not_renewed(error);
                        }
                    }
                }
            }
        }
        if let Way::Open(link) = &mut self.way
            && self.credit.may_read()
        {
            let came = link.read(turn, &mut self.tap, cx, now);
            self.credit.came(came);
        }
    }

    /// Events of the turn into the mailbox, as many as may wait there.
    fn pump(&mut self, turn: &mut Turn, now: std::time::Instant) -> Polled {
        if self.full {
            self.publish();
        }
        if self.full && !turn.must_be_polled() {
            self.credit.decoded(false);
            return Polled::Stopped;
        }
        let mut filling = Filling { batch: &mut self.filling, limits: self.limits, tap: &self.tap };
        let polled = loop {
            let polled = turn.poll_into(now, &mut filling);
            // A run that is over hands out all it has; there is nothing to hold back any more.
            if polled != Polled::Stopped || !turn.must_be_polled() {
                break polled;
            }
        };
        if polled == Polled::Ended {
            return polled;
        }
        self.credit.decoded(polled == Polled::Drained);
        self.publish();
        polled
    }

    /// Hands the events over, and settles the peer's window: back goes what the consumer has taken,
    /// and what came to nothing that waits for it.
    fn publish(&mut self) {
        let queue = self.mailbox.publish(&mut self.filling, &self.limits);
        self.full = queue.is_full;
        let credit = &mut self.credit;
        if credit.published(queue.was_taken, queue.weight) && !self.mailbox.wait_until_taken() {
            credit.taken();
        }
        if let Some(bytes) = credit.to_release()
            && let Way::Open(link) = &mut self.way
        {
            link.release(bytes);
            credit.released();
        }
    }

    /// What the turn wants written goes to the stream. True when bytes left, or never will.
    fn write(&mut self, turn: &mut Turn, cx: &mut Context<'_>, now: std::time::Instant) -> bool {
        let mut wrote = false;
        while !turn.must_be_polled() {
            self.take_outputs(turn);
            let sent = match &mut self.way {
                Way::Open(link) => match link.write(cx, &mut self.outgoing) {
                    Poll::Pending => return wrote,
                    Poll::Ready(Ok(sent)) => sent,
                    Poll::Ready(Err((sent, error))) => {
                        self.tap.lost(&error, now);
                        turn.handle_lost(error, now);
                        sent
                    }
                },
                Way::Opening(_) => return false,
                Way::Gone => self.outgoing.drain(..).map(|b| b.len()).sum(),
            };
            if sent == 0 {
                return wrote;
            }
            wrote = true;
            turn.handle_sent(sent, now);
        }
        wrote
    }

    /// Everything that the turn wants done. A stream whose attempt is over leaves; what comes next goes
    /// to another one.
    fn take_outputs(&mut self, turn: &mut Turn) {
        loop {
            match turn.poll_output() {
                Output::Send(bytes) => {
                    self.tap.client(&bytes, Instant::now().into_std());
                    self.outgoing.push_back(bytes);
                }
                Output::Serve(task) => self.serve(task),
                Output::StopServing(key) => self.handlers.stop(key),
                Output::HalfClose => {
                    self.tap.half_close(Instant::now().into_std());
                    self.farewell.finish = true;
                }
                Output::Reset(reason) => {
                    self.tap.reset(reason.h2_code(), Instant::now().into_std());
                    self.farewell.reset = Some(reason.h2_code());
                }
                Output::Open => {
                    self.tap.open(Instant::now().into_std());
                    self.leave_stream();
                    self.way = Way::Opening(self.router.open());
                    self.to_open = true;
                }
                Output::Renew => self.router.renew(),
                Output::Keep => self.keeper.keep(turn.snapshot()),
                Output::Wait(at) => {
                    self.wake_at = at;
                    break;
                }
            }
        }
        if self.farewell.finish || self.farewell.reset.is_some() {
            self.leave_stream();
        }
    }

    fn serve(&mut self, task: ServeTask) {
        let effects = || match &task.work {
            Work::Exec { case, .. } => self.handlers.effects(case),
            Work::Query { .. } => Effects::ReadOnly,
        };
        self.tap.serve(task.key, &task.work, effects, Instant::now().into_std());
        self.handlers.start(task);
    }

    /// The attempt on this stream is over: the stream gets its end beside what comes next.
    fn leave_stream(&mut self) {
        let farewell = std::mem::take(&mut self.farewell);
        let outgoing = std::mem::take(&mut self.outgoing);
        if let Way::Open(link) = std::mem::replace(&mut self.way, Way::Gone) {
            let until = Instant::now() + FLUSH_LIMIT;
            self.leaving.push(Leaving { link, outgoing, farewell, until, sleep: None });
        }
        self.credit.next_stream();
        self.handlers.renew();
    }

    /// Sets the alarm to what the turn waits for. True when that is now.
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
    fn end(&mut self, mut turn: Turn) {
        self.take_outputs(&mut turn);
        self.leave_stream();
        let broken = turn.has_failed().then(|| turn.snapshot());
        let conversation = turn.into_conversation();
        self.keeper.keep_last(&conversation);
        self.mailbox.close(&mut self.filling, conversation, broken);
    }

    /// The caller has its last event; only [`Run::finish`](super::Run::finish) waits for this.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.leaving.retain_mut(|leaving| leaving.poll(cx).is_pending());
        // There is nobody left to be told that it failed.
        while self.keeper.poll(cx).is_ready() {}
        if self.leaving.is_empty() && self.keeper.is_idle() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// Events on their way into the batch.
struct Filling<'a> {
    batch: &'a mut Batch,
    limits: BatchLimits,
    tap: &'a Tap,
}

impl Sink for Filling<'_> {
    #[inline(always)]
    fn take(&mut self, event: EventRef<'_>) -> Flow {
        if let EventRef::Other(event) = &event {
            self.tap.event(event);
        }
        self.batch.push(event);
        if self.batch.is_full(&self.limits) { Flow::Stop } else { Flow::Continue }
    }
}

/// Whether the caller still waits for the reply or not, the command counts.
fn obey(turn: &mut Turn, command: Command, tap: &mut Tap, now: std::time::Instant) {
    match command {
        Command::Answer(results, all, reply) => {
            let answered = match all {
                true => turn.answer(&results, now),
                false => turn.answer_some(&results, now),
            };
            if answered.is_ok() {
                tap.answer(&results, now);
            }
            let _ = reply.send(answered);
        }
        Command::Say(text, reply) => {
            let said = turn.say(&text, now);
            if said.is_ok() {
                tap.say(now);
            }
            let _ = reply.send(said);
        }
        Command::Act(action, reply) => {
            let _ = reply.send(turn.act(&action, now));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.io.filling.push(broken_off(&turn));
            let broken = Some(turn.snapshot());
            self.io.mailbox.close(&mut self.io.filling, turn.into_conversation(), broken);
        }
        self.io.mailbox.leave();
    }
}

/// The last event of a run whose task ended before its time.
fn broken_off(turn: &Turn) -> EventRef<'static> {
    let error = Error::new(
        Kind::Interrupted,
        "the task that drives this run ended before the run: its runtime was shut down, or it panicked",
    )
    .with_blame(Blame::Local);
    EventRef::Other(Box::new(Event::Ended(Err(turn.broken_by(error)))))
}
