//! The context that a workflow's function is given: everything durable it does goes through it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::engine::{Control, Engine};
use crate::error::{Error, Result, StoreError};
use crate::event::Event;
use crate::failure::millis;
use crate::key::Kind;
use crate::record::{Millis, Record};
use crate::run::{Entry, Exit, Run, Slot, StepState};
use crate::store::{Lease, Mode, Put};

/// One pass over a root and its children.
pub(crate) struct Pass {
    pub(crate) engine: Engine,
    pub(crate) run: Mutex<Run>,
    /// `None`: replay only, nothing is written.
    pub(crate) lease: Option<Lease>,
    pub(crate) control: Control,
    /// Why the lease was lost.
    pub(crate) lost: OnceLock<StoreError>,
    pub(crate) root: String,
}

impl Pass {
    pub(crate) fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One run: the root or a child.
pub(crate) struct Level {
    pub(crate) scope: String,
    pub(crate) depth: u32,
    pub(crate) id: String,
    pub(crate) limiter: Arc<Semaphore>,
    pub(crate) token: CancellationToken,
    pub(crate) parent: Option<Arc<Self>>,
}

/// The context of a run. Cheap to clone, so that calls can be made at the same time.
///
/// Each call that does outside work is a step: it has a key, and once its result is recorded the
/// call gives that result again in every later pass. What is between the calls is run again.
#[derive(Clone)]
pub struct Ctx {
    pub(crate) pass: Arc<Pass>,
    pub(crate) level: Arc<Level>,
    /// Ends the calls of this context: those of the run, or of one parallel group in it.
    pub(crate) token: CancellationToken,
    /// Set for the one call of a stage of a pipeline.
    pub(crate) place: Option<Place>,
}

/// Where a call stands that is not made in the order of the code.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its position among the steps of its run.
    pub(crate) seq: u64,
    /// What its author calls it.
    pub(crate) name: Arc<str>,
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("run", &self.level.id).finish_non_exhaustive()
    }
}

impl Ctx {
    /// The id of this run. A child has one of its own, which names nothing in a store.
    pub fn run_id(&self) -> &str {
        &self.level.id
    }

    /// The id of the root: what is listed and resumed.
    pub fn root_id(&self) -> &str {
        &self.pass.root
    }

    /// Ends the run with this status from wherever it is called; the first exit of a run wins. To
    /// be returned: `return Err(ctx.exit(…))`. Stages under way are called off and nothing new
    /// begins.
    #[must_use = "return it as the error"]
    pub fn exit(&self, exit: Exit) -> Error {
        self.pass.run().exit(&self.level.scope, exit);
        self.level.token.cancel();
        Error::Exit
    }

    /// Waits, also across a restart: a run that is resumed waits for the rest only.
    ///
    /// # Errors
    /// When the run is called off, or the store fails.
    pub async fn sleep(&self, wait: Duration) -> Result<()> {
        let slot = self.reserve("sleep", crate::key::Ordinals::sleep);
        let print = crate::hash::durable_hash(&Value::from(millis(wait)));
        let until = match self.enter(&slot, &print)? {
            Entry::Replay(record) => {
                record.value.as_ref().and_then(Value::as_u64).unwrap_or_default()
            }
            Entry::Live { replace } => {
                let until = self.now().saturating_add(millis(wait));
                let record = slot.record(&print, Some(until.into()), self.now());
                self.record(record, replace).await?;
                self.pass.run().settle(&slot, StepState::Completed);
                until
            }
        };
        let rest = Duration::from_millis(until.saturating_sub(self.now()));
        self.wait(rest).await
    }

    pub(crate) fn now(&self) -> Millis {
        self.pass.engine.parts.clock.now()
    }

    pub(crate) fn tell(&self, event: &Event) {
        if let Some(observer) = &self.pass.engine.parts.observer {
            observer.event(event);
        }
    }

