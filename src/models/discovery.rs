//! When to ask the service for its models: one question at a time for each account, with pauses after
//! failures, again when the answer grows old (BEHAVIOUR 10; 13, H34, H35).
//!
//! A pure machine: the driver asks [`Discovery::poll`] what to do until it says to wait, and reports
//! with [`Discovery::finished`]. A failed question is nobody's error: what was known stays in use.

use std::time::{Duration, Instant};

use super::cache::CacheKey;

/// When to ask, and how long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscoveryOptions {
    /// How long an answer counts. Default one day, as in the cache.
    pub fresh_for: Duration,
    /// How long one question may take. Default 60 s, the limit of a unary call (BEHAVIOUR 1.6).
    pub deadline: Duration,
    /// The pause after the first failure; it doubles with each. Default 1 s.
    pub first_pause: Duration,
    /// The longest pause. Default 5 minutes: a day offline costs 288 questions.
    pub longest_pause: Duration,
    /// Accounts remembered; of more, the one idle the longest is forgotten. Default 16.
    pub accounts: usize,
}

impl Default for DiscoveryOptions {
    fn default() -> Self {
        Self {
            fresh_for: Duration::from_secs(24 * 60 * 60),
            deadline: Duration::from_secs(60),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
            accounts: 16,
        }
    }
}

/// Why somebody wants the models of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A session, or a first run: what is known will do, a pause is kept.
    Use,
    /// New credentials, or a person asked: the service is asked now, pause or not.
    Now,
}

/// One question to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What is to be had for a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What is known is fresh.
    Fresh,
    /// A question is due or under way; [`Discovery::poll`] gives it out.
    Asking,
    /// The last question failed; the next one is at this time, and until then what is known counts.
    Paused(Instant),
    /// The last question was refused; only [`Trigger::Now`] asks again.
    Refused,
    /// It is over.
    Disposed,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask the service for this account's models.
    Ask(CacheKey, Ticket),
    /// Give this question up; what it brings is not wanted any more.
    Abort(Ticket),
    /// Nothing until then, or until somebody wants something.
    Wait(Option<Instant>),
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is a list. Whether it could be saved does not matter (BEHAVIOUR 13, H34).
    Listed,
    /// It failed in a way that may pass; no sooner than the time that the service asked for.
    Failed(Option<Duration>),
    /// The service refused these credentials.
    Refused,
}

/// The schedule of all accounts.
#[derive(Debug)]
pub struct Discovery {
    options: DiscoveryOptions,
    accounts: Vec<Account>,
    aborts: Vec<Ticket>,
    tickets: u64,
    disposed: bool,
}

#[derive(Debug)]
struct Account {
    key: CacheKey,
    state: State,
    failures: u32,
    wanted_at: Instant,
}

/// ```text
///            Ask                 listed
///   Due ───────────► Asking ───────────────► Fresh(until) ── until ──► Due
///    ▲                  │ failed, deadline
///    └── at ── Paused ◄─┤
///                       └─► Refused (until new credentials)
/// ```
#[derive(Debug, Clone, Copy)]
enum State {
    Due,
    Asking(Ticket, Instant),
    Fresh(Instant),
    Paused(Instant),
    Refused,
}

impl Discovery {
    /// A schedule without accounts.
    pub fn new(options: DiscoveryOptions) -> Self {
        Self { options, accounts: Vec::new(), aborts: Vec::new(), tickets: 0, disposed: false }
    }

    /// Somebody wants the models of an account.
    pub fn want(&mut self, key: &CacheKey, trigger: Trigger, now: Instant) -> Wanted {
        if self.disposed {
            return Wanted::Disposed;
        }
        let account = self.account(key, now);
        account.wanted_at = now;
        if trigger == Trigger::Now && !matches!(account.state, State::Asking(..)) {
            account.state = State::Due;
        }
        match account.state {
            State::Due | State::Asking(..) => Wanted::Asking,
            State::Fresh(until) | State::Paused(until) if until <= now => {
                account.state = State::Due;
                Wanted::Asking
            }
            State::Fresh(_) => Wanted::Fresh,
            State::Paused(until) => Wanted::Paused(until),
            State::Refused => Wanted::Refused,
        }
    }

    /// The cache had a catalog of this account, fetched `age` ago; none for one that is stale.
    pub fn loaded(&mut self, key: &CacheKey, age: Option<Duration>, now: Instant) {
        let left = age.and_then(|age| self.options.fresh_for.checked_sub(age));
        let account = self.account(key, now);
        if let (State::Due, Some(left)) = (account.state, left) {
            account.state = State::Fresh(now + left);
        }
    }

