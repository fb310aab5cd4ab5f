//! What a connection's driver and its streams share: which streams have something to read, and the
//! buffers it is read into.
//!
//! The driver runs h2, which wakes the streams that got frames; such a wake puts the stream on the
//! ready list. Right after, the driver pumps every listed stream: frames move from h2 into the
//! stream's [`Inbox`], and the consumer is woken once for all of them.
//!
//! Locks are taken in the order inbox, h2's own, ready list; wakers run under none of them but h2's.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::response::Parts;

use super::unread::Unread;
use super::{Lost, LostCause, lock};

/// Shared by the driver, its handles and its streams.
#[derive(Default)]
pub(super) struct Hub {
    ready: Mutex<Vec<Arc<Stream>>>,
    driver: Mutex<Option<Waker>>,
    /// The driver is inside h2 and looks at the ready list afterwards anyway.
    polling: AtomicBool,
    live: Mutex<Vec<Weak<Stream>>>,
    active: AtomicUsize,
    death: OnceLock<Lost>,
}

impl Hub {
    /// Streams whose receiver is still held.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Why the connection ended, once it has.
    pub(super) fn death(&self) -> Option<&Lost> {
        self.death.get()
    }

    /// The driver is about to run h2.
    pub(super) fn enter(&self, cx: &Context<'_>) {
        let mut driver = lock(&self.driver);
        if !driver.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *driver = Some(cx.waker().clone());
        }
        drop(driver);
        self.polling.store(true, Ordering::SeqCst);
    }

    /// The driver left h2: empties the ready list. Says whether there was anything on it.
    pub(super) fn leave(&self) -> bool {
        self.polling.store(false, Ordering::SeqCst);
        let mut ready = match &mut *lock(&self.ready) {
            none if none.is_empty() => return false,
            some => std::mem::take(some),
        };
        for stream in ready.drain(..) {
            stream.queued.store(false, Ordering::SeqCst);
            stream.pump();
        }
        // Its memory is for the next ones: there is a list at every wake-up.
        let mut next = lock(&self.ready);
        if next.is_empty() {
            *next = ready;
        }
        true
    }

    /// Whether a stream waits for the end of the connection to learn why it broke.
    pub(super) fn is_dying(&self) -> bool {
        lock(&self.live).iter().filter_map(Weak::upgrade).any(|stream| stream.is_held())
    }

    /// The reason is known before h2 ends the connection.
    pub(super) fn condemn(&self, lost: Lost) {
        let _ = self.death.set(lost);
    }

    /// The connection is over: every stream that is not at its end gets the reason.
    pub(super) fn finish(&self, lost: Lost) {
        let _ = self.death.set(lost);
        let live = std::mem::take(&mut *lock(&self.live));
        for stream in live.iter().filter_map(Weak::upgrade) {
            stream.pump();
            stream.settle();
        }
    }

    fn add(&self, stream: &Arc<Stream>) {
        self.active.fetch_add(1, Ordering::AcqRel);
        let mut live = lock(&self.live);
        // Doubling: dead entries are swept when they may be half of all.
        if live.len() == live.capacity() {
            live.retain(|stream| stream.strong_count() > 0);
        }
        live.push(Arc::downgrade(stream));
    }
}

/// Where a stream is in its reading.
enum Phase {
    Head,
    Data,
    Trailers,
    /// h2 only knows that the connection broke; the driver will say why.
    Held,
    Ended,
    Lost(Lost),
}

enum Source {
    Response(ResponseFuture),
    Body(RecvStream),
    None,
}

/// What was read and not yet taken.
pub(super) struct Inbox {
    /// An answer is read, not a request.
    is_answer: bool,
    source: Source,
    phase: Phase,
    head: Option<Box<Parts>>,
    unread: Unread,
    trailers: Option<HeaderMap>,
    consumer: Option<Waker>,
}

/// One stream's reading side.
pub(super) struct Stream {
    hub: Arc<Hub>,
    queued: AtomicBool,
    inbox: Mutex<Inbox>,
}

impl Wake for Stream {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::SeqCst) {
            return;
        }
        lock(&self.hub.ready).push(Arc::clone(self));
        if !self.hub.polling.load(Ordering::SeqCst) {
            let driver = lock(&self.hub.driver).clone();
            if let Some(driver) = driver {
                driver.wake();
            }
        }
    }
}

impl Stream {
    /// The reading side of a request of ours: the response is to come.
    pub(super) fn response(hub: &Arc<Hub>, response: ResponseFuture) -> Arc<Self> {
        Self::start(hub, Source::Response(response), Phase::Head)
    }

    /// The body of a request that came.
    pub(super) fn request(hub: &Arc<Hub>, body: RecvStream) -> Arc<Self> {
        Self::start(hub, Source::Body(body), Phase::Data)
    }

    fn start(hub: &Arc<Hub>, source: Source, phase: Phase) -> Arc<Self> {
        let stream = Arc::new(Self {
            hub: Arc::clone(hub),
            queued: AtomicBool::new(false),
            inbox: Mutex::new(Inbox {
                is_answer: matches!(source, Source::Response(_)),
                source,
                phase,
                head: None,
                unread: Unread::default(),
                trailers: None,
                consumer: None,
            }),
        });
        hub.add(&stream);
        // Registers with h2, and takes what has come already.
        stream.pump();
        if hub.death().is_some() {
            stream.settle();
        }
        stream
    }

