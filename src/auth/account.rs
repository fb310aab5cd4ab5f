//! [`Account`]: one sign-in that all runs share.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::call::Auth;
use super::keeper::{Keeper, Want};
use super::source::{TokenFuture, TokenSource};
use super::store::{Key, TokenStore};
use super::tokens::Tokens;
use crate::error::{Blame, Error, Kind, Result};
use crate::secret::Secret;

/// An account that is signed in: its tokens, refreshed when they are due, kept in a store.
///
/// Clones are the same account: however many runs need a fresh token at the same time, one call is
/// made. A refresh that was begun is carried through when nobody waits for it any more (it may have
/// used up the old refresh token); it ends within the time limit of [`Auth`].
///
/// Other programs may use the same store: before a refresh, and when one is refused, what the store
/// holds by then is looked at first.
#[derive(Clone)]
pub struct Account(Arc<Inner>);

struct Inner {
    auth: Auth,
    store: Arc<dyn TokenStore>,
    key: Key,
    state: Mutex<State>,
}

struct State {
    keeper: Keeper,
    /// The refresh that is under way.
    running: Option<watch::Receiver<Option<Result<()>>>>,
    signed_out: bool,
}

impl Account {
    /// The key of the default account at the endpoint of `auth`.
    pub fn key_of(auth: &Auth) -> Key {
        Key::new(&auth.endpoint().to_string())
    }

    /// The account that `store` keeps under `key`; `None` when there is none.
    ///
    /// # Errors
    /// What [`TokenStore::load`] says.
    pub async fn load(auth: Auth, store: Arc<dyn TokenStore>, key: Key) -> Result<Option<Self>> {
        let (from, of) = (Arc::clone(&store), key.clone());
        let tokens = away(move || from.load(&of)).await?;
        Ok(tokens.map(|tokens| Self::new(auth, store, key, tokens)))
    }

    /// The account of a sign-in that has just been confirmed; `store` keeps it.
    ///
    /// # Errors
    /// What [`TokenStore::save`] says.
    pub async fn keep(
        auth: Auth,
        store: Arc<dyn TokenStore>,
        key: Key,
        tokens: Tokens,
    ) -> Result<Self> {
        let (to, of, kept) = (Arc::clone(&store), key.clone(), tokens.clone());
        away(move || to.save(&of, &kept)).await?;
        Ok(Self::new(auth, store, key, tokens))
    }

    fn new(auth: Auth, store: Arc<dyn TokenStore>, key: Key, tokens: Tokens) -> Self {
        let keeper = Keeper::new(tokens);
        let state = Mutex::new(State { keeper, running: None, signed_out: false });
        Self(Arc::new(Inner { auth, store, key, state }))
    }

    /// Whose account it is.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// The sign-in it is from.
    pub fn auth(&self) -> &Auth {
        &self.0.auth
    }

    /// The tokens at hand, fresh or not: for what they say about themselves.
    pub fn tokens(&self) -> Tokens {
        self.0.lock().keeper.tokens().clone()
    }

    /// Forgets the account, in the store and here: later calls fail. Says whether the store had it.
    ///
    /// # Errors
    /// What [`TokenStore::remove`] says.
    pub async fn sign_out(&self) -> Result<bool> {
        {
            let mut state = self.0.lock();
            state.signed_out = true;
            let gone = Error::new(Kind::Unauthenticated, "the account was signed out")
                .with_hint("sign in again: `agentwire login`");
            state.keeper.refreshed(Err(gone), now_ms());
        }
        let (store, key) = (Arc::clone(&self.0.store), self.0.key.clone());
        away(move || store.remove(&key)).await
    }

    async fn fresh(&self, refused: Option<&Secret>) -> Result<Secret> {
        let mut running = {
            let mut state = self.0.lock();
            match state.keeper.want(refused, now_ms()) {
                Want::Use(token) => return Ok(token),
                Want::Fail(error) => return Err(error),
                Want::Refresh => {}
            }
            match &state.running {
                Some(running) => running.clone(),
                None => {
                    let (done, running) = watch::channel(None);
                    state.running = Some(running.clone());
                    tokio::spawn(refresh(Arc::clone(&self.0), refused.cloned(), done));
                    running
                }
            }
        };
        let result = match running.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(given_up())),
            Err(_) => Err(given_up()),
        };
        self.0.lock().keeper.after(result, refused, now_ms())
    }
}

impl TokenSource for Account {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(self.fresh(None))
    }

    fn instead_of<'a>(&'a self, refused: &'a Secret) -> TokenFuture<'a> {
        Box::pin(self.fresh(Some(refused)))
    }
}

impl Inner {
    /// The state is valid between statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens in the store that are others than `old` and may still be sent.
    async fn replaced(self: &Arc<Self>, old: &Tokens, refused: Option<&Secret>) -> Option<Tokens> {
        let inner = Arc::clone(self);
        let found = away(move || inner.store.load(&inner.key)).await.ok().flatten()?;
        let now_ms = now_ms();
        let other = found.access != old.access && Some(&found.access) != refused;
        (other && now_ms < found.due_at_ms()).then_some(found)
    }

    async fn renew(self: &Arc<Self>, refused: Option<&Secret>) -> Result<Tokens> {
        let old = self.lock().keeper.tokens().clone();
        if let Some(found) = self.replaced(&old, refused).await {
            return Ok(found);
        }
        let tokens = match self.auth.refresh(&old.refresh).await {
            Ok(tokens) => tokens,
            // Another program may have used the refresh token a moment ago.
            Err(error) if *error.kind() == Kind::Unauthenticated => {
                return self.replaced(&old, refused).await.ok_or(error);
            }
            Err(error) => return Err(error),
        };
        if !self.lock().signed_out {
            let (inner, kept) = (Arc::clone(self), tokens.clone());
            if let Err(error) = away(move || inner.store.save(&inner.key, &kept)).await {
                // The token is good all the same; the next start will have to refresh again.
                tracing::warn!(%error, "a refreshed sign-in could not be kept");
            }
        }
        Ok(tokens)
    }
}

/// Carries one refresh through, whoever waits for it.
async fn refresh(
    inner: Arc<Inner>,
    refused: Option<Secret>,
    done: watch::Sender<Option<Result<()>>>,
) {
    let result = inner.renew(refused.as_ref()).await;
    let said = result.as_ref().map(drop).map_err(Clone::clone);
    match &said {
        Ok(()) => tracing::debug!("the token was refreshed"),
        Err(error) => tracing::warn!(%error, "the token could not be refreshed"),
    }
    {
        let mut state = inner.lock();
        state.running = None;
        if !state.signed_out {
            state.keeper.refreshed(result, now_ms());
        }
    }
    // Nobody may be left to hear it.
    let _ = done.send(Some(said));
}

/// Runs what may block on a disk or a keyring away from the runtime's threads.
async fn away<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(given_up()))
}

fn given_up() -> Error {
    Error::new(
        Kind::Interrupted,
        "the runtime was shut down while a sign-in was being looked after",
    )
    .with_blame(Blame::Local)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("key", &self.0.key).finish_non_exhaustive()
    }
}
