//! The engine on a virtual clock over a store in memory: what is made, what is replayed, what is
//! recorded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentwire::error::Kind as Fault;
use agentwire_workflow::key::{Key, Kind};
use agentwire_workflow::record::Status;
use agentwire_workflow::store::{MemoryStore, Store};
use agentwire_workflow::tool::Retry;
use agentwire_workflow::{AutoResume, Control, Ctx, Error, Parallel, Policy, TaskStep};
use common::*;
use serde_json::{Value, json};

/// A tool that counts its calls.
async fn counted(counter: Arc<AtomicUsize>) -> Result<usize, String> {
    Ok(counter.fetch_add(1, Ordering::SeqCst) + 1)
}

#[tokio::test(start_paused = true)]
async fn a_chain_and_a_group_replay_without_a_call() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store.clone(), &fake).build();
    let workflow = flow(|ctx| async move {
        let chain = ctx
            .chain("start", vec![TaskStep::new("c1"), TaskStep::new("c2").prompt("{previous}!")])
            .await?;
        let steps = vec![
            TaskStep::new("p1").prompt("x").previous(&chain[1]),
            TaskStep::new("p2").prompt("y"),
        ];
        let group = ctx.parallel(steps, Parallel::default()).await?;
        // The run is never completed in its first pass, so that it can be resumed.
        ctx.input("go on?").await?;
        Ok(json!(group.iter().map(|one| one.text.clone()).collect::<Vec<_>>()))
    });
    let first = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!((first.status, fake.count()), (Status::Paused, 4));
    assert_eq!(fake.seen()[..2], ["start", "P(start)!"]);
    assert_eq!(fake.seen()[2], "x\n\n---\nc2:\nP(P(start)!)");

    let asked = store.records(&first.id).unwrap();
    let question = asked.iter().find(|record| record.kind == Kind::Asked).unwrap();
    assert!(store.answer(&first.id, &question.key, &json!("yes"), EPOCH).unwrap());
    assert!(!store.answer(&first.id, &question.key, &json!("no"), EPOCH).unwrap());
    let second = engine.resume(&first.id, &workflow, &Control::new()).await.unwrap();
    assert_eq!((second.status, fake.count()), (Status::Completed, 4));
    assert!(second.report.is_clean(), "{:?}", second.report);
    assert_eq!(second.outputs.unwrap()["out"][1], "P(y)");
    // The group's steps share their parents.
    let parents: Vec<_> = second.steps[2..4].iter().map(|step| step.parents.clone()).collect();
    assert_eq!(parents, [["stage:task:c2:1"], ["stage:task:c2:1"]]);
    // Both are what the question came after.
    assert_eq!(second.steps[4].parents.len(), 2);
}

/// What the reference runs directly, as workflows of one call: names need not be unique.
#[tokio::test(start_paused = true)]
async fn a_task_three_of_a_kind_and_groups_in_a_chain_have_keys_of_their_own() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store.clone(), &fake).build();
    let workflow = flow(|ctx| async move {
        let one = ctx.task(TaskStep::new("t").prompt("alone")).await?;
        let three = vec![TaskStep::new("t").prompt("of three"); 3];
        let three = ctx.parallel(three, Parallel::default()).await?;
        let first = ctx.chain("go", vec![TaskStep::new("t")]).await?;
        let pair = ["left", "right"].map(|side| {
            TaskStep::new("t").prompt(format!("{side} {{previous}}")).previous(&first[0])
        });
        let pair = ctx.parallel(pair.to_vec(), Parallel::default()).await?;
        let last = ctx.task(TaskStep::new("t").prompt("{previous}.").previous(&pair[1])).await?;
        ctx.input("?").await?;
        Ok(json!([one.text, three.len(), last.text]))
    });
    let first = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    let records = store.records(&first.id).unwrap();
    let tasks = records.iter().filter(|record| record.kind == Kind::Task);
    let mut keys: Vec<_> = tasks.map(|record| record.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, (1..=8).map(|n| format!("stage:task:t:{n}")).collect::<Vec<_>>());
    let asked = records.iter().find(|record| record.kind == Kind::Asked).unwrap();
    store.answer(&first.id, &asked.key, &json!("yes"), EPOCH).unwrap();
    let done = engine.resume(&first.id, &workflow, &Control::new()).await.unwrap();
    assert_eq!(done.outputs.unwrap()["out"], json!(["P(alone)", 3, "P(P(right P(go)).)"]));
    assert_eq!((fake.count(), done.report.is_clean()), (8, true));
}