    /// What to do now. Ask again until it says to wait.
    pub fn poll(&mut self, now: Instant) -> Step {
        self.expire(now);
        if let Some(ticket) = self.aborts.pop() {
            return Step::Abort(ticket);
        }
        let due = self.accounts.iter_mut().find(|account| match account.state {
            State::Due => true,
            State::Fresh(at) | State::Paused(at) => at <= now,
            State::Asking(..) | State::Refused => false,
        });
        if let (Some(account), false) = (due, self.disposed) {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            account.state = State::Asking(ticket, now + self.options.deadline);
            return Step::Ask(account.key.clone(), ticket);
        }
        Step::Wait(self.accounts.iter().filter_map(|account| account.state.time()).min())
    }

    /// A question ended. Whether its answer is wanted: not after it was given up.
    pub fn finished(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> bool {
        // One that the driver was not told to give up yet is over all the same.
        self.aborts.retain(|other| *other != ticket);
        let options = self.options;
        let asked = |account: &&mut Account| account.state.ticket() == Some(ticket);
        let Some(account) = self.accounts.iter_mut().find(asked) else { return false };
        match outcome {
            Outcome::Listed => {
                account.failures = 0;
                account.state = State::Fresh(now + options.fresh_for);
            }
            Outcome::Failed(asked_for) => account.fail(asked_for, now, &options),
            Outcome::Refused => account.state = State::Refused,
        }
        true
    }

    /// The account signed out: its question is given up, nothing more is asked for it.
    pub fn forget(&mut self, key: &CacheKey) {
        if let Some(place) = self.accounts.iter().position(|account| account.key == *key) {
            let account = self.accounts.swap_remove(place);
            self.aborts.extend(account.state.ticket());
        }
    }

    /// Gives everything up. Who wants to wait for the questions under way waits before calling this:
    /// while [`Discovery::is_asking`], for a second (BEHAVIOUR 10).
    pub fn dispose(&mut self) {
        self.disposed = true;
        self.aborts.extend(self.accounts.drain(..).filter_map(|account| account.state.ticket()));
    }

    /// Whether this question is under way: not answered, not given up.
    pub fn is_open(&self, ticket: Ticket) -> bool {
        self.accounts.iter().any(|account| account.state.ticket() == Some(ticket))
    }

    /// Whether a question is under way.
    pub fn is_asking(&self) -> bool {
        self.accounts.iter().any(|account| account.state.ticket().is_some())
    }

    /// Questions that took too long are given up.
    fn expire(&mut self, now: Instant) {
        for account in &mut self.accounts {
            if let State::Asking(ticket, deadline) = account.state
                && deadline <= now
            {
                self.aborts.push(ticket);
                account.fail(None, now, &self.options);
            }
        }
    }

    fn account(&mut self, key: &CacheKey, now: Instant) -> &mut Account {
        let place = self.accounts.iter().position(|account| account.key == *key);
        let place = place.unwrap_or_else(|| {
            if self.accounts.len() >= self.options.accounts.max(1) {
                self.make_room();
            }
            let new = Account { key: key.clone(), state: State::Due, failures: 0, wanted_at: now };
            self.accounts.push(new);
            self.accounts.len() - 1
        });
        &mut self.accounts[place]
    }

    /// Forgets the account that nobody wanted for the longest time.
    fn make_room(&mut self) {
        let accounts = self.accounts.iter();
        let oldest = accounts.min_by_key(|account| account.wanted_at).map(|a| a.key.clone());
        if let Some(key) = oldest {
            self.forget(&key);
        }
    }
}

impl Account {
    fn fail(&mut self, asked_for: Option<Duration>, now: Instant, options: &DiscoveryOptions) {
        let doubled = options.first_pause.saturating_mul(1 << self.failures.min(20));
        let pause = doubled.max(asked_for.unwrap_or_default()).min(options.longest_pause);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Paused(now + pause);
    }
}

impl State {
    fn ticket(self) -> Option<Ticket> {
        if let Self::Asking(ticket, _) = self { Some(ticket) } else { None }
    }

    /// When something is to be done about it.
    fn time(self) -> Option<Instant> {
        match self {
            Self::Asking(_, at) | Self::Fresh(at) | Self::Paused(at) => Some(at),
            Self::Due | Self::Refused => None,
        }
    }
}
