//! What a session reports, takes and gives.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;

use super::Violation;
use crate::Error;
use crate::proto;

/// The head of an HTTP request. Header names are in lower case.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// `POST`, `GET`, …
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// The query without its question mark; empty where there is none.
    pub query: String,
    /// Headers in the order they came.
    pub headers: Vec<(String, String)>,
}

impl RequestHead {
    /// A POST to `path` with these headers.
    pub fn post<'a>(
        path: impl Into<String>,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let headers =
            headers.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { method: "POST".into(), path: path.into(), query: String::new(), headers }
    }

    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for RequestHead {
    /// Method, path and header names: the values hold the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("RequestHead")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("headers", &names)
            .finish()
    }
}

/// What the driver is to do next.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    /// Send the response head.
    Head {
        /// The HTTP status.
        status: u16,
        /// Names in lower case, values.
        headers: Vec<(String, String)>,
    },
    /// Send these bytes of the body.
    Send(Bytes),
    /// End the body, with these trailers if there are any.
    End {
        /// HTTP trailers; the Connect protocol has none, tests of clients do.
        trailers: Vec<(String, String)>,
    },
    /// Reset the stream with this HTTP/2 code.
    Reset(u32),
    /// Send GOAWAY with this HTTP/2 code: 0 lets the streams that are open go on, another code
    /// ends the connection.
    GoAway(u32),
    /// Cut the connection.
    Cut,
    /// Nothing to do before something comes in or this time passes.
    Wait(Option<Instant>),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head { status, .. } => write!(f, "Head({status})"),
            Self::Send(bytes) => write!(f, "Send({} bytes)", bytes.len()),
            Self::End { trailers } => write!(f, "End({} trailers)", trailers.len()),
            Self::Reset(code) => write!(f, "Reset({code})"),
            Self::GoAway(code) => write!(f, "GoAway({code})"),
            Self::Cut => f.write_str("Cut"),
            Self::Wait(until) => f.debug_tuple("Wait").field(until).finish(),
        }
    }
}

/// What the client did.
#[derive(Clone)]
#[non_exhaustive]
pub enum Event {
    /// The run request, and its conversation state as it came: prost drops unknown fields.
    Run {
        /// The message.
        request: Box<proto::AgentRunRequest>,
        /// Bytes of `conversation_state`; empty when there is none.
        state: Bytes,
    },
    /// A prewarm request.
    Prewarm(Box<proto::PrewarmRequest>),
    /// A result of an exec, or one event of a shell stream.
    ExecResult(Box<proto::ExecClientMessage>),
    /// The client failed an exec.
    ExecThrown {
        /// The numeric id.
        id: u32,
        /// What it says.
        error: String,
    },
    /// An exec is closed: nothing more comes for it.
    ExecClosed {
        /// The numeric id.
        id: u32,
    },
    /// An exec is still running.
    ExecHeartbeat {
        /// The numeric id.
        id: u32,
    },
    /// The answer to a get.
    Blob {
        /// The numeric id.
        id: u32,
        /// The content; `None` when the client does not have it.
        data: Option<Bytes>,
    },
    /// The receipt of a set.
    BlobStored {
        /// The numeric id.
        id: u32,
        /// Why it was refused, if it was.
        error: Option<String>,
    },
    /// The answer to a query.
    Answer(Box<proto::InteractionResponse>),
    /// An action: cancel, a message into the running turn, and the others.
    Action(Box<proto::ConversationAction>),
    /// The client is there.
    Heartbeat,
    /// The client broke a rule; also kept in [`super::Session::violations`].
    Violation(Violation),
    /// The client ended its side.
    HalfClosed,
    /// The client reset the stream, or its connection is gone.
    Gone {
        /// The HTTP/2 code of the reset; `None` when the connection went away.
        code: Option<u32>,
    },
    /// The request cannot be served; the answer is on its way.
    Refused(Error),
}

impl fmt::Debug for Event {
    /// Names, ids and sizes; never what anybody said.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run { state, .. } => write!(f, "Run(state of {} bytes)", state.len()),
            Self::Prewarm(_) => f.write_str("Prewarm"),
            Self::ExecResult(result) => write!(f, "ExecResult({})", result.id),
            Self::ExecThrown { id, .. } => write!(f, "ExecThrown({id})"),
            Self::ExecClosed { id } => write!(f, "ExecClosed({id})"),
            Self::ExecHeartbeat { id } => write!(f, "ExecHeartbeat({id})"),
            Self::Blob { id, data } => {
                write!(f, "Blob({id}, {:?} bytes)", data.as_ref().map(Bytes::len))
            }
            Self::BlobStored { id, error } => {
                write!(f, "BlobStored({id}, refused: {})", error.is_some())
            }
            Self::Answer(answer) => write!(f, "Answer({})", answer.id),
            Self::Action(_) => f.write_str("Action"),
            Self::Heartbeat => f.write_str("Heartbeat"),
            Self::Violation(violation) => f.debug_tuple("Violation").field(violation).finish(),
            Self::HalfClosed => f.write_str("HalfClosed"),
            Self::Gone { code } => f.debug_struct("Gone").field("code", code).finish(),
            Self::Refused(error) => f.debug_tuple("Refused").field(error).finish(),
        }
    }
}
