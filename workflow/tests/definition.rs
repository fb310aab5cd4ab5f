//! Definitions: names, inputs, outputs, the registry; and pipelines in TOML.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

mod common;

use std::sync::Arc;

use agentwire_workflow::definition::Registry;
use agentwire_workflow::key::{Key, Kind};
use agentwire_workflow::pipeline::from_toml;
use agentwire_workflow::record::Status;
use agentwire_workflow::{Control, Error, Input, InputKind, Workflow};
use common::*;
use serde_json::{Value, json};

fn declared() -> Workflow {
    let builder = Workflow::builder("Declared")
        .input("text", Input::text())
        .input("number", Input::new(InputKind::Number).optional())
        .input("count", Input::new(InputKind::Integer).default_value(3))
        .input("flag", Input::new(InputKind::Boolean).default_value(true))
        .input("choice", Input::select(["a", "b"]).optional());
    with(builder, |_| async { Ok(Value::Null) })
}

#[test]
fn inputs_are_checked_all_at_once() {
    let workflow = declared();
    let checked = workflow.check_inputs(&map(json!({"text": "x", "flag": false}))).unwrap();
    assert_eq!(Value::Object(checked), json!({"text": "x", "count": 3, "flag": false}));
    let wrong = json!({"number": "1", "count": 1.5, "flag": "true", "choice": "c", "more": 1});
    let Err(Error::Inputs(faults)) = workflow.check_inputs(&map(wrong)) else {
        panic!("wrong inputs were taken");
    };
    for name in ["text", "number", "count", "flag", "choice", "more"] {
        assert_eq!(
            faults.iter().filter(|fault| fault.starts_with(&format!("  {name}:"))).count(),
            1,
            "{name}: {faults:?}"
        );
    }
    assert!(workflow.check_inputs(&map(json!({"text": 1}))).is_err());
}

#[tokio::test(start_paused = true)]
async fn outputs_are_exactly_those_declared() {
    let engine = engine_over(memory(), &Fake::echo()).build();
    for (outputs, status, kept) in [
        (json!({"must": 1, "may": 2}), Status::Completed, Some(json!({"must": 1, "may": 2}))),
        (json!({"must": null, "may": null}), Status::Completed, Some(json!({"must": null}))),
        (json!({"may": 2}), Status::Failed, None),
        (json!({"must": 1, "more": 2}), Status::Failed, None),
        (json!("text"), Status::Failed, None),
    ] {
        let given = outputs.clone();
        let workflow = Workflow::builder("out")
            .output("must")
            .optional_output("may")
            .body(move |ctx, _: Value| {
                let given = given.clone();
                async move {
                    ctx.stage("s").prompt("p").await?;
                    Ok(given)
                }
            })
            .unwrap();
        let done = engine.run(&workflow, &none(), &Control::new()).await.unwrap();
        assert_eq!(done.status, status, "{outputs}");
        assert_eq!(done.outputs.map(Value::Object), kept, "{outputs}");
    }
}

#[test]
fn definitions_are_checked_when_they_are_built() {
    let build = |name: &str, input: Input| {
        Workflow::builder(name)
            .input("x", input)
            .body(|_, _: Value| async { Ok(Value::Null) })
            .map(|workflow| workflow.normalized().to_owned())
    };
    assert_eq!(build(" My Flow ", Input::text()).as_deref(), Ok("my-flow"));
    assert!(matches!(build("!?", Input::text()), Err(Error::Definition(_))));
    let wrong = build("flow", Input::select(["a"]).default_value("b"));
    assert!(matches!(wrong, Err(Error::Definition(_))));
}

#[test]
fn the_registry_finds_names_however_they_are_written() {
    let make = |name: &str| named(name, |_| async { Ok(Value::Null) });
    let first = Registry::default().with(make("My Flow")).with(make("Other"));
    let second = first.with(make("my_flow"));
    assert_eq!(first.get("MY FLOW").unwrap().name(), "My Flow", "the original is unchanged");
    assert_eq!(second.get("my-flow").unwrap().name(), "my_flow");
    let names: Vec<&str> = second.iter().map(Workflow::normalized).collect();
    assert_eq!(names, ["my-flow", "other"], "it keeps its place");
    assert!(second.get("!").is_none());
}