    /// Waits that long, or until the run is called off.
    pub(crate) async fn wait(&self, wait: Duration) -> Result<()> {
        self.gate()?;
        if wait.is_zero() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(self.why()),
            () = self.pass.engine.parts.clock.sleep(wait) => Ok(()),
        }
    }

    pub(crate) fn reserve(
        &self,
        name: &str,
        key: impl FnOnce(&mut crate::key::Ordinals) -> crate::key::Key,
    ) -> Slot {
        let place = self.place.as_ref().map(|place| place.seq);
        self.pass.run().reserve(&self.level.scope, name, place, key)
    }

    /// Whether calls may still be made.
    pub(crate) fn gate(&self) -> Result<()> {
        let control = &self.pass.control;
        if self.token.is_cancelled() || control.is_killed() || control.is_paused() {
            return Err(self.why());
        }
        Ok(())
    }

    /// Why calls are called off.
    pub(crate) fn why(&self) -> Error {
        let pass = &self.pass;
        if let Some(lost) = pass.lost.get() {
            return lost.clone().into();
        }
        if let Some(reason) = pass.control.kill_reason() {
            return Error::Cancelled(reason);
        }
        if pass.control.is_paused() {
            return Error::Paused;
        }
        let run = pass.run();
        if run.exited(&self.level.scope) {
            return Error::Exit;
        }
        let mut above = self.level.parent.as_ref();
        while let Some(level) = above {
            if run.exited(&level.scope) {
                return Error::Cancelled("the parent workflow exited".into());
            }
            above = level.parent.as_ref();
        }
        Error::Cancelled("another step of its group failed (fail-fast)".into())
    }

    /// What the step is to do; says so to those who watch.
    pub(crate) fn enter(&self, slot: &Slot, print: &str) -> Result<Entry> {
        self.enter_with(slot, print, &[])
    }

    /// The same for a step that the run's models would make.
    pub(crate) fn enter_with(&self, slot: &Slot, print: &str, models: &[String]) -> Result<Entry> {
        if let Err(stopped) = self.gate() {
            self.pass.run().settle(slot, StepState::Skipped);
            return Err(stopped);
        }
        let entry = self.pass.run().enter(slot, print, models)?;
        let (kind, key, name) = (slot.key.kind, slot.key.key.clone(), slot.name.clone());
        if matches!(entry, Entry::Replay(_)) {
            self.tell(&Event::StepReplayed { kind, key, name });
        }
        Ok(entry)
    }

    pub(crate) fn step_started(&self, slot: &Slot) -> Millis {
        let (kind, key, name) = (slot.key.kind, slot.key.key.clone(), slot.name.clone());
        self.tell(&Event::StepStarted { kind, key, name });
        self.now()
    }

    /// Says how a step that was made came out.
    pub(crate) fn step_ended<T>(&self, slot: &Slot, began: Millis, result: &Result<T>) {
        let state = match result {
            Ok(_) => StepState::Completed,
            Err(Error::Exit | Error::Cancelled(_) | Error::Paused) => StepState::Skipped,
            Err(_) => StepState::Failed,
        };
        self.pass.run().settle(slot, state);
        self.tell(&Event::StepEnded {
            kind: slot.key.kind,
            key: slot.key.key.clone(),
            name: slot.name.clone(),
            done: state == StepState::Completed,
            elapsed_ms: self.now().saturating_sub(began),
        });
    }

    /// Writes a record and gives the one that stands: this one, or the one that was there first.
    pub(crate) async fn record(&self, record: Record, replace: bool) -> Result<Record> {
        let Some(lease) = self.pass.lease.clone() else {
            return Err(Error::NotRecorded { kind: record.kind, key: record.key });
        };
        let mode = if replace { Mode::Replace } else { Mode::IfAbsent };
        let store = Arc::clone(&self.pass.engine.parts.store);
        let written = record.clone();
        let put = self.pass.engine.on_store(move || store.put(&lease, &written, mode)).await?;
        Ok(self.stands(record, put))
    }

    /// The same where nothing can be awaited: a session, just before the first byte is sent.
    pub(crate) fn record_now(&self, record: Record) -> Result<Record> {
        let Some(lease) = &self.pass.lease else {
            return Err(Error::NotRecorded { kind: record.kind, key: record.key });
        };
        let put = self.pass.engine.parts.store.put(lease, &record, Mode::IfAbsent)?;
        Ok(self.stands(record, put))
    }

    fn stands(&self, record: Record, put: Put) -> Record {
        let standing = match put {
            Put::Stored => record,
            Put::Existing(first) => *first,
        };
        self.pass.run().recorded(standing.clone());
        standing
    }

    /// An answer that another process recorded since this pass began.
    pub(crate) async fn recorded_meanwhile(&self, kind: Kind, key: &str) -> Result<Option<Record>> {
        let store = Arc::clone(&self.pass.engine.parts.store);
        let (root, key) = (self.pass.root.clone(), key.to_owned());
        Ok(self.pass.engine.on_store(move || store.get(&root, kind, &key)).await?)
    }

    /// A place among the calls that may run at the same time, in the order they were asked for.
    pub(crate) async fn slot_of_limiter(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.level.limiter).acquire_owned();
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(self.why()),
            permit = permit => permit.map_err(|_closed| self.why()),
        }
    }

    /// The same run with calls that end together when one of their group fails.
    pub(crate) fn group(&self) -> Self {
        Self { token: self.token.child_token(), ..self.clone() }
    }

    /// The same run for one call at this place.
    pub(crate) fn placed(&self, seq: u64, name: &str) -> Self {
        Self { place: Some(Place { seq, name: name.into() }), ..self.clone() }
    }
}

/// Stages that hold an MCP scope: set when the first holder comes, cleared when the last goes.
#[derive(Debug, Default)]
pub(crate) struct McpCounts(Mutex<HashMap<String, u32>>);

impl McpCounts {
    /// Whether this is the first holder.
    pub(crate) fn enter(&self, stage: &str) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(stage.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Whether this was the last holder.
    pub(crate) fn leave(&self, stage: &str) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = counts.get_mut(stage) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            counts.remove(stage);
        }
        last
    }
}
