//! A handler's moods: at once or later it is done, refuses, panics or hangs. The panics are real.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentwire::exec::{Effects, Refusal, Served};

use crate::everything::Mood;
use crate::link::Rng;

/// What the panics of these handlers carry, so that they can be told from those of a test.
struct OnPurpose;

/// Keeps what is done on purpose from standing error; everything else is shown as before.
pub(crate) fn hide_panics_on_purpose() {
    let shown = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<OnPurpose>() {
            shown(info);
        }
    }));
}

/// What happened to the questions of one run.
#[derive(Debug, Default)]
pub(crate) struct Books {
    at_work: AtomicUsize,
    started: AtomicUsize,
    panics: AtomicUsize,
    hangs: AtomicUsize,
}

impl Books {
    pub(crate) fn at_work(&self) -> usize {
        self.at_work.load(Ordering::Relaxed)
    }

    pub(crate) fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    pub(crate) fn panics(&self) -> usize {
        self.panics.load(Ordering::Relaxed)
    }

    pub(crate) fn hangs(&self) -> usize {
        self.hangs.load(Ordering::Relaxed)
    }

    fn panic(&self) -> ! {
        self.panics.fetch_add(1, Ordering::Relaxed);
        panic::panic_any(OnPurpose)
    }
}

/// Counts a question from its start until it is done, has unwound or is dropped.
struct AtWork(Arc<Books>);

impl AtWork {
    fn new(books: &Arc<Books>) -> Self {
        books.started.fetch_add(1, Ordering::Relaxed);
        books.at_work.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(books))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.at_work.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Panics when it is dropped.
struct Grudge<'a>(&'a Books);

impl Drop for Grudge<'_> {
    fn drop(&mut self) {
        self.0.panic();
    }
}

#[derive(Clone, Copy)]
enum Fate {
    Good,
    Refuses,
    Panics,
    Hangs,
    /// Hangs, and panics when it is called off.
    HangsAndPanics,
}

pub(crate) struct Moody {
    rng: Mutex<Rng>,
    books: Arc<Books>,
    effects: Effects,
}

impl Moody {
    pub(crate) fn new(rng: Rng, books: Arc<Books>, effects: Effects) -> Self {
        Self { rng: Mutex::new(rng), books, effects }
    }

    fn below(&self, limit: u64) -> u64 {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).below(limit)
    }

    fn fate(&self) -> Fate {
        match self.below(20) {
            0 => Fate::Hangs,
            1 => Fate::HangsAndPanics,
            2..=5 => Fate::Panics,
            6..=9 => Fate::Refuses,
            _ => Fate::Good,
        }
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(match self.below(3) {
            0 => 0,
            1 => self.below(500),
            _ => self.below(12_000),
        })
    }
}

impl Mood for Moody {
    fn serves(&self) -> bool {
        if self.below(40) == 0 {
            self.books.panic();
        }
        true
    }

    fn effects(&self) -> Effects {
        if self.effects == Effects::Changes && self.below(40) == 0 {
            self.books.panic();
        }
        self.effects
    }

    fn work(&self) -> Served<'_, ()> {
        let at_work = AtWork::new(&self.books);
        if self.below(20) == 0 {
            self.books.panic();
        }
        let (fate, delay) = (self.fate(), self.delay());
        if matches!(fate, Fate::Hangs | Fate::HangsAndPanics) {
            self.books.hangs.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async move {
            let _at_work = at_work;
            let _grudge = matches!(fate, Fate::HangsAndPanics).then(|| Grudge(&self.books));
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            match fate {
                Fate::Good => Ok(()),
                Fate::Refuses => Err(Refusal::because("not now")),
                Fate::Panics => self.books.panic(),
                Fate::Hangs | Fate::HangsAndPanics => std::future::pending().await,
            }
        })
    }
}
