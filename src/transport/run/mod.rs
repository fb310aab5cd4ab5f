//! A run as its caller sees it: events out, answers in.

mod batch;
mod credit;
mod handlers;
mod keeper;
mod link;
mod mailbox;
mod span;
mod tap;
mod task;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio_stream::Stream;

use crate::context::ToolResult;
use crate::conversation::Conversation;
use crate::error::{Error, Result};
use crate::proto::conversation_action::Action;
use crate::run::{Ended, Event, EventRef};

use batch::Batch;
use mailbox::{Command, Wishes};

pub(crate) use batch::BatchLimits;
pub(crate) use handlers::{Handlers, Host};
pub(crate) use keeper::Keeper;
pub(crate) use link::Router;
pub(crate) use mailbox::Mailbox;
pub(crate) use tap::Tap;
pub(crate) use task::{Beside, Task, TaskLimits};

/// One run that is under way.
///
/// Events come with [`Run::next`], as a [`Stream`], or borrowed and many at a time with
/// [`Run::next_batch`]. [`Event::Ended`] is the last one. Tool calls are answered with
/// [`Run::answer`] and the run goes on.
///
/// A task of its own drives the run, so that heartbeats are sent and questions of the service are
/// answered whether events are read or not; when too many wait, the service is slowed down. Dropping
/// the `Run` cancels it: the service is told, then the stream is reset.
///
/// When the way to the service fails, the run goes on over another stream, from the last checkpoint:
/// a [`Notice`](crate::run::Notice) says so, text that was handed out before is not handed out again,
/// and a tool that was answered is not called again (see [`Turn`](crate::run::Turn)).
pub struct Run {
    mailbox: Arc<Mailbox>,
    request_id: String,
    /// Taken from the mailbox, being read.
    batch: Batch,
    ended: Option<Ended>,
}

/// Answers and cancels a run from elsewhere, while its events are read. Clones act on the same run;
/// dropping them does nothing.
#[derive(Clone)]
pub struct RunHandle {
    mailbox: Arc<Mailbox>,
}

impl Run {
    pub(crate) fn new(mailbox: Arc<Mailbox>, request_id: String) -> Self {
        Self { mailbox, request_id, batch: Batch::default(), ended: None }
    }

