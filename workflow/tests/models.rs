//! The models of a run are a part of what its stages were asked: others are noticed on resume.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::sync::Arc;

use agentwire_workflow::key::Kind;
use agentwire_workflow::record::Status;
use agentwire_workflow::store::Store;
use agentwire_workflow::{Control, Error, Outcome, Policy, TaskStep, Workflow};
use common::*;
use serde_json::{Value, json};

/// A stage, a task and one that names its models itself, then a question.
fn workflow() -> Workflow {
    flow(|ctx| async move {
        let said = ctx.stage("plan").prompt("p").await?;
        let task = ctx.task(TaskStep::new("do").prompt("t")).await?;
        let own = ctx.stage("own").models(["mine"]).prompt("o").await?;
        let answer = ctx.input("?").await;
        Ok(json!([said.value, task.text, own.value, answer?]))
    })
}

/// Runs it up to the question with these models, answers, and resumes with those.
async fn resumed(
    first: &[&str],
    then: &[&str],
    policy: Policy,
) -> (Outcome, usize, Arc<dyn Store>) {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store.clone(), &fake.with_models(first)).build();
    let paused = engine.run_as("r", &workflow(), &none(), &Control::new()).await.unwrap();
    assert_eq!(paused.status, Status::Paused);
    let records = store.records("r").unwrap();
    let asked = records.iter().find(|record| record.kind == Kind::Asked).unwrap();
    store.answer("r", &asked.key, &json!("yes"), EPOCH).unwrap();
    let engine = engine_over(store.clone(), &fake.with_models(then)).policy(policy).build();
    let done = engine.resume("r", &workflow(), &Control::new()).await.unwrap();
    (done, fake.count() - 3, store)
}

#[tokio::test(start_paused = true)]
async fn other_models_are_refused_rerun_or_accepted() {
    for (policy, status, again, changed) in [
        (Policy::Refuse, Status::Failed, 0, 1),
        (Policy::Accept, Status::Completed, 0, 2),
        (Policy::Rerun, Status::Completed, 2, 2),
    ] {
        let (done, calls, store) = resumed(&["a", "b"], &["b"], policy).await;
        assert_eq!((done.status, calls), (status, again), "{policy:?}");
        assert_eq!(done.report.changed.len(), changed, "{policy:?}");
        let change = &done.report.changed[0];
        assert_eq!((change.key.as_str(), &change.recorded), ("stage:plan:1", &change.now));
        let models = change.models.clone().unwrap();
        assert_eq!((models.recorded, models.now), (vec!["a".into(), "b".into()], vec!["b".into()]));
        if policy == Policy::Refuse {
            let Some(Error::Diverged(why)) = &done.error else { panic!("{:?}", done.error) };
            assert!(why.to_string().contains("the model a, b, and the run has b now"), "{why}");
            assert!(done.resumable, "with the models that it had");
        }
        // What was made again is of the models that made it.
        let kept = store.get("r", Kind::Stage, "stage:plan:1").unwrap().unwrap().models();
        assert_eq!(kept.len(), if policy == Policy::Rerun { 1 } else { 2 });
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_models_and_records_that_have_none_are_as_good_as_ever() {
    for (first, then) in [
        (&["a"][..], &["a"][..]),
        // Of before models were kept, and of a runner that does not say its own.
        (&[], &["a"]),
        (&["a"], &[]),
    ] {
        let (done, calls, _) = resumed(first, then, Policy::Refuse).await;
        assert_eq!((done.status, calls), (Status::Completed, 0), "{first:?} {then:?}");
        assert!(done.report.is_clean(), "{:?}", done.report);
    }
}

#[tokio::test(start_paused = true)]
async fn verify_has_no_models_and_compares_none() {
    let (done, _, store) = resumed(&["a"], &["a"], Policy::Refuse).await;
    assert_eq!(done.status, Status::Completed);
    let engine = engine_over(store, &Fake::echo()).build();
    assert!(engine.verify("r", &workflow()).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_conversation_goes_on_with_other_models() {
    let control = Control::new();
    let pause = control.clone();
    let fake = Fake::new(move |call| {
        let pause = pause.clone();
        async move {
            if call.prior.is_none() {
                pause.pause();
                return std::future::pending().await;
            }
            Ok(Value::from("went on"))
        }
    });
    let store = memory();
    let stage = flow(|ctx| async move { Ok(ctx.stage("s").prompt("p").await?.value) });
    let engine = engine_over(store.clone(), &fake.with_models(&["a"])).build();
    engine.run_as("r", &stage, &none(), &control).await.unwrap();
    assert_eq!(store.records("r").unwrap()[0].models(), ["a"], "known before the answer");
    // Nothing was answered by the model that it had: there is nothing to refuse.
    let engine = engine_over(store.clone(), &fake.with_models(&["b"])).build();
    let done = engine.resume("r", &stage, &Control::new()).await.unwrap();
    assert_eq!(done.outputs.unwrap()["out"], "went on");
    assert_eq!(store.get("r", Kind::Stage, "stage:s:1").unwrap().unwrap().models(), ["b"]);
}
