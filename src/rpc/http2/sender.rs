//! The writing side of a stream.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{Reason, SendStream};
use http::HeaderMap;
use tokio::time::{Instant, Sleep};

use super::Http2Config;
use super::chunk::{Chunk, InFlight};
use crate::error::{Blame, NetworkFault};
use crate::{Error, connect::Code};

/// Why bytes could not be written. The stream's own fate is on the receiving side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The stream is over: reset, its connection lost, or finished before.
    #[error("the stream has ended; nothing more can be written")]
    Ended,
    /// No byte left for longer than the write limit.
    #[error("the peer takes no data: nothing could be written within the limit")]
    Stalled,
    /// The queue is full: flush first.
    #[error("too much is queued for writing")]
    Full,
}

impl From<SendError> for Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Ended => Self::network(NetworkFault::Cut, error.to_string()),
            SendError::Stalled => Self::network(NetworkFault::Stalled, error.to_string()),
            SendError::Full => Self::limit(error.to_string())
                .with_blame(Blame::Local)
                .with_code(Code::ResourceExhausted),
        }
    }
}

/// The most window asked for at once; other streams want some too.
const RESERVE: usize = 1 << 20;

/// Writes one stream: a bounded queue in front of h2.
///
/// Made for a select loop: [`Self::push`] queues without waiting, [`Self::poll_flush`] and
/// [`Self::poll_sent`] move. Dropping it before [`Self::finish`] resets the stream, and so does a
/// finish that was never flushed.
pub struct BodySender {
    stream: SendStream<Chunk>,
    flow: Arc<InFlight>,
    queue: VecDeque<Bytes>,
    queued: usize,
    limit: usize,
    finish: Finish,
    /// The code of the reset on an unfinished drop.
    on_drop: Reason,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when something waits to leave.
    blocked: Option<Instant>,
}

enum Finish {
    Open,
    /// The end is queued, perhaps with trailers.
    Wanted(Option<HeaderMap>),
    Done,
}

impl BodySender {
    pub(super) fn new(stream: SendStream<Chunk>, config: &Http2Config, on_drop: Reason) -> Self {
        Self {
            stream,
            flow: Arc::default(),
            queue: VecDeque::new(),
            queued: 0,
            limit: config.send_queue,
            finish: Finish::Open,
            on_drop,
            stall: config.write_stall,
            timer: None,
            blocked: None,
        }
    }

    /// A side that was closed with its headers.
    pub(super) fn finished(stream: SendStream<Chunk>, config: &Http2Config) -> Self {
        let mut sender = Self::new(stream, config, Reason::CANCEL);
        sender.finish = Finish::Done;
        sender
    }

    /// Gives the first bytes to h2 without asking for window, so that they leave in the same write
    /// as the headers (PROTOCOL 2), and the rest as the window allows, whether or not this sender
    /// is polled. The caller holds these bytes already, so nothing grows by it.
    pub(super) fn first(&mut self, first: Bytes, end: bool) {
        if self.hand_over(first, end).is_err() {
            self.finish = Finish::Done;
        }
    }