    /// Moves everything that h2 has for this stream into the inbox.
    fn pump(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut inbox = lock(&self.inbox);
        let moved = inbox.pull(&mut Context::from_waker(&waker), self.hub.death());
        let consumer = if moved { inbox.consumer.take() } else { None };
        drop(inbox);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    /// The connection is over: nothing more can come.
    fn settle(&self) {
        let mut inbox = lock(&self.inbox);
        if matches!(inbox.phase, Phase::Ended | Phase::Lost(_)) {
            return;
        }
        let lost = self.hub.death().cloned().unwrap_or_else(|| Lost::new(LostCause::Abandoned));
        inbox.lose(lost);
        let consumer = inbox.consumer.take();
        drop(inbox);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    fn is_held(&self) -> bool {
        matches!(lock(&self.inbox).phase, Phase::Held)
    }

    pub(super) fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<Box<Parts>, Lost>> {
        let mut inbox = lock(&self.inbox);
        if let Some(head) = inbox.head.take() {
            return Poll::Ready(Ok(head));
        }
        match &inbox.phase {
            Phase::Lost(lost) => Poll::Ready(Err(lost.clone())),
            Phase::Head | Phase::Held => {
                inbox.wait(cx);
                Poll::Pending
            }
            // Taken before.
            Phase::Data | Phase::Trailers | Phase::Ended => {
                Poll::Ready(Err(Lost::new(LostCause::Unsendable).with_detail("no head is left")))
            }
        }
    }

    pub(super) fn poll_chunk(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        let mut inbox = lock(&self.inbox);
        if let Some(chunk) = inbox.unread.pop() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        match &inbox.phase {
            Phase::Lost(lost) => Poll::Ready(Some(Err(lost.clone()))),
            Phase::Ended => Poll::Ready(None),
            Phase::Head | Phase::Data | Phase::Trailers | Phase::Held => {
                inbox.wait(cx);
                Poll::Pending
            }
        }
    }

    pub(super) fn take_trailers(&self) -> Option<HeaderMap> {
        lock(&self.inbox).trailers.take()
    }

    pub(super) fn release(&self, bytes: usize) {
        let mut inbox = lock(&self.inbox);
        if let Source::Body(body) = &mut inbox.source {
            // Fails when the stream is gone or more is given back than came; then there is no
            // window to open.
            let _ = body.flow_control().release_capacity(bytes);
        }
    }

    /// The consumer is gone: lets go of the stream, which cancels it unless it is finished.
    pub(super) fn close(&self) {
        self.hub.active.fetch_sub(1, Ordering::AcqRel);
        let mut inbox = lock(&self.inbox);
        let source = std::mem::replace(&mut inbox.source, Source::None);
        inbox.phase = Phase::Ended;
        inbox.unread = Unread::default();
        inbox.consumer = None;
        drop(inbox);
        drop(source);
        // An idle connection has to notice that it is idle.
        let driver = lock(&self.hub.driver).clone();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl Inbox {
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.consumer.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.consumer = Some(cx.waker().clone());
        }
    }

    /// Takes everything there is. Says whether the consumer has something new.
    fn pull(&mut self, cx: &mut Context<'_>, death: Option<&Lost>) -> bool {
        let mut moved = false;
        while let Poll::Ready(step) = self.step(cx) {
            moved = true;
            if let Err(error) = step {
                self.fail(&error, death);
            }
            if matches!(self.phase, Phase::Held | Phase::Ended | Phase::Lost(_)) {
                break;
            }
        }
        moved
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        match (&mut self.phase, &mut self.source) {
            (Phase::Head, Source::Response(response)) => {
                let response = std::task::ready!(Pin::new(response).poll(cx))?;
                let (head, body) = response.into_parts();
                self.head = Some(Box::new(head));
                self.source = Source::Body(body);
                self.phase = Phase::Data;
            }
            (Phase::Data, Source::Body(body)) => match std::task::ready!(body.poll_data(cx)) {
                Some(data) => {
                    let data = data?;
                    self.unread.push(data);
                }
                None => self.phase = Phase::Trailers,
            },
            (Phase::Trailers, Source::Body(body)) => {
                self.trailers = std::task::ready!(body.poll_trailers(cx))?;
                self.phase = Phase::Ended;
            }
            _ => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }

    fn fail(&mut self, error: &h2::Error, death: Option<&Lost>) {
        // A whole answer, and then "stop sending": RFC 9113, 8.1. What is missing in an answer that
        // is not whole, the envelope decoder says (FAULTS M11, M48). A client that resets its
        // request has gone, whatever it calls it.
        let stop = self.is_answer
            && error.is_reset()
            && error.is_remote()
            && error.reason() == Some(Reason::NO_ERROR);
        if stop && !matches!(self.phase, Phase::Head) {
            self.phase = Phase::Ended;
            return;
        }
        match Lost::of_stream(error, death) {
            Some(lost) => self.lose(lost),
            None => self.phase = Phase::Held,
        }
    }

    fn lose(&mut self, lost: Lost) {
        let begun = self.head.is_some() || matches!(self.source, Source::Body(_));
        self.phase = Phase::Lost(lost.seen_by(begun));
    }
}
