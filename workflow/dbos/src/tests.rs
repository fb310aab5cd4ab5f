//! Without a database: outside a workflow the steps run plainly.

use agentwire::error::Kind;
use agentwire_agent::model::{Reply, Scripted};
use agentwire_agent::session::Store;
use agentwire_agent::{Agent, AgentBuilder, Failure, FailureClass, Limits};

use super::*;

fn agent() -> AgentBuilder {
    Agent::builder(Scripted::new(|_| Reply::new().text("fine"))).model("any")
}

async fn plain(agent: &Agent) -> std::result::Result<StageOutcome, StageError> {
    match stage(agent, "draft", StageSpec::new("Write")).await {
        Ok(outcome) => Ok(outcome),
        Err(Error::Application(error)) => Err(error),
        Err(other) => panic!("{other}"),
    }
}

fn limited(wait_ms: Option<u64>) -> StageError {
    let kind = Kind::RateLimited { retry_after: None };
    let mut failure = Failure::new(FailureClass::Retryable, &kind, "slow down");
    failure.retry_after_ms = wait_ms;
    StageError::Model { failure }
}

#[test]
fn what_an_answer_answers_is_in_the_name_and_limits_are_not() {
    let spec = StageSpec::new("Write");
    let name = session_step("draft", &spec);
    assert!(name.starts_with("draft session ") && name.len() == "draft session ".len() + 16);
    assert_eq!(session_step("draft", &spec.clone().limits(Limits::default())), name);
    for other in [
        StageSpec::new("Sing"),
        spec.clone().models(["m"]),
        spec.clone().system("s"),
        spec.clone().tools(["t"]),
        spec.clone().schema(serde_json::json!({"type": "object"})),
    ] {
        assert_ne!(session_step("draft", &other), name, "{other:?}");
    }
}

#[test]
fn what_may_pass_is_tried_again_unless_the_wait_is_too_long() {
    let again = patience().should_retry.unwrap();
    assert!(again(&Error::Application(limited(None))));
    assert!(again(&Error::Application(limited(Some(600_000)))));
    assert!(!again(&Error::Application(limited(Some(600_001)))));
    assert!(!again(&Error::Application(StageError::Spec { message: "x".into() })));
    let cut = agentwire::Error::new(Kind::Interrupted, "cut");
    let model = |error| Error::Application(StageError::Model { failure: Failure::from(&error) });
    assert!(again(&model(cut.clone())));
    assert!(!again(&model(cut.with_effects())), "it could do something twice");
}

#[tokio::test]
async fn outside_a_workflow_a_stage_runs_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let agent = agent().sessions(Store::new(folder.path())).build().unwrap();
    let outcome = plain(&agent).await.unwrap();
    assert_eq!(outcome.text(), "fine");
    assert!(outcome.session.path.is_some_and(|path| path.starts_with(folder.path())));
}

#[tokio::test]
async fn an_agent_that_keeps_no_sessions_is_refused_before_it_asks_a_model() {
    let asked = Arc::new(OnceLock::new());
    let told = asked.clone();
    let model = Scripted::new(move |_| {
        let _second = told.set(());
        Reply::new().text("fine")
    });
    let agent = Agent::builder(model).model("any").build().unwrap();
    let error = plain(&agent).await.unwrap_err();
    assert!(matches!(&error, StageError::Spec { message } if message.contains("session store")));
    assert!(asked.get().is_none());
}

#[tokio::test]
async fn a_session_that_is_not_here_is_not_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let agent = agent().sessions(Store::new(folder.path())).build().unwrap();
    let path = folder.path().join("gone.jsonl");
    let gone = SessionRef::new("id", Some(path.clone()));
    let error = go_on(&agent, &StageSpec::new("Write"), &gone).await.unwrap_err();
    assert!(matches!(error, StageError::Session { .. }), "{error}");
    assert!(!path.exists(), "an empty one was made in its place");
}
