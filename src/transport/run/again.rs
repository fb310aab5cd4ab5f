//! A second chance for a run whose token was refused before it gave anything.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use crate::conversation::Conversation;
use crate::error::{Error, Kind};
use crate::run::{Event, EventRef};

use super::batch::Batch;
use super::mailbox::Mailbox;
use super::task::Task;

/// A run that the service refused for its token, and of which its caller knows nothing yet. Dropped,
/// it tells the caller what the service said: nobody hangs.
pub(crate) struct Refused {
    mailbox: Arc<Mailbox>,
    pub(crate) error: Error,
    conversation: Option<Conversation>,
}

impl Refused {
    pub(super) fn new(mailbox: Arc<Mailbox>, error: Error, conversation: Conversation) -> Self {
        Self { mailbox, error, conversation: Some(conversation) }
    }

    /// For the next attempt; the caller goes on waiting.
    pub(crate) fn take_conversation(&mut self) -> Conversation {
        self.conversation.take().unwrap_or_default()
    }

    /// The next attempt could not be made.
    pub(crate) fn put_back(&mut self, error: Error, conversation: Conversation) {
        (self.error, self.conversation) = (error, Some(conversation));
    }
}

impl Drop for Refused {
    fn drop(&mut self) {
        let Some(conversation) = self.conversation.take() else { return };
        if self.mailbox.is_cancelled() {
            self.error = Error::new(Kind::Cancelled, "the run was cancelled");
        }
        let mut last = Batch::default();
        last.push(EventRef::Other(Event::Ended(Err(self.error.clone()))));
        self.mailbox.close(&mut last, conversation);
        self.mailbox.leave();
    }
}

/// Drives `first`; when it was refused, `again` makes another task, once. A cancel ends the wait for
/// it.
pub(crate) async fn twice<F>(first: Task, again: impl FnOnce(Refused) -> F)
where
    F: Future<Output = Option<Task>>,
{
    let Some(refused) = first.await else { return };
    let mailbox = Arc::clone(&refused.mailbox);
    let mut again = pin!(again(refused));
    let second = poll_fn(|cx| {
        let wishes = mailbox.look(cx);
        if wishes.cancel || wishes.gone {
            return Poll::Ready(None);
        }
        again.as_mut().poll(cx)
    });
    if let Some(second) = second.await {
        // Its refusal is the last word.
        drop(second.await);
    }
}

/// Whether the events that a run gave are its end for want of a good token, and nothing else.
pub(super) fn refusal(events: &Batch, published: bool) -> Option<Error> {
    if published {
        return None;
    }
    match events.only()? {
        Event::Ended(Err(error)) if *error.kind() == Kind::Unauthenticated => Some(error.clone()),
        _ => None,
    }
}
