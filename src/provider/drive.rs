//! The task behind a provider: it does what `life` says.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;

use super::life::Step;
use super::state::{Shared, unix_ms};
use crate::models::{CacheKey, Catalog, Policy, Roster, Ticket, remove_cache, save_cache};
use crate::transport::Client;

/// The running task; it ends with this value.
pub(super) struct Driver(JoinHandle<()>);

impl Driver {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        Self(tokio::spawn(drive(shared)))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn drive(shared: Arc<Shared>) {
    // Dropping the set ends the questions in it.
    let mut questions = JoinSet::new();
    let mut open: HashMap<Ticket, (CacheKey, AbortHandle)> = HashMap::new();
    let mut ends = JoinSet::new();
    loop {
        if ends.is_empty() {
            watch_runs(&shared, &mut ends);
        }
        let step = shared.lock().poll();
        match step {
            Step::Ask(key, ticket) => {
                let client = shared.lock().accounts.get(&key).map(|entry| entry.client.clone());
                // A key without an account was forgotten in the same breath.
                let Some(client) = client else { continue };
                let question = question(Arc::clone(&shared), key.clone(), ticket, client);
                open.insert(ticket, (key, questions.spawn(question)));
            }
            Step::Abort(ticket) => {
                if let Some((key, question)) = open.remove(&ticket) {
                    question.abort();
                    shared.lock().given_up(&key);
                }
            }
            Step::Wait(until) => {
                let until = until.map(Instant::from_std);
                tokio::select! {
                    () = shared.wake.notified() => {}
                    Some(_) = questions.join_next() => {
                        open.retain(|_, (_, question)| !question.is_finished());
                    }
                    Some(_) = ends.join_next() => {}
                    () = tokio::time::sleep_until(until.unwrap_or_else(Instant::now)),
                        if until.is_some() => {}
                }
            }
            Step::Closed => break,
        }
    }
    drop(questions);
    shared.close();
}

/// At the end of all: a run is over when its last word has left, whether or not anybody reads on.
fn watch_runs(shared: &Arc<Shared>, ends: &mut JoinSet<()>) {
    let state = shared.lock();
    if state.life.is_open() {
        return;
    }
    for (lease, run) in &state.runs {
        if let Some(run) = run.clone() {
            let (shared, lease) = (Arc::clone(shared), *lease);
            ends.spawn(async move {
                run.left().await;
                shared.lock().runs.remove(&lease);
            });
        }
    }
}

/// One question to the service, and what its answer changes.
async fn question(shared: Arc<Shared>, key: CacheKey, ticket: Ticket, client: Client) {
    let listing = client.usable_models().await;
    let result = match listing {
        Ok(listing) => {
            let (entries, limits) =
                (listing.entries.into_iter().map(Some), client.unary_limits().models);
            let (catalog, _) = Catalog::admit(entries, limits, unix_ms());
            publish(&shared, &key, ticket, catalog).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        tracing::debug!(%error, "no list of models");
    }
    shared.lock().answered(&key, ticket, &result);
}

/// Puts a list in the place of the older one, then keeps it.
async fn publish(shared: &Arc<Shared>, key: &CacheKey, ticket: Ticket, mut catalog: Catalog) {
    {
        let state = shared.lock();
        let Some(entry) = state.accounts.get(key).filter(|_| state.life.is_wanted(ticket)) else {
            return;
        };
        catalog.inherit(entry.roster.borrow().catalog());
        entry.roster.send_replace(Arc::new(Roster::new(catalog.clone(), Policy::Current)));
    }
    keep(shared, key, catalog).await;
}

/// A run told how large the context of a model is, which the service's list does not say.
pub(super) async fn observe(shared: &Arc<Shared>, key: &CacheKey, id: &str, tokens: u64) {
    let catalog = {
        let state = shared.lock();
        let Some(entry) = state.accounts.get(key) else { return };
        let mut catalog = entry.roster.borrow().catalog().clone();
        let known = catalog.get(id).and_then(|entry| entry.context_window);
        catalog.observe_window(id, u32::try_from(tokens).unwrap_or(u32::MAX));
        if catalog.get(id).and_then(|entry| entry.context_window) == known {
            return;
        }
        entry.roster.send_replace(Arc::new(Roster::new(catalog.clone(), Policy::Current)));
        catalog
    };
    keep(shared, key, catalog).await;
}

/// Keeps a list for the next start. A disk that fails costs nothing else: the list counts all the same
/// (BEHAVIOUR 13, H34).
async fn keep(shared: &Arc<Shared>, key: &CacheKey, catalog: Catalog) {
    let Some(dir) = shared.options.cache_dir.clone() else { return };
    let (key, shared) = (key.clone(), Arc::clone(shared));
    let saved = tokio::task::spawn_blocking(move || {
        let saved = save_cache(&dir, &key, &catalog);
        let state = shared.lock();
        // Signed out meanwhile: nothing of the account stays behind.
        if state.life.is_open() && !state.accounts.contains_key(&key) {
            return remove_cache(&dir, &key);
        }
        saved.map(drop)
    });
    match saved.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "the list of models could not be kept"),
        Err(_) => tracing::warn!("the list of models could not be kept"),
    }
}
