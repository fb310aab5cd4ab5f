//! What DBOS does with a stage that fails or is called off: attempts, waits, records.
#![allow(clippy::disallowed_methods, reason = "real time is what a wait is measured in")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]
#![cfg(unix)]

#[path = "common/postgres.rs"]
mod postgres;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agentwire::error::Kind;
use agentwire_agent::model::Boxed;
use agentwire_agent::{
    CancellationToken, Failure, FailureClass, SessionRef, StageError, StageOutcome, StageRunner,
    StageSession, StageSpec,
};
use agentwire_dbos::{patience, stage, stage_with};
use dbos::{Config, DBOS, Error, StartOptions, StepOptions};
use postgres::Cluster;
use serde_json::json;
use tokio::sync::mpsc;

/// A runner whose stages fail, hang or answer, as their prompt says.
#[derive(Clone)]
struct Fake {
    /// Attempts that DBOS makes.
    attempts: u32,
    /// Failures before the answer.
    failures: u32,
    wait_ms: u64,
    prompts: Arc<AtomicU32>,
    sessions: Arc<Mutex<Vec<Option<SessionRef>>>>,
    /// Told when a stage hangs, and when it is let go.
    hangs: mpsc::UnboundedSender<&'static str>,
}

struct Open {
    fake: Fake,
    prompt: String,
    session: SessionRef,
}

impl StageRunner for Fake {
    fn open<'a>(
        &'a self,
        spec: &'a StageSpec,
        prior: Option<&'a SessionRef>,
    ) -> Boxed<'a, Result<Box<dyn StageSession>, StageError>> {
        self.sessions.lock().unwrap().push(prior.cloned());
        let session = prior.cloned().unwrap_or_else(|| SessionRef::new("one", None));
        let open = Open { fake: self.clone(), prompt: spec.prompt.clone(), session };
        Box::pin(async { Ok(Box::new(open) as Box<dyn StageSession>) })
    }
}

impl StageSession for Open {
    fn session_ref(&self) -> &SessionRef {
        &self.session
    }

    fn prompt<'a>(
        &'a mut self,
        _cancel: &'a CancellationToken,
    ) -> Boxed<'a, Result<StageOutcome, StageError>> {
        Box::pin(async move {
            let nth = self.fake.prompts.fetch_add(1, Ordering::SeqCst);
            if self.prompt == "hang" {
                let _told = Told(self.fake.hangs.clone());
                self.fake.hangs.send("hangs").unwrap();
                return std::future::pending().await;
            }
            if self.prompt == "wrong" {
                return Err(StageError::Spec { message: "no such tool".into() });
            }
            if nth < self.fake.failures {
                return Err(self.fake.busy());
            }
            Ok(StageOutcome::new(self.session.clone(), None, outcome()))
        })
    }
}

