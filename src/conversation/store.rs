//! Where conversations are kept between runs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;

use super::{Conversation, Shelf, ShelfLimits};

/// Keeps conversations by their ids.
///
/// The methods may block (a driver calls them where that is allowed) and may be called from several
/// threads. A store that many processes share keeps whole states: the last save wins.
pub trait ConversationStore: Send + Sync {
    /// The conversation of this id; none when there is none.
    ///
    /// # Errors
    /// It is there and cannot be had: the message says why. A damaged one is set aside first, so
    /// that the next load finds none.
    fn load(&self, id: &str) -> Result<Option<Conversation>>;

    /// Keeps a conversation, in the place of an earlier state of it. One without an id is not kept.
    ///
    /// # Errors
    /// It could not be kept; the earlier state is still there.
    fn save(&self, conversation: &Conversation) -> Result<()>;

    /// Forgets a conversation; does nothing when there is none.
    ///
    /// # Errors
    /// It is still there.
    fn remove(&self, id: &str) -> Result<()>;

    /// The ids of all conversations, in no particular order.
    ///
    /// # Errors
    /// They could not be looked through.
    fn list(&self) -> Result<Vec<String>>;
}

/// A [`Shelf`] behind the trait: bounded, least recently used, gone with the process.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Shelf>);

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: ShelfLimits) -> Self {
        Self(Mutex::new(Shelf::new(limits)))
    }

    /// The shelf is whole between statements, so a panic elsewhere does not spoil it.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConversationStore for MemoryStore {
    fn load(&self, id: &str) -> Result<Option<Conversation>> {
        let mut shelf = self.shelf();
        let found = shelf.take(id);
        if let Some(conversation) = &found {
            shelf.put(conversation.clone());
        }
        Ok(found)
    }

    fn save(&self, conversation: &Conversation) -> Result<()> {
        self.shelf().put(conversation.clone());
        Ok(())
    }

    fn remove(&self, id: &str) -> Result<()> {
        drop(self.shelf().take(id));
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>> {
        Ok(self.shelf().ids().map(ToOwned::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(id: &str) -> Conversation {
        let mut conversation = Conversation::with_id(id);
        conversation.set_blob(b"b", &[7; 99]).unwrap();
        conversation
    }

    #[test]
    fn memory_is_bounded_and_forgets_what_was_not_used_for_the_longest_time() {
        let store = MemoryStore::new(ShelfLimits { count: 2, bytes: 1_000 });
        store.save(&conversation("a")).unwrap();
        store.save(&conversation("b")).unwrap();
        assert_eq!(store.load("a").unwrap().unwrap().blobs().len(), 1);
        store.save(&conversation("c")).unwrap();
        let mut ids = store.list().unwrap();
        ids.sort();
        assert_eq!(ids, ["a", "c"], "`a` was used after `b`");
        assert!(store.load("b").unwrap().is_none());
        store.remove("a").unwrap();
        store.remove("a").unwrap();
        store.save(&Conversation::new()).unwrap();
        assert_eq!(store.list().unwrap(), ["c"]);
    }
}
