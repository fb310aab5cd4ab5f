//! Which conversation a session has, and who has it at the moment: no I/O.

use std::collections::HashMap;

use crate::conversation::{BlobBudget, Conversation, Shelf, ShelfLimits, id};

/// The right to one conversation while a run has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lease(u64);

/// What asking for a session's conversation gives.
#[derive(Debug)]
pub(super) enum Opened {
    /// Here it is.
    Ready(Lease, Box<Conversation>),
    /// Another run has it.
    Busy,
    /// Another run had it and is about to bring it back.
    Returning,
}

/// The conversations of all sessions.
///
/// A session's conversation is on the shelf or with one run, never with two: a reply of one can not
/// end up in the state of the other (BEHAVIOUR 13, H14 to H16). What a run brings back after its
/// session ended is dropped (H08).
#[derive(Debug)]
pub(super) struct Sessions {
    shelf: Shelf,
    budget: BlobBudget,
    /// Sessions whose conversation is with a run, by the id that follows from the session.
    used: HashMap<String, Used>,
    /// Conversations whose id is another one by now, because the service refused the first.
    moved: HashMap<String, String>,
    limits: ShelfLimits,
    leases: u64,
}

#[derive(Debug, Clone, Copy)]
struct Used {
    lease: Lease,
    returning: bool,
}

impl Sessions {
    pub(super) fn new(limits: ShelfLimits, budget: BlobBudget) -> Self {
        Self {
            shelf: Shelf::new(limits),
            budget,
            used: HashMap::new(),
            moved: HashMap::new(),
            limits,
            leases: 0,
        }
    }

    /// Takes the conversation of a session, or a new one. A blank session, or none, is a session
    /// that nobody comes back to.
    pub(super) fn open(&mut self, session: Option<&str>) -> Opened {
        let name = session.and_then(id::of_session);
        if let Some(used) = name.as_ref().and_then(|name| self.used.get(name)) {
            return if used.returning { Opened::Returning } else { Opened::Busy };
        }
        self.leases += 1;
        let lease = Lease(self.leases);
        let Some(name) = name else {
            let fresh = Conversation::new().with_budget(&self.budget);
            return Opened::Ready(lease, Box::new(fresh));
        };
        let id = self.moved.remove(&name).unwrap_or_else(|| name.clone());
        let kept = self.shelf.take(&id);
        let conversation =
            kept.unwrap_or_else(|| Conversation::with_id(&name).with_budget(&self.budget));
        self.used.insert(name, Used { lease, returning: false });
        Opened::Ready(lease, Box::new(conversation))
    }

    /// The run is over for its caller; its conversation comes back in a moment.
    pub(super) fn returning(&mut self, lease: Lease) {
        if let Some(used) = self.used.values_mut().find(|used| used.lease == lease) {
            used.returning = true;
        }
    }

    /// Brings a conversation back; `None` when the run lost it: the next request rebuilds it from the
    /// history.
    pub(super) fn give_back(&mut self, lease: Lease, conversation: Option<Conversation>) {
        let Some(name) = self.name_of(lease) else { return };
        self.used.remove(&name);
        let Some(conversation) = conversation else { return };
        if let Some(id) = conversation.id().filter(|id| *id != name) {
            if self.moved.len() >= self.limits.count {
                self.moved.clear();
            }
            self.moved.insert(name, id.to_owned());
        }
        self.shelf.put(conversation);
    }

    /// Whether a run still counts: not when its session ended meanwhile.
    pub(super) fn has(&self, lease: Lease) -> bool {
        self.used.values().any(|used| used.lease == lease)
    }

    /// Ends a session: its conversation is dropped, now or when the run that has it ends. Gives that
    /// run, to be cancelled.
    pub(super) fn end(&mut self, session: &str) -> Option<Lease> {
        let name = id::of_session(session)?;
        let id = self.moved.remove(&name);
        drop(self.shelf.take(id.as_deref().unwrap_or(&name)));
        Some(self.used.remove(&name)?.lease)
    }

    /// Ends all.
    pub(super) fn clear(&mut self) {
        let leases = self.leases;
        *self = Self { leases, ..Self::new(self.limits, self.budget.clone()) };
    }

