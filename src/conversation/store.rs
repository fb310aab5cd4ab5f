//! Where conversations are kept between runs.

use crate::error::Result;

use super::Conversation;

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
