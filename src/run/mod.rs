//! One run of the protocol, as machines that do no I/O (PROTOCOL 3): [`Session`] is one attempt on
//! one stream, [`Turn`] makes another where that is safe.
//!
//! [`Session`] takes what arrives on one HTTP/2 stream (response head, body bytes, end, loss), the
//! time, and the caller's commands; it gives events for the caller and work for the driver. It
//! reads no clock and spawns nothing, so a driver over HTTP/2, a test with a virtual clock and a
//! fuzzer all run the same rules.
//!
//! ```text
//!              handle_head            turn_ended            end-stream, or TurnEnd
//!  Opening ───────────────▶ Streaming ──────────▶ TurnEnded ─────────────────────▶ Over
//!     │  status ≠ 200           │ ▲                   │                             ▲
//!     ├──────────▶ Refused ─────┼─┼───────────────────┼── body read ────────────────┤
//!     │                         │ └ answers          │                             │
//!     └── loss, FirstByte ──────┴── loss, Silence, Progress, Message, cancel, ──────┘
//!                                   breach of the protocol, stated error
//! ```
//!
//! The contract of a driver is one sentence: after every call of a `handle_*` or command method it
//! calls [`Session::poll_events`] until it is not [`Polled::Stopped`] by its own sink, drains
//! [`Session::poll_output`] until [`Output::Wait`], and calls [`Session::handle_timeout`] at the
//! instant given there.
//!
//! `handle_*` cannot fail. A failure becomes the one last event, [`Event::Ended`]; after it only
//! what is still to be sent comes out. Everything that the service asks is answered here: blobs,
//! request context, checkpoints, heartbeats, execs and queries that nobody serves.

mod answer;
mod command;
mod core;
mod event;
#[cfg(feature = "testing")]
pub mod fuzz;
mod head;
mod message;
mod options;
mod output;
mod progress;
mod retry;
mod serve;
mod serving;
mod session;
mod snapshot;
mod timer;
mod tools;
mod turn;
mod usage;

pub use event::{CheckpointInfo, Ended, Event, EventRef, Finish, Notice, Remedy};
pub use head::Head;
pub use options::{Options, Serves};
pub use output::{FLUSH_LIMIT, Output, ResetReason};
pub use progress::Progress;
pub use retry::{RetryBudget, RetryOptions};
pub use serve::{ServeKey, ServeTask, Work};
pub use serving::ServeResult;
#[cfg(feature = "client")]
pub(crate) use session::Sink;
pub use session::{Flow, Polled, Session};
pub use snapshot::Snapshot;
pub use turn::Turn;
pub(crate) use turn::unanswered;
pub use usage::Usage;
