//! Answers in files, and answers that are cut.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentwire_agent::Agent;
use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::session::Store as Sessions;
use agentwire_workflow::output::{MaxOutput, Output};
use agentwire_workflow::record::Status;
use agentwire_workflow::stage::StageOptions;
use agentwire_workflow::store::MemoryStore;
use agentwire_workflow::{Control, Engine, Parallel, TaskStep};
use common::*;
use serde_json::json;

fn to(output: Output, max_output: Option<MaxOutput>) -> StageOptions {
    StageOptions { output, max_output, ..StageOptions::default() }
}

#[tokio::test]
async fn answers_of_stages_and_tasks_are_written_and_replayed_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("deeper").join(name);
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(store, &fake).build();
    let [stage, task, left, right, schema]: [PathBuf; 5] =
        ["stage", "task", "left", "right", "schema"].map(at);
    let paths = [stage.clone(), task.clone(), left.clone(), right.clone(), schema.clone()];
    let workflow = flow(move |ctx| {
        let [stage, task, left, right, schema] = paths.clone();
        async move {
            let max = Some(MaxOutput { bytes: 4, lines: 10 });
            let options = to(Output::File(stage), max);
            let stage = ctx.stage("s").options(options).prompt("one").await?;
            let step = TaskStep::new("t").prompt("two").options(to(Output::FileOnly(task), None));
            let task = ctx.task(step).await?;
            let step = |name: &str, path| {
                TaskStep::new(name).prompt(name).options(to(Output::File(path), None))
            };
            let steps = vec![step("l", left), step("r", right)];
            let group = ctx.parallel(steps, Parallel::default()).await?;
            let shape = json!({"type": "string"});
            let options = StageOptions { schema: Some(shape), ..to(Output::FileOnly(schema), max) };
            let shaped = ctx.stage("j").options(options).prompt("j").await?;
            ctx.input("?").await?;
            Ok(json!([stage.text(), task.text, group[1].text, shaped.value]))
        }
    });
    let first = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!(first.status, Status::Paused, "{:?}", first.error);
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
    assert_eq!(
        [&stage, &task, &left, &right, &schema].map(read),
        ["P(one)", "P(two)", "P(l)", "P(r)", "P(j)"]
    );
    assert_eq!(fs::read_dir(dir.path().join("deeper")).unwrap().count(), 5, "a part was left");

    // A record is a record: the file is whoever's it is now.
    fs::write(&stage, "edited").unwrap();
    let asked = engine.store().records(&first.id).unwrap().pop().unwrap();
    engine.store().answer(&first.id, &asked.key, &json!("yes"), EPOCH).unwrap();
    let done = engine.resume(&first.id, &workflow, &Control::new()).await.unwrap();
    let said = done.outputs.unwrap()["out"].clone();
    let cut = "P(on\n[2 bytes were cut: the limit is 4 bytes and 10 lines]";
    let named = format!("The answer is in the file {} (6 bytes).", task.display());
    assert_eq!(said, json!([cut, named, "P(r)", "P(j)"]));
    assert_eq!((read(&stage).as_str(), fake.count()), ("edited", 5));
}

#[tokio::test]
async fn an_answer_that_cannot_be_written_is_not_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let model = Scripted::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Reply::new().text("paid for")
    });
    let agent = Agent::builder(model).model("m").sessions(Sessions::new(dir.path().join("s")));
    let engine = Engine::builder(Arc::new(MemoryStore::new()), Arc::new(agent.build().unwrap()));
    let engine = engine.build();
    // A file stands where the folder should be.
    let in_the_way = dir.path().join("folder");
    fs::write(&in_the_way, "").unwrap();
    let path = in_the_way.join("answer");
    let written = path.clone();
    let workflow = flow(move |ctx| {
        let options = to(Output::File(path.clone()), None);
        async move { Ok(ctx.stage("s").options(options).prompt("p").await?.value) }
    });
    let failed = engine.run_as("r", &workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!((failed.status, failed.resumable), (Status::Failed, true));
    let why = failed.failure.unwrap().message;
    assert!(why.contains("the answer cannot be written to") && why.contains("resume"), "{why}");
    fs::remove_file(&in_the_way).unwrap();
    let done = engine.resume("r", &workflow, &Control::new()).await.unwrap();
    assert_eq!(done.outputs.unwrap()["out"], "paid for");
    assert_eq!(fs::read_to_string(written).unwrap(), "paid for");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
