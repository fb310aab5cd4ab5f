//! Crashes at random moments of random schedules, and writes that fail: a run ends right or says
//! that it did not, and nothing recorded is made again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;
#[path = "common/shapes.rs"]
mod shapes;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentwire_workflow::clock::{SeededEntropy, VirtualClock};
use agentwire_workflow::error::StoreError;
use agentwire_workflow::record::Status;
use agentwire_workflow::store::{Fault, FaultStore, MemoryStore, Store};
use agentwire_workflow::{Control, Ctx, Engine, Error, Outcome, Parallel, TaskStep, Workflow};
use common::*;
use serde_json::{Value, json};
use shapes::{Ledger, Shape, assert_counts, recorded};

const ID: &str = "r";

fn ledger() -> (Arc<Mutex<Ledger>>, shapes::Touch) {
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let touched = ledger.clone();
    let touch = move |name: &str| {
        *touched.lock().unwrap().entry(name.to_owned()).or_default() += 1;
    };
    (ledger, Arc::new(touch))
}

/// Runs a shape over `store` on a virtual clock.
async fn run(shape: Shape, store: Arc<dyn Store>, touch: &shapes::Touch) -> Result<Outcome, Error> {
    let engine = engine_over(store, &Shape::runner(touch.clone())).build();
    engine.run_as(ID, &shape.workflow(touch.clone()), &none(), &Control::new()).await
}

/// For every n: the n-th write fails (and all later ones, or it alone after it was made).
async fn every_write_fails(shape: Shape, writes: u64) {
    for n in 1..=writes {
        for fault in [Fault::Before, Fault::After] {
            let what = format!("{shape:?} write {n} {fault:?}");
            let store = MemoryStore::new();
            let (ledger, touch) = ledger();
            let failing = FaultStore::new(Arc::new(store.clone()), move |write| match fault {
                Fault::Before if write >= n => Fault::Before,
                Fault::After if write == n => Fault::After,
                _ => Fault::None,
            });
            let failed = run(shape, Arc::new(failing), &touch).await;
            assert!(
                matches!(failed, Err(Error::Store(StoreError::Io(_)))),
                "{what}: the failure was not reported: {failed:?}"
            );
            let root = store.root(ID).unwrap().unwrap();
            let lost_answer_at_the_end = fault == Fault::After && n == writes;
            assert_eq!(root.status == Status::Completed, lost_answer_at_the_end, "{what}");
            if lost_answer_at_the_end {
                continue;
            }
            let before = ledger.lock().unwrap().clone();
            let there = recorded(&store.records(ID).unwrap());
            let done = run(shape, Arc::new(store), &touch).await.unwrap();
            assert_eq!(done.outputs.unwrap()["out"], shape.expected(), "{what}");
            let after = ledger.lock().unwrap().clone();
            assert_counts(&before, &there, &after, &what);
            // All records are there and only the status is not: the resume makes nothing.
            assert!(n < writes || before == after, "{what}: a step was made again");
        }
    }
    let (_, touch) = ledger();
    let counting = FaultStore::new(memory(), |_| Fault::None);
    run(shape, Arc::new(counting.clone()), &touch).await.unwrap();
    assert_eq!(counting.writes(), writes, "{shape:?}: not every write was tried");
}

#[tokio::test(start_paused = true)]
async fn the_nth_write_fails_for_every_n() {
    every_write_fails(Shape::Root, 31).await;
    every_write_fails(Shape::Child, 32).await;
    every_write_fails(Shape::Parallel, 41).await;
}

// ------------------------------------------------------------------ random schedules and crashes

/// A workflow whose shape and times follow from the seed.
fn random_workflow(seed: u64, touch: shapes::Touch) -> Workflow {
    named("random", move |ctx| {
        let touch = touch.clone();
        async move { level(ctx, seed, 0, touch).await }
    })
}

type Level = std::pin::Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>>;

/// A few steps of any kind, one after the other; each gives a value that follows from the seed.
fn level(ctx: Ctx, seed: u64, depth: u32, touch: shapes::Touch) -> Level {
    Box::pin(async move {
        let plan = SeededEntropy::new(seed);
        let mut out = Vec::new();
        for n in 0..2 + plan.next() % 5 {
            // Names are unique in the run, so that the ledger can count by name.
            let name = format!("{seed:x}-{n}");
            out.push(match plan.next() % 6 {
                0 => ctx.stage(&name).prompt(&name).await?.value,
                1 => tool(&ctx, &name, plan.next() % 4_000, &touch).await?,
                2 => {
                    let steps: Vec<_> = (0..2 + plan.next() % 4)
                        .map(|i| TaskStep::new(format!("{name}-{i}")).prompt(format!("{name}-{i}")))
                        .collect();
                    let concurrency = Some(1 + plan.next() as usize % 4);
                    let options = Parallel { concurrency, ..Parallel::default() };
                    let group = ctx.parallel(steps, options).await?;
                    json!(group.iter().map(|one| &one.text).collect::<Vec<_>>())
                }
                3 => {
                    let (a, b) = (format!("{name}-a"), format!("{name}-b"));
                    let (left, right) = tokio::join!(
                        tool(&ctx, &a, plan.next() % 4_000, &touch),
                        tool(&ctx, &b, plan.next() % 4_000, &touch)
                    );
                    json!([left?, right?])
                }
                4 if depth < 2 => {
                    let (inner, touch) = (plan.next(), touch.clone());
                    let kid = named("kid", move |ctx| level(ctx, inner, depth + 1, touch.clone()));
                    ctx.workflow(&kid).run(none()).await?.outputs["out"].clone()
                }
                _ => {
                    ctx.sleep(Duration::from_millis(plan.next() % 3_000)).await?;
                    tool(&ctx, &name, 0, &touch).await?
                }
            });
        }
        Ok(Value::from(out))
    })
}

