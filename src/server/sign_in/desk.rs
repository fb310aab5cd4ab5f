//! What is remembered of logins and tokens over the life of a server.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::auth::Pkce;
use crate::secret::Secret;
use crate::server::script::SignIn;
use crate::server::session::{RequestHead, carries};

/// The clock and the entropy of a server's tokens: the machine reads neither itself.
#[derive(Clone)]
pub struct Seed {
    /// An instant, and the Unix clock in milliseconds at that instant.
    pub clock: (Instant, u64),
    /// What tokens are made from; nobody else may know it.
    pub entropy: Secret<[u8; 32]>,
}

impl Seed {
    fn unix_ms(&self, now: Instant) -> u64 {
        let (then, at_ms) = self.clock;
        let since = now.saturating_duration_since(then).as_millis();
        at_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed").field("clock", &self.clock).finish_non_exhaustive()
    }
}

/// Logins that go on, and tokens that were given.
#[derive(Default)]
pub(in crate::server) struct Desk {
    logins: VecDeque<Login>,
    access: VecDeque<Grant>,
    refresh: VecDeque<Secret>,
    serial: u64,
}

struct Login {
    id: String,
    /// From the page, once it was opened.
    challenge: Option<String>,
    polls: u32,
}

struct Grant {
    token: Secret,
    ends_ms: u64,
    used: u32,
}

/// A pair of fresh tokens; no refresh token where the old one stays.
pub(super) struct Issued {
    pub(super) access: Secret,
    pub(super) refresh: Option<Secret>,
}

impl Desk {
    /// The page of a login was opened.
    pub(super) fn open(&mut self, id: &str, challenge: String, rules: &SignIn) {
        self.login(id, rules.remembered).challenge = Some(challenge);
    }

    /// Whether a login is confirmed; one whose page was opened needs the verifier of its challenge.
    pub(super) fn poll(&mut self, id: &str, verifier: &str, rules: &SignIn) -> bool {
        let login = self.login(id, rules.remembered);
        login.polls = login.polls.saturating_add(1);
        let confirmed = match &login.challenge {
            Some(challenge) => Pkce::challenge_of(verifier) == *challenge,
            None => !rules.page,
        };
        confirmed && login.polls > rules.pending
    }

    fn login(&mut self, id: &str, most: usize) -> &mut Login {
        let at = self.logins.iter().position(|login| login.id == id).unwrap_or_else(|| {
            let login = Login { id: id.to_owned(), challenge: None, polls: 0 };
            remember(&mut self.logins, login, most);
            self.logins.len() - 1
        });
        &mut self.logins[at]
    }

    /// A pair of tokens that nobody had before.
    pub(super) fn issue(&mut self, seed: &Seed, rules: &SignIn, now: Instant) -> Issued {
        let refresh = self.fresh(seed, "refresh");
        remember(&mut self.refresh, refresh.clone(), rules.remembered);
        Issued { access: self.access(seed, rules, now), refresh: Some(refresh) }
    }

    /// Tokens for the refresh token that the request carries; `None`: it is not good.
    pub(super) fn refresh(
        &mut self,
        head: &RequestHead,
        seed: &Seed,
        rules: &SignIn,
        now: Instant,
    ) -> Option<Issued> {
        // All are looked at, so that the time taken does not tell which one was close.
        let found = self.refresh.iter().map(|token| carries(head, token));
        let at = found.enumerate().fold(None, |at, (n, same)| if same { Some(n) } else { at })?;
        if !rules.rotate {
            return Some(Issued { access: self.access(seed, rules, now), refresh: None });
        }
        self.refresh.remove(at);
        Some(self.issue(seed, rules, now))
    }

    /// Whether the request carries an access token of ours that is still good; that is a use of it.
    pub(in crate::server) fn admits(
        &mut self,
        head: &RequestHead,
        seed: &Seed,
        rules: &SignIn,
        now: Instant,
    ) -> bool {
        let now_ms = seed.unix_ms(now);
        let mut good = false;
        for grant in &mut self.access {
            if carries(head, &grant.token) {
                good = now_ms < grant.ends_ms && rules.uses.is_none_or(|uses| grant.used < uses);
                grant.used = grant.used.saturating_add(1);
            }
        }
        good
    }

    /// A JSON web token, signed with what only this server knows.
    fn access(&mut self, seed: &Seed, rules: &SignIn, now: Instant) -> Secret {
        let issued_s = seed.unix_ms(now) / 1_000;
        let ends_s = issued_s.saturating_add(rules.lifetime_s);
        let signature = self.fresh(seed, "access");
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({"alg": "none", "typ": "JWT"}));
        let claims = part(json!({"sub": rules.subject, "iat": issued_s, "exp": ends_s}));
        let token = Secret::new(format!("{head}.{claims}.{}", signature.expose()));
        let ends_ms = ends_s.saturating_mul(1_000);
        let grant = Grant { token: token.clone(), ends_ms, used: 0 };
        remember(&mut self.access, grant, rules.remembered);
        token
    }

    /// 256 bits that follow from the entropy and were never given before.
    fn fresh(&mut self, seed: &Seed, kind: &str) -> Secret {
        self.serial += 1;
        let mut hash = Sha256::new();
        hash.update(seed.entropy.expose());
        hash.update(kind.as_bytes());
        hash.update(self.serial.to_be_bytes());
        Secret::new(URL_SAFE_NO_PAD.encode(hash.finalize()))
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("logins", &self.logins.len()).finish_non_exhaustive()
    }
}

/// Puts `item` at the end; of `most` (one at least) the oldest is forgotten.
fn remember<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    while list.len() >= most.max(1) {
        list.pop_front();
    }
    list.push_back(item);
}
