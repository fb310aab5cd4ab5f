//! Whether and when a failed attempt is tried again (PROTOCOL 3, "Retry").

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::error::{Error, Kind, NetworkFault};

/// Jitter on top of the delay, in thousandths of it at most. 20 % (PROTOCOL 3). No option: it only
/// keeps clients apart that failed together.
const JITTER: u64 = 200;

/// How often a run is tried again, and what makes that safe.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// Attempts after the first when the way to the service fails. 10 (PROTOCOL 3). With 0 there
    /// is one attempt and its outcome stands (FAULTS); a turn that waited too long for its tools
    /// still goes on.
    pub retries: u32,
    /// The pause before the first of them; each further one is twice as long, up to
    /// [`RetryOptions::longest_delay`], and up to a fifth longer by chance. 1 s (PROTOCOL 3).
    pub first_delay: Duration,
    /// The longest pause, before chance is added; also the longest that the service may ask for
    /// (`retry-after`): with a longer one the error stands. 60 s (PROTOCOL 3).
    pub longest_delay: Duration,
    /// How long nothing at all may come, heartbeats included, while there are retries. 30 s
    /// (PROTOCOL 3); a single attempt waits for [`Options::silence`](super::Options::silence).
    pub silence: Duration,
    /// Tools that only look: the turn may be made again although one of them ran. Every other tool
    /// is taken to change something.
    pub read_only_tools: BTreeSet<String>,
    /// Bytes of one turn's text, tool calls and answers that are kept, so that the turn can be
    /// rebuilt when the service has lost it, and what a resumed attempt says again be cut. 8 MiB:
    /// half of what one message of the wire may have, so that the rebuilt request still passes. A
    /// larger turn is resumed from its checkpoints only.
    pub turn_bytes: usize,
    /// Answers of the caller that are kept for the case that a call is asked again after a cut. 512:
    /// twice what a model was seen to ask for in a turn. The oldest give way.
    pub answers: usize,
    /// Bytes of these answers together. 16 MiB: one message of the wire.
    pub answer_bytes: usize,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            retries: 10,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            read_only_tools: BTreeSet::new(),
            turn_bytes: 8 << 20,
            answers: 512,
            answer_bytes: 16 << 20,
        }
    }
}

/// Retries that all runs of one client may make together. Clones are the same budget.
///
/// A retry takes one; a turn that completes gives one back. When the service is down for all,
/// their retries do not add up to a flood.
#[derive(Clone)]
pub struct RetryBudget {
    left: Arc<AtomicU32>,
    most: u32,
}

impl RetryBudget {
    /// A budget of so many retries.
    pub fn new(most: u32) -> Self {
        Self { left: Arc::new(AtomicU32::new(most)), most }
    }

    /// Retries that are left.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    pub(super) fn give_back(&self) {
        let one_more = |left: u32| (left < self.most).then_some(left + 1);
        // Full already: nothing to give back.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }
}

impl Default for RetryBudget {
    /// 100: ten runs may use all of theirs, and a thousand that fail at once soon stop asking.
    fn default() -> Self {
        Self::new(100)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RetryBudget({} of {})", self.left(), self.most)
    }
}

/// The retries of one run, and the delay before each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Retry {
    left: u32,
    tried: u32,
    first_delay_ms: u64,
    longest_delay_ms: u64,
}

impl Retry {
    /// So many attempts after the first.
    pub(super) fn new(options: &RetryOptions) -> Self {
        // Thirty years are for ever, and jitter can still be added.
        let ms = |delay: Duration| delay.as_millis().min(1 << 40) as u64;
        let longest_delay_ms = ms(options.longest_delay);
        let first_delay_ms = ms(options.first_delay).min(longest_delay_ms);
        Self { left: options.retries, tried: 0, first_delay_ms, longest_delay_ms }
    }

    /// How often it was tried again so far.
    pub(super) fn tried(&self) -> u32 {
        self.tried
    }

    /// How long to wait before the next attempt; `None`: the error stands. `random` is any number;
    /// it decides the jitter.
    pub(super) fn after(&mut self, error: &Error, random: u64) -> Option<Duration> {
        if self.left == 0 || !is_worth_it(error) {
            return None;
        }
        let asked = match error.kind() {
            Kind::RateLimited { retry_after } | Kind::Overloaded { retry_after } => *retry_after,
            _ => None,
        };
        if asked.is_some_and(|asked| asked > Duration::from_millis(self.longest_delay_ms)) {
            return None;
        }
        let doubled = self.first_delay_ms.saturating_mul(1 << self.tried.min(16));
        let delay = doubled.min(self.longest_delay_ms);
        let jittered = delay + delay * (random % (JITTER + 1)) / 1_000;
        self.left -= 1;
        self.tried += 1;
        Some(Duration::from_millis(jittered).max(asked.unwrap_or_default()))
    }
}

