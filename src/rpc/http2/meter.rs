//! A socket that counts: what was read, how the peer began, and when to stop reading for a moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the driver learns from the bytes under h2. Shared, since h2 owns the socket.
#[derive(Debug)]
pub(super) struct Meter {
    read: AtomicU64,
    burst_left: AtomicUsize,
    burst: usize,
    paused: AtomicBool,
    /// The first bytes that came, for the two questions below.
    start: [AtomicU8; START],
}

/// A frame header is 9 bytes; its fourth is the type.
const START: usize = 9;
const SETTINGS: u8 = 4;

impl Meter {
    pub(super) fn new(burst: usize) -> Arc<Self> {
        Arc::new(Self {
            read: AtomicU64::new(0),
            burst_left: AtomicUsize::new(burst),
            burst,
            paused: AtomicBool::new(false),
            start: std::array::from_fn(|_| AtomicU8::new(0)),
        })
    }

    /// Bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Acquire)
    }

    /// Starts the next burst; says whether the last one was cut short, so that more may wait.
    pub(super) fn next_burst(&self) -> bool {
        self.burst_left.store(self.burst, Ordering::Release);
        self.paused.swap(false, Ordering::AcqRel)
    }

    /// Whether a whole frame header came first and it is one of SETTINGS.
    pub(super) fn began_with_settings(&self) -> bool {
        self.read() >= START as u64 && self.start[3].load(Ordering::Acquire) == SETTINGS
    }

    /// Whether that frame of SETTINGS has come whole.
    pub(super) fn has_settings(&self) -> bool {
        let [a, b, c, ..] = self.start.each_ref().map(|byte| byte.load(Ordering::Acquire));
        let length = u64::from(u32::from_be_bytes([0, a, b, c]));
        self.began_with_settings() && self.read() >= START as u64 + length
    }

    /// Whether the peer answered in HTTP/1.
    pub(super) fn began_with_http1(&self) -> bool {
        let start = self.start.each_ref().map(|byte| byte.load(Ordering::Acquire));
        start.starts_with(b"HTTP/1.")
    }

    fn note(&self, bytes: &[u8]) {
        let before = self.read.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        if let Ok(before) = usize::try_from(before) {
            for (slot, byte) in self.start.iter().skip(before).zip(bytes) {
                slot.store(*byte, Ordering::Release);
            }
        }
        let left = self.burst_left.load(Ordering::Acquire);
        self.burst_left.store(left.saturating_sub(bytes.len()), Ordering::Release);
    }
}

/// The socket with its meter.
pub(super) struct Metered<T> {
    io: T,
    meter: Arc<Meter>,
}

impl<T> Metered<T> {
    pub(super) fn new(io: T, meter: Arc<Meter>) -> Self {
        Self { io, meter }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.meter.burst_left.load(Ordering::Acquire) == 0 {
            // No waker kept: the driver asks `next_burst` before it goes to sleep.
            this.meter.paused.store(true, Ordering::Release);
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.io).poll_read(cx, buf);
        if let Some(new) = buf.filled().get(before..).filter(|new| !new.is_empty()) {
            this.meter.note(new);
        }
        result
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
