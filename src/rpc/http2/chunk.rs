//! The buffer type handed to h2: it counts the bytes that have left, so that "was it sent" has an
//! exact answer (FAULTS, finding 3).

use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::lock;

/// What one stream has inside h2.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// Handed to h2 and not yet written or copied into the connection's write buffer.
    pending: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When bytes left last.
    last: Option<Instant>,
    waker: Option<Waker>,
}

impl InFlight {
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// When bytes left last.
    pub(super) fn last(&self) -> Option<Instant> {
        lock(&self.state).last
    }

    /// Wakes `cx` when the last pending byte leaves, or is dropped with the stream.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut state = lock(&self.state);
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
    }

    fn remove(&self, bytes: usize) {
        if bytes > 0 && self.pending.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            let waker = lock(&self.state).waker.take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// One piece of a body on its way through h2.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Bytes,
    flow: Arc<InFlight>,
}

impl Chunk {
    pub(super) fn new(bytes: Bytes, flow: &Arc<InFlight>) -> Self {
        flow.pending.fetch_add(bytes.len(), Ordering::AcqRel);
        Self { bytes, flow: Arc::clone(flow) }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        lock(&self.flow.state).last = Some(Instant::now());
        self.flow.remove(count);
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(dst)
    }
}

impl Drop for Chunk {
    /// What is dropped unsent (a reset clears h2's queue) is no longer pending either.
    fn drop(&mut self) {
        self.flow.remove(self.bytes.len());
    }
}