/// Failures of the way, streams that ended too early, and refusals over HTTP before the first
/// message. A stated error has no HTTP status: it came in the end-stream.
pub(super) fn is_worth_it(error: &Error) -> bool {
    match error.kind() {
        // Something between here and the service speaks another protocol: it will go on to.
        Kind::Network(NetworkFault::Alpn) => false,
        Kind::Network(_) | Kind::Interrupted => true,
        _ => matches!(error.http_status(), Some(429 | 502..=504)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(retries: u32) -> Retry {
        Retry::new(&RetryOptions { retries, ..RetryOptions::default() })
    }

    fn cut() -> Error {
        Error::network(NetworkFault::Cut, "cut")
    }

    #[test]
    fn the_longest_delay_can_be_set() {
        let longest_delay = Duration::from_secs(3);
        let mut retry = Retry::new(&RetryOptions { longest_delay, ..RetryOptions::default() });
        let delays: Vec<_> = (0..3).map(|_| retry.after(&cut(), 0).unwrap().as_secs()).collect();
        assert_eq!(delays, [1, 2, 3]);
        let mut asked = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            retry.after(
                &Error::new(Kind::Overloaded { retry_after }, "busy").with_http_status(503),
                0,
            )
        };
        assert_eq!((asked(3), asked(4)), (Some(longest_delay), None));
    }

    #[test]
    fn delays_double_to_a_minute_with_up_to_a_fifth_on_top() {
        let mut retry = retries(8);
        let delays: Vec<_> = (0..9).map(|_| retry.after(&cut(), 0)).collect();
        let secs = |s| Some(Duration::from_secs(s));
        assert_eq!(
            delays,
            [secs(1), secs(2), secs(4), secs(8), secs(16), secs(32), secs(60), secs(60), None]
        );
        assert_eq!(retry.tried(), 8);
        assert_eq!(retries(1).after(&cut(), 200), Some(Duration::from_millis(1_200)));
        assert_eq!(retries(1).after(&cut(), 201), secs(1));
        let first_delay = Duration::from_millis(3);
        let mut quick = Retry::new(&RetryOptions { first_delay, ..RetryOptions::default() });
        let delays: Vec<_> = (0..3).filter_map(|_| quick.after(&cut(), 0)).collect();
        assert_eq!(delays, [3, 6, 12].map(Duration::from_millis));
        let first_delay = Duration::MAX;
        let mut slow = Retry::new(&RetryOptions { first_delay, ..RetryOptions::default() });
        assert_eq!(slow.after(&cut(), 0), secs(60));
    }

    #[test]
    fn what_was_stated_stands() {
        let overloaded = || Error::new(Kind::Overloaded { retry_after: None }, "busy");
        let refused = |status| overloaded().with_http_status(status);
        let cases = [
            (cut(), true),
            (Error::network(NetworkFault::Alpn, "http/1.1"), false),
            (Error::new(Kind::Interrupted, "ended early"), true),
            (overloaded(), false),
            (refused(503), true),
            (refused(500), false),
            (Error::new(Kind::Cancelled, "cancelled"), false),
            (Error::new(Kind::DeadlineExceeded, "too long"), false),
        ];
        for (error, again) in cases {
            let delay = retries(1).after(&error, 0);
            assert_eq!(delay.is_some(), again, "{error}");
        }
    }

    #[test]
    fn a_wish_of_the_service_is_obeyed_up_to_a_minute() {
        let asked = |secs| {
            let retry_after = Some(Duration::from_secs(secs));
            Error::new(Kind::RateLimited { retry_after }, "slow down").with_http_status(429)
        };
        assert_eq!(retries(1).after(&asked(7), 0), Some(Duration::from_secs(7)));
        assert_eq!(retries(1).after(&asked(61), 0), None);
    }

    #[test]
    fn a_budget_is_shared_and_never_more_than_full() {
        let budget = RetryBudget::new(2);
        let same = budget.clone();
        assert!(budget.take() && same.take());
        assert!(!budget.take() && !same.take());
        same.give_back();
        assert_eq!(budget.left(), 1);
        (0..5).for_each(|_| budget.give_back());
        assert_eq!(same.left(), 2);
    }
}
