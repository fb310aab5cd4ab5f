//! The driver: leases, passes, waiting, and the end of a run. It decides nothing that
//! [`crate::run`] can decide.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use agentwire_agent::StageRunner;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Entropy, System};
use crate::ctx::{Ctx, Level, McpCounts, Pass};
use crate::definition::Workflow;
use crate::error::{Error, Result, StoreError};
use crate::event::{Event, Observer};
use crate::failure::{Code, Failure};
use crate::ports::{Ask, Headless, McpScope};
use crate::record::{Change, Millis, Record, Root, Status};
use crate::run::{End, ExitStatus, Policy, Report, Run, Step};
use crate::store::{LEASE_MS, Lease, NewRoot, Store, StoreResult, current_owner};

/// Calls at the same time in one run, unless the engine or an input says otherwise.
pub const CONCURRENCY: usize = 4;
/// How deep workflows may be nested, the root included.
pub const MAX_DEPTH: u32 = 4;
/// How long something that was called off may take to end before it is left to itself, unless the
/// engine says otherwise. 5 s: what a stage needs to tell its provider and to keep its session.
pub const GRACE: Duration = Duration::from_secs(5);
/// The input that sets the concurrency of a run.
const CONCURRENCY_INPUT: &str = "max_concurrency";

/// When a blocked run goes on by itself, under its own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoResume {
    /// How often in a row.
    pub times: u32,
    /// The longest wait that is waited for; a provider that asks for more leaves the run blocked.
    pub longest: Duration,
    /// The wait where the provider names none, doubled each time; `None`: the run stays blocked.
    pub unasked: Option<Duration>,
}

impl Default for AutoResume {
    /// Three times, ten minutes at most, and only when the provider said when.
    fn default() -> Self {
        Self { times: 3, longest: Duration::from_secs(600), unasked: None }
    }
}

impl AutoResume {
    /// Never.
    pub const fn never() -> Self {
        Self { times: 0, longest: Duration::ZERO, unasked: None }
    }

    fn wait(&self, tried: u32, failure: &Failure) -> Option<Duration> {
        if tried >= self.times {
            return None;
        }
        let asked = failure.retry_after_ms.map(Duration::from_millis);
        let unasked = || self.unasked.map(|wait| wait.saturating_mul(1 << tried.min(16)));
        asked.or_else(unasked).filter(|wait| *wait <= self.longest)
    }
}

/// Stops a run from outside. Clones stop the same run.
#[derive(Debug, Clone, Default)]
pub struct Control {
    kill: CancellationToken,
    pause: CancellationToken,
    reason: Arc<Mutex<Option<String>>>,
}

impl Control {
    /// A control that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the run for good. The first reason stays.
    pub fn kill(&self, reason: impl Into<String>) {
        self.lock().get_or_insert_with(|| reason.into());
        self.kill.cancel();
    }

    /// Stops the run so that it can be resumed: what is under way is called off and will be made
    /// again.
    pub fn pause(&self) {
        self.pause.cancel();
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.kill.is_cancelled()
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.pause.is_cancelled()
    }

    pub(crate) fn kill_reason(&self) -> Option<String> {
        self.is_killed().then(|| self.lock().clone().unwrap_or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a run ended, for good or until it is resumed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Its id: also the id to resume.
    pub id: String,
    /// Where it stands. `Completed` is said only once it is durable.
    pub status: Status,
    /// Whether it can be resumed.
    pub resumable: bool,
    /// Its outputs.
    pub outputs: Option<Map<String, Value>>,
    /// The exit that its author chose.
    pub exit: Option<(ExitStatus, Option<String>)>,
    /// Why it did not go on.
    pub failure: Option<Failure>,
    /// The error its function ended with.
    pub error: Option<Error>,
    /// When a blocked run can be tried again.
    pub retry_at: Option<Millis>,
    /// Its steps in the order of the last pass.
    pub steps: Vec<Step>,
    /// How the last pass differed from what was recorded.
    pub report: Report,
}

/// What replaying a run alone showed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// How the code differs from what was recorded.
    pub report: Report,
    /// How many steps were replayed.
    pub replayed: usize,
    /// Where the replay stopped: the first step without a record, or an error of the code.
    pub stopped: Option<Error>,
    /// Whether the outputs are those that were recorded; `None`: the run was not completed.
    pub same_outputs: Option<bool>,
}

impl Verdict {
    /// Whether the code still does what was recorded. A run that was not completed may stop at the
    /// first step that was not recorded.
    pub fn is_ok(&self) -> bool {
        let stopped_well = match &self.stopped {
            None => true,
            Some(Error::NotRecorded { .. }) => self.same_outputs.is_none(),
            Some(_) => false,
        };
        self.report.is_clean() && stopped_well && self.same_outputs != Some(false)
    }
}

/// Runs workflows. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) parts: Arc<Parts>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) runner: Arc<dyn StageRunner>,
    pub(crate) ask: Arc<dyn Ask>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) mcp: Option<Arc<dyn McpScope>>,
    pub(crate) mcp_counts: Arc<McpCounts>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) policy: Policy,
    pub(crate) concurrency: usize,
    pub(crate) max_depth: u32,
    pub(crate) grace: Duration,
    pub(crate) auto: AutoResume,
}

