//! The reading side of a stream.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::response::Parts;

use super::Lost;
use super::hub::Stream;

/// Reads one stream: the response head (of a client's stream), then chunks, then trailers.
///
/// The connection's driver fills it whether it is polled or not; at most the stream window (2 MiB)
/// waits in it, since credit is given back only by [`BodyReceiver::release`]. Small frames come
/// together in one chunk. Dropping it lets go of the stream: one that is not finished is cancelled
/// (RST_STREAM CANCEL) once its [`super::BodySender`] is gone too.
pub struct BodyReceiver {
    stream: Arc<Stream>,
}

impl BodyReceiver {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        Self { stream }
    }

    /// The response head, once; 1xx heads are skipped. A server's request has no head here.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<Parts>, Lost>> {
        self.stream.poll_head(cx)
    }

    /// As [`Self::poll_head`].
    pub async fn head(&mut self) -> Result<Box<Parts>, Lost> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// The next bytes, not yet given back: call [`Self::release`] with their number when they are
    /// done with. `None` is the end of the body; an error repeats. Everything that came before a
    /// loss is handed out first.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        self.stream.poll_chunk(cx)
    }

    /// As [`Self::poll_chunk`].
    pub async fn chunk(&mut self) -> Option<Result<Bytes, Lost>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Lets the peer send `bytes` more.
    pub fn release(&mut self, bytes: usize) {
        if bytes > 0 {
            self.stream.release(bytes);
        }
    }

    /// The next bytes, given back at once: for a consumer that bounds what it keeps itself.
    pub async fn next(&mut self) -> Option<Result<Bytes, Lost>> {
        let chunk = self.chunk().await;
        if let Some(Ok(bytes)) = &chunk {
            self.release(bytes.len());
        }
        chunk
    }

    /// The HTTP trailers, once, after the end of the body.
    pub fn trailers(&mut self) -> Option<HeaderMap> {
        self.stream.take_trailers()
    }
}

impl Drop for BodyReceiver {
    fn drop(&mut self) {
        self.stream.close();
    }
}
