//! `run_stage`: serde in and out, a reference before anything is sent, continuation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentwire::error::{Error, Kind};
use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::session::Store;
use agentwire_agent::{
    Agent, CancellationToken, SessionRef, StageError, StageOutcome, StageSpec, run_stage,
};
use serde_json::json;

use crate::support::{add, agent};

async fn stage(
    agent: &Agent,
    spec: &StageSpec,
    prior: Option<&SessionRef>,
) -> (Result<StageOutcome, StageError>, Option<SessionRef>) {
    let mut seen = None;
    let mut on_session = |session: &SessionRef| {
        assert!(seen.is_none(), "told twice");
        seen = Some(session.clone());
    };
    let cancel = CancellationToken::new();
    let result = run_stage(agent, spec, prior, &mut on_session, &cancel).await;
    (result, seen)
}

#[tokio::test]
async fn everything_in_and_out_is_serde() {
    let schema = json!({"type": "object", "required": ["sum"],
        "properties": {"sum": {"type": "integer"}}});
    let spec = StageSpec::new("40 and 2?").models(["m"]).tools(["add"]).schema(schema);
    let spec: StageSpec =
        serde_json::from_value(serde_json::to_value(&spec).expect("out")).expect("in");
    let replies = [
        Reply::new().call("1", "add", json!({"a": 40, "b": 2})),
        Reply::new().text("it is 42"),
        Reply::new().text("{\"sum\": 42}"),
    ];
    let agent = agent(replies).tool(add()).build().expect("an agent");
    let (result, seen) = stage(&agent, &spec, None).await;
    let outcome = result.expect("an outcome");
    assert_eq!(outcome.value, Some(json!({"sum": 42})));
    assert_eq!(Some(&outcome.session), seen.as_ref());
    let kept = serde_json::to_string(&outcome).expect("out");
    assert_eq!(serde_json::from_str::<StageOutcome>(&kept).expect("in"), outcome);
}

#[tokio::test]
async fn the_reference_is_told_before_anything_is_sent() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let model = Scripted::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Reply::new().text("x")
    });
    let agent = Agent::builder(model).model("m").build().expect("an agent");
    let cancel = CancellationToken::new();
    let mut on_session = |session: &SessionRef| {
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        let id = agentwire::conversation::id::of_session(&session.id);
        assert_eq!(id.as_ref(), Some(&session.conversation_id));
        // The caller could not record it.
        cancel.cancel();
    };
    let spec = StageSpec::new("go");
    let result = run_stage(&agent, &spec, None, &mut on_session, &cancel).await;
    assert_eq!(result.expect_err("cancelled"), StageError::Cancelled);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_name_that_no_model_can_have_fails_before_there_is_a_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let agent = agent([Reply::new().text("never")]).sessions(Store::new(folder.path()));
    let agent = agent.build().expect("an agent");
    for bad in ["", "  ", "m\nx", "\u{1b}[2Jm"] {
        let spec = StageSpec::new("go").models(["m", bad]);
        let (result, seen) = stage(&agent, &spec, None).await;
        let StageError::Spec { message } = result.expect_err("a fault") else { panic!("{bad:?}") };
        assert!(message.contains("is no name of a model"), "{message}");
        assert_eq!(seen, None);
    }
    assert_eq!(std::fs::read_dir(folder.path()).map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn a_stage_that_failed_is_continued_and_one_that_is_done_is_not_asked_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let model = Scripted::new(move |request| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        match (n, request.context.messages.len()) {
            (0, 1) => Reply::new().call("1", "add", json!({"a": 1, "b": 2})),
            (1, 3) => Reply::new().fail(Error::new(Kind::Overloaded { retry_after: None }, "busy")),
            (2, 3) => Reply::new().text("three"),
            (3, 5) => Reply::new().text("six"),
            other => Reply::new().fail(Error::invalid(format!("asked {other:?}"))),
        }
    });
    let store = Store::new(folder.path());
    let agent = Agent::builder(model).model("m").tool(add()).sessions(store).build();
    let agent = agent.expect("an agent");
    let spec = StageSpec::new("1 and 2?");
    let (result, seen) = stage(&agent, &spec, None).await;
    let error = result.expect_err("busy");
    assert!(error.is_retryable(), "{error}");
    let (result, again) = stage(&agent, &spec, seen.as_ref()).await;
    assert_eq!(result.expect("continued").text(), "three");
    assert_eq!(again, seen);
    let (result, _) = stage(&agent, &spec, seen.as_ref()).await;
    assert_eq!(result.expect("from the log").text(), "three");
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    // Another task in the same session is asked after what was said in it.
    let (result, _) = stage(&agent, &StageSpec::new("and 3?"), seen.as_ref()).await;
    assert_eq!(result.expect("another").text(), "six");
}

#[tokio::test]
async fn a_stage_that_goes_on_and_its_corrections_stay_with_the_model_that_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let busy = || Error::new(Kind::Overloaded { retry_after: None }, "busy");
    let model = Scripted::new(move |request| {
        let mut asked = log.lock().expect("nobody panicked");
        asked.push(request.model.clone());
        match asked.len() {
            // `a` fails; `b` answers, calls a tool and breaks down.
            2 => Reply::new().call("1", "add", json!({"a": 1, "b": 2})),
            1 | 3 => Reply::new().fail(busy()),
            4 => Reply::new().text("three"),
            _ => Reply::new().text("3"),
        }
    });
    let agent = Agent::builder(model).tool(add()).sessions(Store::new(folder.path())).build();
    let agent = agent.expect("an agent");
    let spec = StageSpec::new("1 and 2?").models(["a", "b"]).schema(json!({"type": "integer"}));
    let (result, seen) = stage(&agent, &spec, None).await;
    assert!(result.expect_err("busy").is_retryable());
    let (result, _) = stage(&agent, &spec, seen.as_ref()).await;
    assert_eq!(result.expect("continued").value, Some(json!(3)));
    // The fourth is of the stage that goes on, the fifth its correction.
    assert_eq!(*asked.lock().expect("nobody panicked"), ["a", "b", "b", "b", "b"]);
    // Another task asks the first again.
    let mut other = spec.clone();
    other.prompt = "4?".into();
    let (result, _) = stage(&agent, &other, seen.as_ref()).await;
    assert_eq!(result.expect("another").value, Some(json!(3)));
    assert_eq!(asked.lock().expect("nobody panicked").last().map(String::as_str), Some("a"));
}

#[tokio::test]
async fn what_cannot_be_run_is_said_before_a_session_is_made() {
    let agent = agent([]).build().expect("an agent");
    for spec in
        [StageSpec::new("x").tools(["none"]), StageSpec::new("x").schema(json!({"type": 3}))]
    {
        let (result, seen) = stage(&agent, &spec, None).await;
        assert!(matches!(result, Err(StageError::Spec { .. })), "{spec:?}");
        assert_eq!(seen, None);
    }
}