const PIPELINE: &str = r#"
name = "review"

[inputs.topic]

[[stage]]
name = "verdict"
prompt = "style: {stages.style}, facts: {stages.facts} {literal}"

[[stage]]
name = "draft"
prompt = "on {inputs.topic}"

[[stage]]
name = "style"
prompt = "S {stages.draft}"

[[stage]]
name = "facts"
prompt = "F {stages.draft}"

[[stage]]
name = "publish"
ask = "confirm"
prompt = "Publish?"
after = ["verdict"]

[outputs]
text = "{stages.verdict}"
sure = "{stages.publish}"
"#;

#[tokio::test(start_paused = true)]
async fn a_pipeline_runs_what_is_ready_and_asks() {
    let (store, fake) = (memory(), Fake::echo());
    let engine = engine_over(Arc::clone(&store), &fake).build();
    let workflow = from_toml(PIPELINE, None).unwrap();
    // What an input holds is never taken for a placeholder.
    let inputs = map(json!({"topic": "{stages.draft}"}));
    let first = engine.run_as("r", &workflow, &inputs, &Control::new()).await.unwrap();
    assert_eq!(first.status, Status::Paused, "{:?}", first.error);
    assert_eq!(fake.seen()[0], "on {stages.draft}");
    assert_eq!(
        fake.seen()[3],
        format!("style: P(S {0}), facts: P(F {0}) {{literal}}", "P(on {stages.draft})")
    );
    let key = store.records("r").unwrap().last().unwrap().key.clone();
    store.answer("r", &key, &json!(true), EPOCH).unwrap();
    let done = engine.resume("r", &workflow, &Control::new()).await.unwrap();
    assert_eq!((done.status, fake.count()), (Status::Completed, 4));
    assert_eq!(done.outputs.unwrap()["sure"], true);
}

/// Two chains that have nothing to do with each other, and a question that only one waits for.
const CHAINS: &str = r#"
name = "chains"

[[stage]]
name = "slow"
prompt = "slow"

[[stage]]
name = "sure"
ask = "confirm"
prompt = "Sure?"

[[stage]]
name = "quick"
prompt = "quick"

[[stage]]
name = "slow2"
prompt = "slow2 {stages.slow}"

[[stage]]
name = "quick2"
prompt = "quick2 {stages.quick}"

[[stage]]
name = "quick3"
prompt = "quick3 {stages.quick2}"

[[stage]]
name = "last"
prompt = "last"
after = ["sure"]
"#;

#[tokio::test(start_paused = true)]
async fn a_stage_of_a_pipeline_waits_for_nothing_but_its_own() {
    let store = memory();
    // The slow stage answers only once the other chain is through: waves would wait for ever.
    let through = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&through);
    let fake = Fake::new(move |call| {
        let through = Arc::clone(&told);
        async move {
            match call.spec.prompt.split(' ').next().unwrap() {
                "slow" => through.notified().await,
                "quick3" => through.notify_one(),
                _ => {}
            }
            Ok(call.spec.prompt.split(' ').next().unwrap().into())
        }
    });
    let engine = engine_over(Arc::clone(&store), &fake).build();
    let workflow = from_toml(CHAINS, None).unwrap();
    let first = engine.run_as("r", &workflow, &none(), &Control::new()).await.unwrap();
    assert_eq!(first.status, Status::Paused, "{:?}", first.error);
    assert_eq!(
        fake.seen(),
        ["slow", "quick", "quick2 quick", "quick3 quick2", "slow2 slow"],
        "the question holds up what waits for it alone"
    );
    let asked = store.records("r").unwrap();
    let asked = asked.iter().find(|record| record.kind == Kind::Asked).unwrap();
    store.answer("r", &asked.key, &json!(true), EPOCH).unwrap();
    let done = engine.resume("r", &workflow, &Control::new()).await.unwrap();
    assert_eq!((done.status, fake.count()), (Status::Completed, 6), "{:?}", done.error);
    // Places are those of the file's order, however the stages came to begin.
    assert!(done.report.is_clean(), "{:?}", done.report);
    assert!(engine.verify("r", &workflow).await.unwrap().is_ok());
    let mut places: Vec<(u64, String)> = store
        .records("r")
        .unwrap()
        .into_iter()
        .filter(|record| record.kind.is_result())
        .map(|record| (record.seq, record.name))
        .collect();
    places.sort();
    let names: Vec<&str> = places.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["slow", "confirm", "quick", "slow2", "quick2", "last", "quick3"]);
    assert!(places.iter().map(|(seq, _)| *seq).eq(1..=7));
}

