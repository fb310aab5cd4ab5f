//! Cases that run against each other: every round runs each once, in rotated order, and counts the
//! CPU time of this thread, so that what else the machine does falls on all alike.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::heap;

/// Work shorter than this is repeated in a round until it takes as long: reading the clock costs
/// half a microsecond.
const SHORT: Duration = Duration::from_micros(50);

/// One way to do the work. Gives a number that depends on all of it, which must be the same for all.
type Work<'a> = Box<dyn FnMut() -> u64 + 'a>;

/// Makes ready what one piece of work uses up; not counted.
type Prepare<'a> = Box<dyn FnMut() + 'a>;

struct Case<'a> {
    name: &'static str,
    prepare: Option<Prepare<'a>>,
    work: Work<'a>,
}

pub struct Race<'a> {
    cases: Vec<Case<'a>>,
    rounds: u32,
}

/// What a case took at its best, and what it allocated.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub name: &'static str,
    /// CPU time of this thread.
    pub time: Duration,
    /// The same in the middle of the rounds: for work that has to wait, whose least time is that of
    /// a round in which this thread was held up and found everything there at once.
    pub middle: Duration,
    /// Time on the clock on the wall.
    pub wall: Duration,
    pub heap: heap::Count,
}

pub struct Results(Vec<Took>);

impl<'a> Race<'a> {
    pub fn new(rounds: u32) -> Self {
        Self { cases: Vec::new(), rounds }
    }

    pub fn case(mut self, name: &'static str, work: impl FnMut() -> u64 + 'a) -> Self {
        self.cases.push(Case { name, prepare: None, work: Box::new(work) });
        self
    }

    /// A case that needs something made before each piece of work.
    pub fn case_after(
        mut self,
        name: &'static str,
        prepare: impl FnMut() + 'a,
        work: impl FnMut() -> u64 + 'a,
    ) -> Self {
        self.cases.push(Case { name, prepare: Some(Box::new(prepare)), work: Box::new(work) });
        self
    }

    /// The least time of each for one piece of work. Panics when two cases do not give the same: then one of them does
    /// not do the work.
    pub fn run(mut self) -> Results {
        let mut times = vec![Vec::new(); self.cases.len()];
        let mut heaps = vec![heap::Count::default(); self.cases.len()];
        let mut repeats = vec![1; self.cases.len()];
        let mut value = None;
        for round in 0..=self.rounds as usize {
            for turn in 0..self.cases.len() {
                let at = (turn + round) % self.cases.len();
                let Case { name, prepare, work } = &mut self.cases[at];
                if let Some(prepare) = prepare {
                    prepare();
                }
                let before = heap::count();
                let (start, clock) = (thread_time(), Instant::now());
                let got = (1..repeats[at]).fold(work(), |_, _| work());
                let wall = clock.elapsed() / repeats[at];
                let took = (thread_time() - start) / repeats[at];
                assert_eq!(*value.get_or_insert(got), got, "`{name}` gives something else");
                // The first round warms caches and sizes, and tells how long the work is.
                if round == 0 {
                    heaps[at] = heap::count() - before;
                    let once = prepare.is_some();
                    let many = SHORT.as_nanos() / took.as_nanos().max(1);
                    let many = u32::try_from(many).unwrap_or(u32::MAX).clamp(1, 1_000);
                    repeats[at] = if once { 1 } else { many };
                } else {
                    times[at].push((took, wall));
                }
            }
        }
        let took = self.cases.iter().zip(times).zip(heaps).map(|((case, times), heap)| {
            let (mut cpu, wall): (Vec<_>, Vec<_>) = times.into_iter().unzip();
            cpu.sort_unstable();
            Took {
                name: case.name,
                time: cpu[0],
                middle: cpu[cpu.len() / 2],
                wall: wall.into_iter().min().unwrap_or_default(),
                heap,
            }
        });
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

    /// The CPU time of `ours` in times of `rival`, both in the middle of the rounds.
    pub fn middle_of(&self, ours: &str, rival: &str) -> f64 {
        self.get(ours).middle.as_secs_f64() / self.get(rival).middle.as_secs_f64()
    }

    /// The time of `ours` on the wall, in times of `rival`.
    pub fn times_as_long(&self, ours: &str, rival: &str) -> f64 {
        self.get(ours).wall.as_secs_f64() / self.get(rival).wall.as_secs_f64()
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
