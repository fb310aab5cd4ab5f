//! A command with everything it started, and the end of all of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::members::{self, Known};

/// How long the system may take to end what was killed. What is still there then sleeps in the
/// kernel, and goes when it wakes. No option: nothing can be done about it.
const LAST: Duration = Duration::from_secs(2);
/// Between two looks whether all have ended: the first pause, and the longest.
const LOOK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The variable with the mark. A command inside a command carries the marks of both.
pub(crate) const MARK: &str = "AGENTWIRE_SHELL";

/// The commands of one workspace that have not ended yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Mutex<Vec<Id>>>);

impl Running {
    /// Ends all of them, without a grace.
    pub(crate) fn kill(&self) {
        // Not under the lock: it looks through all processes.
        let all = self.list().clone();
        all.iter().for_each(|id| id.signal(Signal::KILL));
    }

    fn remove(&self, id: &Id) {
        self.list().retain(|other| other.mark != id.mark);
    }

    fn list(&self) -> MutexGuard<'_, Vec<Id>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processes of one command: its process group, and on Linux also those that left the group
/// but carry the mark in their environment, or are children of one that belongs to it. Only what
/// leaves the session, clears its environment and loses its parent before anybody looks gets away.
///
/// None of them outlives this value by more than the grace: when it is dropped before
/// [`Group::end`] is through, they get SIGTERM at once, and after the grace SIGKILL from a task of
/// the runtime. Where there is no runtime, or it shuts down, they get SIGKILL at once.
#[derive(Debug)]
pub(crate) struct Group {
    id: Id,
    grace: Duration,
    state: State,
    running: Running,
}

#[derive(Debug, Clone)]
pub(super) struct Id {
    /// The process that leads the group and the session.
    pub(super) leader: Pid,
    pub(super) mark: String,
    /// All that were there at the last look.
    pub(super) strays: Arc<Mutex<HashSet<Known>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// Dropped once; a task is ending it.
    Orphaned,
    Ended,
}

impl Group {
    /// `leader` leads a session and a process group, with `mark` in its [`MARK`].
    pub(crate) fn new(leader: Pid, mark: String, grace: Duration, running: &Running) -> Self {
        let id = Id { leader, mark, strays: Arc::default() };
        running.list().push(id.clone());
        Self { id, grace, state: State::Running, running: running.clone() }
    }

    /// The longest that [`Group::end`] takes.
    pub(crate) fn longest(&self) -> Duration {
        self.grace + LAST
    }

    /// Ends all of it: SIGTERM, and SIGKILL to what is left after the grace.
    pub(crate) async fn end(&mut self) {
        if self.id.any().await {
            self.id.signal(Signal::TERM);
            if !self.gone_within(self.grace, None).await {
                self.gone_within(LAST, Some(Signal::KILL)).await;
            }
        }
        self.state = State::Ended;
        self.running.remove(&self.id);
    }

    /// Waits until none is left; with a signal, each look sends it, because new ones can be born
    /// while the old are killed.
    async fn gone_within(&self, time: Duration, signal: Option<Signal>) -> bool {
        let until = Instant::now() + time;
        let mut pause = LOOK.0;
        loop {
            if let Some(signal) = signal {
                self.id.signal(signal);
            }
            if !self.id.any().await {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        match (self.state, Handle::try_current()) {
            (State::Ended, _) => {}
            (State::Running, Ok(runtime)) => {
                self.id.signal(Signal::TERM);
                let (id, grace, running) = (self.id.clone(), self.grace, self.running.clone());
                let mut orphan = Self { id, grace, state: State::Orphaned, running };
                runtime.spawn(async move { orphan.end().await });
            }
            _ => {
                self.id.signal(Signal::KILL);
                self.running.remove(&self.id);
            }
        }
    }
}

impl Id {
    /// Whether any of them is left. Looking takes a while where there are many processes.
    async fn any(&self) -> bool {
        let id = self.clone();
        // A runtime that shuts down does not look: then there may be some.
        tokio::task::spawn_blocking(move || members::any(&id)).await.unwrap_or(true)
    }

    fn signal(&self, signal: Signal) {
        // Looked for first: a child whose parent is killed is nobody's any more.
        let strays = members::strays(self);
        // An error means that it has ended, or is not ours any more: a program that changed its
        // user. There is nothing else to be done about either.
        let _ = kill_process_group(self.leader, signal);
        strays.into_iter().for_each(|stray| stray.signal(signal));
    }
}