#[tokio::test(start_paused = true)]
async fn questions_that_say_the_same_keep_their_answers() {
    const TWINS: &str = r#"
name = "twins"

[[stage]]
name = "a"
prompt = "a"

[[stage]]
name = "b"
prompt = "b"

[[stage]]
name = "ask a"
ask = "input"
prompt = "How is {stages.a}?"

[[stage]]
name = "ask b"
ask = "input"
prompt = "How is {stages.b}?"

[outputs]
a = "{stages.ask a}"
b = "{stages.ask b}"
"#;
    // Both say the same, and either may be the first to be done.
    for first in ["a", "b"] {
        let store = memory();
        let gate = Arc::new(tokio::sync::Notify::new());
        let opened = Arc::clone(&gate);
        let fake = Fake::new(move |call| {
            let gate = Arc::clone(&opened);
            async move {
                if call.spec.prompt == first {
                    gate.notify_one();
                } else {
                    gate.notified().await;
                }
                Ok("it".into())
            }
        });
        let engine = engine_over(Arc::clone(&store), &fake).build();
        let workflow = from_toml(TWINS, None).unwrap();
        engine.run_as("r", &workflow, &none(), &Control::new()).await.unwrap();
        for (n, answer) in [(1, "good"), (2, "bad")] {
            let key = Key::ask("input", "How is it?", &Value::Null, n).key;
            assert!(store.answer("r", &key, &json!(answer), EPOCH).unwrap());
        }
        let done = engine.resume("r", &workflow, &Control::new()).await.unwrap();
        let outputs = done.outputs.unwrap();
        assert_eq!((&outputs["a"], &outputs["b"]), (&json!("good"), &json!("bad")), "{first}");
        assert!(done.report.is_clean());
    }
}

#[tokio::test(start_paused = true)]
async fn a_no_ends_a_pipeline() {
    let store = memory();
    let engine = engine_over(Arc::clone(&store), &Fake::echo()).build();
    let text = "name = \"p\"\n[[stage]]\nname = \"sure\"\nask = \"confirm\"\nprompt = \"?\"";
    let workflow = from_toml(text, None).unwrap();
    engine.run_as("r", &workflow, &none(), &Control::new()).await.unwrap();
    let key = store.records("r").unwrap()[0].key.clone();
    store.answer("r", &key, &json!(false), EPOCH).unwrap();
    let done = engine.resume("r", &workflow, &Control::new()).await.unwrap();
    assert_eq!((done.status, done.resumable), (Status::Cancelled, false));
    assert!(done.exit.unwrap().1.unwrap().contains("sure"));
}

#[test]
fn a_pipeline_that_cannot_be_is_refused_with_the_reason() {
    let stage = |more: &str| format!("name = \"p\"\n[[stage]]\nname = \"a\"\n{more}");
    for (text, reason) in [
        (stage("prompt = \"{stages.b}\""), "b, which is not there"),
        (stage("prompt = \"{inputs.x}\""), "x, which is not there"),
        (stage("prompt = \"p\"\nafter = [\"z\"]"), "z, which is not there"),
        (stage("prompt = \"{stages.a}\""), "wait for each other: a"),
        (stage("prompt = \"p\"\n[[stage]]\nname = \"a\"\nprompt = \"q\""), "two stages"),
        (stage("prompt = \"p\"\nask = \"select\""), "without options"),
        (stage("prompt = \"p\"\nprompts = 1"), "unknown field"),
        ("name = 1".to_owned(), "string"),
    ] {
        let refused = from_toml(&text, None).unwrap_err().to_string();
        assert!(refused.contains(reason), "{text}\n{refused}");
    }
}
