//! Keeps a conversation beside its run: one save at a time, the newest state next.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

use crate::conversation::{Conversation, ConversationStore};
use crate::error::{Error, Result};

/// Saves without making the run wait for a disk.
#[derive(Default)]
pub(crate) struct Keeper {
    store: Option<Arc<dyn ConversationStore>>,
    saving: Option<JoinHandle<Result<()>>>,
    next: Option<Box<Conversation>>,
    /// What is to be kept in the end, where it is not what the caller gets back.
    last: Option<Box<Conversation>>,
}

impl Keeper {
    pub(crate) fn new(store: Option<Arc<dyn ConversationStore>>) -> Self {
        Self { store, ..Self::default() }
    }

    /// Saves this state when the one before has been saved; a state that waits gives way.
    pub(crate) fn keep(&mut self, conversation: Conversation) {
        if self.store.is_some() {
            self.keep_next(Box::new(conversation));
        }
    }

    fn keep_next(&mut self, conversation: Box<Conversation>) {
        self.next = Some(conversation);
        self.start();
    }

    /// The run is over, and the caller gets this state back.
    pub(crate) fn keep_last(&mut self, conversation: &Conversation) {
        if self.store.is_some() {
            let last = self.last.take().unwrap_or_else(|| Box::new(conversation.clone()));
            self.keep_next(last);
        }
    }

    /// The caller gets nothing back: this is what is kept in the end. The first one stands.
    pub(crate) fn keep_as_last(&mut self, conversation: impl FnOnce() -> Conversation) {
        if self.store.is_some() && self.last.is_none() {
            self.last = Some(Box::new(conversation()));
        }
    }

    fn start(&mut self) {
        if self.saving.is_none()
            && let Some(store) = &self.store
            && let Some(conversation) = self.next.take()
        {
            let store = Arc::clone(store);
            let save = move || store.save(&conversation);
            self.saving = Some(tokio::task::spawn_blocking(save));
        }
    }

    /// Ready when a save has failed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while let Some(saving) = &mut self.saving {
            let Poll::Ready(saved) = Pin::new(saving).poll(cx) else { return Poll::Pending };
            self.saving = None;
            self.start();
            match saved {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Poll::Ready(error),
                Err(_) => {
                    return Poll::Ready(Error::invalid("the conversation store panicked"));
                }
            }
        }
        Poll::Pending
    }

    /// Nothing is being saved.
    pub(crate) fn is_idle(&self) -> bool {
        self.saving.is_none()
    }
}
