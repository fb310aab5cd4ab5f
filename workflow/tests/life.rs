//! Exits, kills, pauses, questions and children, on a virtual clock.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentwire_workflow::clock::Boxed;
use agentwire_workflow::error::{QuestionError, StoreError};
use agentwire_workflow::failure::{Code, Failure};
use agentwire_workflow::key::Kind;
use agentwire_workflow::ports::{Ask, McpScope, Question, Reply};
use agentwire_workflow::record::Status;
use agentwire_workflow::scope::ToolScope;
use agentwire_workflow::stage::StageOptions;
use agentwire_workflow::tool::Retry;
use agentwire_workflow::{Control, Error, Exit, ExitStatus, Input, Workflow};
use common::*;
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn a_kill_from_outside_reaches_a_run_under_way() {
    let (store, fake) = (memory(), Fake::new(|_| std::future::pending()));
    let engine = engine_over(store.clone(), &fake).build();
    let workflow = flow(|ctx| async move { Ok(ctx.stage("s").prompt("p").await?.value) });
    let control = Control::new();
    let inputs = none();
    let run = engine.run_as("r", &workflow, &inputs, &control);
    let kill = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(store.kill("r", EPOCH).unwrap());
        assert!(!store.kill("r", EPOCH).unwrap(), "it was over already");
        assert!(store.kill("unknown", EPOCH).is_err());
    };
    let (done, ()) = tokio::join!(run, kill);
    assert_eq!(done.unwrap().status, Status::Cancelled);
    assert_eq!(store.root("r").unwrap().unwrap().status, Status::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn the_first_exit_wins_and_calls_everything_off() {
    let fake = Fake::new(|call| async move {
        if call.spec.prompt == "slow" { std::future::pending().await } else { Ok("x".into()) }
    });
    let engine = engine_over(memory(), &fake).build();
    let workflow = flow(|ctx| async move {
        let slow = ctx.stage("slow").prompt("slow");
        let exit = async {
            ctx.stage("quick").prompt("quick").await?;
            let first = Exit::new(ExitStatus::Skipped).reason("nothing to do").output("out", 1);
            let error = ctx.exit(first);
            let _second = ctx.exit(Exit::new(ExitStatus::Cancelled));
            Err::<(), Error>(error)
        };
        let (slow, _exit) = tokio::join!(slow, exit);
        assert_eq!(slow, Err(Error::Exit));
        // Swallowing it changes nothing.
        assert!(ctx.stage("later").prompt("later").await.is_err());
        Ok(Value::Null)
    });
    let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!((done.status, done.resumable), (Status::Completed, false));
    assert_eq!(done.exit, Some((ExitStatus::Skipped, Some("nothing to do".into()))));
    assert_eq!(done.outputs.unwrap()["out"], 1);
    assert_eq!(fake.seen(), ["slow", "quick"]);

    let wrong = flow(|ctx| async move {
        Err(ctx.exit(Exit::new(ExitStatus::Completed).output("undeclared", 1)))
    });
    let failed = engine.run(&wrong, &none(), &Control::new()).await.unwrap();
    assert_eq!((failed.status, failed.resumable), (Status::Failed, false));
    for (exit, status) in
        [(ExitStatus::Cancelled, Status::Cancelled), (ExitStatus::Blocked, Status::Blocked)]
    {
        let workflow = flow(move |ctx| async move { Err(ctx.exit(Exit::new(exit))) });
        let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
        assert_eq!((done.status, done.resumable), (status, false));
    }
}

#[tokio::test(start_paused = true)]
async fn children_record_under_the_root_and_replay() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store.clone(), &fake).build();
    let kid = named("Kid Flow", |ctx| async move {
        let said = ctx.stage("ks").prompt("x").await?;
        let tool: u32 =
            ctx.tool("kt", json!({"n": 1})).run(|_| async { Ok::<_, String>(3) }).await?;
        Ok(json!([said.value, tool]))
    });
    let workflow = flow(move |ctx| {
        let kid = kid.clone();
        async move {
            let a = ctx.workflow(&kid).run(none()).await?;
            let b = ctx.workflow_as("X", &kid).run(none()).await?;
            assert_ne!(a.run_id, ctx.run_id());
            ctx.input("?").await?;
            Ok(json!([a.outputs["out"], b.workflow]))
        }
    });
    let first = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    let keys: Vec<String> = store
        .records(&first.id)
        .unwrap()
        .into_iter()
        .filter(|record| record.kind.is_result())
        .map(|record| record.key)
        .collect();
    for key in [
        "workflow:workflow:kid-flow:1:stage:ks:1",
        "workflow:workflow:kid-flow:1:h811171f52f5154c4cbdc6462edee9295",
        "workflow:workflow:kid-flow:1",
        "workflow:X:1",
    ] {
        assert!(keys.iter().any(|one| one == key), "{key} is not among {keys:?}");
    }
    assert_eq!(store.roots().unwrap().len(), 1);
    engine.resume(&first.id, &workflow, &Control::new()).await.unwrap();
    assert_eq!(fake.count(), 2, "a child was run again");
}

