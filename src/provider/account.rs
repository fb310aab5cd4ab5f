//! One account of a provider: its models, and runs by them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::Provider;
use super::run::{Place, SessionRun};
use super::sessions::{Lease, Opened};
use crate::conversation::{Conversation, id};
use crate::error::{Error, Kind, Result};
use crate::models::{
    CacheKey, CacheNote, Catalog, FormOptions, Level, Policy, Roster, Trigger, Wanted,
};
use crate::run::FLUSH_LIMIT;
use crate::transport::{Client, RunBuilder, StartError};

/// How long a run waits for the one before it in its session, which was dropped and says its last
/// word. Twice what that takes at most. No option: it follows from that.
const RETURN: Duration = FLUSH_LIMIT.saturating_mul(2);

/// An account that is signed in. Clones are the same account.
#[derive(Clone)]
pub struct Account {
    provider: Provider,
    key: CacheKey,
}

/// What a run is about, beside its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The model: a name of [`Account::models`].
    pub model: String,
    /// How much it should think; without one it is as the model is.
    pub level: Option<Level>,
    /// How the model is named on the wire.
    pub form: FormOptions,
    /// The session, a random UUID, whose conversation goes on; without one a conversation that ends
    /// with the run.
    pub session: Option<String>,
}

impl Ask {
    /// Asks `model`.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), level: None, form: FormOptions::default(), session: None }
    }

    /// At this level.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.level = Some(level);
        self
    }

    /// In this session.
    #[must_use]
    pub fn session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(session.into());
        self
    }
}

impl Account {
    pub(super) fn new(provider: Provider, key: CacheKey) -> Self {
        Self { provider, key }
    }

    pub(super) fn key(&self) -> &CacheKey {
        &self.key
    }

    /// The models as they are known now: the account's, or the list built in.
    pub fn models(&self) -> Arc<Roster> {
        self.look(|roster| Arc::clone(&roster.borrow())).unwrap_or_else(estimated)
    }

    /// The same as something to watch: it changes when the service listed the models anew. `None`
    /// when the account signed out.
    pub fn watch_models(&self) -> Option<watch::Receiver<Arc<Roster>>> {
        self.look(watch::Sender::subscribe)
    }

    fn look<T>(&self, see: impl FnOnce(&watch::Sender<Arc<Roster>>) -> T) -> Option<T> {
        self.provider.shared.lock().accounts.get(&self.key).map(|entry| see(&entry.roster))
    }

    /// Why the list that was kept is not used, or is old, as it was found at sign-in.
    pub fn cache_note(&self) -> Option<CacheNote> {
        self.provider.shared.lock().accounts.get(&self.key)?.note
    }

    /// Has the models asked for in the background, unless what is known is fresh: at the start of a
    /// session, say.
    pub fn discover(&self) {
        // Nobody waits for this one.
        let _background = self.provider.shared.want(&self.key, Trigger::Use);
    }

    /// The models for use now: those of the account where they are known, however old; else the
    /// first answer of the service is waited for. When that fails, it is what there is.
    pub async fn ready(&self) -> Arc<Roster> {
        let known = self.models();
        let (_, answer) = self.provider.shared.want(&self.key, Trigger::Use);
        let needed = known.catalog().source == crate::models::Source::Estimated;
        let Some(answer) = answer.filter(|_| needed) else { return known };
        // Why there is none is in the log; `refresh` tells.
        let _answered = answer.await;
        self.models()
    }

    /// Asks the service for the models now, whatever is known, and gives the new list. A question
    /// that is under way is joined.
    ///
    /// # Errors
    /// Why there is no new list; [`Account::models`] is then as it was. `Cancelled` when the account
    /// signed out or the provider was disposed.
    pub async fn refresh(&self) -> Result<Arc<Roster>> {
        let answer = match self.provider.shared.want(&self.key, Trigger::Now) {
            (Wanted::Disposed, _) | (_, None) => return Err(gone()),
            (_, Some(answer)) => answer,
        };
        answered(answer).await.map(|()| self.models())
    }

