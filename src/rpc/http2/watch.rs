//! The deadlines of a connection, for both sides' drivers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

use super::keepalive::{Beat, KeepAlive};
use super::meter::Meter;
use super::{Http2Config, Lost, LostCause};

/// What the driver sees of its connection at this moment.
pub(super) struct View {
    /// There are open streams.
    pub(super) active: bool,
    /// The connection has nothing left to do but write its last frames.
    pub(super) closing: bool,
}

/// What a deadline asks for.
pub(super) enum Alarm {
    /// The connection is lost.
    Lost(Lost),
    /// No stream for too long: close in order.
    Idle,
}

/// SETTINGS, keep-alive, idle and closing deadlines of one connection.
pub(super) struct Watch {
    meter: Arc<Meter>,
    alive: KeepAlive,
    /// Taken from h2 with the first PING.
    pings: Option<PingPong>,
    config: Arc<Http2Config>,
    settings: Option<Instant>,
    closing: Option<Instant>,
    idle: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Watch {
    /// `settings`: whether the peer still owes its first frame.
    pub(super) fn new(meter: Arc<Meter>, config: Arc<Http2Config>, settings: bool) -> Self {
        let now = Instant::now();
        Self {
            alive: KeepAlive::new(config.ping_interval, config.ping_timeout, now),
            pings: None,
            settings: settings.then(|| now + config.settings_timeout),
            closing: None,
            idle: None,
            timer: Box::pin(tokio::time::sleep_until(now)),
            meter,
            config,
        }
    }

    /// Ready when a deadline has passed; else the task is woken at the next one.
    ///
    /// `take_pings` is what h2 gives out once. It is asked for only when a PING is due, since from
    /// then on h2 looks for one before every frame that it reads: 15 ns of the 300 that it takes.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        view: &View,
        mut take_pings: impl FnMut() -> Option<PingPong>,
    ) -> Poll<Alarm> {
        loop {
            let now = Instant::now();
            let next = match self.check(cx, view, now, &mut take_pings) {
                Ok(next) => next,
                Err(alarm) => return Poll::Ready(alarm),
            };
            let Some(next) = next else { return Poll::Pending };
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn check(
        &mut self,
        cx: &mut Context<'_>,
        view: &View,
        now: Instant,
        take_pings: &mut impl FnMut() -> Option<PingPong>,
    ) -> Result<Option<Instant>, Alarm> {
        self.alive.note(self.meter.read(), now);
        if self.settings.is_some() && self.meter.began_with_settings() {
            self.settings = None;
        }
        let past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        if past(self.settings) {
            return Err(Alarm::Lost(Lost::new(LostCause::NoSettings)));
        }
        if view.closing {
            let closing = *self.closing.get_or_insert(now + self.config.close_timeout);
            if now >= closing {
                return Err(Alarm::Lost(Lost::new(LostCause::Cut)));
            }
        } else {
            self.closing = None;
        }
        self.idle = match self.config.idle_timeout.filter(|_| !view.active) {
            Some(limit) => self.idle.or(Some(now + limit)),
            None => None,
        };
        if past(self.idle) {
            self.idle = None;
            return Err(Alarm::Idle);
        }
        let beat = self.beat(cx, view.active, now, take_pings).map_err(Alarm::Lost)?;
        Ok([self.settings, self.closing, self.idle, beat].into_iter().flatten().min())
    }

    fn beat(
        &mut self,
        cx: &mut Context<'_>,
        active: bool,
        now: Instant,
        take_pings: &mut impl FnMut() -> Option<PingPong>,
    ) -> Result<Option<Instant>, Lost> {
        if let Some(pings) = &mut self.pings {
            // Takes the answer, so that the next PING may be sent; that it came, the meter has seen.
            let _ = pings.poll_pong(cx);
        }
        match self.alive.beat(active, now) {
            Beat::Wait(until) => Ok(until),
            Beat::Dead => Err(Lost::new(LostCause::NoPong)),
            Beat::Ping => {
                if self.pings.is_none() {
                    self.pings = take_pings();
                    // h2 does not know yet that it has to look for one.
                    cx.waker().wake_by_ref();
                }
                if let Some(pings) = &mut self.pings {
                    // Refused while the last one is unanswered; the wait for any byte goes on.
                    let _ = pings.send_ping(Ping::opaque());
                }
                Ok(Some(now + self.config.ping_timeout))
            }
        }
    }
}
