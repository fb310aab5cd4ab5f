//! What a run's task and its handles share: events one way, commands the other.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::{Notify, oneshot};

use crate::context::ToolResult;
use crate::conversation::Conversation;
use crate::error::Result;
use crate::proto::conversation_action::Action;

use super::batch::{Batch, BatchLimits, Waiting};

/// What the consumer says into the run, and where the session's opinion of it goes.
pub(crate) enum Command {
    /// Answers to tool calls; the flag: all that were handed out must be answered.
    Answer(Vec<ToolResult>, bool, oneshot::Sender<Result<()>>),
    /// A user message into the turn.
    Say(String, oneshot::Sender<Result<String>>),
    /// An action into the turn.
    Act(Box<Action>, oneshot::Sender<Result<()>>),
}

/// What the consumer wants of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wishes {
    pub(crate) cancel: bool,
    /// Nobody reads events any more.
    pub(crate) gone: bool,
    /// Somebody waits for a snapshot. It follows from who asked.
    pub(crate) snapshot: bool,
}

/// How the events that were published are getting on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queue {
    /// The consumer had taken everything that was published before.
    pub(crate) was_taken: bool,
    /// Bytes that wait for it now, roughly; 0 when nothing does.
    pub(crate) weight: usize,
    /// As much waits as may.
    pub(crate) is_full: bool,
}

#[derive(Default)]
struct State {
    waiting: Waiting,
    wishes: Wishes,
    commands: VecDeque<Command>,
    /// Who waits for a snapshot.
    askers: Vec<oneshot::Sender<Conversation>>,
    /// The task is over; nothing comes after what waits.
    closed: bool,
    /// The task is gone: what it still had to say to the service has left, or never will.
    left: bool,
    conversation: Option<Box<Conversation>>,
    /// The same, with the turn that a run which failed left undone.
    broken: Option<Box<Conversation>>,
    /// The task waits for everything to be taken.
    task_waits: bool,
    consumer: Option<Waker>,
    task: Option<Waker>,
}

/// Shared between the task of a run and its handles.
#[derive(Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    gone: Notify,
}

impl Mailbox {
    /// The state is valid between statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The task's side.

    /// What is wanted. The task is woken when that changes, or when a command comes.
    pub(crate) fn look(&self, cx: &Context<'_>) -> Wishes {
        let mut state = self.lock();
        register(&mut state.task, cx);
        Wishes { snapshot: !state.askers.is_empty(), ..state.wishes }
    }

    /// The next command; to be asked for only while there is room to write it.
    pub(crate) fn take_command(&self) -> Option<Command> {
        self.lock().commands.pop_front()
    }

    /// Gives the snapshot to those who wait for one.
    pub(crate) fn give_snapshot(&self, snapshot: &Conversation) {
        let mut state = self.lock();
        let askers = std::mem::take(&mut state.askers);
        drop(state);
        for asker in askers {
            // Who asked may have gone.
            let _ = asker.send(snapshot.clone());
        }
    }

    /// Hands events over, wakes the consumer when it had none, and says how many wait.
    pub(crate) fn publish(&self, events: &mut Batch, limits: &BatchLimits) -> Queue {
        let mut state = self.lock();
        let was_taken = state.waiting.is_empty();
        let consumer = if was_taken && !events.is_empty() { state.consumer.take() } else { None };
        state.waiting.push(events);
        let (weight, is_full) = (state.waiting.weight(), state.waiting.is_full(limits));
        drop(state);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
        Queue { was_taken, weight, is_full }
    }

    /// Asks to be woken when what waits is taken. False when that has happened already.
    pub(crate) fn wait_until_taken(&self) -> bool {
        let mut state = self.lock();
        state.task_waits = !state.waiting.is_empty();
        state.task_waits
    }

    /// The last events, and the conversation back; for a run that failed also its last snapshot.
    /// Commands find nobody from now on.
    pub(crate) fn close(
        &self,
        events: &mut Batch,
        conversation: Conversation,
        broken: Option<Conversation>,
    ) {
        let conversation = Box::new(conversation);
        let mut state = self.lock();
        state.closed = true;
        state.waiting.push(events);
        state.conversation = Some(conversation);
        state.broken = broken.map(Box::new);
        let commands = std::mem::take(&mut state.commands);
        let askers = std::mem::take(&mut state.askers);
        let consumer = state.consumer.take();
        drop(state);
        drop((commands, askers));
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    /// The task is gone. The last word to the service has been said.
    pub(crate) fn leave(&self) {
        let mut state = self.lock();
        state.left = true;
        let consumer = state.consumer.take();
        drop(state);
        self.gone.notify_waiters();
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    /// Waits until the task is gone; for those who are not the consumer.
    pub(crate) async fn left(&self) {
        let mut gone = std::pin::pin!(self.gone.notified());
        // From here on its end is not missed.
        gone.as_mut().enable();
        if !self.lock().left {
            gone.await;
        }
    }

    // The consumer's side.

    /// Ready when the task is gone.
    pub(crate) fn poll_left(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.left {
            return Poll::Ready(());
        }
        register(&mut state.consumer, cx);
        Poll::Pending
    }

    /// Swaps `read`, which has been read to its end, for the next batch. `Ready(false)`: the run is
    /// over and everything was taken.
    pub(crate) fn poll_take(&self, cx: &Context<'_>, read: &mut Batch) -> Poll<bool> {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            if state.closed {
                return Poll::Ready(false);
            }
            register(&mut state.consumer, cx);
            return Poll::Pending;
        }
        state.waiting.swap(read);
        let all = state.waiting.is_empty();
        let waits = all && std::mem::take(&mut state.task_waits);
        let task = if waits { state.task.take() } else { None };
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Poll::Ready(true)
    }

    /// The conversation as it stands: the task's, and what it left once it is over.
    pub(crate) async fn snapshot(&self) -> Option<Conversation> {
        match self.ask_snapshot().await {
            Ok(snapshot) => Some(snapshot),
            Err(_) => {
                let state = self.lock();
                state.broken.as_deref().or(state.conversation.as_deref()).cloned()
            }
        }
    }

    fn ask_snapshot(&self) -> oneshot::Receiver<Conversation> {
        let (asker, snapshot) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            return snapshot;
        }
        state.askers.push(asker);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        snapshot
    }

    pub(crate) fn take_conversation(&self) -> Option<Conversation> {
        self.lock().conversation.take().map(|conversation| *conversation)
    }

    /// Gives `command` to the task. One that comes too late is dropped, and its reply with it.
    pub(crate) fn put_command(&self, command: Command) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.commands.push_back(command);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Adds to the wishes.
    pub(crate) fn wish(&self, wishes: Wishes) {
        let mut state = self.lock();
        state.wishes.cancel |= wishes.cancel;
        state.wishes.gone |= wishes.gone;
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// Keeps the waker of `cx`, unless what is there wakes the same task.
pub(super) fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}
