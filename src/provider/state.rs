//! What the driver, the accounts and the runs of a provider share.
#![allow(clippy::disallowed_methods, reason = "a driver: it looks at the clock")]

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::ProviderOptions;
use super::life::{Life, Step};
use super::sessions::{Lease, Sessions};
use crate::error::{Error, Kind, Result};
use crate::models::{
    CacheKey, CacheNote, Catalog, Loaded, Policy, Roster, Ticket, Trigger, Wanted, load_cache,
    remove_cache,
};
use crate::transport::{Client, RunHandle};

/// Whoever waits for the models of an account.
pub(super) type Waiter = oneshot::Sender<Result<()>>;

pub(super) struct Shared {
    pub(super) options: ProviderOptions,
    state: Mutex<State>,
    /// Something changed that the driver has to look at.
    pub(super) wake: Notify,
    /// A conversation came back.
    pub(super) returned: Notify,
    closed: watch::Sender<bool>,
}

pub(super) struct State {
    pub(super) life: Life,
    pub(super) sessions: Sessions,
    pub(super) accounts: HashMap<CacheKey, Entry>,
    /// Runs that are under way; without a handle those that are being started.
    pub(super) runs: HashMap<Lease, Option<RunHandle>>,
}

/// One account.
pub(super) struct Entry {
    pub(super) client: Client,
    pub(super) roster: watch::Sender<Arc<Roster>>,
    /// What is to be said about the list that was kept.
    pub(super) note: Option<CacheNote>,
    waiters: Vec<Waiter>,
}

/// The Unix clock in milliseconds; 0 before 1970.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Shared {
    pub(super) fn new(options: ProviderOptions) -> Self {
        let state = State {
            life: Life::new(options.discovery, options.grace),
            sessions: Sessions::new(options.shelf, options.budget.clone()),
            accounts: HashMap::new(),
            runs: HashMap::new(),
        };
        Self {
            options,
            state: Mutex::new(state),
            wake: Notify::new(),
            returned: Notify::new(),
            closed: watch::Sender::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics while it holds the lock; were it so, what it left is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sign_in(&self, name: &str, client: Client) -> CacheKey {
        let key = CacheKey::new(name, &client.endpoint().to_string());
        let known = self.lock().accounts.contains_key(&key);
        let loaded = if known { Loaded::default() } else { self.load(&key) };
        let mut state = self.lock();
        if let Some(entry) = state.accounts.get_mut(&key) {
            entry.client = client;
            state.life.want(&key, Trigger::Now, now());
        } else if state.life.is_open() {
            let age = loaded.catalog.as_ref().filter(|catalog| !catalog.stale).map(|catalog| {
                Duration::from_millis(unix_ms().saturating_sub(catalog.fetched_at_ms))
            });
            let catalog =
                loaded.catalog.unwrap_or_else(|| Catalog::estimated(Policy::Current, unix_ms()));
            let roster = watch::Sender::new(Arc::new(Roster::new(catalog, Policy::Current)));
            let entry = Entry { client, roster, note: loaded.note, waiters: Vec::new() };
            state.accounts.insert(key.clone(), entry);
            state.life.loaded(&key, age, now());
            state.life.want(&key, Trigger::Use, now());
        }
        drop(state);
        self.wake.notify_one();
        key
    }

    fn load(&self, key: &CacheKey) -> Loaded {
        let Some(dir) = &self.options.cache_dir else { return Loaded::default() };
        let loaded = load_cache(dir, key, unix_ms(), &self.options.cache);
        if let Some(note) = loaded.note {
            tracing::info!(%note, "the kept list of models");
        }
        loaded
    }

    pub(super) fn sign_out(&self, key: &CacheKey) -> io::Result<()> {
        let mut state = self.lock();
        state.life.forget(key);
        // Whoever waits for its models learns of it by the sender that is gone.
        state.accounts.remove(key);
        drop(state);
        self.wake.notify_one();
        self.options.cache_dir.as_ref().map_or(Ok(()), |dir| remove_cache(dir, key))
    }

    pub(super) fn end_session(&self, session: &str) {
        let mut state = self.lock();
        if let Some(lease) = state.sessions.end(session)
            && let Some(Some(run)) = state.runs.get(&lease)
        {
            run.cancel();
        }
        drop(state);
        self.returned.notify_waiters();
    }

    pub(super) fn dispose(&self) {
        let mut state = self.lock();
        if state.life.is_open() {
            state.life.dispose(now());
            state.sessions.clear();
            state.runs.values().flatten().for_each(RunHandle::cancel);
        }
        drop(state);
        self.wake.notify_one();
        self.returned.notify_waiters();
    }

    /// It is over: accounts go, and with them their connections.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.accounts.clear();
        state.runs.clear();
        drop(state);
        self.closed.send_replace(true);
    }

    pub(super) async fn closed(&self) {
        // The sender is in here, so it cannot be gone.
        let mut closed = self.closed.subscribe();
        let _closed = closed.wait_for(|closed| *closed).await;
    }

    /// Wants the models of an account; the receiver is there when a question is due or under way.
    pub(super) fn want(
        &self,
        key: &CacheKey,
        trigger: Trigger,
    ) -> (Wanted, Option<oneshot::Receiver<Result<()>>>) {
        let mut state = self.lock();
        if !state.accounts.contains_key(key) {
            return (Wanted::Disposed, None);
        }
        let wanted = state.life.want(key, trigger, now());
        let waiting = state.accounts.get_mut(key).filter(|_| wanted == Wanted::Asking);
        let receiver = waiting.map(|entry| {
            let (waiter, receiver) = oneshot::channel();
            entry.waiters.retain(|waiter| !waiter.is_closed());
            entry.waiters.push(waiter);
            receiver
        });
        drop(state);
        self.wake.notify_one();
        (wanted, receiver)
    }
}

impl State {
    /// What the driver is to do now.
    pub(super) fn poll(&mut self) -> Step {
        self.life.poll(self.runs.len(), now())
    }

    /// A question was answered. Whoever waited for it is told.
    pub(super) fn answered(&mut self, key: &CacheKey, ticket: Ticket, result: &Result<()>) {
        if self.life.answered(ticket, result.as_ref().err(), now()) {
            self.tell(key, result);
        }
    }

    /// A question took too long. At the end of all, those who wait see that their sender is gone.
    pub(super) fn given_up(&mut self, key: &CacheKey) {
        if !self.life.is_open() {
            return;
        }
        let late =
            Error::new(Kind::DeadlineExceeded, "the service did not list its models in time");
        self.tell(key, &Err(late));
    }

    fn tell(&mut self, key: &CacheKey, result: &Result<()>) {
        let Some(entry) = self.accounts.get_mut(key) else { return };
        for waiter in entry.waiters.drain(..) {
            // One that is gone needs no answer.
            let _gone = waiter.send(result.clone());
        }
    }
}
