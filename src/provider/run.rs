//! A run of a session.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::drive;
use super::sessions::Lease;
use super::state::Shared;
use crate::conversation::Conversation;
use crate::models::CacheKey;
use crate::run::Ended;
use crate::transport::Run;

/// A run whose conversation goes back to its session: used as the [`Run`] that it holds, ended with
/// [`SessionRun::finish`].
///
/// Dropping it cancels the run and leaves the session without its state; the next run rebuilds that
/// from the history. To stop early and keep what the service committed, call [`Run::cancel`], then
/// `finish`.
#[derive(Debug)]
pub struct SessionRun {
    run: Run,
    place: Place,
}

impl SessionRun {
    pub(super) fn new(run: Run, place: Place) -> Self {
        Self { run, place }
    }

    /// Waits for the end, as [`Run::finish`] does, and brings the conversation back.
    pub async fn finish(self) -> Ended {
        let Self { run, place } = self;
        place.returns();
        let (ended, conversation) = run.finish().await;
        let window = ended.as_ref().ok().and_then(|finish| finish.usage.context_limit);
        let (shared, key, model) =
            (Arc::clone(&place.shared), place.key.clone(), place.leave(conversation));
        if let Some(tokens) = window {
            drive::observe(&shared, &key, &model, tokens).await;
        }
        ended
    }
}

impl Deref for SessionRun {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}

impl DerefMut for SessionRun {
    fn deref_mut(&mut self) -> &mut Run {
        &mut self.run
    }
}

/// The place of one run among those of the provider; it is given up when this is dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    key: CacheKey,
    model: String,
    lease: Lease,
    conversation: Option<Conversation>,
}

impl Place {
    /// The place of a run of `model`, an id, for an account.
    pub(super) fn new(shared: Arc<Shared>, key: CacheKey, model: String, lease: Lease) -> Self {
        Self { shared, key, model, lease, conversation: None }
    }

    /// The conversation comes back in a moment.
    fn returns(&self) {
        self.shared.lock().sessions.returning(self.lease);
    }

    /// Brings the conversation back; gives the model.
    pub(super) fn leave(mut self, conversation: Conversation) -> String {
        self.conversation = Some(conversation);
        std::mem::take(&mut self.model)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let conversation = self.conversation.take();
        let mut state = self.shared.lock();
        state.sessions.give_back(self.lease, conversation);
        state.runs.remove(&self.lease);
        drop(state);
        self.shared.wake.notify_one();
        self.shared.returned.notify_waiters();
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("lease", &self.lease).finish_non_exhaustive()
    }
}
