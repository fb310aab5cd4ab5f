//! Cases that run against each other: every round runs each once, in rotated order, and counts the
//! CPU time of this thread, so that what else the machine does falls on all alike.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::heap;

/// Work shorter than this is repeated in a round until it takes as long: reading the clock costs
/// half a microsecond.
const SHORT: Duration = Duration::from_micros(50);

/// One way to do the work. Gives a number that depends on all of it, which must be the same for all.
type Work<'a> = Box<dyn FnMut() -> u64 + 'a>;

pub struct Race<'a> {
    cases: Vec<(&'static str, Work<'a>)>,
    rounds: u32,
}

/// What a case took at its best, and what it allocated.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub name: &'static str,
    pub time: Duration,
    pub heap: heap::Count,
}

pub struct Results(Vec<Took>);

impl<'a> Race<'a> {
    pub fn new(rounds: u32) -> Self {
        Self { cases: Vec::new(), rounds }
    }

    pub fn case(mut self, name: &'static str, work: impl FnMut() -> u64 + 'a) -> Self {
        self.cases.push((name, Box::new(work)));
        self
    }

    /// The least time of each for one piece of work. Panics when two cases do not give the same: then one of them does
    /// not do the work.
    pub fn run(mut self) -> Results {
        let mut least = vec![Duration::MAX; self.cases.len()];
        let mut heaps = vec![heap::Count::default(); self.cases.len()];
        let mut repeats = vec![1; self.cases.len()];
        let mut value = None;
        for round in 0..=self.rounds as usize {
            for turn in 0..self.cases.len() {
                let at = (turn + round) % self.cases.len();
                let (name, work) = &mut self.cases[at];
                let before = heap::count();
                let start = thread_time();
                let got = (1..repeats[at]).fold(work(), |_, _| work());
                let took = (thread_time() - start) / repeats[at];
                assert_eq!(*value.get_or_insert(got), got, "`{name}` gives something else");
                // The first round warms caches and sizes, and tells how long the work is.
                if round == 0 {
                    heaps[at] = heap::count() - before;
                    let many = SHORT.as_nanos() / took.as_nanos().max(1);
                    repeats[at] = u32::try_from(many).unwrap_or(u32::MAX).clamp(1, 1_000);
                } else {
                    least[at] = least[at].min(took);
                }
            }
        }
        let names = self.cases.iter().map(|(name, _)| *name);
        let took =
            names.zip(least).zip(heaps).map(|((name, time), heap)| Took { name, time, heap });
        Results(took.collect())
    }
}

impl Results {
    pub fn get(&self, name: &str) -> Took {
        *self.0.iter().find(|took| took.name == name).unwrap_or_else(|| panic!("no case `{name}`"))
    }

    /// How many times the time of `ours` the case `rival` takes.
    pub fn times_faster(&self, ours: &str, rival: &str) -> f64 {
        self.get(rival).time.as_secs_f64() / self.get(ours).time.as_secs_f64()
    }
}

/// CPU time of this thread so far.
pub fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The least time of work that uses up what `make` makes, which is not counted.
pub fn least<T>(
    rounds: u32,
    mut make: impl FnMut() -> T,
    mut work: impl FnMut(T) -> u64,
) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..rounds {
        let made = make();
        let start = thread_time();
        std::hint::black_box(work(made));
        least = least.min(thread_time() - start);
    }
    least
}