    /// The `x-request-id` of this run, for a report to the service.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The next event; `None` after [`Event::Ended`].
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Hands the events that are there to `sink`, borrowed, and says how many they were; waits for
    /// the first. `None` after [`Event::Ended`]. The fast way: a token costs no allocation. Of a
    /// great many each call hands out a part.
    pub async fn next_batch(&mut self, mut sink: impl FnMut(EventRef<'_>)) -> Option<usize> {
        poll_fn(|cx| self.poll_events(cx, &mut sink)).await
    }

    /// As [`Run::next_batch`], for futures written by hand.
    pub fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        mut sink: impl FnMut(EventRef<'_>),
    ) -> Poll<Option<usize>> {
        if std::task::ready!(self.poll_filled(cx)).is_none() {
            return Poll::Ready(None);
        }
        let ended = &mut self.ended;
        let count = self.batch.drain(|event| {
            note_end(ended, &event);
            sink(event);
        });
        Poll::Ready(Some(count))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if std::task::ready!(self.poll_filled(cx)).is_none() {
            return Poll::Ready(None);
        }
        let event = self.batch.next();
        if let Some(event) = &event {
            note_end(&mut self.ended, event);
        }
        Poll::Ready(event.map(EventRef::to_event))
    }

    /// Ready when there is an event in the batch; `None` when there will be no more.
    fn poll_filled(&mut self, cx: &Context<'_>) -> Poll<Option<()>> {
        if !self.batch.is_empty() {
            return Poll::Ready(Some(()));
        }
        self.mailbox.poll_take(cx, &mut self.batch).map(|more| more.then_some(()))
    }

    /// Answers all tool calls that were handed out; ready when the answer is on its way. While the
    /// peer takes no data, an earlier answer is waited for.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest), before anything is written:
    /// see [`Session::answer`](crate::run::Session::answer).
    pub async fn answer(&self, results: Vec<ToolResult>) -> Result<()> {
        self.mailbox.answer(results, true).await
    }

    /// Answers some of the tool calls that were handed out; the others may follow.
    ///
    /// # Errors
    /// As [`Run::answer`], but no answer can be missing.
    pub async fn answer_some(&self, results: Vec<ToolResult>) -> Result<()> {
        self.mailbox.answer(results, false).await
    }

    /// Sends a user message into the running turn, and gives its id: the service's acknowledgement
    /// carries it.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest) when the turn is over.
    pub async fn say(&self, text: impl Into<String>) -> Result<String> {
        self.mailbox.say(text.into()).await
    }

    /// Sends an action into the running turn: a summary, a shell command, a plan, the late answer
    /// to a question.
    ///
    /// # Errors
    /// As [`Run::say`].
    pub async fn act(&self, action: Action) -> Result<()> {
        self.mailbox.act(action).await
    }

    /// Stops the run: tells the service, then resets the stream. The last event says
    /// [`Kind::Cancelled`](crate::error::Kind::Cancelled). Does nothing when the run is over.
    pub fn cancel(&self) {
        self.mailbox.wish(Wishes { cancel: true, ..Wishes::default() });
    }

    /// The conversation as it stands, with what another process needs to go on with this turn
    /// ([`Conversation::open_turn`]). Once the run is over it is what [`Run::finish`] gives, and of
    /// one that failed also what is left undone. It may be ahead of the events that were read, never
    /// behind them.
    pub async fn snapshot(&self) -> Conversation {
        self.mailbox.snapshot().await.unwrap_or_default()
    }

    /// Answers and cancels from elsewhere.
    pub fn handle(&self) -> RunHandle {
        RunHandle { mailbox: Arc::clone(&self.mailbox) }
    }

    /// Waits for the end, passing over events that were not read, and gives the conversation back
    /// for the next run. To stop early, call [`Run::cancel`] first. What the service committed
    /// before a failure is in the conversation.
    ///
    /// It also waits until the last word to the service (the cancel, the end of a stream that the
    /// service has not ended) has left, at most [`FLUSH_LIMIT`](crate::run::FLUSH_LIMIT): a program
    /// that ends after it has told the service.
    pub async fn finish(mut self) -> (Ended, Conversation) {
        while self.next_batch(|_| {}).await.is_some() {}
        poll_fn(|cx| self.mailbox.poll_left(cx)).await;
        let ended = self.ended.take().unwrap_or_else(|| Err(over()));
        (ended, self.mailbox.take_conversation().unwrap_or_default())
    }
}

#[inline]
fn note_end(ended: &mut Option<Ended>, event: &EventRef<'_>) {
    if let EventRef::Other(event) = event {
        note_end_of(ended, event);
    }
}

#[cold]
fn note_end_of(ended: &mut Option<Ended>, event: &Event) {
    if let Event::Ended(end) = event {
        *ended = Some(end.clone());
    }
}

fn over() -> Error {
    Error::invalid("the run is over; that came too late")
}

impl RunHandle {
    /// As [`Run::answer`].
    ///
    /// # Errors
    /// As [`Run::answer`].
    pub async fn answer(&self, results: Vec<ToolResult>) -> Result<()> {
        self.mailbox.answer(results, true).await
    }

    /// As [`Run::answer_some`].
    ///
    /// # Errors
    /// As [`Run::answer_some`].
    pub async fn answer_some(&self, results: Vec<ToolResult>) -> Result<()> {
        self.mailbox.answer(results, false).await
    }

    /// As [`Run::say`].
    ///
    /// # Errors
    /// As [`Run::say`].
    pub async fn say(&self, text: impl Into<String>) -> Result<String> {
        self.mailbox.say(text.into()).await
    }

    /// As [`Run::act`].
    ///
    /// # Errors
    /// As [`Run::say`].
    pub async fn act(&self, action: Action) -> Result<()> {
        self.mailbox.act(action).await
    }

    /// Waits until the run is over and its last word to the service has left, whether or not its
    /// events are read.
    pub async fn left(&self) {
        self.mailbox.left().await;
    }

    /// As [`Run::cancel`].
    pub fn cancel(&self) {
        self.mailbox.wish(Wishes { cancel: true, ..Wishes::default() });
    }
}

impl Mailbox {
    async fn answer(&self, results: Vec<ToolResult>, all: bool) -> Result<()> {
        self.ask(|reply| Command::Answer(results, all, reply)).await
    }

    async fn say(&self, text: String) -> Result<String> {
        self.ask(|reply| Command::Say(text, reply)).await
    }

    async fn act(&self, action: Action) -> Result<()> {
        self.ask(|reply| Command::Act(Box::new(action), reply)).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (reply, answered) = oneshot::channel();
        self.put_command(command(reply));
        answered.await.unwrap_or_else(|_| Err(over()))
    }
}

impl Stream for Run {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.get_mut().poll_event(cx)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.mailbox.wish(Wishes { gone: true, ..Wishes::default() });
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunHandle").finish_non_exhaustive()
    }
}