#[tokio::test(start_paused = true)]
async fn a_child_s_failure_exit_depth_and_inputs() {
    let fake = Fake::echo();
    let engine = engine_over(memory(), &fake).build();
    let exits = named("exits", |ctx| async move {
        ctx.stage("s").prompt("s").await?;
        Err(ctx.exit(Exit::new(ExitStatus::Completed).reason("early")))
    });
    let fails = named("fails", |ctx| async move {
        ctx.stage("s").prompt("s").await?;
        Err(Error::failed("no luck"))
    });
    let needs =
        with(Workflow::builder("needs").input("x", Input::text()), |_| async { Ok(Value::Null) });
    let workflow = flow(move |ctx| {
        let (exits, fails, needs) = (exits.clone(), fails.clone(), needs.clone());
        async move {
            let early = ctx.workflow(&exits).run(none()).await?;
            assert!(early.exited);
            assert_eq!(early.exit_reason.as_deref(), Some("early"));
            let failed = ctx.workflow(&fails).run(none()).await;
            assert!(matches!(failed, Err(Error::Child { .. })), "{failed:?}");
            assert!(matches!(ctx.workflow(&needs).run(none()).await, Err(Error::Inputs(_))));
            Ok(Value::Null)
        }
    });
    let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Completed, "{:?}", done.failure);

    let deep = named("d3", |ctx| async move { Ok(ctx.stage("s").prompt("deep").await?.value) });
    let nest = |name: &str, inner: Workflow| {
        named(name, move |ctx| {
            let inner = inner.clone();
            async move { Ok(Value::Object(ctx.workflow(&inner).run(none()).await?.outputs)) }
        })
    };
    let four = nest("d0", nest("d1", nest("d2", deep)));
    let done = engine.run(&four, &none(), &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Completed, "four levels fit");
    let five = nest("top", four);
    let refused = engine.run(&five, &none(), &Control::new()).await.unwrap();
    assert_eq!(refused.status, Status::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_goes_on_where_it_was() {
    let (store, fake) = (memory(), Fake::echo());
    let clock = agentwire_workflow::clock::VirtualClock::starting_at(EPOCH);
    let engine = engine_over(store, &fake).clock(clock).build();
    let workflow = flow(|ctx| async move {
        ctx.sleep(Duration::from_secs(100)).await?;
        Ok(Value::Null)
    });
    let control = Control::new();
    let inputs = none();
    let run = engine.run_as("r", &workflow, &inputs, &control);
    let stop = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        control.pause();
    };
    let (first, ()) = tokio::join!(run, stop);
    assert_eq!(first.unwrap().status, Status::Paused);
    tokio::time::sleep(Duration::from_secs(50)).await;
    let began = tokio::time::Instant::now();
    let done = engine.resume("r", &workflow, &Control::new()).await.unwrap();
    assert_eq!((done.status, began.elapsed().as_secs()), (Status::Completed, 20));
}

