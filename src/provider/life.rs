//! When a provider asks for models, and how it ends: a pure machine, no clock and no I/O.

use std::time::{Duration, Instant};

use crate::error::{Error, Kind};
use crate::models::{
    CacheKey, Discovery, DiscoveryOptions, Outcome, Step as Due, Ticket, Trigger, Wanted,
};

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask the service for this account's models.
    Ask(CacheKey, Ticket),
    /// Give this question up.
    Abort(Ticket),
    /// Nothing until then, or until something is told.
    Wait(Option<Instant>),
    /// It is over: whatever is still under way is dropped.
    Closed,
}

/// The life of a provider.
///
/// ```text
///          dispose            nothing is under way, or the grace is over
///   Open ───────────► Closing ───────────────────────────────────────────► Closed
/// ```
///
/// While it closes, a question that is under way may still bring its list (BEHAVIOUR 10) and runs
/// that were cancelled say their last word; nothing new begins.
#[derive(Debug)]
pub(super) struct Life {
    discovery: Discovery,
    grace: Duration,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing(Instant),
    Closed,
}

impl Life {
    pub(super) fn new(discovery: DiscoveryOptions, grace: Duration) -> Self {
        Self { discovery: Discovery::new(discovery), grace, phase: Phase::Open }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The cache had a catalog of this account, fetched `age` ago; none for one that is stale.
    pub(super) fn loaded(&mut self, key: &CacheKey, age: Option<Duration>, now: Instant) {
        if self.is_open() {
            self.discovery.loaded(key, age, now);
        }
    }

    /// Somebody wants the models of an account.
    pub(super) fn want(&mut self, key: &CacheKey, trigger: Trigger, now: Instant) -> Wanted {
        if self.is_open() { self.discovery.want(key, trigger, now) } else { Wanted::Disposed }
    }

    /// Whether the answer to this question is still wanted.
    pub(super) fn is_wanted(&self, ticket: Ticket) -> bool {
        self.phase != Phase::Closed && self.discovery.is_open(ticket)
    }

    /// A question was answered; says whether that was still wanted. A failure changes nothing of
    /// what is known: it only says when the next question comes.
    pub(super) fn answered(&mut self, ticket: Ticket, error: Option<&Error>, now: Instant) -> bool {
        self.discovery.finished(ticket, error.map_or(Outcome::Listed, outcome), now)
    }

    /// The account signed out.
    pub(super) fn forget(&mut self, key: &CacheKey) {
        self.discovery.forget(key);
    }

    /// Begins the end; what was begun before stays begun.
    pub(super) fn dispose(&mut self, now: Instant) {
        if self.is_open() {
            self.phase = Phase::Closing(now + self.grace);
        }
    }

    /// What to do now, while so many runs are under way. Ask again until it says to wait or that it is
    /// over, and when one of them ends.
    pub(super) fn poll(&mut self, runs: usize, now: Instant) -> Step {
        if let Phase::Closing(until) = self.phase {
            if now < until && (self.discovery.is_asking() || runs > 0) {
                return Step::Wait(Some(until));
            }
            self.phase = Phase::Closed;
            self.discovery.dispose();
        }
        match self.discovery.poll(now) {
            Due::Ask(key, ticket) => Step::Ask(key, ticket),
            Due::Abort(ticket) => Step::Abort(ticket),
            Due::Wait(_) if self.phase == Phase::Closed => Step::Closed,
            Due::Wait(until) => Step::Wait(until),
        }
    }
}

/// What a failure means for the next question: credentials or a client version that the service does
/// not take will not be taken later either.
fn outcome(error: &Error) -> Outcome {
    match error.kind() {
        Kind::Unauthenticated | Kind::PermissionDenied | Kind::ClientOutdated => Outcome::Refused,
        Kind::RateLimited { retry_after } | Kind::Overloaded { retry_after } => {
            Outcome::Failed(*retry_after)
        }
        _ => Outcome::Failed(None),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the zero of a virtual clock")]
mod tests {
    use super::*;
    use crate::error::NetworkFault;

    const GRACE: Duration = Duration::from_secs(1);

    fn key(account: &str) -> CacheKey {
        CacheKey::new(account, "https://example.invalid")
    }

    fn life() -> (Life, Instant) {
        (Life::new(DiscoveryOptions::default(), GRACE), Instant::now())
    }

    fn asked(life: &mut Life, now: Instant) -> Ticket {
        match life.poll(0, now) {
            Step::Ask(_, ticket) => ticket,
            step => panic!("{step:?}"),
        }
    }

    #[test]
    fn c032_dispose_waits_for_a_question_and_for_runs_and_not_longer_than_that() {
        let (mut life, now) = life();
        life.want(&key("a"), Trigger::Use, now);
        let ticket = asked(&mut life, now);
        life.dispose(now);
        assert_eq!(life.poll(1, now), Step::Wait(Some(now + GRACE)));
        assert_eq!(life.poll(0, now), Step::Wait(Some(now + GRACE)));
        // The answer that comes in time counts.
        assert!(life.is_wanted(ticket) && life.answered(ticket, None, now));
        assert_eq!(life.poll(1, now), Step::Wait(Some(now + GRACE)));
        assert_eq!(life.poll(0, now), Step::Closed);
        assert_eq!(life.poll(1, now + GRACE), Step::Closed);
    }

    #[test]
    fn c042_dispose_does_not_wait_for_ever() {
        let (mut life, now) = life();
        life.want(&key("a"), Trigger::Use, now);
        let ticket = asked(&mut life, now);
        life.dispose(now);
        life.dispose(now + GRACE / 2);
        let last = now + GRACE - Duration::from_nanos(1);
        assert_eq!(life.poll(1, last), Step::Wait(Some(now + GRACE)));
        assert_eq!(life.poll(1, now + GRACE), Step::Abort(ticket));
        assert_eq!(life.poll(1, now + GRACE), Step::Closed);
        assert!(!life.is_wanted(ticket) && !life.answered(ticket, None, now + GRACE));
    }

    #[test]
    fn nothing_begins_after_dispose() {
        let (mut life, now) = life();
        // Due, and not asked yet.
        life.want(&key("a"), Trigger::Use, now);
        life.dispose(now);
        assert_eq!(life.want(&key("b"), Trigger::Now, now), Wanted::Disposed);
        assert!(!life.is_open());
        life.loaded(&key("b"), None, now);
        assert_eq!(life.poll(0, now), Step::Closed);
        assert_eq!(life.want(&key("b"), Trigger::Now, now), Wanted::Disposed);
    }

    #[test]
    fn c043_what_each_failure_means_for_the_next_question() {
        let plain = |kind| Error::new(kind, "x");
        let asked_for = Some(Duration::from_secs(9));
        let pause = |secs| Some(Duration::from_secs(secs));
        for (error, next) in [
            (plain(Kind::Unauthenticated), None),
            (plain(Kind::PermissionDenied), None),
            (plain(Kind::ClientOutdated), None),
            (plain(Kind::Rejected), pause(1)),
            (plain(Kind::Cancelled), pause(1)),
            (plain(Kind::ModelNotAvailable), pause(1)),
            (Error::network(NetworkFault::Cut, "x"), pause(1)),
            (Error::protocol("x"), pause(1)),
            (plain(Kind::RateLimited { retry_after: asked_for }), pause(9)),
            (plain(Kind::Overloaded { retry_after: asked_for }), pause(9)),
        ] {
            let (mut life, now) = life();
            life.want(&key("a"), Trigger::Now, now);
            let ticket = asked(&mut life, now);
            assert!(life.answered(ticket, Some(&error), now));
            let wait = next.map(|pause| now + pause);
            assert_eq!(life.poll(0, now), Step::Wait(wait), "{error}");
            let used = life.want(&key("a"), Trigger::Use, now);
            assert_eq!(used, wait.map_or(Wanted::Refused, Wanted::Paused), "{error}");
            // C041: later, or when a person signs in again, it is asked again.
            match wait {
                Some(at) => {
                    asked(&mut life, at);
                }
                None => {
                    life.want(&key("a"), Trigger::Now, now);
                    asked(&mut life, now);
                }
            }
        }
    }
}
