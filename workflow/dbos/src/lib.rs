//! Stages of agentwire as steps of [DBOS](https://docs.dbos.dev) workflows on PostgreSQL.
//!
//! DBOS is the engine: it runs the workflow, records its steps, recovers it after a crash, and
//! shares it among machines over queues. This crate adds one thing, a stage: a task for an agent
//! that goes on in the same conversation when the worker that ran it was killed.
//!
//! ```no_run
//! use agentwire_agent::model::Scripted;
//! use agentwire_agent::session::Store;
//! use agentwire_agent::{Agent, StageError, StageSpec};
//! use agentwire_dbos::stage;
//! use dbos::{Config, DBOS};
//!
//! async fn review(agent: Agent, topic: String) -> dbos::Result<String, StageError> {
//!     let spec = StageSpec::new(format!("Write about {topic}."));
//!     let draft = stage(&agent, "draft", spec).await?;
//!     let spec = StageSpec::new(format!("What is wrong with this?\n{}", draft.text()));
//!     let verdict = stage(&agent, "verdict", spec).await?;
//!     Ok(verdict.text().to_owned())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Scripted::answers(["Tides follow the moon.", "Nothing."]);
//! let agent = Agent::builder(model).model("any").sessions(Store::new("sessions")).build()?;
//! // The version says which workers may go on with which runs: change it when the code of a
//! // workflow changes. `from_env` reads `DBOS_DATABASE_URL`.
//! let config = Config { app_version: Some("1".into()), ..Config::from_env("review") };
//! let dbos = DBOS::new(config);
//! let reviews =
//!     dbos.register_workflow("review", move |topic: String| review(agent.clone(), topic))?;
//! dbos.launch().await?;
//! println!("{}", reviews.run("tides".to_owned()).await?);
//! # Ok(())
//! # }
//! ```
//!
//! # What a stage records
//!
//! Two steps. The first opens the session, sends nothing, and records where it is
//! ([`SessionRef`]); the second, which has the stage's name, runs the task in it and records the
//! [`StageOutcome`]. A worker that dies
//!
//! - before the first is recorded leaves an empty session that nobody uses, and the next worker
//!   opens another;
//! - in the middle of the second leaves a session in the middle of its task: the next worker opens
//!   it again, and the same conversation goes on. Tools whose results are in its log are not run
//!   again, and a task that had its answer gives it without asking the model;
//! - later repeats nothing of the stage.
//!
//! The name of the first step ends with a digest of the task (prompt, models, system prompt,
//! tools, schema). DBOS compares names when it replays, so a workflow whose prompt became another
//! one, because its code changed under one version or because it is made of something that a
//! replay does not give again, is refused with both names instead of being answered from another
//! question's record.
//!
//! # The rest is DBOS
//!
//! | for | write |
//! |---|---|
//! | an effect that is made once | `dbos::step` |
//! | a person's answer | `dbos::recv` |
//! | a wait that survives the process | `dbos::sleep` |
//! | stages side by side | `tokio::join!` over [`stage`]s: their places are taken when they are called |
//! | many at a time, but not too many | child workflows on a queue with `worker_concurrency` |
//!
//! # Sessions and machines
//!
//! A session is a file ([`agentwire_agent::session`]), and DBOS may give a run that was under way
//! to any worker of its version: keep the folder where all of them reach it, under one path. A
//! worker that cannot open a recorded session (it is not there, or a worker believed dead still
//! holds it) says so in an `ERROR` event and leaves the run `PENDING`, for another to recover:
//! that says nothing about the task, so it is not recorded as its failure. An agent without a
//! session store is refused, since there would be nothing to go on with.
#![forbid(unsafe_code)]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agentwire_agent::{SessionRef, StageError, StageOutcome, StageRunner, StageSpec, run_stage};
use dbos::{DurableError, Error, Result, StepOptions};
use sha2::{Digest as _, Sha256};

/// The longest wait for a provider inside a stage. Ten minutes: a longer one is better spent in
/// `dbos::sleep`, which holds no worker.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// One stage of the workflow around it, named `name`, with the [`patience`] of most.
///
/// Not an `async fn` on purpose: it takes its places among the workflow's steps when it is called,
/// so several may be driven together.
///
/// # Errors
/// The stage's [`StageError`], made into the workflow's own error; after several attempts all of
/// them, as [`Error::MaxStepRetriesExceeded`]. What says nothing about the stage (the database, a
/// cancellation, a session that cannot be opened here) ends the execution without being recorded.
#[must_use = "a stage does nothing until it is awaited, but has taken its places"]
pub fn stage<'a, E>(
    runner: &'a dyn StageRunner,
    name: &str,
    spec: StageSpec,
) -> impl Future<Output = Result<StageOutcome, E>> + Send + use<'a, E>
where
    E: DurableError + From<StageError> + Send,
{
    stage_with(runner, name, spec, patience())
}

