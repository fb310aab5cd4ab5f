//! Which connection a call gets, and when to make one: state in, [`Action`] out, no I/O.
//!
//! One connection carries all calls as long as it has room. A second one is made when the first is
//! full, one dial at a time, so that calls that start together share a connection. How many it
//! takes, the peer says first of all; until then it gets one call, which need not wait for that, and
//! the others do: placed on a guess they would be stuck behind a limit that came too late. A
//! connection that the peer wants to be rid of (GOAWAY) gets no new calls and ends with its last one.

/// Names a connection of one pool; never used twice.
pub(crate) type ConnId = u64;

/// How many connections and streams a pool may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlanLimits {
    /// Connections at a time, draining ones not counted.
    pub(crate) connections: usize,
    /// Calls on one connection at a time, where the peer allows more.
    pub(crate) streams: usize,
}

/// What the pool has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Give the call that waits longest a place on this connection.
    Assign(ConnId),
    /// Make a connection; then say [`Plan::dialed`] or [`Plan::dial_failed`].
    Dial,
    /// The dial failed and nothing else is there: every waiting call gets its error.
    Fail,
    /// Nothing until something changes.
    Rest,
}

#[derive(Debug)]
struct Conn {
    id: ConnId,
    active: usize,
    /// `None`: the peer has not said yet.
    limit: Option<usize>,
    draining: bool,
}

impl Conn {
    fn has_room(&self, streams: usize) -> bool {
        !self.draining && self.active < self.limit.unwrap_or(1).min(streams)
    }
}

/// The state of one pool.
#[derive(Debug)]
pub(crate) struct Plan {
    limits: PlanLimits,
    /// Oldest first: calls are packed onto the oldest with room, so that surplus ones fall idle.
    conns: Vec<Conn>,
    dialing: bool,
    /// A dial failed while other connections were up: no further one until some call has ended.
    dial_later: bool,
    failed: bool,
    last_id: ConnId,
}

impl Plan {
    pub(crate) fn new(limits: PlanLimits) -> Self {
        Self {
            limits,
            conns: Vec::new(),
            dialing: false,
            dial_later: false,
            failed: false,
            last_id: 0,
        }
    }

    /// The dial succeeded; `limit` is how many streams the peer allows, once it has said so.
    pub(crate) fn dialed(&mut self, limit: Option<usize>) -> ConnId {
        self.last_id += 1;
        self.dialing = false;
        self.conns.push(Conn { id: self.last_id, active: 0, limit, draining: false });
        self.last_id
    }

    /// The dial failed.
    pub(crate) fn dial_failed(&mut self) {
        self.dialing = false;
        if self.usable() == 0 {
            self.failed = true;
        } else {
            self.dial_later = true;
        }
    }

    /// The peer allows this many streams now.
    pub(crate) fn set_limit(&mut self, id: ConnId, limit: Option<usize>) {
        if let Some(conn) = self.conn(id) {
            conn.limit = limit;
        }
    }