/// Says that a stage was let go.
struct Told(mpsc::UnboundedSender<&'static str>);

impl Drop for Told {
    fn drop(&mut self) {
        // The test may be over.
        let _nobody = self.0.send("let go");
    }
}

impl Fake {
    fn new(failures: u32, wait_ms: u64) -> (Self, mpsc::UnboundedReceiver<&'static str>) {
        let (hangs, told) = mpsc::unbounded_channel();
        let (prompts, sessions) = Default::default();
        (Self { attempts: 3, failures, wait_ms, prompts, sessions, hangs }, told)
    }

    fn busy(&self) -> StageError {
        let kind = Kind::Overloaded { retry_after: None };
        let mut failure = Failure::new(FailureClass::Retryable, &kind, "busy");
        failure.retry_after_ms = Some(self.wait_ms);
        StageError::Model { failure }
    }
}

fn outcome() -> agentwire_agent::Outcome {
    let usage = serde_json::to_value(agentwire::run::Usage::default()).unwrap();
    serde_json::from_value(json!({
        "stop": "completed", "text": "fine", "model": "fake", "usage": usage,
        "turns": 1, "tool_calls": 0, "elapsed_ms": 5,
    }))
    .unwrap()
}

/// So many attempts, without a wait of DBOS's own.
fn attempts(max_attempts: u32) -> StepOptions<StageError> {
    StepOptions { max_attempts, interval: Duration::ZERO, ..patience() }
}

/// An engine with one workflow, `ask`, whose input is its one stage's prompt.
async fn launched(
    cluster: &Cluster,
    database: &str,
    fake: &Fake,
) -> (DBOS, dbos::WorkflowRef<String, String, StageError>) {
    let config = Config {
        app_version: Some("1".into()),
        outcome_poll_interval: Some(Duration::from_millis(20)),
        ..Config::new("agentwire-tests", cluster.url(database))
    };
    let dbos = DBOS::new(config);
    let fake = fake.clone();
    let ask = dbos.register_workflow("ask", move |prompt: String| {
        let fake = fake.clone();
        async move {
            let (spec, options) = (StageSpec::new(prompt), attempts(fake.attempts));
            let said = stage_with::<StageError>(&fake, "ask", spec, options);
            Ok(said.await?.text().to_owned())
        }
    });
    let ask = ask.unwrap();
    dbos.launch().await.unwrap();
    (dbos, ask)
}

/// Runs one stage under an id, and gives its end and the steps on record.
async fn asked(
    cluster: &Cluster,
    fake: &Fake,
    id: &str,
    prompt: &str,
) -> (dbos::Result<String, StageError>, usize) {
    let (dbos, ask) = launched(cluster, id, fake).await;
    let options = StartOptions { workflow_id: Some(id), ..StartOptions::default() };
    let end = ask.start_with(prompt.to_owned(), options).await.unwrap().result().await;
    let steps = dbos.list_workflow_steps(id).await.unwrap().len();
    dbos.shutdown().await;
    (end, steps)
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_go_on_in_one_session_after_the_wait_that_was_asked_for() {
    let Some(cluster) = Cluster::start() else { return };
    let (fake, _told) = Fake::new(2, 150);
    let began = Instant::now();
    let (end, steps) = asked(&cluster, &fake, "busy", "go").await;
    assert_eq!((end.unwrap().as_str(), steps), ("fine", 2));
    assert!(began.elapsed() >= Duration::from_millis(300), "two waits of 150 ms");
    let one = Some(SessionRef::new("one", None));
    let sessions = fake.sessions.lock().unwrap().clone();
    assert_eq!(sessions, [None, one.clone(), one.clone(), one], "opened once, then opened again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_keeps_failing_gives_all_its_failures() {
    let Some(cluster) = Cluster::start() else { return };
    let (fake, _told) = Fake::new(u32::MAX, 1);
    let (end, steps) = asked(&cluster, &fake, "dead", "go").await;
    let Err(Error::MaxStepRetriesExceeded { attempts: 3, errors, .. }) = end else {
        panic!("{end:?}")
    };
    assert!(errors.iter().all(|error| matches!(error, Error::Application(e) if *e == fake.busy())));
    assert_eq!((errors.len(), steps), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_nobody_waits() {
    let Some(cluster) = Cluster::start() else { return };
    // A wait of ten minutes, which is the longest that is waited for.
    let (fake, _told) = Fake::new(u32::MAX, 600_000);
    let fake = Fake { attempts: 1, ..fake };
    let run = asked(&cluster, &fake, "last", "go");
    let (end, _steps) = tokio::time::timeout(Duration::from_secs(120), run).await.unwrap();
    assert!(matches!(&end, Err(Error::Application(error)) if *error == fake.busy()), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_pass_is_recorded_at_once() {
    let Some(cluster) = Cluster::start() else { return };
    let (fake, _told) = Fake::new(0, 0);
    let (end, steps) = asked(&cluster, &fake, "wrong", "wrong").await;
    assert!(matches!(end, Err(Error::Application(StageError::Spec { .. }))), "{end:?}");
    assert_eq!((fake.prompts.load(Ordering::SeqCst), steps), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_lets_its_stage_go_and_a_resumed_one_makes_it_again() {
    let Some(cluster) = Cluster::start() else { return };
    let (fake, mut told) = Fake::new(0, 0);
    let (dbos, ask) = launched(&cluster, "cancelled", &fake).await;
    let options = StartOptions { workflow_id: Some("c"), ..StartOptions::default() };
    let run = ask.start_with("hang".to_owned(), options).await.unwrap();
    assert_eq!(told.recv().await, Some("hangs"));
    dbos.cancel("c").await.unwrap();
    assert_eq!(told.recv().await, Some("let go"));
    let end = run.result().await;
    assert!(matches!(end, Err(Error::WorkflowCancelled { .. })), "{end:?}");
    assert_eq!(dbos.list_workflow_steps("c").await.unwrap().len(), 1, "only its session");

    let _run: dbos::WorkflowHandle<String, StageError> = dbos.resume("c").await.unwrap();
    assert_eq!(told.recv().await, Some("hangs"), "made again, and nothing of it was recorded");
    let sessions = fake.sessions.lock().unwrap().clone();
    assert_eq!(sessions.iter().flatten().count(), 2, "in the session of the first");
    assert_eq!(sessions.len(), 3);
    dbos.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_workflow_s_own_carries_the_stage_s() {
    #[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize)]
    enum Mine {
        #[error("the stage: {0}")]
        Stage(StageError),
    }
    impl From<StageError> for Mine {
        fn from(error: StageError) -> Self {
            Self::Stage(error)
        }
    }
    let Some(cluster) = Cluster::start() else { return };
    let config = Config {
        app_version: Some("1".into()),
        ..Config::new("agentwire-tests", cluster.url("mine"))
    };
    let dbos = DBOS::new(config);
    let (fake, _told) = Fake::new(0, 0);
    let body = move |(): ()| {
        let fake = fake.clone();
        async move {
            let said = stage::<Mine>(&fake, "ask", StageSpec::new("wrong")).await?;
            Ok(said.text().to_owned())
        }
    };
    let ask = dbos.register_workflow("mine", body).unwrap();
    dbos.launch().await.unwrap();
    let end = ask.run(()).await;
    dbos.shutdown().await;
    let Err(Error::Application(Mine::Stage(StageError::Spec { .. }))) = end else {
        panic!("{end:?}")
    };
}