    /// The client of this account: for requests to fill in, and for calls that need no provider.
    ///
    /// # Errors
    /// `Cancelled` when the account signed out or the provider was disposed.
    pub fn client(&self) -> Result<Client> {
        let state = self.provider.shared.lock();
        state.accounts.get(&self.key).map(|entry| entry.client.clone()).ok_or_else(gone)
    }

    /// Starts a run: the model's id by the account's models, the conversation of the session. `run`
    /// brings the context and whatever else is to be set, made by [`Account::client`].
    ///
    /// The first run has the models asked for in the background where they are not known; it does
    /// not wait for them (see [`Account::ready`]).
    ///
    /// # Errors
    /// `ModelNotAvailable` and `InvalidRequest` as [`Roster::resolve`] and [`Roster::check_images`];
    /// `InvalidRequest` while another run of the session is under way; `Cancelled` after sign-out,
    /// [`Provider::dispose`] or [`Provider::end_session`]; else as [`RunBuilder::start`].
    pub async fn start(&self, ask: &Ask, run: RunBuilder) -> Result<SessionRun> {
        self.client()?;
        self.discover();
        let roster = self.models();
        let choice = roster.resolve(&ask.model, ask.level)?;
        let model = roster.model_for(&choice, &ask.form)?;
        let mut images = Ok(());
        let run = run.configure(|request| images = roster.check_images(&choice, &request.context));
        images?;
        let session = ask.session.as_deref().filter(|session| id::of_session(session).is_some());
        let shared = &self.provider.shared;
        let (lease, conversation) = self.open(session).await?;
        let place = Place::new(Arc::clone(shared), self.key.clone(), choice.id, lease);
        let started = run.model(model).conversation(conversation).start().await;
        let run = match started {
            Ok(run) => run,
            Err(StartError { error, conversation }) => {
                place.leave(*conversation);
                return Err(error);
            }
        };
        let mut state = shared.lock();
        if !state.life.is_open() || (session.is_some() && !state.sessions.has(lease)) {
            drop(state);
            // Dropping the run tells the service.
            drop(run);
            return Err(gone());
        }
        state.runs.insert(lease, Some(run.handle()));
        drop(state);
        Ok(SessionRun::new(run, place))
    }

    /// The conversation of a session; waits for one that is about to come back.
    async fn open(&self, session: Option<&str>) -> Result<(Lease, Conversation)> {
        let shared = &self.provider.shared;
        let busy = || {
            Error::invalid("another run of this session is under way")
                .with_hint("finish or cancel it first, or ask in another session")
        };
        let wait = async {
            loop {
                let returned = shared.returned.notified();
                let mut returned = std::pin::pin!(returned);
                // From here on nothing that comes back is missed.
                returned.as_mut().enable();
                match self.open_now(session) {
                    Some(Opened::Ready(lease, conversation)) => return Ok((lease, *conversation)),
                    Some(Opened::Busy) => return Err(busy()),
                    Some(Opened::Returning) => {}
                    None => return Err(gone()),
                }
                returned.await;
            }
        };
        tokio::time::timeout(RETURN, wait).await.unwrap_or_else(|_| Err(busy()))
    }

    /// `None` when no run begins any more.
    fn open_now(&self, session: Option<&str>) -> Option<Opened> {
        let mut state = self.provider.shared.lock();
        let opened = state.life.is_open().then(|| state.sessions.open(session))?;
        if let Opened::Ready(lease, _) = &opened {
            state.runs.insert(*lease, None);
        }
        Some(opened)
    }
}

async fn answered(answer: oneshot::Receiver<Result<()>>) -> Result<()> {
    answer.await.unwrap_or_else(|_| Err(gone()))
}

fn gone() -> Error {
    Error::new(
        Kind::Cancelled,
        "the account signed out, the session ended, or the provider was disposed",
    )
}

fn estimated() -> Arc<Roster> {
    Arc::new(Roster::new(
        Catalog::estimated(Policy::Current, super::state::unix_ms()),
        Policy::Current,
    ))
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").finish_non_exhaustive()
    }
}