#[tokio::test(start_paused = true)]
async fn a_tool_s_effect_is_made_once_and_its_attempts_back_off() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store, &fake).build();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let workflow = flow(move |ctx| {
        let calls = seen.clone();
        async move {
            let began = tokio::time::Instant::now();
            let retry = Retry { attempts: 5, ..Retry::default() };
            let value: u32 = ctx
                .tool("flaky", json!({"a": 1}))
                .retry(retry)
                .run(|attempt| {
                    let calls = calls.clone();
                    async move {
                        calls.fetch_add(1, Ordering::SeqCst);
                        if attempt.number < 3 { Err("not yet") } else { Ok(attempt.number) }
                    }
                })
                .await?;
            let waited = began.elapsed();
            ctx.input("wait").await?;
            Ok(json!([value, waited.as_secs()]))
        }
    });
    let first = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!((first.status, calls.load(Ordering::SeqCst)), (Status::Paused, 3));
    let second = engine.resume(&first.id, &workflow, &Control::new()).await.unwrap();
    assert_eq!((second.status, calls.load(Ordering::SeqCst)), (Status::Paused, 3));
}

#[test]
fn the_waits_of_a_tool_double_up_to_the_cap() {
    let retry = Retry { attempts: 20, ..Retry::default() };
    let waits: Vec<u64> = (1..=4).map(|n| retry.wait_after(n).unwrap().as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8]);
    assert_eq!(retry.wait_after(19), Some(Duration::from_secs(3_600)));
    assert_eq!(retry.wait_after(20), None);
    assert_eq!(Retry::never().wait_after(1), None);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_keeps_failing_gives_its_last_error() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store, &fake).build();
    let workflow = flow(|ctx| async move {
        let retry = Retry { attempts: 2, ..Retry::default() };
        let failing = ctx
            .tool("t", ())
            .retry(retry)
            .run(|a| async move { Err::<(), _>(a.number.to_string()) });
        let Err(Error::Tool { attempts, message, .. }) = failing.await else {
            return Err(Error::failed("it did not fail"));
        };
        let once = ctx.tool("t", ()).run(|a| async move { Err::<(), _>(a.number.to_string()) });
        let Err(Error::Tool { attempts: one, .. }) = once.await else {
            return Err(Error::failed("it did not fail"));
        };
        Ok(json!([attempts, message, one]))
    });
    let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!(done.outputs.unwrap()["out"], json!([2, "2", 1]));
}