    /// Conversations that no run has.
    pub(super) fn idle(&self) -> usize {
        self.shelf.len()
    }

    fn name_of(&self, lease: Lease) -> Option<String> {
        let found = self.used.iter().find(|(_, used)| used.lease == lease);
        found.map(|(name, _)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::CountingIds;

    fn sessions() -> Sessions {
        Sessions::new(ShelfLimits::default(), BlobBudget::default())
    }

    fn take(sessions: &mut Sessions, session: &str) -> (Lease, Conversation) {
        match sessions.open(Some(session)) {
            Opened::Ready(lease, conversation) => (lease, *conversation),
            other => panic!("{other:?}"),
        }
    }

    /// Runs once in `session`: the conversation that it had before.
    fn run(sessions: &mut Sessions, session: &str) -> usize {
        let (lease, mut conversation) = take(sessions, session);
        let before = conversation.blobs().len();
        conversation.set_blob(&[7], b"state").unwrap();
        sessions.give_back(lease, Some(conversation));
        before
    }

    #[test]
    fn c027_sessions_that_end_leave_nothing() {
        let mut sessions = sessions();
        let names = ["session_before_switch", "session_before_fork", "session_before_tree", " s "];
        for name in names {
            assert_eq!(run(&mut sessions, name), 0);
            assert_eq!(run(&mut sessions, name), 1, "it goes on");
        }
        assert_eq!(sessions.idle(), 4);
        for (left, name) in names.iter().enumerate() {
            assert_eq!(sessions.end(name), None);
            assert_eq!(sessions.idle(), 3 - left);
        }
        // H17: blanks around an id do not count, when a run takes it and when it ends.
        assert_eq!((run(&mut sessions, "s"), sessions.end(" s ")), (0, None));
        assert_eq!((sessions.idle(), sessions.end("")), (0, None));
    }

    #[test]
    fn a_session_is_with_one_run_at_a_time() {
        let mut sessions = sessions();
        let (first, conversation) = take(&mut sessions, "s");
        assert!(matches!(sessions.open(Some("s")), Opened::Busy));
        assert!(matches!(sessions.open(Some("t")), Opened::Ready(..)));
        sessions.returning(first);
        assert!(matches!(sessions.open(Some("s")), Opened::Returning));
        sessions.give_back(first, Some(conversation));
        let (second, _) = take(&mut sessions, "s");
        assert_ne!(first, second);
        sessions.give_back(second, None);
        assert!(matches!(sessions.open(Some("s")), Opened::Ready(..)));
        // Without a session nobody waits for anybody, and nothing is kept.
        for none in [None, None, Some("  ")] {
            let Opened::Ready(lease, conversation) = sessions.open(none) else { panic!() };
            assert_eq!(conversation.id(), None);
            sessions.give_back(lease, Some(*conversation));
        }
        assert_eq!(sessions.idle(), 0);
    }

    #[test]
    fn what_comes_back_after_the_end_is_dropped() {
        let mut sessions = sessions();
        let (old, conversation) = take(&mut sessions, "s");
        assert_eq!(sessions.end("s"), Some(old));
        assert!(!sessions.has(old));
        let (new, fresh) = take(&mut sessions, "s");
        sessions.give_back(old, Some(conversation));
        assert_eq!(sessions.idle(), 0);
        assert!(sessions.has(new), "the old run cannot end the new one's right");
        sessions.give_back(new, Some(fresh));
        assert_eq!(sessions.idle(), 1);
        sessions.clear();
        assert_eq!(sessions.idle(), 0);
    }

    #[test]
    fn a_conversation_that_moved_to_another_id_is_found_again() {
        let mut sessions = sessions();
        let (lease, mut conversation) = take(&mut sessions, "s");
        let moved = conversation.rotate(&mut CountingIds::hex()).to_owned();
        sessions.give_back(lease, Some(conversation));
        let (lease, conversation) = take(&mut sessions, "s");
        assert_eq!(conversation.id(), Some(moved.as_str()));
        sessions.give_back(lease, Some(conversation));
        assert_eq!((sessions.end("s"), sessions.idle()), (None, 0));
    }
}
