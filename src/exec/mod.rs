//! Serving what the service asks this machine to do: the exec channel (PROTOCOL 3).
//!
//! An embedder implements [`ExecHandler`] for the families it wants to serve; every other one is
//! refused at once, in the case's own typed way, so that no question parks a run. Arguments and
//! results are the protocol's own messages ([`crate::proto`]).
//!
//! The handler is asked on a task of its own. It is cancelled by being dropped: when the service
//! aborts the exec, when the run ends, and when it takes longer than its limit. So it must not block
//! its thread: hand such work to a thread of its own and await that. Heartbeats, the
//! result, and the closing of the exec are the run's business.

mod ask;
mod handler;

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::proto::exec_client_message::Message as Reply;
use crate::proto::exec_server_message::Message as Case;
use crate::proto::shell_stream;

pub use ask::{Ask, put};
pub use handler::{Dispatch, ExecHandler, answers, dispatch, name};

/// What a handler's method gives: a future of the result, or of a refusal.
pub type Served<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// How the service names one exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecCall {
    /// The number that matches question and answer.
    pub id: u32,
    /// A second name that is handed back with the answer; may be empty.
    pub exec_id: String,
}

/// What a tool does to the world: whether it may run again when a turn is made again
/// (PROTOCOL 3, end of a turn).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effects {
    /// It only looks.
    ReadOnly,
    /// It may change something: a turn in which it ran is not made again.
    Changes,
}

/// Why an exec is not served. The service is told in the case's own way, the model reads the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    reason: Option<Cow<'static, str>>,
}

impl Refusal {
    /// Nobody here serves this kind; the text names the tool and what to use instead.
    pub fn not_served() -> Self {
        Self { reason: None }
    }

    /// Refused for this reason. The model reads it: say what would work instead.
    pub fn because(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Some(reason.into()) }
    }

    /// The handler's own words, if it gave any.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason().unwrap_or("not served here"))
    }
}

impl std::error::Error for Refusal {}

/// Where a streaming shell writes its events: start, stdout, stderr, exit, in this order.
///
/// The future resolves when there is room again, so a shell that prints faster than the service
/// reads is slowed and not buffered.
pub trait ShellSink: Send {
    /// Sends one event.
    fn send(&mut self, event: shell_stream::Event)
    -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Does what [`ExecHandler::not_served`] methods do: the default body.
fn not_served<'a, T: Send + 'a>() -> Served<'a, T> {
    Box::pin(std::future::ready(Err(Refusal::not_served())))
}

/// A handler that serves nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServeNothing;

impl ExecHandler for ServeNothing {
    fn serves(&self, _case: &Case) -> bool {
        false
    }
}

/// Wraps a result in the oneof of the answer: used by the dispatch table.
fn reply<T>(wrap: fn(Box<T>) -> Reply) -> impl Fn(T) -> Reply {
    move |result| wrap(Box::new(result))
}
