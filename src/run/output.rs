//! What a run wants done, and the queue of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::serve::{ServeKey, ServeTask};

/// How long a driver may go on writing after the run has ended, before it drops the stream: the
/// caller is released at once, the last message (a cancel) still gets its chance. 1 s (FAULTS,
/// finding 3; BEHAVIOUR 6.1). No option: nobody waits for it but a caller of `finish`.
pub const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// What the driver has to do next.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Write these bytes to the request body, in order.
    Send(Bytes),
    /// End the request body; nothing more is sent.
    HalfClose,
    /// Reset the stream once everything sent before has left, or after [`FLUSH_LIMIT`].
    Reset(ResetReason),
    /// Give this to a handler, on a task of its own, and report back with
    /// [`Session::handle_served`](super::Session::handle_served).
    Serve(ServeTask),
    /// Drop the task of this key: its result is no longer awaited.
    StopServing(ServeKey),
    /// Open another stream for what is sent from here on: the one before has had its end, and
    /// nothing that still comes on it counts. Only a [`Turn`](super::Turn) wants that.
    Open,
    /// The service did not take the credentials of the last stream: the next one begins with others,
    /// and [`Turn::handle_renewed`](super::Turn::handle_renewed) or
    /// [`Turn::handle_not_renewed`](super::Turn::handle_not_renewed) says what came of it. Only a
    /// [`Turn`](super::Turn) that was told that there are others wants that.
    Renew,
    /// Keep [`Turn::snapshot`](super::Turn::snapshot) where a restarted process finds it. Only a
    /// [`Turn`](super::Turn) that was told to be kept wants that.
    Keep,
    /// Nothing to do before this instant (or before new input, when `None`).
    Wait(Option<Instant>),
}

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The answer is complete and the service leaves the stream open: HTTP/2 `NO_ERROR`.
    Complete,
    /// The run failed or was cancelled: HTTP/2 `CANCEL`.
    Cancel,
}

impl ResetReason {
    /// The HTTP/2 error code (RFC 9113 section 7).
    pub const fn h2_code(self) -> u32 {
        match self {
            Self::Complete => 0x0,
            Self::Cancel => 0x8,
        }
    }
}

/// Outputs in order, and how many bytes have not left yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    unsent: usize,
    closed: bool,
}

impl Outbox {
    pub(crate) fn send(&mut self, bytes: Bytes) {
        if !self.closed && !bytes.is_empty() {
            self.unsent += bytes.len();
            self.queue.push_back(Output::Send(bytes));
        }
    }

    /// Work for handlers: it goes on whatever becomes of the writing side.
    pub(crate) fn work(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    /// The last thing of a stream; nothing can be sent after it.
    pub(crate) fn close(&mut self, last: Output) {
        self.closed = true;
        self.queue.push_back(last);
    }

    /// Forgets what the driver has not taken yet: a run that is over owes no answers.
    pub(crate) fn forget(&mut self) {
        self.queue.retain(|output| match output {
            Output::Send(bytes) => {
                self.unsent -= bytes.len();
                false
            }
            Output::Serve(_) => false,
            _ => true,
        });
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.unsent = self.unsent.saturating_sub(bytes);
    }

    pub(crate) fn unsent(&self) -> usize {
        self.unsent
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }
}