/// [`stage`] with other retries. They are attempts at the task: each goes on in the same
/// conversation.
///
/// # Errors
/// As [`stage`].
#[must_use = "a stage does nothing until it is awaited, but has taken its places"]
pub fn stage_with<'a, E>(
    runner: &'a dyn StageRunner,
    name: &str,
    spec: StageSpec,
    options: StepOptions<StageError>,
) -> impl Future<Output = Result<StageOutcome, E>> + Send + use<'a, E>
where
    E: DurableError + From<StageError> + Send,
{
    let spec = Arc::new(spec);
    let opened = Arc::new(OnceLock::new());
    // Both are built here and not when the first is done: a step's place is taken when it is
    // built, and which of two stages is done first is nothing that a replay gives again.
    let session = dbos::step(&session_step(name, &spec), {
        let spec = spec.clone();
        move || open(runner, spec.clone())
    });
    let turn = dbos::step_with(name, options, {
        let opened = opened.clone();
        move || converse(runner, spec.clone(), opened.clone())
    });
    async move {
        let session: SessionRef = session.map_error(E::from).await?;
        // Nothing else sets it.
        let _first = opened.set(session);
        turn.map_error(E::from).await
    }
}

/// The retries of most stages: five attempts at what [may pass](StageError::is_retryable), two
/// seconds after the first failure and twice as long after each other, and at least as long as the
/// provider asked for. The agent has tried again itself, and its other models, before any of this.
///
/// A workflow that is cancelled elsewhere stops its stage, because an answer that nobody wants
/// costs as much as another.
pub fn patience() -> StepOptions<StageError> {
    let options = StepOptions {
        max_attempts: 5,
        interval: Duration::from_secs(2),
        max_interval: Duration::from_secs(60),
        preemptible: true,
        ..StepOptions::default()
    };
    options.should_retry(|error| matches!(error, Error::Application(error) if passes(error)))
}

fn passes(error: &StageError) -> bool {
    error.is_retryable() && asked_wait(error).is_none_or(|wait| wait <= LONGEST_WAIT)
}

/// How long the provider asked to wait.
fn asked_wait(error: &StageError) -> Option<Duration> {
    match error {
        StageError::Model { failure } => failure.retry_after_ms.map(Duration::from_millis),
        _ => None,
    }
}

/// The name of the step that opens the session. Limits may change: they do not change what an
/// answer is an answer to.
fn session_step(name: &str, spec: &StageSpec) -> String {
    let mut task = spec.clone();
    task.limits = None;
    // A specification is JSON by its type, so that nothing of it can fail.
    let json = serde_json::to_vec(&task).unwrap_or_default();
    let digest = Sha256::digest(json);
    // Eight bytes tell the few prompts of one place apart; the whole would make names unreadable.
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{name} session {digest}")
}

async fn open(runner: &dyn StageRunner, spec: Arc<StageSpec>) -> Result<SessionRef, StageError> {
    match runner.open(&spec, None).await {
        Ok(session) => Ok(session.session_ref().clone()),
        Err(error) => Err(filed(error)),
    }
}

async fn converse(
    runner: &dyn StageRunner,
    spec: Arc<StageSpec>,
    opened: Arc<OnceLock<SessionRef>>,
) -> Result<StageOutcome, StageError> {
    // Absent only when somebody polls the second step without the first, which this file does not.
    let Some(recorded) = opened.get() else {
        let message = "its session was not opened".into();
        return Err(filed(StageError::Session { message }));
    };
    match go_on(runner, &spec, recorded).await {
        Ok(outcome) => Ok(outcome),
        Err(error) => {
            wait_as_asked(&error).await;
            Err(filed(error))
        }
    }
}

/// Runs the task in the recorded session and in no other.
async fn go_on(
    runner: &dyn StageRunner,
    spec: &StageSpec,
    recorded: &SessionRef,
) -> std::result::Result<StageOutcome, StageError> {
    // A stage elsewhere may still have it: another worker is to go on, not this one anew.
    if let Some(path) = recorded.path.as_ref().filter(|path| !path.exists()) {
        let message = format!("{} is not on this machine", path.display());
        return Err(StageError::Session { message });
    }
    // Fires when the step is dropped: on a cancellation, a time-out, a shutdown.
    let cancel = dbos::cancellation_token().child_token();
    let mut another = false;
    let mut on_session = |session: &SessionRef| {
        if session != recorded {
            another = true;
            cancel.cancel();
        }
    };
    let ran = run_stage(runner, spec, Some(recorded), &mut on_session, &cancel).await;
    if another {
        let message = "the agent did not open its session again; give it a session store".into();
        return Err(StageError::Spec { message });
    }
    ran
}

/// Waits for as long as the provider asked, when DBOS is going to make another attempt.
async fn wait_as_asked(error: &StageError) {
    let more = |status: dbos::StepStatus| status.current_attempt() < status.max_attempts();
    let Some(wait) = asked_wait(error).filter(|_| passes(error)) else { return };
    if dbos::step_status().is_some_and(more) {
        tokio::time::sleep(wait).await;
    }
}

/// How a failure goes on record: as the stage's own, or not at all where it is the machine's.
fn filed(error: StageError) -> Error<StageError> {
    let here = matches!(
        error,
        StageError::Session { .. }
            | StageError::SessionMissing { .. }
            | StageError::SessionInUse { .. }
            | StageError::Cancelled
    );
    match dbos::workflow_id() {
        Some(workflow_id) if here => {
            tracing::error!(workflow_id, %error, "the stage is left for another worker");
            Error::Interrupted { workflow_id }
        }
        _ => Error::Application(error),
    }
}

#[cfg(test)]
mod tests;
