//! A task that is under way, as its caller sees it.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;

use crate::drive::Command;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::session::Session;
use crate::stage::StageError;

/// A task that is under way: a [`Stream`] of [`Event`]s, the last of which is
/// [`Event::Finished`]. Events must be read: when 256 wait, so does the task, but for a cancel and
/// its deadline. Dropping it cancels the task.
pub struct Running {
    events: mpsc::Receiver<Event>,
    control: Control,
    task: Option<JoinHandle<(Outcome, Session)>>,
}

/// Steers a running task from elsewhere. Clones act on the same task; dropping them does nothing.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::UnboundedSender<Command>,
    cancel: CancellationToken,
}

impl Control {
    /// Says something to the running task: the model sees it with the next tool results, or after
    /// its answer. `false`: the task is over.
    pub fn steer(&self, text: impl Into<String>) -> bool {
        self.commands.send(Command::Steer(text.into())).is_ok()
    }

    /// Asks something more when the answer is there, in the same task. `false`: the task is over.
    pub fn follow_up(&self, text: impl Into<String>) -> bool {
        self.commands.send(Command::FollowUp(text.into())).is_ok()
    }

    /// Ends the task soon: the model's run is stopped, tools are dropped, what was said so far
    /// stays in the session. Does nothing when it is over.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// A task that ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The session, for the next task. It is open until this is dropped.
    pub session: Session,
    /// The events that were not read before, where they were asked for.
    pub events: Vec<Event>,
}

impl Running {
    pub(crate) fn new(
        events: mpsc::Receiver<Event>,
        commands: mpsc::UnboundedSender<Command>,
        cancel: CancellationToken,
        task: JoinHandle<(Outcome, Session)>,
    ) -> Self {
        Self { events, control: Control { commands, cancel }, task: Some(task) }
    }

    /// Steers and cancels from elsewhere.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The next event; `None` after [`Event::Finished`].
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Waits for the end, passing over events that were not read.
    ///
    /// # Errors
    /// [`StageError::Session`] when the task's runtime was shut down.
    pub async fn finish(self) -> Result<Ended, StageError> {
        self.end(false).await
    }

    /// Waits for the end and gives all events that were not read, too.
    ///
    /// # Errors
    /// As [`Running::finish`].
    pub async fn collect(self) -> Result<Ended, StageError> {
        self.end(true).await
    }

    async fn end(mut self, keep: bool) -> Result<Ended, StageError> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            if keep {
                events.push(event);
            }
        }
        let gone = || StageError::Session { message: "the task was dropped by its runtime".into() };
        let task = self.task.take().ok_or_else(gone)?;
        let (outcome, session) = task.await.map_err(|_| gone())?;
        Ok(Ended { outcome, session, events })
    }

    /// Waits for the end and gives the answer.
    ///
    /// # Errors
    /// It did not complete; [`StageError`] says why.
    pub async fn final_text(self) -> Result<String, StageError> {
        let ended = self.finish().await?;
        match StageError::of(&ended.outcome.stop) {
            None => Ok(ended.outcome.text),
            Some(error) => Err(error),
        }
    }
}

impl Stream for Running {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.get_mut().events.poll_recv(cx)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.cancel.cancel();
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}