    /// Queues `bytes` without waiting.
    ///
    /// # Errors
    /// [`SendError::Full`] when the queue is not empty and would grow over its limit (4 MiB);
    /// [`SendError::Ended`] after [`Self::finish`] or [`Self::reset`].
    pub fn push(&mut self, bytes: Bytes) -> Result<(), SendError> {
        if !matches!(self.finish, Finish::Open) {
            return Err(SendError::Ended);
        }
        if self.queued > 0 && self.queued + bytes.len() > self.limit {
            return Err(SendError::Full);
        }
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.queue.push_back(bytes);
        }
        Ok(())
    }

    /// Bytes queued here, not yet taken by h2.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Queues the end of the body (END_STREAM).
    pub fn push_finish(&mut self) {
        if matches!(self.finish, Finish::Open) {
            self.finish = Finish::Wanted(None);
        }
    }

    /// Queues the end of the body with HTTP trailers.
    pub fn push_trailers(&mut self, trailers: HeaderMap) {
        if matches!(self.finish, Finish::Open) {
            self.finish = Finish::Wanted(Some(trailers));
        }
    }

    /// Ready when everything queued was handed to h2, which holds at most what the windows allow.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        while let Some(front) = self.queue.front_mut() {
            let room = match self.stream.capacity() {
                0 => {
                    self.stream.reserve_capacity(self.queued.min(RESERVE));
                    match self.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(room))) => room,
                        Poll::Ready(_) => return Poll::Ready(Err(SendError::Ended)),
                        Poll::Pending => return self.poll_stall(cx),
                    }
                }
                room => room,
            };
            let piece = front.split_to(room.min(front.remaining()));
            self.queued -= piece.len();
            if front.is_empty() {
                self.queue.pop_front();
            }
            let last = self.queue.is_empty() && matches!(self.finish, Finish::Wanted(None));
            self.hand_over(piece, last)?;
        }
        match std::mem::replace(&mut self.finish, Finish::Open) {
            Finish::Wanted(None) => self.hand_over(Bytes::new(), true)?,
            Finish::Wanted(Some(trailers)) => {
                self.finish = Finish::Done;
                self.stream.send_trailers(trailers).map_err(|_| SendError::Ended)?;
            }
            other => self.finish = other,
        }
        if self.flow.pending() == 0 {
            self.blocked = None;
        }
        Poll::Ready(Ok(()))
    }

    fn hand_over(&mut self, piece: Bytes, last: bool) -> Result<(), SendError> {
        let chunk = Chunk::new(piece, &self.flow);
        self.stream.send_data(chunk, last).map_err(|_| SendError::Ended)?;
        if last {
            self.finish = Finish::Done;
        }
        Ok(())
    }

    /// Ready when every byte left h2's queues for the connection's write buffer: from then on a
    /// reset no longer takes them back.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        ready!(self.poll_flush(cx))?;
        self.flow.register(cx);
        if self.flow.pending() == 0 {
            self.blocked = None;
            return Poll::Ready(Ok(()));
        }
        self.poll_stall(cx)
    }

    /// Waits, but not longer than the limit without any byte leaving.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let now = Instant::now();
        let since = *self.blocked.get_or_insert(now);
        let deadline = self.flow.last().map_or(since, |last| last.max(since)) + self.stall;
        if now >= deadline {
            return Poll::Ready(Err(SendError::Stalled));
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        // It fires at the deadline; asked again, the answer is above.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Ready when the peer reset the stream, or when it ended otherwise: with the HTTP/2 code.
    pub fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<u32> {
        let result = ready!(self.stream.poll_reset(cx));
        Poll::Ready(result.unwrap_or_else(|error| error.reason().unwrap_or(Reason::CANCEL)).into())
    }

    /// Queues `bytes` and waits until h2 took all that is queued.
    ///
    /// # Errors
    /// [`SendError::Ended`], [`SendError::Stalled`].
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), SendError> {
        if self.queued > 0 {
            self.flush().await?;
        }
        self.push(bytes)?;
        self.flush().await
    }

    /// Waits until everything left, as [`Self::poll_sent`].
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn sent(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_sent(cx)).await
    }

    /// Waits until h2 took all that is queued.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn flush(&mut self) -> Result<(), SendError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends the body and waits until h2 took it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn finish(&mut self) -> Result<(), SendError> {
        self.push_finish();
        self.flush().await
    }

    /// Resets the stream at once with this HTTP/2 code; what is queued is dropped.
    pub fn reset(&mut self, code: u32) {
        self.queue.clear();
        self.queued = 0;
        self.finish = Finish::Done;
        self.stream.send_reset(Reason::from(code));
    }

    /// Waits up to `within` until all that is queued has left, then resets the stream: the last
    /// message (a cancel) arrives before the reset (FAULTS, finding 3).
    pub async fn flush_then_reset(&mut self, code: u32, within: Duration) {
        // Whether it arrived or not, the stream ends now.
        let _ = tokio::time::timeout(within, self.sent()).await;
        self.reset(code);
    }
}

impl Drop for BodySender {
    fn drop(&mut self) {
        if !matches!(self.finish, Finish::Done) {
            self.stream.send_reset(self.on_drop);
        }
    }
}