    /// The peer takes no new calls on this connection.
    pub(crate) fn drain(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            conn.draining = true;
        }
        self.forget_drained();
    }

    /// The connection is gone.
    pub(crate) fn closed(&mut self, id: ConnId) {
        self.conns.retain(|conn| conn.id != id);
        self.dial_later = false;
    }

    /// A call on this connection has ended.
    pub(crate) fn released(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            conn.active = conn.active.saturating_sub(1);
        }
        self.dial_later = false;
        self.forget_drained();
    }

    /// Whether the connection is known and carries no call.
    pub(crate) fn is_idle(&self, id: ConnId) -> bool {
        self.conns.iter().any(|conn| conn.id == id && conn.active == 0)
    }

    /// Whether the connection may still be handed out.
    pub(crate) fn knows(&self, id: ConnId) -> bool {
        self.conns.iter().any(|conn| conn.id == id)
    }

    /// The connections that may still be handed out.
    pub(crate) fn usable(&self) -> usize {
        self.conns.iter().filter(|conn| !conn.draining).count()
    }

    /// The next thing to do while `waiting` calls wait; call until it is [`Action::Rest`].
    pub(crate) fn poll(&mut self, waiting: usize) -> Action {
        if std::mem::take(&mut self.failed) && waiting > 0 {
            return Action::Fail;
        }
        if waiting == 0 {
            return Action::Rest;
        }
        let streams = self.limits.streams.max(1);
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.has_room(streams)) {
            conn.active += 1;
            return Action::Assign(conn.id);
        }
        // A peer that allows no stream at all does not get better by asking it on another socket, and
        // one that is about to say what it allows is listened to first.
        let wait = |conn: &Conn| !conn.draining && conn.limit.is_none_or(|limit| limit == 0);
        let full = self.usable() >= self.limits.connections.max(1);
        let rest = full || self.dial_later || self.conns.iter().any(wait);
        if rest { Action::Rest } else { self.dial() }
    }

    fn dial(&mut self) -> Action {
        if self.dialing {
            return Action::Rest;
        }
        self.dialing = true;
        Action::Dial
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|conn| conn.id == id)
    }

    fn forget_drained(&mut self) {
        self.conns.retain(|conn| !conn.draining || conn.active > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connections: usize) -> Plan {
        Plan::new(PlanLimits { connections, streams: 100 })
    }

    /// Polls until rest and says what came; calls that got a place wait no longer.
    fn actions(plan: &mut Plan, waiting: &mut usize) -> Vec<Action> {
        let mut seen = Vec::new();
        loop {
            let action = plan.poll(*waiting);
            match action {
                Action::Assign(_) => *waiting -= 1,
                Action::Fail => *waiting = 0,
                Action::Dial => {}
                Action::Rest => return seen,
            }
            seen.push(action);
        }
    }

    #[test]
    fn calls_that_start_together_share_one_dial() {
        let (mut plan, mut waiting) = (plan(4), 3);
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Dial]);
        assert_eq!(plan.dialed(Some(100)), 1);
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1); 3]);
        waiting += 1;
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1)]);
    }

    #[test]
    fn a_full_connection_gets_a_second_beside_it_and_the_rest_queues() {
        let (mut plan, mut waiting) = (plan(2), 5);
        actions(&mut plan, &mut waiting);
        plan.dialed(Some(2));
        let first = [Action::Assign(1), Action::Assign(1), Action::Dial];
        assert_eq!(actions(&mut plan, &mut waiting), first);
        plan.dialed(Some(2));
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(2), Action::Assign(2)]);
        plan.released(2);
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(2)]);
        waiting += 1;
        plan.set_limit(1, Some(3));
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1)]);
    }

    #[test]
    fn a_draining_connection_ends_with_its_last_call_and_is_replaced() {
        let (mut plan, mut waiting) = (plan(1), 1);
        actions(&mut plan, &mut waiting);
        plan.dialed(Some(100));
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1)]);
        plan.drain(1);
        assert!(plan.knows(1) && !plan.is_idle(1));
        waiting += 1;
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Dial]);
        plan.dialed(Some(100));
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(2)]);
        plan.released(1);
        assert!(!plan.knows(1));
        plan.released(2);
        assert!(plan.is_idle(2));
        plan.drain(2);
        assert!(!plan.knows(2), "idle and draining: nothing to wait for");
    }

    #[test]
    fn a_failed_dial_fails_those_who_wait_and_the_next_call_dials_again() {
        let (mut plan, mut waiting) = (plan(2), 2);
        actions(&mut plan, &mut waiting);
        plan.dial_failed();
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Fail]);
        waiting = 1;
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Dial]);
        waiting = 0;
        plan.dial_failed();
        assert_eq!(actions(&mut plan, &mut waiting), []);
        waiting = 1;
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Dial], "nobody waited for that one");
    }

    #[test]
    fn a_failed_second_dial_is_not_repeated_until_something_has_changed() {
        let (mut plan, mut waiting) = (plan(3), 2);
        actions(&mut plan, &mut waiting);
        plan.dialed(Some(1));
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1), Action::Dial]);
        plan.dial_failed();
        assert_eq!(actions(&mut plan, &mut waiting), []);
        plan.released(1);
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1)]);
        waiting += 1;
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Dial]);
    }

    #[test]
    fn a_peer_without_any_stream_is_waited_for_and_not_dialled_again() {
        let (mut plan, mut waiting) = (plan(3), 1);
        actions(&mut plan, &mut waiting);
        plan.dialed(Some(0));
        assert_eq!(actions(&mut plan, &mut waiting), []);
        plan.set_limit(1, Some(1));
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1)]);
    }

    #[test]
    fn a_peer_that_has_not_said_its_limit_gets_one_call_and_no_second_dial() {
        let (mut plan, mut waiting) = (plan(3), 4);
        actions(&mut plan, &mut waiting);
        plan.dialed(None);
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1)]);
        plan.set_limit(1, Some(2));
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(1), Action::Dial]);
        plan.dialed(None);
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Assign(2)]);
        plan.closed(2);
        waiting += 1;
        assert_eq!(actions(&mut plan, &mut waiting), [Action::Dial], "it never said anything");
    }
}
