//! [`Provider`]: one value that owns what a host needs beside single runs: accounts, their models,
//! the conversations of sessions, and one way to end it all.
//!
//! The rules are two pure machines: `life` (when models are asked for, what ending waits for) and
//! `sessions` (who has a conversation). The rest drives them.
//!
//! ```no_run
//! # async fn example(token: &str, context: agentwire::context::Context) -> agentwire::Result<()> {
//! use agentwire::models::Level;
//! use agentwire::provider::{Ask, Provider, ProviderOptions};
//! use agentwire::transport::Client;
//!
//! let provider = Provider::new(ProviderOptions { cache_dir: Some("cache".into()), ..Default::default() });
//! let account = provider.sign_in("anna", Client::builder().token(token).build()?);
//! // The models are there at once: the account's from the cache, or a list built in. The service is
//! // asked in the background.
//! println!("{} models", account.models().models().len());
//!
//! let ask = Ask::new("gpt-5.4").level(Level::High).session("3e1c5a90-…");
//! let run = account.start(&ask, account.client()?.ask(context)).await?;
//! let ended = run.finish().await;
//! provider.dispose().await;
//! # drop(ended);
//! # Ok(())
//! # }
//! ```

mod account;
mod drive;
mod life;
mod run;
mod sessions;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::conversation::{BlobBudget, ShelfLimits};
use crate::models::{CacheOptions, DiscoveryOptions};
use crate::transport::Client;

pub use account::{Account, Ask};
pub use run::SessionRun;

use drive::Driver;
use state::Shared;

/// What a provider keeps, and for how long. Every default has its reason beside it.
#[derive(Debug, Clone)]
pub struct ProviderOptions {
    /// Where lists of models are kept between two starts. Default none: nothing is written.
    pub cache_dir: Option<PathBuf>,
    /// What is believed of a kept list.
    pub cache: CacheOptions,
    /// When the service is asked.
    pub discovery: DiscoveryOptions,
    /// How long [`Provider::dispose`] waits for a question to the service and for runs that were
    /// cancelled. Default 1 s (BEHAVIOUR 10); zero waits for nothing.
    pub grace: Duration,
    /// How many conversations are kept between their runs.
    pub shelf: ShelfLimits,
    /// What all of them may keep together of the service's state.
    pub budget: BlobBudget,
}

impl Default for ProviderOptions {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache: CacheOptions::default(),
            discovery: DiscoveryOptions::default(),
            grace: Duration::from_secs(1),
            shelf: ShelfLimits::default(),
            budget: BlobBudget::default(),
        }
    }
}

/// Owns accounts, models and conversations. Clones are the same provider.
///
/// [`Provider::dispose`] ends it. Without that it ends when the last clone and the last [`Account`]
/// are gone: questions to the service are given up; a [`SessionRun`] belongs to whoever holds it.
#[derive(Clone)]
pub struct Provider {
    shared: Arc<Shared>,
    _driver: Arc<Driver>,
}

impl Provider {
    /// A provider without accounts. Must be called inside a tokio runtime.
    pub fn new(options: ProviderOptions) -> Self {
        let shared = Arc::new(Shared::new(options));
        let driver = Arc::new(Driver::start(Arc::clone(&shared)));
        Self { shared, _driver: driver }
    }

    /// Signs an account in, at the start of a program or with new credentials: `name` is any text
    /// that stays the same for the account and differs between two, as the subject of its token.
    ///
    /// What the cache has of it is there at once (this reads one small file); in the background the
    /// service is asked, unless the cache is fresh and the account was not signed in before. A
    /// failure of that is nobody's error: what was known stays (BEHAVIOUR 10). See
    /// [`Account::refresh`] for one that tells.
    pub fn sign_in(&self, name: &str, client: Client) -> Account {
        Account::new(self.clone(), self.shared.sign_in(name, client))
    }

    /// Signs an account out: its question to the service is given up and its kept list removed. Runs
    /// go on; sessions are not an account's.
    ///
    /// # Errors
    /// The kept list could not be removed.
    pub fn sign_out(&self, account: &Account) -> std::io::Result<()> {
        self.shared.sign_out(account.key())
    }

    /// Ends a session: a run in it is cancelled, and its conversation is dropped, now or when that
    /// run brings it back.
    pub fn end_session(&self, session: &str) {
        self.shared.end_session(session);
    }

    /// Conversations that are kept and that no run has at the moment.
    pub fn idle_conversations(&self) -> usize {
        self.shared.lock().sessions.idle()
    }

    /// Ends everything, within [`ProviderOptions::grace`]: runs are cancelled at once and told to the
    /// service, a question that is under way may still bring its list, then whatever is left is
    /// dropped. Later calls wait for the same end.
    pub async fn dispose(&self) {
        self.shared.dispose();
        self.shared.closed().await;
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}
