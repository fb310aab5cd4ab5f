//! Ten thousand execs, and queries between them, with handlers that dawdle, fail, refuse and hang,
//! aborts, cuts and a link that delays: every question gets one answer and every exec one close, and
//! nothing is left of any of them. `driver.rs` has as much of it as goes through a client with real
//! tasks and real panics.
//!
//! A binary of its own, and one test at a time: it counts what the whole process has allocated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[cfg(all(feature = "client", feature = "server"))]
#[path = "soak/driver.rs"]
mod driver;
#[cfg(all(feature = "client", feature = "server"))]
#[path = "exec/everything.rs"]
#[allow(dead_code, reason = "shared with tests/exec.rs")]
mod everything;
#[path = "soak/judge.rs"]
mod judge;
#[path = "pair/link.rs"]
#[allow(dead_code, reason = "its random numbers alone are used here")]
mod link;
#[cfg(all(feature = "client", feature = "server"))]
#[path = "soak/moody.rs"]
mod moody;
#[path = "exec/tables.rs"]
#[allow(dead_code, reason = "shared with tests/exec.rs")]
mod tables;
#[path = "soak/world.rs"]
mod world;

use std::sync::{Mutex, PoisonError};

use agentwire::conversation::Conversation;
use peak_alloc::PeakAlloc;

use judge::{Count, Lone};
use link::Rng;
use world::World;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Held by the test that counts.
static ALONE: Mutex<()> = Mutex::new(());

const EXECS: usize = 10_000;

#[test]
fn ten_thousand_execs_leave_no_question_open_and_no_memory_taken() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for seed in 1..=2 {
        over_many_runs(seed);
    }
    within_one_run(3);
}

/// Client and server joined. Some runs are cut; the conversation goes on in the next.
fn over_many_runs(seed: u64) {
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut conversation = Conversation::with_id("conv");
    let (mut asked, mut cuts, mut runs) = (Count::default(), 0, 0);
    let mut after_first_thousand = None;
    while asked.execs < EXECS {
        let cut = rng.below(3) == 0;
        let mut world = World::new(conversation, Rng::new(rng.below(u64::MAX)), cut);
        world.play(150 + usize::try_from(rng.below(100)).unwrap());
        asked.add(world.asked());
        cuts += usize::from(cut);
        runs += 1;
        conversation = world.end();
        let now = ALLOCATED.current_usage();
        if asked.execs >= 1_000 {
            let first = *after_first_thousand.get_or_insert(now);
            assert!(now <= first + 2_048, "{first} bytes after 1,000, {now} after {asked:?}");
        }
    }
    println!("seed {seed}: {asked:?} in {runs} runs, {cuts} cut");
    assert!(cuts > 5 && runs - cuts > 5 && asked.queries > 500);
}

/// One client that never ends, against a judge that forgets what is settled.
fn within_one_run(seed: u64) {
    println!("seed {seed}");
    let mut lone = Lone::new(Rng::new(seed));
    // Ids of answered calls are remembered, 1,024 of them; then it has all it will ever have.
    lone.calls(1_100);
    lone.execs(1_000);
    let first = ALLOCATED.current_usage();
    lone.execs(EXECS - 1_000);
    let now = ALLOCATED.current_usage();
    println!("seed {seed}: {:?} in one run", lone.asked());
    assert!(lone.asked().execs >= EXECS && lone.asked().queries > 500);
    assert!(now <= first + 2_048, "{first} bytes after the first thousand, {now} at the end");
}