/// Builds an [`Engine`].
#[derive(Clone)]
pub struct EngineBuilder(Parts);

impl std::fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineBuilder").finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// Who answers questions; otherwise nobody, and a run that asks pauses.
    #[must_use]
    pub fn ask(mut self, ask: impl Ask + 'static) -> Self {
        self.0.ask = Arc::new(ask);
        self
    }

    /// The clock; otherwise the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.0.clock = Arc::new(clock);
        self
    }

    /// The source of ids; otherwise the system's.
    #[must_use]
    pub fn entropy(mut self, entropy: impl Entropy + 'static) -> Self {
        self.0.entropy = Arc::new(entropy);
        self
    }

    /// Where stages' MCP scopes are set; otherwise nowhere.
    #[must_use]
    pub fn mcp(mut self, mcp: impl McpScope + 'static) -> Self {
        self.0.mcp = Some(Arc::new(mcp));
        self
    }

    /// Who watches.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.0.observer = Some(Arc::new(observer));
        self
    }

    /// What happens when a recorded step has changed; otherwise [`Policy::Refuse`].
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.0.policy = policy;
        self
    }

    /// Stages at the same time in one run; otherwise [`CONCURRENCY`]. Zero fails when a run starts.
    #[must_use]
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.0.concurrency = calls;
        self
    }

    /// How deep workflows may be nested, the root included; otherwise [`MAX_DEPTH`].
    #[must_use]
    pub fn max_depth(mut self, depth: u32) -> Self {
        self.0.max_depth = depth;
        self
    }

    /// How long something that was called off (a stage, a tool, a child) may take to end before it is
    /// left to itself; otherwise [`GRACE`]. The body of a run gets twice as long.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.0.grace = grace;
        self
    }

    /// When a blocked run goes on by itself.
    #[must_use]
    pub fn auto_resume(mut self, auto: AutoResume) -> Self {
        self.0.auto = auto;
        self
    }

    /// The engine.
    pub fn build(self) -> Engine {
        Engine { parts: Arc::new(self.0) }
    }
}

impl Engine {
    /// Begins an engine over this store, whose stages run in sessions of this runner.
    pub fn builder(store: Arc<dyn Store>, runner: Arc<dyn StageRunner>) -> EngineBuilder {
        EngineBuilder(Parts {
            store,
            runner,
            ask: Arc::new(Headless),
            clock: Arc::new(System),
            entropy: Arc::new(System),
            mcp: None,
            mcp_counts: Arc::default(),
            observer: None,
            policy: Policy::default(),
            concurrency: CONCURRENCY,
            max_depth: MAX_DEPTH,
            grace: GRACE,
            auto: AutoResume::default(),
        })
    }

    /// Runs `workflow` under a new id.
    ///
    /// # Errors
    /// As [`Engine::run_as`].
    pub async fn run(
        &self,
        workflow: &Workflow,
        inputs: &Map<String, Value>,
        control: &Control,
    ) -> Result<Outcome> {
        let id = self.parts.entropy.uuid().to_string();
        self.run_as(&id, workflow, inputs, control).await
    }