#[tokio::test(start_paused = true)]
async fn equal_calls_are_told_apart_and_empty_results_replay() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store, &fake).build();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let workflow = flow(move |ctx| {
        let calls = seen.clone();
        async move {
            let a = ctx.tool("n", json!({"x": 1})).run(|_| counted(calls.clone())).await?;
            let b = ctx.tool("n", json!({"x": 1})).run(|_| counted(calls.clone())).await?;
            let c = ctx.tool("n", json!({"x": 2})).run(|_| counted(calls.clone())).await?;
            for value in [json!(null), json!(false), json!(0), json!("")] {
                let same = value.clone();
                let back: Value = ctx
                    .tool("v", &value)
                    .run(|_| {
                        calls.fetch_add(1, Ordering::SeqCst);
                        let same = same.clone();
                        async move { Ok::<_, String>(same) }
                    })
                    .await?;
                assert_eq!(back, value);
            }
            ctx.tool("unit", ())
                .run(|_| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    async { Ok::<(), String>(()) }
                })
                .await?;
            let _ = ctx.input("?").await?;
            Ok(json!([a, b, c]))
        }
    });
    let first = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!((first.status, calls.load(Ordering::SeqCst)), (Status::Paused, 8));
    engine.resume(&first.id, &workflow, &Control::new()).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 8);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_json_cannot_hold_is_an_error_before_it_is_recorded() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store.clone(), &fake).build();
    let workflow = flow(|ctx| async move {
        let value: f64 = ctx.tool("nan", ()).run(|_| async { Ok::<_, String>(f64::NAN) }).await?;
        Ok(json!(value))
    });
    let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Failed);
    assert!(store.records(&done.id).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn changed_prompts_are_refused_rerun_or_accepted() {
    for (policy, status, calls, text) in [
        (Policy::Refuse, Status::Failed, 1, None),
        (Policy::Accept, Status::Completed, 1, Some("P(old)")),
        (Policy::Rerun, Status::Completed, 2, Some("P(new)")),
    ] {
        let (store, fake) = (memory(), Fake::echo());
        let prompt = |text: &'static str, ask: bool| {
            flow(move |ctx| async move {
                let said = ctx.stage("plan").prompt(text).await?;
                if ask {
                    ctx.input("?").await?;
                }
                Ok(said.value)
            })
        };
        let engine = engine_over(store, &fake).policy(policy).build();
        let first = engine.run(&prompt("old", true), &none(), &Control::new()).await.unwrap();
        let second =
            engine.resume(&first.id, &prompt("new", false), &Control::new()).await.unwrap();
        assert_eq!((second.status, fake.count()), (status, calls), "{policy:?}");
        assert_eq!(second.report.changed.len(), 1);
        assert_eq!(second.report.changed[0].key, "stage:plan:1");
        assert_eq!(
            second.outputs.and_then(|o| o["out"].as_str().map(str::to_owned)).as_deref(),
            text
        );
        if policy == Policy::Refuse {
            assert!(matches!(second.error, Some(Error::Diverged(_))));
            assert!(second.resumable, "a refused run can be resumed with the old code");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn removed_added_renamed_and_swapped_steps_are_reported() {
    // Each pair: the stages at first, the stages afterwards; then unused, extra, moved, changed.
    type Counts = [usize; 4];
    let cases: [(&[&str], &[&str], Counts); 5] = [
        (&["a", "b"], &["a", "b"], [0, 0, 0, 0]),
        (&["a", "b", "c"], &["a", "c"], [1, 0, 1, 0]),
        (&["a", "b"], &["a", "x", "b"], [0, 1, 1, 0]),
        (&["a", "b"], &["a", "z"], [1, 1, 0, 0]),
        (&["a", "b"], &["b", "a"], [0, 0, 2, 0]),
    ];
    for (before, after, counts) in cases {
        let (store, fake) = (memory(), Fake::echo());
        let engine = engine_over(store, &fake).build();
        let stages = |names: &'static [&'static str], end: bool| {
            flow(move |ctx| async move {
                for name in names {
                    ctx.stage(name).prompt(name).await?;
                }
                if end { Ok(Value::Null) } else { Err(Error::failed("again")) }
            })
        };
        let first = engine.run(&stages(before, false), &none(), &Control::new()).await.unwrap();
        assert_eq!(first.status, Status::Failed);
        let second = engine.resume(&first.id, &stages(after, true), &Control::new()).await.unwrap();
        let report = second.report;
        let found =
            [report.unused.len(), report.extra.len(), report.moved.len(), report.changed.len()];
        assert_eq!(found, counts, "{before:?} {after:?} {report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_stages_of_one_name_that_are_swapped_are_refused() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store, &fake).build();
    let stages = |a: &'static str, b: &'static str| {
        flow(move |ctx| async move {
            ctx.stage("s").prompt(a).await?;
            ctx.stage("s").prompt(b).await?;
            Err(Error::failed("again"))
        })
    };
    let first = engine.run(&stages("1", "2"), &none(), &Control::new()).await.unwrap();
    let second = engine.resume(&first.id, &stages("2", "1"), &Control::new()).await.unwrap();
    assert!(matches!(second.error, Some(Error::Diverged(_))), "{:?}", second.error);
    assert_eq!(fake.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn verify_replays_and_calls_nothing() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store.clone(), &fake).build();
    let kid = |prompt: &'static str| {
        named("Kid", move |ctx| async move { Ok(ctx.stage("ks").prompt(prompt).await?.value) })
    };
    let parent = move |prompt: &'static str| {
        let kid = kid(prompt);
        flow(move |ctx| {
            let kid = kid.clone();
            async move {
                ctx.stage("a").prompt("x").await?;
                ctx.sleep(Duration::from_secs(60)).await?;
                Ok(ctx.workflow(&kid).run(none()).await?.outputs["out"].clone())
            }
        })
    };
    let done = engine.run(&parent("q"), &none(), &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Completed);
    let before = (store.records(&done.id).unwrap(), fake.count());
    let verdict = engine.verify(&done.id, &parent("q")).await.unwrap();
    assert!(verdict.is_ok(), "{verdict:?}");
    assert_eq!((verdict.replayed, verdict.same_outputs), (3, Some(true)));
    let longer = flow(|ctx| async move {
        ctx.stage("a").prompt("y").await?;
        ctx.stage("b").prompt("x").await?;
        Ok(Value::Null)
    });
    let verdict = engine.verify(&done.id, &longer).await.unwrap();
    assert!(!verdict.is_ok());
    assert_eq!(verdict.report.changed[0].key, "stage:a:1");
    assert_eq!(
        verdict.stopped,
        Some(Error::NotRecorded { kind: Kind::Stage, key: "stage:b:1".into() })
    );
    assert_eq!((store.records(&done.id).unwrap(), fake.count()), before);
}

#[tokio::test(start_paused = true)]
async fn a_failure_calls_its_group_off_and_a_caught_one_poisons_nothing() {
    let fake = Fake::new(|call| async move {
        match call.spec.prompt.as_str() {
            "bad" => Err(StageFault()),
            // Never ends by itself.
            "slow" => std::future::pending().await,
            other => Ok(other.into()),
        }
    });
    let engine = engine_over(memory(), &fake).build();
    let workflow = flow(|ctx| async move {
        let step = |name: &str, prompt: &str| TaskStep::new(name).prompt(prompt);
        let steps = vec![step("a", "slow"), step("b", "bad"), step("c", "never")];
        let options = Parallel { concurrency: Some(2), ..Parallel::default() };
        let failed = ctx.parallel(steps, options).await;
        assert!(matches!(failed, Err(Error::Stage { .. })), "{failed:?}");
        let after = ctx.task(step("d", "fine")).await?;
        Ok(json!(after.text))
    });
    let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Completed);
    let states: Vec<String> = done.steps.iter().map(|step| format!("{:?}", step.state)).collect();
    assert_eq!(states, ["Skipped", "Failed", "Skipped", "Completed"]);
    assert_eq!(fake.seen(), ["slow", "bad", "fine"], "the queued step was begun");
}

#[allow(non_snake_case)]
fn StageFault() -> agentwire_agent::StageError {
    agentwire_agent::StageError::Output { message: "no".into() }
}

#[tokio::test(start_paused = true)]
async fn without_fail_fast_all_finish_and_the_worst_class_counts() {
    for (kinds, status) in [
        ([Some(Fault::RateLimited { retry_after: None }), None], Status::Failed),
        (
            [
                Some(Fault::RateLimited { retry_after: None }),
                Some(Fault::RateLimited { retry_after: Some(Duration::from_secs(3_000)) }),
            ],
            Status::Blocked,
        ),
        (
            [Some(Fault::RateLimited { retry_after: None }), Some(Fault::PermissionDenied)],
            Status::Cancelled,
        ),
    ] {
        let fake = Fake::new(move |call| {
            let kinds = kinds.clone();
            async move {
                match call.spec.prompt.as_str() {
                    "0" => Err(model_failure(kinds[0].clone().unwrap())),
                    "1" => Err(kinds[1].clone().map_or_else(StageFault, model_failure)),
                    other => Ok(other.into()),
                }
            }
        });
        let engine = engine_over(memory(), &fake).build();
        let workflow = flow(|ctx| async move {
            let steps = ["0", "1", "2"].map(|n| TaskStep::new(n).prompt(n));
            let options = Parallel { fail_fast: false, ..Parallel::default() };
            let failed = ctx.parallel(steps.to_vec(), options).await;
            assert!(matches!(failed, Err(Error::Parallel { failed: 2, total: 3, .. })));
            failed.map(|_| Value::Null)
        });
        let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
        assert_eq!(done.status, status);
        assert_eq!(fake.count(), 3);
        assert_eq!(done.retry_at.is_some(), status == Status::Blocked);
    }
}

#[tokio::test(start_paused = true)]
async fn a_blocked_run_goes_on_by_itself_when_the_provider_said_when() {
    let tries = Arc::new(AtomicUsize::new(0));
    let seen = tries.clone();
    let fake = Fake::new(move |_| {
        let n = seen.fetch_add(1, Ordering::SeqCst);
        async move {
            let retry_after = Some(Duration::from_secs(90));
            if n == 0 {
                Err(model_failure(Fault::RateLimited { retry_after }))
            } else {
                Ok("ok".into())
            }
        }
    });
    let (store, effects) = (memory(), Arc::new(AtomicUsize::new(0)));
    let engine = engine_over(store.clone(), &fake).build();
    let made = effects.clone();
    let workflow = flow(move |ctx| {
        let made = made.clone();
        async move {
            ctx.tool("once", ()).run(|_| counted(made.clone())).await?;
            Ok(ctx.stage("s").prompt("p").await?.value)
        }
    });
    let began = tokio::time::Instant::now();
    let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!((done.status, began.elapsed().as_secs()), (Status::Completed, 90));
    assert_eq!(effects.load(Ordering::SeqCst), 1);
    assert_eq!(store.roots().unwrap().len(), 1, "one run under one id");

    // By hand: nothing is waited for, and the same id goes on.
    tries.store(0, Ordering::SeqCst);
    let engine = engine_over(store, &fake).auto_resume(AutoResume::never()).build();
    let blocked = engine.run_as("r", &workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!((blocked.status, blocked.resumable), (Status::Blocked, true));
    assert_eq!(blocked.retry_at, Some(EPOCH + 90_000));
    let done = engine.resume("r", &workflow, &Control::new()).await.unwrap();
    assert_eq!((done.status, done.id.as_str()), (Status::Completed, "r"));
    assert_eq!(effects.load(Ordering::SeqCst), 2, "one for each run, none for the resume");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_on_record_before_the_answer_and_is_opened_again() {
    for task in [false, true] {
        let control = Control::new();
        let pause = control.clone();
        let fake = Fake::new(move |call| {
            let pause = pause.clone();
            async move {
                if call.prior.is_some() {
                    return Ok("went on".into());
                }
                pause.pause();
                std::future::pending().await
            }
        });
        let store = MemoryStore::new();
        let engine = engine_over(Arc::new(store.clone()), &fake).build();
        let workflow = flow(move |ctx| async move {
            if task {
                return Ok(json!(ctx.task(TaskStep::new("s").prompt("p")).await?.text));
            }
            Ok(ctx.stage("s").prompt("p").await?.value)
        });
        let first = engine.run(&workflow, &none(), &control).await.unwrap();
        assert_eq!((first.status, first.resumable), (Status::Paused, true));
        let records = store.records(&first.id).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].kind, Kind::Session);
        let base =
            if task { "stage-session:task:stage:task:s:1:h" } else { "stage-session:stage:s:1:h" };
        assert!(records[0].key.starts_with(base), "{}", records[0].key);
        let second = engine.resume(&first.id, &workflow, &Control::new()).await.unwrap();
        assert_eq!(second.outputs.unwrap()["out"], "went on");
        let reopened = fake.priors.lock().unwrap().last().cloned().flatten().unwrap();
        assert_eq!(records[0].detail.as_ref().unwrap()["session"]["id"], reopened.id);
        // An output beats a session: nothing is opened again.
        let count = fake.count();
        assert!(engine.verify(&first.id, &workflow).await.unwrap().is_ok());
        assert_eq!(fake.count(), count);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limit_run_at_a_time_and_a_failure_frees_its_place() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (at, top) = (now.clone(), most.clone());
    let fake = Fake::new(move |call| {
        let (at, top) = (at.clone(), top.clone());
        async move {
            top.fetch_max(at.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            at.fetch_sub(1, Ordering::SeqCst);
            if call.spec.prompt == "1" { Err(StageFault()) } else { Ok("x".into()) }
        }
    });
    let group = flow(|ctx| async move {
        let steps = (0..6).map(|n| TaskStep::new(n.to_string()).prompt(n.to_string())).collect();
        let failed =
            ctx.parallel(steps, Parallel { fail_fast: false, ..Parallel::default() }).await;
        assert!(failed.is_err());
        Ok(Value::Null)
    });
    for (limit, seconds) in [(1, 6), (2, 3), (4, 2)] {
        most.store(0, Ordering::SeqCst);
        let engine = engine_over(memory(), &fake).concurrency(limit).build();
        let began = tokio::time::Instant::now();
        engine.run(&group, &none(), &Control::new()).await.unwrap();
        assert_eq!(most.load(Ordering::SeqCst), limit);
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
    let engine = engine_over(memory(), &fake).concurrency(0).build();
    assert!(matches!(
        engine.run(&group, &none(), &Control::new()).await,
        Err(Error::Definition(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_did_nothing_fails_and_one_with_tools_alone_completes() {
    let engine = engine_over(memory(), &Fake::echo()).build();
    let empty = flow(|_| async { Ok(Value::Null) });
    let done = engine.run(&empty, &none(), &Control::new()).await.unwrap();
    assert_eq!((done.status, done.error), (Status::Failed, None));
    assert!(done.failure.unwrap().message.contains("did nothing"));
    let tools = flow(|ctx| async move {
        ctx.tool("t", ()).run(|_| async { Ok::<(), String>(()) }).await?;
        Ok(Value::Null)
    });
    let done = engine.run(&tools, &none(), &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_names_one_call_of_one_run() {
    let seen: Arc<Mutex<Vec<(String, u32)>>> = Arc::default();
    let pay = |seen: &Arc<Mutex<Vec<(String, u32)>>>| {
        let seen = Arc::clone(seen);
        move |ctx: Ctx| {
            let seen = Arc::clone(&seen);
            async move {
                ctx.tool("pay", json!({"amount": 1}))
                    .retry(Retry { attempts: 2, ..Retry::default() })
                    .run(|attempt| {
                        let first = attempt.number == 1;
                        seen.lock().unwrap().push((attempt.key, attempt.number));
                        async move { if first { Err("not yet") } else { Ok(1) } }
                    })
                    .await?;
                Ok(json!(1))
            }
        }
    };
    let child = named("kid", pay(&seen));
    let own = pay(&seen);
    let workflow = flow(move |ctx| {
        let (child, own) = (child.clone(), own.clone());
        async move {
            own(ctx.clone()).await?;
            ctx.workflow(&child).run(none()).await?;
            Ok(json!(1))
        }
    });
    let store = memory();
    let engine = engine_over(Arc::clone(&store), &Fake::echo()).build();
    for id in ["one", "two"] {
        let done = engine.run_as(id, &workflow, &none(), &Control::new()).await.unwrap();
        assert_eq!(done.status, Status::Completed, "{:?}", done.error);
    }
    let seen = seen.lock().unwrap().clone();
    let numbers: Vec<u32> = seen.iter().map(|(_, number)| *number).collect();
    assert_eq!(numbers, [1, 2, 1, 2, 1, 2, 1, 2]);
    let keys: std::collections::BTreeSet<&String> = seen.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 4, "two calls in each of two runs: {seen:?}");
    for pair in seen.chunks(2) {
        assert_eq!(pair[0].0, pair[1].0, "each attempt has the call's key");
    }
    // What is recorded is filed as before.
    let recorded = Key::tool("pay", &json!({"amount": 1}), 1);
    for id in ["one", "two"] {
        assert!(store.get(id, Kind::Tool, &recorded.key).unwrap().is_some());
    }
}
