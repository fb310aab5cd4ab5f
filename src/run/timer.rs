//! Every deadline of a run: one enum, one table.

use std::time::{Duration, Instant};

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The first byte of the answer, response head included.
    FirstByte,
    /// Any byte at all.
    Silence,
    /// A message that is not a heartbeat.
    Progress,
    /// The rest of an envelope whose first byte has come.
    Message,
    /// The next heartbeat of ours.
    Heartbeat,
    /// The next heartbeat of a tool that is at work.
    ExecHeartbeat,
    /// The earliest limit of a handler at work.
    Serving,
    /// More tool calls that belong to the same batch.
    ToolBatch,
    /// The answers to the tool calls that were handed out.
    PausedTurn,
    /// The end of the stream after `turn_ended`.
    TurnEnd,
    /// The caller's own limit for the whole run.
    Deadline,
}

const COUNT: usize = Timer::Deadline as usize + 1;

const ALL: [Timer; COUNT] = [
    Timer::FirstByte,
    Timer::Silence,
    Timer::Progress,
    Timer::Message,
    Timer::Heartbeat,
    Timer::ExecHeartbeat,
    Timer::Serving,
    Timer::ToolBatch,
    Timer::PausedTurn,
    Timer::TurnEnd,
    Timer::Deadline,
];

/// The table: at most one instant a timer.
#[derive(Debug, Default)]
pub(crate) struct Timers([Option<Instant>; COUNT]);

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.0[timer as usize] = Some(at);
    }

    pub(crate) fn arm(&mut self, timer: Timer, now: Instant, after: Duration) {
        // An instant that cannot be represented is further away than any run lasts.
        self.0[timer as usize] = now.checked_add(after);
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    pub(crate) fn stop_all(&mut self) {
        self.0 = Default::default();
    }

    #[inline]
    pub(crate) fn is_armed(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// The earliest instant at which something is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes one timer that is due at `now`, the earliest first.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = ALL
            .into_iter()
            .filter_map(|timer| self.0[timer as usize].map(|at| (at, timer)))
            .filter(|(at, _)| *at <= now)
            .min_by_key(|(at, _)| *at)?
            .1;
        self.stop(due);
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an anchor for the virtual clock")]
    fn timers_fire_in_order_and_once() {
        let start = Instant::now();
        let ms = |n| start + Duration::from_millis(n);
        let mut timers = Timers::default();
        timers.set(Timer::Silence, ms(20));
        timers.arm(Timer::Heartbeat, start, Duration::from_millis(10));
        timers.set(Timer::Deadline, ms(30));
        assert_eq!(timers.next(), Some(ms(10)));
        assert_eq!(timers.take_due(ms(9)), None);
        assert_eq!(timers.take_due(ms(25)), Some(Timer::Heartbeat));
        assert_eq!(timers.take_due(ms(25)), Some(Timer::Silence));
        assert_eq!(timers.take_due(ms(25)), None);
        timers.arm(Timer::Silence, start, Duration::MAX);
        assert!(!timers.is_armed(Timer::Silence), "too far away to matter");
        timers.stop_all();
        assert_eq!(timers.next(), None);
    }
}