    /// Runs `workflow` under this id. An id that is there already is resumed, with the inputs it
    /// began with.
    ///
    /// # Errors
    /// What keeps a run from beginning (inputs, depth, a lease that somebody holds, a run that is
    /// over), and a store that fails. A run that began and failed is an [`Outcome`].
    pub async fn run_as(
        &self,
        id: &str,
        workflow: &Workflow,
        inputs: &Map<String, Value>,
        control: &Control,
    ) -> Result<Outcome> {
        if self.parts.max_depth == 0 {
            return Err(Error::Depth(0));
        }
        let inputs = workflow.check_inputs(inputs)?;
        self.concurrency(&inputs)?;
        let new = NewRoot {
            id: id.to_owned(),
            name: workflow.name().to_owned(),
            inputs,
            code: workflow.code(),
        };
        self.drive(workflow, new, control).await
    }

    /// Resumes the run of this id, or of the only id that begins with it.
    ///
    /// # Errors
    /// As [`Engine::run_as`]; when no run or several are meant, when the run is over, and when it
    /// is one of another workflow.
    pub async fn resume(
        &self,
        id: &str,
        workflow: &Workflow,
        control: &Control,
    ) -> Result<Outcome> {
        let root = self.one(id, workflow).await?;
        self.run_as(&root.id, workflow, &root.inputs, control).await
    }

    /// Replays the run against its records. Nothing is called, nothing is written.
    ///
    /// # Errors
    /// When the run cannot be found or read.
    pub async fn verify(&self, id: &str, workflow: &Workflow) -> Result<Verdict> {
        let root = self.one(id, workflow).await?;
        let inputs = workflow.check_inputs(&root.inputs)?;
        let run = Run::new(self.load(&root.id).await?, Policy::Accept, true);
        let played = self.pass(workflow, &root.id, inputs, run, None, &Control::new()).await?;
        let recorded = root.result.as_ref().and_then(Value::as_object);
        let replayed = |step: &&Step| step.state == crate::run::StepState::Replayed;
        Ok(Verdict {
            replayed: played.steps.iter().filter(replayed).count(),
            report: played.report,
            same_outputs: (root.status == Status::Completed)
                .then(|| played.end.outputs.as_ref() == recorded),
            stopped: played.error,
        })
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.parts.store
    }

    async fn one(&self, id: &str, workflow: &Workflow) -> Result<Root> {
        let (store, prefix) = (Arc::clone(&self.parts.store), id.to_owned());
        let mut found = self.on_store(move || store.find(&prefix)).await?;
        let root = match (found.pop(), found.is_empty()) {
            (Some(root), true) => root,
            (None, _) => return Err(StoreError::Unknown(id.to_owned()).into()),
            (Some(last), false) => {
                found.push(last);
                let ids: Vec<String> = found.into_iter().map(|root| root.id).collect();
                return Err(Error::failed(format!("Ambiguous: {id} may be {}", ids.join(", "))));
            }
        };
        match crate::key::normalize(&root.name) {
            Ok(name) if name == workflow.normalized() => Ok(root),
            _ => Err(Error::definition(format!(
                "the run {} is one of {}, not of {}",
                root.id,
                root.name,
                workflow.name()
            ))),
        }
    }

