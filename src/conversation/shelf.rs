//! Bounds over many conversations: a budget that they share, and a shelf for those that are idle
//! (FAULTS M79).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Conversation;

/// How many bytes of the service's blobs all conversations of a process may keep together.
///
/// Clones are the same budget. A blob that does not fit is refused as one beyond the limits of its
/// conversation is, and the turn goes on.
#[derive(Clone)]
pub struct BlobBudget {
    used: Arc<AtomicUsize>,
    ceiling: usize,
}

impl BlobBudget {
    /// A budget of so many bytes.
    pub fn new(ceiling: usize) -> Self {
        Self { used: Arc::default(), ceiling }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes bytes where they are there.
    fn take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.ceiling);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

impl Default for BlobBudget {
    /// 256 MiB: four conversations that are full.
    fn default() -> Self {
        Self::new(256 << 20)
    }
}

impl fmt::Debug for BlobBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobBudget({} of {} bytes)", self.used(), self.ceiling)
    }
}

/// What one store has taken from its budget; given back when it is dropped.
pub(super) struct Charge {
    budget: BlobBudget,
    bytes: usize,
}

impl Charge {
    pub(super) fn new(budget: BlobBudget) -> Self {
        Self { budget, bytes: 0 }
    }

    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let taken = self.budget.take(bytes);
        self.bytes += if taken { bytes } else { 0 };
        taken
    }

    /// The same budget with nothing taken; what was taken is given back.
    pub(super) fn renewed(self) -> Self {
        Self::new(self.budget.clone())
    }
}

impl Clone for Charge {
    /// A copy of the blobs takes as much again, even past the ceiling: it is there already.
    fn clone(&self) -> Self {
        self.budget.used.fetch_add(self.bytes, Ordering::Relaxed);
        Self { budget: self.budget.clone(), bytes: self.bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Conversations that no run has at the moment, by their ids.
///
/// Beyond the ceiling the one that was not used for the longest time loses its checkpoint and its
/// blobs, never one that is in use: its next request rebuilds the state from the history.
#[derive(Debug)]
pub struct Shelf {
    limits: ShelfLimits,
    idle: HashMap<String, Idle>,
    bytes: usize,
    /// Counts uses, so that the oldest is known without a clock.
    uses: u64,
}

/// How much a [`Shelf`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShelfLimits {
    /// Conversations. Default 10,000: one more than anybody goes back to.
    pub count: usize,
    /// Bytes of all checkpoints and blobs. Default 256 MiB.
    pub bytes: usize,
}

impl Default for ShelfLimits {
    fn default() -> Self {
        Self { count: 10_000, bytes: 256 << 20 }
    }
}

#[derive(Debug)]
struct Idle {
    conversation: Conversation,
    bytes: usize,
    used: u64,
}

impl Shelf {
    /// An empty shelf.
    pub fn new(limits: ShelfLimits) -> Self {
        Self { limits, idle: HashMap::new(), bytes: 0, uses: 0 }
    }

    /// Puts a conversation back. One without an id cannot be asked for again and is dropped.
    pub fn put(&mut self, conversation: Conversation) {
        let Some(id) = conversation.id().map(ToOwned::to_owned) else { return };
        drop(self.take(&id));
        let bytes = conversation.size();
        self.bytes += bytes;
        self.uses += 1;
        self.idle.insert(id, Idle { conversation, bytes, used: self.uses });
        while self.bytes > self.limits.bytes || self.idle.len() > self.limits.count {
            if !self.evict() {
                break;
            }
        }
    }

    /// Takes a conversation to use it.
    pub fn take(&mut self, id: &str) -> Option<Conversation> {
        let idle = self.idle.remove(id)?;
        self.bytes -= idle.bytes;
        Some(idle.conversation)
    }

    /// The ids of all conversations, in no particular order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.idle.keys().map(String::as_str)
    }

    /// Number of conversations.
    pub fn len(&self) -> usize {
        self.idle.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// Bytes of all checkpoints and blobs.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Empties the conversation that was not used for the longest time, or drops it where the
    /// number is beyond the limit. False when there is nothing left to give.
    fn evict(&mut self) -> bool {
        let too_many = self.idle.len() > self.limits.count;
        let oldest = self
            .idle
            .iter()
            .filter(|(_, idle)| too_many || idle.bytes > 0)
            .min_by_key(|(_, idle)| idle.used)
            .map(|(id, _)| id.clone());
        let Some(id) = oldest else { return false };
        if too_many {
            return self.take(&id).is_some();
        }
        if let Some(idle) = self.idle.get_mut(&id) {
            idle.conversation.discard();
            self.bytes -= std::mem::take(&mut idle.bytes);
        }
        true
    }
}

impl Default for Shelf {
    fn default() -> Self {
        Self::new(ShelfLimits::default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::BlobRefused;
    use super::*;

    fn conversation(id: &str, bytes: usize) -> Conversation {
        let mut conversation = Conversation::with_id(id);
        conversation.set_blob(b"x", &vec![7; bytes - 1]).unwrap();
        conversation
    }

    #[test]
    fn the_oldest_idle_conversation_gives_its_blobs() {
        let mut shelf = Shelf::new(ShelfLimits { count: 3, bytes: 100 });
        shelf.put(conversation("a", 40));
        shelf.put(conversation("b", 40));
        let a = shelf.take("a").unwrap();
        assert_eq!((shelf.len(), shelf.bytes()), (1, 40));
        shelf.put(a);
        shelf.put(conversation("c", 40));
        assert_eq!(shelf.bytes(), 80);
        assert!(shelf.take("b").unwrap().blobs().is_empty(), "the least recently used");
        assert_eq!(shelf.take("a").unwrap().blobs().len(), 1);
        shelf.put(conversation("huge", 101));
        assert_eq!(shelf.bytes(), 0, "nothing is kept past the ceiling");
        for id in ["1", "2", "3", "4"] {
            shelf.put(Conversation::with_id(id));
        }
        assert_eq!(shelf.len(), 3);
        assert!(shelf.take("1").is_none() && shelf.take("4").is_some());
        shelf.put(Conversation::new());
        assert_eq!(shelf.len(), 2, "without an id there is no way back");
    }

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget = BlobBudget::new(100);
        let mut first = Conversation::new().with_budget(&budget);
        let mut second = Conversation::new().with_budget(&budget);
        assert!(first.set_blob(b"1", &[0; 59]).is_ok());
        assert_eq!(second.set_blob(b"1", &[0; 40]), Err(BlobRefused::Full));
        assert!(second.set_blob(b"1", &[0; 39]).is_ok());
        assert_eq!(budget.used(), 100);
        let copy = first.clone();
        assert_eq!(budget.used(), 160);
        drop(copy);
        first.discard();
        assert_eq!(budget.used(), 40);
        drop(second);
        assert_eq!(budget.used(), 0);
        assert!(first.set_blob(b"1", &[0; 99]).is_ok(), "the budget outlives a discard");
    }
}
