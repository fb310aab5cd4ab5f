//! When an access token is used, and when it is refreshed first.

use super::tokens::Tokens;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// How long a refresh ahead of time that failed is not tried again while the old token is good:
/// 30 000 ms, a tenth of the time it is ahead. No option: nobody waits for it, it only spaces calls
/// that fail.
pub const RETRY_AFTER_MS: u64 = 30_000;

/// What a call that needs a token has to do.
#[derive(Debug, Clone)]
pub enum Want {
    /// Use this one.
    Use(Secret),
    /// Refresh, or wait for the refresh that is under way; then [`Keeper::after`].
    Refresh,
    /// There is no token any more: a person has to sign in.
    Fail(Error),
}

/// The tokens of an account and the rules for them; it does no I/O and reads no clock (`now_ms` is
/// the Unix clock in milliseconds).
///
/// - A token is refreshed from [`Tokens::due_at_ms`] on. When that fails and the token has not ended,
///   it is used, and the next attempt comes [`RETRY_AFTER_MS`] later.
/// - A token that the service refused is refreshed, unless another took its place meanwhile.
/// - When the service refuses the refresh token, every later call gets that error at once.
#[derive(Debug)]
pub struct Keeper {
    tokens: Tokens,
    ended: Option<Error>,
    not_before_ms: u64,
}

impl Keeper {
    /// Keeps `tokens`.
    pub fn new(tokens: Tokens) -> Self {
        Self { tokens, ended: None, not_before_ms: 0 }
    }

    /// The tokens as they are now.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What a call has to do; `refused` is the token that the service did not take, if that is why it
    /// asks.
    pub fn want(&self, refused: Option<&Secret>, now_ms: u64) -> Want {
        if let Some(error) = &self.ended {
            return Want::Fail(error.clone());
        }
        let usable = self.is_usable(refused, now_ms);
        let due = now_ms >= self.tokens.due_at_ms() && now_ms >= self.not_before_ms;
        if usable && !due { Want::Use(self.tokens.access.clone()) } else { Want::Refresh }
    }

    /// A refresh has ended.
    pub fn refreshed(&mut self, result: Result<Tokens>, now_ms: u64) {
        match result {
            Ok(tokens) => *self = Self::new(tokens),
            Err(error) if *error.kind() == Kind::Unauthenticated => self.ended = Some(error),
            Err(_) => self.not_before_ms = now_ms.saturating_add(RETRY_AFTER_MS),
        }
    }

    /// What a call gets that waited for a refresh, of which `result` is the end.
    ///
    /// # Errors
    /// The refresh failed and the token at hand cannot be used.
    pub fn after(
        &self,
        result: Result<()>,
        refused: Option<&Secret>,
        now_ms: u64,
    ) -> Result<Secret> {
        match result {
            Err(error) if self.ended.is_some() || !self.is_usable(refused, now_ms) => Err(error),
            _ => Ok(self.tokens.access.clone()),
        }
    }

