//! What the tests share: a runner that answers as a function says, and short forms.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use agentwire_agent::model::Boxed;
use agentwire_agent::{
    CancellationToken, SessionRef, StageError, StageOutcome, StageRunner, StageSession, StageSpec,
};
use agentwire_workflow::clock::{Entropy, SeededEntropy, VirtualClock};
use agentwire_workflow::definition::Builder;
use agentwire_workflow::engine::EngineBuilder;
use agentwire_workflow::store::{MemoryStore, Store};
use agentwire_workflow::{Ctx, Engine, Error, Workflow};
use serde_json::{Map, Value, json};

/// 2026-01-01.
pub(crate) const EPOCH: u64 = 1_767_225_600_000;

type Answer = Result<Value, StageError>;
type Play = dyn Fn(Call) -> Boxed<'static, Answer> + Send + Sync;

/// What a stage is asked.
pub(crate) struct Call {
    pub(crate) spec: StageSpec,
    pub(crate) prior: Option<SessionRef>,
    pub(crate) cancel: CancellationToken,
}

/// Answers as a function says, and counts.
#[derive(Clone)]
pub(crate) struct Fake {
    play: Arc<Play>,
    pub(crate) calls: Arc<AtomicUsize>,
    pub(crate) prompts: Arc<Mutex<Vec<String>>>,
    pub(crate) priors: Arc<Mutex<Vec<Option<SessionRef>>>>,
    pub(crate) specs: Arc<Mutex<Vec<StageSpec>>>,
    models: Vec<String>,
    ids: Arc<SeededEntropy>,
}

impl Fake {
    pub(crate) fn new<F>(play: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self {
            play: Arc::new(move |call| Box::pin(play(call))),
            calls: Arc::default(),
            prompts: Arc::default(),
            priors: Arc::default(),
            specs: Arc::default(),
            models: Vec::new(),
            ids: Arc::new(SeededEntropy::new(77)),
        }
    }

    /// `P(prompt)` for every prompt.
    pub(crate) fn echo() -> Self {
        Self::new(|call| async move { Ok(format!("P({})", call.spec.prompt).into()) })
    }

    /// The same runner, which says that it has these models.
    pub(crate) fn with_models(&self, models: &[&str]) -> Self {
        Self { models: models.iter().map(|&model| model.into()).collect(), ..self.clone() }
    }

    pub(crate) fn count(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.prompts.lock().unwrap().clone()
    }
}

impl StageRunner for Fake {
    fn open<'a>(
        &'a self,
        spec: &'a StageSpec,
        prior: Option<&'a SessionRef>,
    ) -> Boxed<'a, Result<Box<dyn StageSession>, StageError>> {
        let session =
            prior.cloned().unwrap_or_else(|| SessionRef::new(self.ids.uuid().to_string(), None));
        let opened =
            Open { fake: self.clone(), spec: spec.clone(), prior: prior.cloned(), session };
        Box::pin(std::future::ready(Ok(Box::new(opened) as Box<dyn StageSession>)))
    }

    fn models(&self) -> &[String] {
        &self.models
    }
}

struct Open {
    fake: Fake,
    spec: StageSpec,
    prior: Option<SessionRef>,
    session: SessionRef,
}

impl StageSession for Open {
    fn session_ref(&self) -> &SessionRef {
        &self.session
    }

    fn prompt<'a>(
        &'a mut self,
        cancel: &'a CancellationToken,
    ) -> Boxed<'a, Result<StageOutcome, StageError>> {
        self.fake.calls.fetch_add(1, Ordering::SeqCst);
        self.fake.prompts.lock().unwrap().push(self.spec.prompt.clone());
        self.fake.specs.lock().unwrap().push(self.spec.clone());
        self.fake.priors.lock().unwrap().push(self.prior.clone());
        let call =
            Call { spec: self.spec.clone(), prior: self.prior.clone(), cancel: cancel.clone() };
        let answer = (self.fake.play)(call);
        Box::pin(async move {
            let answer = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(StageError::Cancelled),
                answer = answer => answer?,
            };
            let structured = self.spec.schema.is_some().then(|| answer.clone());
            let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
            Ok(StageOutcome::new(self.session.clone(), structured, outcome(&text)))
        })
    }
}

/// An outcome of one turn.
pub(crate) fn outcome(text: &str) -> agentwire_agent::Outcome {
    let usage = serde_json::to_value(agentwire::run::Usage::default()).unwrap();
    serde_json::from_value(json!({
        "stop": "completed", "text": text, "model": "fake", "usage": usage,
        "turns": 1, "tool_calls": 0, "elapsed_ms": 5,
    }))
    .unwrap()
}

/// A model failure of this kind.
pub(crate) fn model_failure(kind: agentwire::error::Kind) -> StageError {
    let error = agentwire::Error::new(kind, "the provider said no");
    StageError::Model { failure: agentwire_agent::Failure::from(&error) }
}

/// An engine on virtual time with seeded ids. Call it inside a paused runtime.
pub(crate) fn engine_over(store: Arc<dyn Store>, fake: &Fake) -> EngineBuilder {
    Engine::builder(store, Arc::new(fake.clone()))
        .clock(VirtualClock::starting_at(EPOCH))
        .entropy(SeededEntropy::new(1))
}

pub(crate) fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

pub(crate) fn none() -> Map<String, Value> {
    Map::new()
}

#[allow(clippy::needless_pass_by_value, reason = "called with `json!`")]
pub(crate) fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

/// A workflow without inputs whose one output is `out`.
pub(crate) fn flow<F>(body: impl Fn(Ctx) -> F + Send + Sync + 'static) -> Workflow
where
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    named("flow", body)
}

pub(crate) fn named<F>(name: &str, body: impl Fn(Ctx) -> F + Send + Sync + 'static) -> Workflow
where
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    with(Workflow::builder(name).optional_output("out"), body)
}

pub(crate) fn with<F>(builder: Builder, body: impl Fn(Ctx) -> F + Send + Sync + 'static) -> Workflow
where
    F: Future<Output = Result<Value, Error>> + Send + 'static,
{
    let body = move |ctx: Ctx, _inputs: Map<String, Value>| {
        let future = body(ctx);
        async move { future.await.map(|out| json!({ "out": out })) }
    };
    builder.body(body).unwrap()
}
