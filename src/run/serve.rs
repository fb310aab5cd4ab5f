//! Execs and queries that somebody here serves: which wait, which run, until when.

use std::collections::VecDeque;
use std::time::Instant;

use crate::codec::reply::{QueryKind, Refusable};
use crate::exec::ExecCall;
use crate::proto::exec_server_message::Message as Case;
use crate::proto::interaction_query::Query;

/// Names one served exec or query within its run; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServeKey(u64);

#[cfg(all(test, feature = "client"))]
impl ServeKey {
    pub(crate) const ANY: Self = Self(1);
}

/// Something for a handler: a task of its own, reported back under `key`.
#[derive(Debug, PartialEq)]
pub struct ServeTask {
    /// Comes back with the result.
    pub key: ServeKey,
    /// What is asked.
    pub work: Work,
}

/// What a handler is asked.
#[derive(PartialEq)]
pub enum Work {
    /// An exec: arguments for one method of [`ExecHandler`](crate::exec::ExecHandler).
    Exec {
        /// How the service names it.
        call: ExecCall,
        /// The case and its arguments.
        case: Case,
    },
    /// A query: permission, question, plan, mode switch.
    Query {
        /// The number that matches question and answer.
        id: u32,
        /// The case and what it says.
        query: Query,
    },
}

impl std::fmt::Debug for Work {
    /// Names only: arguments are a person's files and commands.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exec { call, case } => {
                write!(f, "Exec({}, {})", call.id, crate::exec::name(case))
            }
            Self::Query { id, .. } => write!(f, "Query({id})"),
        }
    }
}

/// How far an exec whose result is a stream of shell events has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shell {
    /// Nothing sent.
    Silent,
    /// Start sent.
    Started,
    /// Exit sent, or that it goes on in the background, or that it may not run: nothing may follow.
    Exited,
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) key: ServeKey,
    pub(super) asked: Asked,
    /// What a handler is to be given; it has it once it is at work.
    work: Option<Work>,
    /// Bytes of the message that brought it.
    bytes: usize,
    deadline: Option<Instant>,
    heartbeat: Option<Instant>,
}

/// What it takes to answer a question, or to refuse it.
#[derive(Debug)]
pub(super) enum Asked {
    Exec {
        call: ExecCall,
        /// Name of the case in the schema.
        name: &'static str,
        form: Refusable,
        /// How far it has come, where its result is a stream.
        shell: Option<Shell>,
    },
    Query {
        id: u32,
        query: QueryKind,
    },
}

impl Asked {
    pub(super) fn of(work: &Work) -> Self {
        match work {
            Work::Exec { call, case } => Self::Exec {
                call: call.clone(),
                name: crate::exec::name(case),
                form: Refusable::of(case),
                shell: matches!(case, Case::ShellStreamArgs(_)).then_some(Shell::Silent),
            },
            Work::Query { id, query } => Self::Query { id: *id, query: QueryKind::of(query) },
        }
    }

    fn is_exec(&self, exec_id: u32) -> bool {
        matches!(self, Self::Exec { call, .. } if call.id == exec_id)
    }
}

/// Questions at work and questions that wait for a place.
#[derive(Debug, Default)]
pub(super) struct ServeTable {
    running: Vec<Served>,
    waiting: VecDeque<Served>,
    next_key: u64,
}

impl ServeTable {
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// The last key that was given out.
    pub(super) fn last_key(&self) -> u64 {
        self.next_key
    }

    /// Goes on counting after the keys of an earlier attempt: none is used twice.
    pub(super) fn count_on(&mut self, last_key: u64) {
        self.next_key = self.next_key.max(last_key);
    }

    /// Bytes of the messages that brought the questions.
    pub(super) fn bytes(&self) -> usize {
        self.running.iter().chain(&self.waiting).map(|served| served.bytes).sum()
    }

    /// Takes a question in. Its time runs from now on: whether it works or waits for a place is
    /// the same to the service.
    pub(super) fn insert(
        &mut self,
        asked: Asked,
        work: Work,
        bytes: usize,
        deadline: Option<Instant>,
    ) {
        self.next_key += 1;
        let (key, work) = (ServeKey(self.next_key), Some(work));
        self.waiting.push_back(Served { key, asked, work, bytes, deadline, heartbeat: None });
    }

    /// The next question that finds a place; it is at work from now on.
    pub(super) fn start_one(&mut self, at_once: usize) -> Option<ServeTask> {
        if self.running.len() >= at_once {
            return None;
        }
        let mut served = self.waiting.pop_front()?;
        let work = served.work.take()?;
        let task = ServeTask { key: served.key, work };
        self.running.push(served);
        Some(task)
    }

    /// Ends the question of this key, wherever it stands.
    pub(super) fn remove(&mut self, key: ServeKey) -> Option<Served> {
        self.take(|served| served.key == key).map(|(served, _)| served)
    }

    /// The exec that the service calls off, and whether a handler is at work on it.
    pub(super) fn abort(&mut self, exec_id: u32) -> Option<(Served, bool)> {
        self.take(|served| served.asked.is_exec(exec_id))
    }

    /// How far the shell of this key has come, to be moved on. `None` when it is not streaming.
    pub(super) fn shell(&mut self, key: ServeKey) -> Option<(u32, &str, &mut Shell)> {
        let served = self.running.iter_mut().find(|served| served.key == key)?;
        match &mut served.asked {
            Asked::Exec { call, shell: Some(shell), .. } => Some((call.id, &call.exec_id, shell)),
            _ => None,
        }
    }

    /// Handlers at work, for a run that ends.
    pub(super) fn drain_running(&mut self) -> impl Iterator<Item = ServeKey> + '_ {
        self.waiting.clear();
        self.running.drain(..).map(|served| served.key)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.running.iter().chain(&self.waiting).filter_map(|served| served.deadline).min()
    }

    /// A question that has taken longer than its limit, and whether a handler is at work on it.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Option<(Served, bool)> {
        let overdue = |served: &Served| served.deadline.is_some_and(|at| at <= now);
        self.take(overdue)
    }

    /// The first question of which `is` holds, at work or not.
    fn take(&mut self, is: impl Fn(&Served) -> bool) -> Option<(Served, bool)> {
        if let Some(at) = self.running.iter().position(&is) {
            return Some((self.running.swap_remove(at), true));
        }
        let at = self.waiting.iter().position(is)?;
        self.waiting.remove(at).map(|served| (served, false))
    }

    /// Everything written has left: each exec without a heartbeat to come gets one. Those that
    /// wait for a place count as well: the service cannot tell the difference.
    pub(super) fn arm_heartbeats(&mut self, at: Option<Instant>) {
        for served in self.running.iter_mut().chain(&mut self.waiting) {
            if served.heartbeat.is_none() && matches!(served.asked, Asked::Exec { .. }) {
                served.heartbeat = at;
            }
        }
    }

    pub(super) fn next_heartbeat(&self) -> Option<Instant> {
        self.running.iter().chain(&self.waiting).filter_map(|served| served.heartbeat).min()
    }

    pub(super) fn take_due_heartbeats(&mut self, now: Instant) -> Vec<u32> {
        let mut due = Vec::new();
        for served in self.running.iter_mut().chain(&mut self.waiting) {
            if served.heartbeat.is_some_and(|at| at <= now)
                && let Asked::Exec { call, .. } = &served.asked
            {
                served.heartbeat = None;
                due.push(call.id);
            }
        }
        due
    }
}
