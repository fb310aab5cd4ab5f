//! Adapters of byte streams.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The first bytes of a cleartext HTTP/2 connection (RFC 9113, 3.4). No HTTP/1 method is `PRI`.
const PREFACE: &[u8] = b"PRI ";

/// A stream of which the first bytes were read already: they come first.
pub(super) struct Peeked<T> {
    first: Bytes,
    io: T,
}

impl<T: AsyncRead + Unpin> Peeked<T> {
    /// Reads as much as it takes to know what the peer speaks: `true` is HTTP/2.
    pub(super) async fn peek(mut io: T) -> io::Result<(bool, Self)> {
        let mut first = [0; PREFACE.len()];
        let mut read = 0;
        while let Some(room) = first.get_mut(read..).filter(|room| !room.is_empty()) {
            match io.read(room).await? {
                0 => break,
                more => read += more,
            }
            if !PREFACE.starts_with(first.get(..read).unwrap_or_default()) {
                break;
            }
        }
        let first = Bytes::copy_from_slice(first.get(..read).unwrap_or_default());
        Ok((first == PREFACE, Self { first, io }))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Peeked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(self.first.get(..count).unwrap_or_default());
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Peeked<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