async fn tool(ctx: &Ctx, name: &str, wait: u64, touch: &shapes::Touch) -> Result<Value, Error> {
    ctx.tool(name, ())
        .run(|_| {
            touch(name);
            let value = json!(name);
            async move {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                Ok::<_, String>(value)
            }
        })
        .await
}

/// Plays one seed: passes that crash at a random moment or at a random write, then one that does
/// not. Gives the number of crashes that hit.
async fn play(seed: u64) -> usize {
    let chance = SeededEntropy::new(seed ^ 0xc0ff_ee00);
    let store = MemoryStore::new();
    let (ledger, touch) = ledger();
    let touched = touch.clone();
    let times = Arc::new(SeededEntropy::new(seed ^ 0x7157));
    let fake = Fake::new(move |call| {
        touched(&call.spec.prompt);
        let wait = Duration::from_millis(times.next() % 5_000);
        async move {
            tokio::time::sleep(wait).await;
            Ok(call.spec.prompt.into())
        }
    });
    let workflow = random_workflow(seed, touch);
    let (clock, inputs, mut crashes) = (VirtualClock::starting_at(EPOCH), none(), 0);
    let expected = {
        let engine = engine_over(memory(), &Fake::new(|c| async move { Ok(c.spec.prompt.into()) }));
        let quiet = random_workflow(seed, Arc::new(|_| {}));
        engine.build().run(&quiet, &none(), &Control::new()).await.unwrap().outputs
    };
    loop {
        let crash_at = Duration::from_millis(chance.next() % 20_000);
        let crash_write = 1 + chance.next() % 40;
        let crash_after = chance.next().is_multiple_of(2);
        let last = crashes >= 6;
        let failing = FaultStore::new(Arc::new(store.clone()), move |write| {
            match (last, write.cmp(&crash_write), crash_after) {
                (false, std::cmp::Ordering::Equal, true) => Fault::After,
                (false, std::cmp::Ordering::Less, _) | (true, ..) => Fault::None,
                (false, ..) => Fault::Before,
            }
        });
        let there = recorded(&store.records(ID).unwrap());
        let before = ledger.lock().unwrap().clone();
        let engine = Engine::builder(Arc::new(failing), Arc::new(fake.clone()))
            .clock(clock)
            .entropy(SeededEntropy::new(chance.next()))
            .build();
        let control = Control::new();
        let pass = engine.run_as(ID, &workflow, &inputs, &control);
        let done = tokio::select! {
            biased;
            done = pass => Some(done),
            // Dropped in the middle: what a crash does to a process.
            () = tokio::time::sleep(crash_at), if !last => None,
        };
        let after = ledger.lock().unwrap().clone();
        for name in &there {
            assert_eq!(before.get(name), after.get(name), "seed {seed}: {name} was made again");
        }
        for (name, count) in &after {
            let then = before.get(name).copied().unwrap_or_default();
            assert!(count - then <= 1, "seed {seed}: {name} ran twice in one pass");
        }
        match done {
            Some(Ok(outcome)) => {
                assert_eq!(outcome.status, Status::Completed, "seed {seed}: {outcome:?}");
                assert_eq!(outcome.outputs, expected, "seed {seed}");
                assert!(outcome.report.is_clean(), "seed {seed}: {:?}", outcome.report);
                let root = store.root(ID).unwrap().unwrap();
                assert_eq!(root.status, Status::Completed, "seed {seed}: heard before written");
                let all = recorded(&store.records(ID).unwrap());
                for name in ledger.lock().unwrap().keys() {
                    assert!(all.contains(name), "seed {seed}: {name} has no record");
                }
                return crashes;
            }
            // The answer to the last write was lost: it is done, and says so when asked.
            Some(Err(Error::Store(_))) | None
                if store.root(ID).unwrap().is_some_and(|r| r.status == Status::Completed) =>
            {
                return crashes + 1;
            }
            Some(Err(Error::Store(_))) | None => crashes += 1,
            Some(Err(error)) => panic!("seed {seed}: {error}"),
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn play_alone(seed: u64) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    match std::panic::catch_unwind(|| runtime.block_on(play(seed))) {
        Ok(crashes) => crashes,
        Err(_) => panic!("seed {seed} failed; play it alone with FLOW_SEED={seed} FLOW_SEEDS=1"),
    }
}

#[test]
fn a_thousand_random_schedules_with_crashes() {
    let (first, count) = (number("FLOW_SEED", 1), number("FLOW_SEEDS", 1_000));
    println!("seeds {first} to {} (FLOW_SEED, FLOW_SEEDS)", first + count - 1);
    // Two halves at a time; each seed has a runtime and a clock of its own.
    let crashes: usize = std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                (first + half..first + count).step_by(2).map(play_alone).sum::<usize>()
            })
        });
        halves.map(|half| half.join().unwrap()).into_iter().sum()
    });
    println!("{count} schedules, {crashes} crashes");
    assert!(crashes as u64 >= count, "fewer crashes than schedules: the test tests too little");
}
