//! Ten thousand questions with handlers that dawdle, panic, refuse and hang, aborts, cuts and a link
//! that delays: every question gets one answer and one close, and nothing is left of any of them.
//!
//! One test in a binary of its own: it counts what the whole process has allocated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[path = "soak/judge.rs"]
mod judge;
#[path = "pair/link.rs"]
#[allow(dead_code, reason = "its random numbers alone are used here")]
mod link;
#[path = "exec/tables.rs"]
#[allow(dead_code, reason = "shared with tests/exec.rs")]
mod tables;
#[path = "soak/world.rs"]
mod world;

use agentwire::conversation::Conversation;
use peak_alloc::PeakAlloc;

use judge::Lone;
use link::Rng;
use world::World;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const EXECS: usize = 10_000;

#[test]
fn ten_thousand_questions_leave_no_question_open_and_no_memory_taken() {
    for seed in 1..=2 {
        over_many_runs(seed);
    }
    within_one_run(3);
}

/// Client and server joined. Some runs are cut; the conversation goes on in the next.
fn over_many_runs(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut conversation = Conversation::with_id("conv");
    let (mut asked, mut cuts, mut runs) = (0, 0, 0);
    let mut after_first_thousand = None;
    while asked < EXECS {
        let cut = rng.below(3) == 0;
        let mut world = World::new(conversation, Rng::new(rng.below(u64::MAX)), cut);
        world.play(150 + usize::try_from(rng.below(100)).unwrap());
        asked += world.asked();
        cuts += usize::from(cut);
        runs += 1;
        conversation = world.end();
        let now = ALLOCATED.current_usage();
        if asked >= 1_000 {
            let first = *after_first_thousand.get_or_insert(now);
            assert!(now <= first + 2_048, "{first} bytes after 1,000, {now} after {asked}");
        }
    }
    assert!(cuts > 5 && runs - cuts > 5, "seed {seed}: {runs} runs, {cuts} cut");
}

/// One client that never ends, against a judge that forgets what is settled.
fn within_one_run(seed: u64) {
    let mut lone = Lone::new(Rng::new(seed));
    // Ids of answered calls are remembered, 1,024 of them; then it has all it will ever have.
    lone.calls(1_100);
    lone.questions(1_000);
    let first = ALLOCATED.current_usage();
    lone.questions(EXECS - 1_000);
    let now = ALLOCATED.current_usage();
    assert!(now <= first + 2_048, "{first} bytes after the first thousand, {now} at the end");
}