#[tokio::test(start_paused = true)]
async fn a_kill_that_meets_a_finished_effect_lets_it_be_recorded() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store.clone(), &fake).build();
    let control = Control::new();
    let killer = control.clone();
    let workflow = flow(move |ctx| {
        let killer = killer.clone();
        async move {
            let late = ctx.tool("late", ()).run(|attempt| {
                let killer = killer.clone();
                async move {
                    killer.kill("enough");
                    attempt.cancel.cancelled().await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    Ok::<_, String>(7)
                }
            });
            Ok(json!(late.await?))
        }
    });
    let done = engine.run(&workflow, &none(), &control).await.unwrap();
    assert_eq!((done.status, done.resumable), (Status::Cancelled, false));
    let records = store.records(&done.id).unwrap();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].value, Some(json!(7)));
    // A killed run is over.
    assert!(engine.resume(&done.id, &workflow, &Control::new()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_hangs_does_not_hold_a_kill() {
    for seconds in [None, Some(1), Some(30)] {
        let mut engine = engine_over(memory(), &Fake::echo());
        if let Some(seconds) = seconds {
            engine = engine.grace(Duration::from_secs(seconds));
        }
        let control = Control::new();
        let killer = control.clone();
        let workflow = flow(move |ctx| {
            let killer = killer.clone();
            async move {
                let hung = ctx.tool("hung", ()).run(move |_| {
                    killer.kill("enough");
                    std::future::pending::<Result<(), String>>()
                });
                hung.await?;
                Ok(Value::Null)
            }
        });
        let begun = tokio::time::Instant::now();
        let done = engine.build().run(&workflow, &none(), &control).await.unwrap();
        assert_eq!(done.status, Status::Cancelled);
        assert_eq!(done.failure.unwrap().message, "enough");
        // It had its time, and no more than that.
        assert_eq!(begun.elapsed().as_secs(), seconds.unwrap_or(5));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_after_a_kill_and_a_back_off_in_a_kill_do_nothing() {
    let (store, calls) = (memory(), Arc::new(AtomicUsize::new(0)));
    let engine = engine_over(store, &Fake::echo()).build();
    let control = Control::new();
    let (killer, seen) = (control.clone(), calls.clone());
    let workflow = flow(move |ctx| {
        let (killer, calls) = (killer.clone(), seen.clone());
        async move {
            let failing = ctx.tool("t", ()).retry(Retry::default()).run(|_| {
                calls.fetch_add(1, Ordering::SeqCst);
                async { Err::<(), _>("no") }
            });
            let kill = async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                killer.kill("stop");
            };
            let (failed, ()) = tokio::join!(failing, kill);
            assert_eq!(failed, Err(Error::Cancelled("stop".into())));
            let after = ctx.tool("u", ()).run(|_| {
                calls.fetch_add(1, Ordering::SeqCst);
                async { Ok::<(), String>(()) }
            });
            assert_eq!(after.await, Err(Error::Cancelled("stop".into())));
            Ok(Value::Null)
        }
    });
    let done = engine.run(&workflow, &none(), &control).await.unwrap();
    assert_eq!((done.status, calls.load(Ordering::SeqCst)), (Status::Cancelled, 1));
}

#[tokio::test(start_paused = true)]
async fn a_kill_beats_an_exit() {
    let engine = engine_over(memory(), &Fake::echo()).build();
    for invalid in [false, true] {
        let control = Control::new();
        let killer = control.clone();
        let workflow = flow(move |ctx| {
            let killer = killer.clone();
            async move {
                ctx.stage("s").prompt("p").await?;
                let exit = Exit::new(ExitStatus::Completed);
                let error = ctx.exit(if invalid { exit.output("undeclared", 1) } else { exit });
                killer.kill("late");
                Err(error)
            }
        });
        let done = engine.run(&workflow, &none(), &control).await.unwrap();
        assert_eq!((done.status, done.exit), (Status::Cancelled, None));
        assert_eq!(done.failure.unwrap().code, Code::Cancelled);
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_s_exit_calls_its_child_off() {
    let cleaned = Arc::new(AtomicUsize::new(0));
    let fake = Fake::new(|call| async move {
        if call.spec.prompt == "slow" { std::future::pending().await } else { Ok("x".into()) }
    });
    let engine = engine_over(memory(), &fake).build();
    let seen = cleaned.clone();
    let kid = named("kid", move |ctx| {
        let seen = seen.clone();
        async move {
            let stopped = ctx.stage("slow").prompt("slow").await;
            assert!(
                matches!(&stopped, Err(Error::Cancelled(why)) if why.contains("parent")),
                "{stopped:?}"
            );
            seen.fetch_add(1, Ordering::SeqCst);
            stopped.map(|said| said.value)
        }
    });
    let seen = cleaned.clone();
    let workflow = flow(move |ctx| {
        let (kid, seen) = (kid.clone(), seen.clone());
        async move {
            let child = ctx.workflow(&kid).run(none());
            let exit = async {
                ctx.stage("quick").prompt("quick").await?;
                Err::<(), _>(ctx.exit(Exit::new(ExitStatus::Completed)))
            };
            let (child, exit) = tokio::join!(child, exit);
            assert_eq!(seen.load(Ordering::SeqCst), 1, "the child's cleanup comes first");
            assert!(matches!(child, Err(Error::Child { status, .. }) if status == "cancelled"));
            exit.map(|()| Value::Null)
        }
    });
    let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Completed, "{:?}", done.failure);
}

#[tokio::test(start_paused = true)]
async fn a_child_with_other_inputs_is_refused() {
    let engine = engine_over(memory(), &Fake::echo()).build();
    let parent = |x: u64| {
        let builder =
            Workflow::builder("kid").input("x", Input::new(agentwire_workflow::InputKind::Integer));
        let kid = with(builder.optional_output("out"), |ctx| async move {
            Ok(ctx.stage("s").prompt("p").await?.value)
        });
        flow(move |ctx| {
            let kid = kid.clone();
            async move {
                ctx.workflow(&kid).run(map(json!({"x": x}))).await?;
                Err(Error::failed("again"))
            }
        })
    };
    let first = engine.run(&parent(1), &none(), &Control::new()).await.unwrap();
    let second = engine.resume(&first.id, &parent(2), &Control::new()).await.unwrap();
    let Some(Error::Diverged(change)) = second.error else { panic!("{:?}", second.error) };
    assert_eq!((change.kind, change.key.as_str()), (Kind::Child, "workflow:workflow:kid:1"));
}

/// Answers from a list, and counts.
#[derive(Clone)]
struct Answers(Arc<Mutex<Vec<Reply>>>, Arc<AtomicUsize>);

impl Ask for Answers {
    fn ask(&self, _question: Question) -> Boxed<'_, Result<Reply, String>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let next = self.0.lock().unwrap().pop().unwrap_or(Reply::Nobody);
        Box::pin(std::future::ready(Ok(next)))
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_asked_once_and_checked() {
    let store = memory();
    let replies = [json!("Ann"), json!(false), json!("b"), json!("c"), Value::Null, json!("Bob")];
    let list = replies.into_iter().rev().map(Reply::Answer).collect();
    let answers = Answers(Arc::new(Mutex::new(list)), Arc::default());
    let engine = engine_over(store.clone(), &Fake::echo()).ask(answers.clone()).build();
    let questions = |end: bool| {
        flow(move |ctx| async move {
            assert_eq!(
                ctx.select("Pick", &[]).await,
                Err(Error::Question(QuestionError::NoOptions))
            );
            let said = json!([
                ctx.input("Name?").await?,
                ctx.confirm("OK?").await?,
                ctx.select("Pick", &["a", "b"]).await?,
                ctx.select("Pick", &["b", "c"]).await?,
                ctx.ask("design", "Which?", json!({"id": 1})).await?,
                ctx.input("Name?").await?,
            ]);
            if end { Ok(said) } else { Err(Error::failed("again")) }
        })
    };
    let first = engine.run(&questions(false), &none(), &Control::new()).await.unwrap();
    assert_eq!(first.status, Status::Failed);
    let second = engine.resume(&first.id, &questions(true), &Control::new()).await.unwrap();
    assert_eq!(second.outputs.unwrap()["out"], json!(["Ann", false, "b", "c", null, "Bob"]));
    assert_eq!(answers.1.load(Ordering::SeqCst), 6);

    // An answer of another type, recorded from outside, is not taken: it is asked again.
    let confirm = flow(|ctx| async move { Ok(ctx.confirm("Sure?").await?.into()) });
    let waiting = engine.run_as("w", &confirm, &none(), &Control::new()).await.unwrap();
    assert_eq!((waiting.status, waiting.resumable), (Status::Paused, true));
    assert!(store.root("w").unwrap().unwrap().is_resumable());
    let asked = store.records("w").unwrap();
    assert!(store.answer("w", &asked[0].key, &json!("perhaps"), EPOCH).unwrap());
    answers.0.lock().unwrap().push(Reply::Answer(true.into()));
    let done = engine.resume("w", &confirm, &Control::new()).await.unwrap();
    assert_eq!(done.outputs.unwrap()["out"], true);
    let wrong = engine_over(memory(), &Fake::echo()).ask(answers.clone()).build();
    answers.0.lock().unwrap().push(Reply::Answer("yes".into()));
    let failed = wrong.run(&confirm, &none(), &Control::new()).await.unwrap();
    assert_eq!(failed.error, Some(Error::Question(QuestionError::WrongAnswer("true or false"))));
}

#[tokio::test(start_paused = true)]
async fn schema_stages_and_empty_answers_replay_as_they_were() {
    let fake = Fake::new(|call| async move {
        let structured = call.spec.schema.is_some();
        Ok(if structured { json!({"summary": "s", "count": 2}) } else { json!("") })
    });
    let engine = engine_over(memory(), &fake).build();
    let workflow = |end: bool| {
        flow(move |ctx| async move {
            let a = ctx.stage("a").schema(json!({"type": "object"})).prompt("p").await?;
            let b = ctx.stage("b").prompt("p").await?;
            assert_eq!((a.replayed, b.replayed), (end, end));
            if end { Ok(json!([a.value, b.value])) } else { Err(Error::failed("again")) }
        })
    };
    let first = engine.run(&workflow(false), &none(), &Control::new()).await.unwrap();
    let second = engine.resume(&first.id, &workflow(true), &Control::new()).await.unwrap();
    assert_eq!(second.outputs.unwrap()["out"], json!([{"summary": "s", "count": 2}, ""]));
    assert_eq!(fake.count(), 2);
}

#[derive(Clone, Default)]
struct Scopes(Arc<Mutex<Vec<String>>>);

impl McpScope for Scopes {
    fn set(&self, stage: &str, allow: Option<&[String]>, deny: Option<&[String]>) {
        self.0.lock().unwrap().push(format!("set {stage} {allow:?} {deny:?}"));
    }

    fn clear(&self, stage: &str) {
        self.0.lock().unwrap().push(format!("clear {stage}"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_mcp_scope_is_set_and_cleared_around_each_stage() {
    let fake = Fake::new(|call| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let fault = agentwire_agent::StageError::Output { message: "no".into() };
        if call.spec.prompt == "bad" {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Err(fault)
        } else {
            Ok("x".into())
        }
    });
    let scopes = Scopes::default();
    let engine = engine_over(memory(), &fake).mcp(scopes.clone()).build();
    let workflow = flow(|ctx| async move {
        let allow =
            StageOptions { mcp_allow: Some(vec!["files".into()]), ..StageOptions::default() };
        let deny = StageOptions { mcp_deny: Some(vec!["web".into()]), ..StageOptions::default() };
        let (a, b) = tokio::join!(
            ctx.stage("a").options(allow).prompt("ok"),
            ctx.stage("b").options(deny).prompt("bad")
        );
        assert!(a.is_ok() && b.is_err());
        ctx.stage("c").prompt("ok").await?;
        Ok(Value::Null)
    });
    engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    let seen = scopes.0.lock().unwrap().clone();
    assert_eq!(
        seen,
        [
            "set stage:a:1 Some([\"files\"]) None",
            "set stage:b:1 None Some([\"web\"])",
            "clear stage:a:1",
            "clear stage:b:1",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn resuming_names_what_is_wrong() {
    let store = memory();
    let engine = engine_over(store.clone(), &Fake::echo()).build();
    let fails = |name: &str| {
        named(name, |ctx| async move {
            ctx.stage("s").prompt("p").await?;
            Err(Error::failed("again"))
        })
    };
    let (control, one) = (Control::new(), fails("one"));
    for id in ["abc", "abd"] {
        engine.run_as(id, &one, &none(), &control).await.unwrap();
    }
    let unknown = engine.resume("x", &one, &control).await;
    assert_eq!(unknown, Err(Error::Store(StoreError::Unknown("x".into()))));
    let several = engine.resume("ab", &one, &control).await.unwrap_err().to_string();
    assert!(several.starts_with("Ambiguous") && several.contains("abd"), "{several}");
    let other = engine.resume("abc", &fails("other"), &control).await;
    assert!(matches!(other, Err(Error::Definition(_))), "{other:?}");
    let needs =
        with(Workflow::builder("one").input("x", Input::text()), |_| async { Ok(Value::Null) });
    assert!(matches!(engine.resume("abc", &needs, &control).await, Err(Error::Inputs(_))));
    assert!(engine.resume("abc", &one, &control).await.is_ok());
    store.kill("abc", EPOCH).unwrap();
    let over = engine.resume("abc", &one, &control).await;
    assert!(matches!(over, Err(Error::Store(StoreError::NotResumable { .. }))), "{over:?}");
}

#[tokio::test(start_paused = true)]
async fn secrets_in_failures_are_not_kept() {
    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF123_-ghi456JKL";
    let store = memory();
    let engine = engine_over(store.clone(), &Fake::echo()).build();
    let workflow = flow(|ctx| async move {
        ctx.stage("s").prompt("p").await?;
        let message = format!("refused: Authorization: Bearer {TOKEN}");
        Err(Error::Classified(Failure::new(Code::InvalidApiKey, message)))
    });
    let done = engine.run_as("r", &workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!((done.status, done.resumable), (Status::Cancelled, false));
    let kept = store.root("r").unwrap().unwrap().failure.unwrap().message;
    assert!(kept.contains("refused") && !kept.contains(TOKEN), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn an_mcp_scope_may_narrow_what_the_runner_is_given() {
    let fake = Fake::echo();
    let scope = ToolScope::new().own("clock").server("files", ["files_read", "files_write"]);
    let engine = engine_over(memory(), &fake).mcp(scope.clone()).build();
    let cases = [
        (None, None, None),
        (None, Some("files"), Some("clock")),
        (Some("files_read"), None, Some("clock files_read")),
        (Some("files"), Some("files_write"), Some("clock files_read")),
        (Some("files_write"), Some("files"), Some("clock")),
    ];
    let workflow = flow(move |ctx| async move {
        for (allow, deny, _) in cases {
            let list = |name: Option<&str>| name.map(|name| vec![name.to_owned()]);
            let (mcp_allow, mcp_deny) = (list(allow), list(deny));
            let options = StageOptions { mcp_allow, mcp_deny, ..StageOptions::default() };
            ctx.stage("s").options(options).prompt("p").await?;
        }
        Ok(Value::Null)
    });
    engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    let specs = fake.specs.lock().unwrap().clone();
    for (spec, (allow, deny, given)) in specs.iter().zip(cases) {
        let tools = spec.tools.as_ref().map(|tools| tools.join(" "));
        assert_eq!(tools.as_deref(), given, "{allow:?} {deny:?}");
    }
    assert_eq!(specs.len(), cases.len());
    assert_eq!(scope.tools("stage:s:2", None), None, "every scope was cleared");
}

#[tokio::test(start_paused = true)]
async fn the_id_of_a_child_names_nothing_that_can_be_killed() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store.clone(), &fake).build();
    let seen = store.clone();
    let kid = named("kid", move |ctx| {
        let store = seen.clone();
        async move {
            ctx.stage("s").prompt("p").await?;
            let unknown = store.kill(ctx.run_id(), EPOCH);
            assert_eq!(unknown, Err(StoreError::Unknown(ctx.run_id().to_owned())));
            Ok(Value::from("whole"))
        }
    });
    let workflow = flow(move |ctx| {
        let kid = kid.clone();
        async move { Ok(ctx.workflow(&kid).run(none()).await?.outputs["out"].clone()) }
    });
    let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!(done.outputs.unwrap()["out"], "whole");
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_back_all_that_comes_after_until_the_run_is_resumed() {
    let control = Control::new();
    let pause = control.clone();
    let fake = Fake::new(move |call| {
        let pause = pause.clone();
        async move {
            if call.spec.prompt == "a" && call.prior.is_none() {
                pause.pause();
                return std::future::pending().await;
            }
            Ok(call.spec.prompt.into())
        }
    });
    let engine = engine_over(memory(), &fake).build();
    let workflow = flow(|ctx| async move {
        for name in ["a", "b", "c"] {
            ctx.stage(name).prompt(name).await?;
        }
        Ok(Value::Null)
    });
    let early = Control::new();
    early.pause();
    let first = engine.run_as("r", &workflow, &none(), &early).await.unwrap();
    assert_eq!((first.status, fake.count()), (Status::Paused, 0), "before the first prompt");
    let second = engine.resume("r", &workflow, &control).await.unwrap();
    assert_eq!((second.status, fake.seen()), (Status::Paused, vec!["a".to_owned()]));
    let done = engine.resume("r", &workflow, &Control::new()).await.unwrap();
    assert_eq!(done.status, Status::Completed);
    assert_eq!(fake.seen(), ["a", "a", "b", "c"], "the first in its session, then the others");
    assert!(fake.priors.lock().unwrap()[1].is_some());
}
