//! Whether and when a failed attempt is tried again (PROTOCOL 3, "Retry").

use std::time::Duration;

use crate::error::{Error, Kind, NetworkFault};

/// First delay. 1 s (PROTOCOL 3).
const FIRST_DELAY_MS: u64 = 1_000;
/// Longest delay before jitter. 60 s (PROTOCOL 3); also the longest `retry-after` that is obeyed:
/// a service that asks for more is not worth waiting for.
const MAX_DELAY_MS: u64 = 60_000;
/// Jitter on top of the delay, in thousandths of it at most. 20 % (PROTOCOL 3).
const JITTER: u64 = 200;

/// The attempts of one run: a budget, and the rule that spends it.
///
/// Only what provably had no effect is tried again here: an attempt that handed out text, thinking
/// or a tool call is over. Errors that the service stated in the end-stream are never retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    left: u32,
    tried: u32,
}

impl Retry {
    /// A budget of attempts after the first.
    pub fn new(retries: u32) -> Self {
        Self { left: retries, tried: 0 }
    }

    /// How often it was tried again so far.
    pub fn tried(&self) -> u32 {
        self.tried
    }

    /// How long to wait before the next attempt; `None`: the error stands.
    ///
    /// `handed_out`: the attempt gave text, thinking or tool calls to its caller. `random` is any
    /// number; it decides the jitter.
    pub fn after(&mut self, error: &Error, handed_out: bool, random: u64) -> Option<Duration> {
        if self.left == 0 || handed_out || !is_worth_it(error) {
            return None;
        }
        let asked = match error.kind() {
            Kind::RateLimited { retry_after } | Kind::Overloaded { retry_after } => *retry_after,
            _ => None,
        };
        if asked.is_some_and(|asked| asked > Duration::from_millis(MAX_DELAY_MS)) {
            return None;
        }
        let delay = FIRST_DELAY_MS.saturating_mul(1 << self.tried.min(16)).min(MAX_DELAY_MS);
        let jittered = delay + delay * (random % (JITTER + 1)) / 1_000;
        self.left -= 1;
        self.tried += 1;
        Some(Duration::from_millis(jittered).max(asked.unwrap_or_default()))
    }
}

/// Failures of the way, streams that ended too early, and refusals over HTTP before the first
/// message. A stated error has no HTTP status: it came in the end-stream.
fn is_worth_it(error: &Error) -> bool {
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

    fn cut() -> Error {
        Error::network(NetworkFault::Cut, "cut")
    }

    #[test]
    fn delays_double_to_a_minute_with_up_to_a_fifth_on_top() {
        let mut retry = Retry::new(8);
        let delays: Vec<_> = (0..9).map(|_| retry.after(&cut(), false, 0)).collect();
        let secs = |s| Some(Duration::from_secs(s));
        assert_eq!(
            delays,
            [secs(1), secs(2), secs(4), secs(8), secs(16), secs(32), secs(60), secs(60), None]
        );
        assert_eq!(retry.tried(), 8);
        assert_eq!(Retry::new(1).after(&cut(), false, 200), Some(Duration::from_millis(1_200)));
        assert_eq!(Retry::new(1).after(&cut(), false, 201), secs(1));
    }

    #[test]
    fn what_had_an_effect_or_was_stated_stands() {
        let overloaded = || Error::new(Kind::Overloaded { retry_after: None }, "busy");
        let refused = |status| overloaded().with_http_status(status);
        let cases = [
            (cut(), false, true),
            (cut(), true, false),
            (Error::network(NetworkFault::Alpn, "http/1.1"), false, false),
            (Error::new(Kind::Interrupted, "ended early"), false, true),
            (overloaded(), false, false),
            (refused(503), false, true),
            (refused(500), false, false),
            (Error::new(Kind::Cancelled, "cancelled"), false, false),
            (Error::new(Kind::DeadlineExceeded, "too long"), false, false),
        ];
        for (error, handed_out, again) in cases {
            let delay = Retry::new(1).after(&error, handed_out, 0);
            assert_eq!(delay.is_some(), again, "{error}");
        }
    }

    #[test]
    fn a_wish_of_the_service_is_obeyed_up_to_a_minute() {
        let asked = |secs| {
            let retry_after = Some(Duration::from_secs(secs));
            Error::new(Kind::RateLimited { retry_after }, "slow down").with_http_status(429)
        };
        assert_eq!(Retry::new(1).after(&asked(7), false, 0), Some(Duration::from_secs(7)));
        assert_eq!(Retry::new(1).after(&asked(61), false, 0), None);
    }
}
