//! The seam to a model: what answers, whoever it is.
//!
//! [`Model`] is implemented by the transport's [`Client`](agentwire::Client) ([`Hosted`] where it
//! serves files and commands too), by [`Local`], the local server in memory, and by [`Scripted`],
//! which plays turns from a list or a function.

mod client;
mod local;
mod scripted;

use std::future::Future;
use std::pin::Pin;

use agentwire::context::{Context, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::error::{Error, Result};
use agentwire::run::Event;
pub use agentwire::transport::StartError;

use crate::failure::Failure;

pub use client::Hosted;
pub use local::Local;
pub use scripted::{Reply, Scripted};

/// A boxed future: what object-safe async methods give.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One request to a model.
#[derive(Debug, Clone, Default)]
pub struct ModelRequest {
    /// Id of the model.
    pub model: String,
    /// System prompt, history and tools. Ends with a user message, or with tool results or a cut
    /// answer when a broken turn is continued; with what the turn began with when the conversation
    /// holds the rest as its [open turn](Conversation::open_turn).
    pub context: Context,
    /// The service's side of the conversation: id, last checkpoint, blobs. It comes back with
    /// [`ModelRun::finish`] or with the error.
    pub conversation: Conversation,
}

/// Something that answers requests.
pub trait Model: Send + Sync {
    /// Starts one run. May return before anything is known of the answer: what fails later is the
    /// run's last event.
    ///
    /// # Errors
    /// The request cannot be sent as it is; the conversation comes back with the error.
    fn start(&self, request: ModelRequest) -> Boxed<'_, Result<Box<dyn ModelRun>, StartError>>;

    /// What an error of this model means; decides over fallback and whether a person is needed.
    fn classify(&self, error: &Error) -> Failure {
        Failure::from(error)
    }
}

/// One run of a model: a stream of events that pauses for tool results. Dropping it cancels it.
pub trait ModelRun: Send {
    /// The next event. [`Event::Ended`] is the last; `None` after it. Dropping the future loses no
    /// event.
    fn next(&mut self) -> Boxed<'_, Option<Event>>;

    /// Answers tool calls that the run handed out, and says something to the running turn after
    /// it; the run goes on.
    ///
    /// # Errors
    /// The run no longer waits for them. Start another with the results in its context.
    fn answer(&mut self, results: Vec<ToolResult>, say: Vec<String>) -> Boxed<'_, Result<()>>;

    /// The conversation as it stands, with what another process needs to go on with the turn. Asked
    /// at each checkpoint, so that a process that is killed later has it. `None`, which is what a
    /// run gives that does not say otherwise: it is known at the end only.
    fn state(&mut self) -> Boxed<'_, Option<Conversation>> {
        Box::pin(std::future::ready(None))
    }

    /// Stops the run; the service is told.
    fn cancel(&mut self);

    /// Ends the run, passing over what was not read, and gives the conversation back with what the
    /// service committed. Cancel first to stop early.
    fn finish(self: Box<Self>) -> Boxed<'static, Conversation>;
}