    /// Whether the token at hand may still be sent.
    fn is_usable(&self, refused: Option<&Secret>, now_ms: u64) -> bool {
        refused != Some(&self.tokens.access) && !self.tokens.is_expired(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::super::claims::tests::jwt;
    use super::*;
    use crate::error::NetworkFault;

    const DAY_MS: u64 = 86_400_000;

    /// Received at 0, good for a day.
    fn keeper() -> Keeper {
        Keeper::new(Tokens::new(jwt(r#"{"exp":86400}"#), "r-1", 0))
    }

    fn uses(want: &Want) -> Option<&str> {
        match want {
            Want::Use(token) => Some(token.expose()),
            _ => None,
        }
    }

    #[test]
    fn a_token_is_used_until_it_is_due() {
        let keeper = keeper();
        let due = DAY_MS - super::super::SKEW_MS;
        assert_eq!(uses(&keeper.want(None, 0)), Some(keeper.tokens().access.expose().as_str()));
        assert!(uses(&keeper.want(None, due - 1)).is_some());
        assert!(matches!(keeper.want(None, due), Want::Refresh));
        assert!(matches!(keeper.want(None, u64::MAX), Want::Refresh));
    }

    #[test]
    fn a_refresh_that_fails_ahead_of_time_does_not_stop_a_good_token() {
        let mut keeper = keeper();
        let due = DAY_MS - super::super::SKEW_MS;
        let cut = || Error::network(NetworkFault::Cut, "cut");
        keeper.refreshed(Err(cut()), due);
        assert!(keeper.after(Err(cut()), None, due).is_ok());
        assert!(uses(&keeper.want(None, due + RETRY_AFTER_MS - 1)).is_some());
        assert!(matches!(keeper.want(None, due + RETRY_AFTER_MS), Want::Refresh));
        // From its end on there is no other way.
        keeper.refreshed(Err(cut()), DAY_MS);
        assert!(matches!(keeper.want(None, DAY_MS), Want::Refresh));
        assert!(keeper.after(Err(cut()), None, DAY_MS).is_err());
    }

    #[test]
    fn a_refused_token_is_refreshed_unless_it_was_replaced() {
        let mut keeper = keeper();
        let first = keeper.tokens().access.clone();
        assert!(matches!(keeper.want(Some(&first), 5), Want::Refresh));
        assert!(keeper.after(Err(Error::protocol("x")), Some(&first), 5).is_err());
        keeper.refreshed(Ok(Tokens::new("second", "r-2", 5)), 5);
        assert_eq!(uses(&keeper.want(Some(&first), 6)), Some("second"));
        assert_eq!(keeper.after(Ok(()), Some(&first), 6).unwrap().expose(), "second");
    }

    /// The clock is read again for each call: a jump costs a refresh at most, and never a token that
    /// the service takes.
    #[test]
    fn m68_a_clock_that_jumps_costs_a_refresh_at_most() {
        const HOUR_MS: u64 = 3_600_000;
        let start = 20 * 365 * DAY_MS;
        let exp = (start + DAY_MS) / 1_000;
        let tokens = || Tokens::new(jwt(&format!(r#"{{"exp":{exp}}}"#)), "r-1", start);
        let ten_years = 10 * 365 * DAY_MS;
        // Back by any time: it has not ended, so it is used.
        for now in [start - HOUR_MS, start - ten_years, 0] {
            assert!(uses(&Keeper::new(tokens()).want(None, now)).is_some(), "{now}");
        }
        // Forward within its life it is used, beyond it there is a refresh, and no other answer.
        assert!(uses(&Keeper::new(tokens()).want(None, start + HOUR_MS)).is_some());
        let mut keeper = Keeper::new(tokens());
        assert!(matches!(keeper.want(None, start + ten_years), Want::Refresh));
        // The refresh fails there, and the clock comes back: the token is as good as before.
        let cut = Error::network(NetworkFault::Cut, "cut");
        keeper.refreshed(Err(cut), start + ten_years);
        assert!(uses(&keeper.want(None, start + HOUR_MS)).is_some());
        assert!(matches!(keeper.want(None, start + DAY_MS), Want::Refresh));
        // It works there, and the new token, which ends before it was received, is used and not
        // refreshed on every call; when the service takes it no longer, that counts.
        keeper.refreshed(
            Ok(Tokens::new(jwt(&format!(r#"{{"exp":{exp},"n":2}}"#)), "r-2", start + ten_years)),
            start + ten_years,
        );
        for now in [start + ten_years, start + HOUR_MS] {
            let second = keeper.tokens().access.clone();
            assert_eq!(uses(&keeper.want(None, now)), Some(second.expose().as_str()));
            assert!(matches!(keeper.want(Some(&second), now), Want::Refresh));
        }
    }

    #[test]
    fn a_sign_in_that_has_ended_stays_ended() {
        let mut keeper = keeper();
        keeper.refreshed(Err(Error::new(Kind::Unauthenticated, "over")), 5);
        let Want::Fail(error) = keeper.want(None, 6) else { panic!() };
        assert_eq!(error.message(), "over");
        assert!(keeper.after(Err(error), None, 6).is_err());
    }
}
