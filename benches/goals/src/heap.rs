//! Counts what this thread allocates.
#![allow(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Sub;

thread_local! {
    static COUNT: Cell<Count> = const { Cell::new(Count { calls: 0, bytes: 0, live: 0, peak: 0 }) };
}

/// Calls and bytes of this thread; `live` and `peak` are bytes held, and the most that were.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    pub calls: u64,
    pub bytes: u64,
    pub live: i64,
    pub peak: i64,
}

/// The count so far. The peak starts again from what is held now.
pub fn count() -> Count {
    COUNT.with(|count| {
        let now = count.get();
        count.set(Count { peak: now.live, ..now });
        now
    })
}

impl Sub for Count {
    type Output = Self;

    /// What came between `before` and now: the peak is above what was held before.
    fn sub(self, before: Self) -> Self {
        Self {
            calls: self.calls - before.calls,
            bytes: self.bytes - before.bytes,
            live: self.live - before.live,
            peak: self.peak - before.live,
        }
    }
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note(grown: usize, shrunk: usize, calls: u64) {
    // A thread that ends has no counter any more; what it frees then is not counted.
    let _ = COUNT.try_with(|count| {
        let mut now = count.get();
        now.calls += calls;
        now.bytes += grown as u64;
        now.live += grown as i64 - shrunk as i64;
        now.peak = now.peak.max(now.live);
        count.set(now);
    });
}

// SAFETY: every call goes to the system's allocator as it came; the counter does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0, 1);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(0, layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size.saturating_sub(layout.size()), layout.size().saturating_sub(size), 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0, 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
}
