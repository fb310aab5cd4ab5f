//! A pair of tokens, and for how long the access token is good.

use super::claims::Claims;
use crate::secret::Secret;

/// How long before its end a token is no longer used: 300 000 ms (BEHAVIOUR 1.1). No option: it is
/// the reference's, and a life too short for it is halved instead.
pub const SKEW_MS: u64 = 300_000;

/// The life of a token that does not say when it ends: 3 600 000 ms (BEHAVIOUR 1.1). No option: it is
/// a guess, and the service's word (401) corrects it.
pub const LIFE_MS: u64 = 3_600_000;

/// Unix milliseconds at which the reference stops using `access`: its `exp` less [`SKEW_MS`], else
/// [`LIFE_MS`] from now. Negative where the token says so.
///
/// [`Tokens::due_at_ms`] is what this library goes by.
pub fn expiry_ms(access: &str, now_ms: u64) -> i64 {
    match Claims::of(access).expires_s {
        // The cast saturates, which is what an absurd date deserves.
        Some(exp) => (exp * 1_000.0 - SKEW_MS as f64) as i64,
        None => i64::try_from(now_ms.saturating_add(LIFE_MS)).unwrap_or(i64::MAX),
    }
}

/// What a sign-in gave: an access token for the calls and a refresh token for the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tokens {
    /// Sent with each call.
    pub access: Secret,
    /// Sent for a new access token, and nowhere else.
    pub refresh: Secret,
    /// When they were received, in milliseconds of this machine's Unix clock.
    pub received_at_ms: u64,
}

impl Tokens {
    /// A pair that was received now.
    pub fn new(access: impl Into<Secret>, refresh: impl Into<Secret>, received_at_ms: u64) -> Self {
        Self { access: access.into(), refresh: refresh.into(), received_at_ms }
    }

    /// What the access token says about itself.
    pub fn claims(&self) -> Claims {
        Claims::of(self.access.expose())
    }

    /// When the access token ends, in milliseconds of the Unix clock, where it says so.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.claims().expires_s.map(|exp| (exp * 1_000.0) as u64)
    }

    /// From when on the access token is refreshed before it is used.
    ///
    /// [`SKEW_MS`] before its end, or halfway there for one that lives shorter than twice that, so
    /// that a short life is not refreshed on every call. A token that had already ended when it was
    /// received says that a clock is wrong, most likely this one: it is used for [`LIFE_MS`], as one
    /// that says nothing, and the service's word (401) decides.
    pub fn due_at_ms(&self) -> u64 {
        let received = self.received_at_ms;
        let life = self.expires_at_ms().and_then(|end| end.checked_sub(received));
        match life {
            Some(life) if life > 0 => received + life - SKEW_MS.min(life / 2),
            _ => received.saturating_add(LIFE_MS),
        }
    }

    /// Whether the access token has ended, as far as it says so.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        match self.expires_at_ms() {
            Some(end) if end > self.received_at_ms => end <= now_ms,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::claims::tests::jwt;
    use super::*;

    #[test]
    fn c007_a_token_that_says_nothing_lives_an_hour() {
        assert_eq!(expiry_ms("not-a-jwt", 10), 10 + 3_600_000);
        assert_eq!(expiry_ms(&jwt(r#"{"exp":0}"#), 10), 10 + 3_600_000);
        assert_eq!(Tokens::new("not-a-jwt", "r", 10).due_at_ms(), 10 + 3_600_000);
        assert_eq!(Tokens::new("not-a-jwt", "r", 10).expires_at_ms(), None);
    }

    #[test]
    fn an_exp_counts_less_the_skew() {
        assert_eq!(expiry_ms(&jwt(r#"{"exp":2000}"#), 10), 1_700_000);
        assert_eq!(expiry_ms(&jwt(r#"{"exp":-1}"#), 10), -301_000);
        assert_eq!(expiry_ms(&jwt(r#"{"exp":0.5}"#), 10), -299_500);
        assert_eq!(expiry_ms(&jwt(r#"{"exp":1e300}"#), 10), i64::MAX);
    }

    #[test]
    fn a_short_life_is_used_up_to_its_middle_and_a_wrong_clock_is_forgiven() {
        let due = |exp: f64, received| {
            let tokens = Tokens::new(jwt(&format!(r#"{{"exp":{exp}}}"#)), "r", received);
            (tokens.due_at_ms(), tokens.is_expired(received + 120_000))
        };
        assert_eq!(due(3_000.0, 1_000), (2_700_000, false));
        assert_eq!(due(60.0, 0), (30_000, true));
        assert_eq!(due(5.0, 10_000), (10_000 + LIFE_MS, false));
        assert_eq!(due(-5.0, 10_000), (10_000 + LIFE_MS, false));
        assert_eq!(due(1e300, 10_000).0, u64::MAX - SKEW_MS);
    }
}