    /// Calls the store where it may block.
    pub(crate) async fn on_store<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        if !self.parts.store.is_blocking() {
            return call();
        }
        tokio::task::spawn_blocking(call)
            .await
            .map_err(|error| StoreError::Io(format!("the store's thread ended: {error}")))?
    }

    async fn load(&self, root: &str) -> StoreResult<Vec<Record>> {
        let (store, root) = (Arc::clone(&self.parts.store), root.to_owned());
        self.on_store(move || store.records(&root)).await
    }

    /// Calls at the same time in a run with these inputs.
    pub(crate) fn concurrency(&self, inputs: &Map<String, Value>) -> Result<usize> {
        let asked = match inputs.get(CONCURRENCY_INPUT) {
            Some(number) if number.is_number() => {
                number.as_u64().and_then(|n| usize::try_from(n).ok())
            }
            _ => Some(self.parts.concurrency),
        };
        match asked {
            Some(calls) if calls > 0 => Ok(calls.min(Semaphore::MAX_PERMITS)),
            _ => Err(Error::definition("the concurrency must be a whole number above 0")),
        }
    }

    async fn drive(&self, workflow: &Workflow, new: NewRoot, control: &Control) -> Result<Outcome> {
        let owner = current_owner(self.parts.entropy.uuid());
        let (store, begun, now) = (Arc::clone(&self.parts.store), new, self.parts.clock.now());
        let lease = self.on_store(move || store.begin(&begun, &owner, now)).await?;
        let held = Held { store: Arc::clone(&self.parts.store), lease };
        let (store, id) = (Arc::clone(&self.parts.store), held.lease.root.clone());
        let root = self.on_store(move || store.root(&id)).await?;
        let root = root.ok_or_else(|| StoreError::Unknown(held.lease.root.clone()))?;
        // The inputs are those the run began with, whoever resumes it.
        let inputs = workflow.check_inputs(&root.inputs)?;
        for tried in 0.. {
            let outcome = self.once(workflow, &held, inputs.clone(), control).await?;
            let wait = match &outcome.failure {
                Some(failure) if outcome.status == Status::Blocked && outcome.exit.is_none() => {
                    self.parts.auto.wait(tried, failure)
                }
                _ => None,
            };
            let Some(wait) = wait else {
                self.tell(&Event::Ended { status: outcome.status });
                return Ok(outcome);
            };
            self.tell(&Event::Blocked { retry_at: outcome.retry_at });
            if !self.wait_blocked(&held, wait, control).await? {
                self.tell(&Event::Ended { status: outcome.status });
                return Ok(outcome);
            }
            self.set(&held, Change::running()).await?;
        }
        Err(StoreError::Unknown(root.id).into())
    }

    /// Waits for the provider, keeping the lease. `false`: somebody stopped the run meanwhile.
    async fn wait_blocked(&self, held: &Held, wait: Duration, control: &Control) -> Result<bool> {
        let wake = self.parts.clock.sleep(wait);
        tokio::pin!(wake);
        loop {
            tokio::select! {
                biased;
                () = control.kill.cancelled() => {
                    let reason = control.kill_reason().unwrap_or_default();
                    let failure = Some(Failure::new(Code::Cancelled, reason));
                    let change = Change { failure, ..Change::to(Status::Cancelled, false) };
                    self.set(held, change).await?;
                    return Ok(false);
                }
                () = control.pause.cancelled() => return Ok(false),
                () = &mut wake => return Ok(true),
                () = self.parts.clock.sleep(Duration::from_millis(LEASE_MS / 3)) => {
                    self.renew(&held.lease).await?;
                }
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> StoreResult<()> {
        let (store, lease, now) =
            (Arc::clone(&self.parts.store), lease.clone(), self.parts.clock.now());
        self.on_store(move || store.renew(&lease, now)).await
    }

    async fn set(&self, held: &Held, change: Change) -> StoreResult<()> {
        let (store, lease, now) =
            (Arc::clone(&self.parts.store), held.lease.clone(), self.parts.clock.now());
        self.on_store(move || store.set(&lease, &change, now)).await
    }

    /// One pass, and its end in the store.
    async fn once(
        &self,
        workflow: &Workflow,
        held: &Held,
        inputs: Map<String, Value>,
        control: &Control,
    ) -> Result<Outcome> {
        let id = held.lease.root.clone();
        let records = self.load(&id).await?;
        let (name, recorded) = (workflow.name().to_owned(), records.len());
        self.tell(&Event::Started { id: id.clone(), name, recorded });
        let run = Run::new(records, self.parts.policy, false);
        let lease = Some(held.lease.clone());
        let played = self.pass(workflow, &id, inputs, run, lease, control).await?;
        let change = played.end.change(self.parts.clock.now());
        let retry_at = change.retry_at;
        let mut end = played.end;
        match self.set(held, change).await {
            Ok(()) => {}
            // Somebody killed it from outside: that is how it ended.
            Err(StoreError::Fenced(why)) if self.was_killed(&id).await? => {
                end = End {
                    status: Status::Cancelled,
                    resumable: false,
                    outputs: None,
                    exit: None,
                    failure: Some(Failure::new(Code::Cancelled, why)),
                };
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Outcome {
            id,
            status: end.status,
            resumable: end.resumable,
            outputs: end.outputs,
            exit: end.exit,
            failure: end.failure,
            error: played.error,
            retry_at,
            steps: played.steps,
            report: played.report,
        })
    }

    async fn was_killed(&self, id: &str) -> StoreResult<bool> {
        let (store, id) = (Arc::clone(&self.parts.store), id.to_owned());
        let root = self.on_store(move || store.root(&id)).await?;
        Ok(root.is_some_and(|root| root.status == Status::Cancelled))
    }

    /// Runs the body once, from its first line.
    async fn pass(
        &self,
        workflow: &Workflow,
        id: &str,
        inputs: Map<String, Value>,
        run: Run,
        lease: Option<Lease>,
        control: &Control,
    ) -> Result<Played> {
        let token = CancellationToken::new();
        let pass = Arc::new(Pass {
            engine: self.clone(),
            run: Mutex::new(run),
            lease,
            control: control.clone(),
            lost: OnceLock::new(),
            root: id.to_owned(),
        });
        let level = Arc::new(Level {
            scope: String::new(),
            depth: 0,
            id: id.to_owned(),
            limiter: Arc::new(Semaphore::new(self.concurrency(&inputs)?)),
            token: token.clone(),
            parent: None,
        });
        let ctx = Ctx { pass: Arc::clone(&pass), level, token: token.clone(), place: None };
        let body = workflow.start(ctx.clone(), inputs);
        let body = self.watch(&ctx, body, control).await;
        if let Err(Error::Store(error)) = &body
            && !matches!(error, StoreError::Fenced(_))
        {
            // Nothing is reported as done without its record.
            return Err(error.clone().into());
        }
        let killed = control.kill_reason().map(|reason| Failure::new(Code::Cancelled, reason));
        let error = body.as_ref().err().cloned();
        let run = pass.run();
        let end =
            run.end("", body, killed, |outputs, partial| workflow.check_outputs(outputs, partial));
        let (steps, report) = (run.steps().to_vec(), run.report());
        Ok(Played { end, error, steps, report })
    }

    /// Keeps the lease while the body runs, and calls it off when it must stop.
    async fn watch(
        &self,
        ctx: &Ctx,
        mut body: crate::clock::Boxed<'static, Result<Map<String, Value>>>,
        control: &Control,
    ) -> Result<Map<String, Value>> {
        let clock = &self.parts.clock;
        let mut renewal = clock.sleep(Duration::from_millis(LEASE_MS / 3));
        let mut stopping: Option<crate::clock::Boxed<'_, ()>> = None;
        loop {
            tokio::select! {
                biased;
                result = &mut body => return result,
                () = stopped(control), if stopping.is_none() => {
                    ctx.level.token.cancel();
                    stopping = Some(clock.sleep(self.parts.grace.saturating_mul(2)));
                }
                () = grace(&mut stopping) => return Err(ctx.why()),
                () = &mut renewal => {
                    renewal = clock.sleep(Duration::from_millis(LEASE_MS / 3));
                    let Some(lease) = &ctx.pass.lease else { continue };
                    if let Err(error @ StoreError::Fenced(_)) = self.renew(lease).await {
                        let _first = ctx.pass.lost.set(error);
                        ctx.level.token.cancel();
                        stopping.get_or_insert_with(|| clock.sleep(self.parts.grace.saturating_mul(2)));
                    }
                }
            }
        }
    }

    fn tell(&self, event: &Event) {
        if let Some(observer) = &self.parts.observer {
            observer.event(event);
        }
    }
}

struct Played {
    end: End,
    error: Option<Error>,
    steps: Vec<Step>,
    report: Report,
}

async fn stopped(control: &Control) {
    tokio::select! {
        () = control.kill.cancelled() => {}
        () = control.pause.cancelled() => {}
    }
}

async fn grace(stopping: &mut Option<crate::clock::Boxed<'_, ()>>) {
    match stopping {
        Some(wait) => wait.await,
        None => std::future::pending().await,
    }
}

/// A lease that is given back when the run ends or its future is dropped.
struct Held {
    store: Arc<dyn Store>,
    lease: Lease,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nothing can be done about a failure here: the lease then runs out by itself.
        let _released = self.store.release(&self.lease);
    }
}
