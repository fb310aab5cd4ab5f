//! The rules of one run, without I/O: which step is replayed and which is made, what has changed
//! since it was recorded, which exit wins, and how the run ends.
//!
//! The body of a workflow is code that is run again from its first line. Each step it calls first
//! takes its place here ([`Run::reserve`]), then asks what to do ([`Run::enter`]), and says what
//! came of it ([`Run::settle`]). The driver does what the answers say and decides nothing.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Divergence, Error, OtherModels, Result};
use crate::failure::{Disposition, Failure};
use crate::key::{Key, Kind, Ordinals};
use crate::record::{Change, Millis, Record, Status};

/// What happens when a recorded step is not the step the code asks for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The run fails and names the step.
    #[default]
    Refuse,
    /// The step is made again and its record replaced.
    Rerun,
    /// The recorded result is taken.
    Accept,
}

/// How a run that exits wants to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitStatus {
    /// It is done.
    Completed,
    /// There was nothing to do.
    Skipped,
    /// It gives up.
    Cancelled,
    /// It cannot go on.
    Blocked,
}

impl ExitStatus {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Blocked => "blocked",
        }
    }

    /// The status of a run that ended so.
    pub const fn status(self) -> Status {
        match self {
            Self::Completed | Self::Skipped => Status::Completed,
            Self::Cancelled => Status::Cancelled,
            Self::Blocked => Status::Blocked,
        }
    }
}

/// An end that the author chose, from any depth of the code. The first one of a run wins.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// How the run ends.
    pub status: ExitStatus,
    /// Why, for people.
    pub reason: Option<String>,
    /// Outputs, as far as there are any: they are copied here and cannot change any more.
    pub outputs: Map<String, Value>,
}

impl Exit {
    /// An exit without reason and outputs.
    pub fn new(status: ExitStatus) -> Self {
        Self { status, reason: None, outputs: Map::new() }
    }

    /// Adds the reason.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Adds one output.
    #[must_use]
    pub fn output(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.outputs.insert(name.into(), value.into());
        self
    }
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// Called; not begun, or under way.
    Running,
    /// Its record was used.
    Replayed,
    /// It was made.
    Completed,
    /// It failed.
    Failed,
    /// It was called off before it was done.
    Skipped,
}

/// A step of a run, as the code called it this time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What it is.
    pub kind: Kind,
    /// Its key, scope included.
    pub key: String,
    /// Its name.
    pub name: String,
    /// Its place among the steps of its run, from 1.
    pub seq: u64,
    /// Where it stands.
    pub state: StepState,
    /// Keys of the steps it came after: those that had settled and that no other step had followed.
    pub parents: Vec<String>,
}

/// A place taken by a call: its key and its position are fixed here, in the order of the calls.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The key within its scope.
    pub local: Key,
    /// The key, scope included.
    pub key: Key,
    /// The step's name.
    pub name: String,
    /// Its position.
    pub seq: u64,
    scope: String,
    index: usize,
}

impl Slot {
    /// The key that the sessions of this step are filed under, without the hash at its end.
    pub fn session_base(&self) -> String {
        let step = match self.local.kind {
            Kind::Task => format!("task:{}", self.local.key),
            _ => self.local.key.clone(),
        };
        crate::key::join(&self.scope, &format!("stage-session:{step}"))
    }

    /// A record of this step.
    pub fn record(&self, print: &str, value: Option<Value>, at: Millis) -> Record {
        Record {
            kind: self.key.kind,
            key: self.key.key.clone(),
            scope: self.scope.clone(),
            name: self.name.clone(),
            seq: self.seq,
            print: print.to_owned(),
            value,
            detail: None,
            at,
        }
    }
}

/// What a step is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Take this result; do nothing.
    Replay(Box<Record>),
    /// Make the step.
    Live {
        /// Its record is there and no longer good: the new one takes its place.
        replace: bool,
    },
}

#[derive(Debug, Default)]
struct Scope {
    ordinals: Ordinals,
    seq: u64,
    frontier: Vec<String>,
    exit: Option<Exit>,
}

/// How a run differs from what was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Report {
    /// Results that the code did not ask for: steps were removed or renamed.
    pub unused: Vec<String>,
    /// Steps made where the record had another one: they were added or renamed.
    pub extra: Vec<String>,
    /// Steps that came at another position than they were recorded at.
    pub moved: Vec<String>,
    /// Steps that were asked for with another prompt, schema, model or input.
    pub changed: Vec<Divergence>,
}

impl Report {
    /// Whether the code does what was recorded.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// How a run, or a child of it, ends.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Its status.
    pub status: Status,
    /// Whether it can be resumed.
    pub resumable: bool,
    /// The outputs of a run that completed or exited.
    pub outputs: Option<Map<String, Value>>,
    /// The exit that the author chose.
    pub exit: Option<(ExitStatus, Option<String>)>,
    /// Why it did not go on.
    pub failure: Option<Failure>,
}

impl End {
    /// The change of the head that says so.
    pub fn change(&self, now: Millis) -> Change {
        let wait = self.failure.as_ref().and_then(|failure| failure.retry_after_ms);
        Change {
            status: self.status,
            resumable: self.resumable,
            result: self.outputs.clone().map(Value::Object),
            failure: self.failure.clone(),
            retry_at: wait.map(|ms| now.saturating_add(ms)),
        }
    }
}

/// One root and its children, for one pass of the code.
#[derive(Debug)]
pub struct Run {
    records: HashMap<(Kind, String), Record>,
    /// The positions at which something was recorded: scope and sequence number.
    positions: HashSet<(String, u64)>,
    sessions: HashMap<String, Record>,
    used: HashSet<(Kind, String)>,
    scopes: HashMap<String, Scope>,
    steps: Vec<Step>,
    report: Report,
    policy: Policy,
    replay_only: bool,
}

impl Run {
    /// A pass over what was recorded. With `replay_only`, a step without a record is an error.
    pub fn new(records: Vec<Record>, policy: Policy, replay_only: bool) -> Self {
        let mut run = Self {
            records: HashMap::new(),
            positions: HashSet::new(),
            sessions: HashMap::new(),
            used: HashSet::new(),
            scopes: HashMap::new(),
            steps: Vec::new(),
            report: Report::default(),
            policy,
            replay_only,
        };
        for record in records {
            if record.kind.is_result() {
                run.positions.insert((record.scope.clone(), record.seq));
            }
            run.learn(record);
        }
        run
    }

    fn learn(&mut self, record: Record) {
        if record.kind == Kind::Session
            && let Some((base, _hash)) = record.key.rsplit_once(':')
        {
            // The newest session of a step is the one to go on with.
            let newest = self.sessions.get(base).is_none_or(|old| old.at <= record.at);
            if newest {
                self.sessions.insert(base.to_owned(), record.clone());
            }
        }
        self.records.insert((record.kind, record.key.clone()), record);
    }

    fn scope(&mut self, scope: &str) -> &mut Scope {
        self.scopes.entry(scope.to_owned()).or_default()
    }

    /// Takes a place for a step of `scope`: `key` draws its key from the counters. Its position is
    /// the next one, or `place` where the order of the calls does not say it.
    pub fn reserve(
        &mut self,
        scope: &str,
        name: &str,
        place: Option<u64>,
        key: impl FnOnce(&mut Ordinals) -> Key,
    ) -> Slot {
        let state = self.scope(scope);
        let local = key(&mut state.ordinals);
        let seq = place.unwrap_or(state.seq + 1);
        state.seq = state.seq.max(seq);
        let parents = state.frontier.clone();
        let key = local.clone().scoped(scope);
        let index = self.steps.len();
        self.steps.push(Step {
            kind: key.kind,
            key: key.key.clone(),
            name: name.to_owned(),
            seq,
            state: StepState::Running,
            parents,
        });
        Slot { local, key, name: name.to_owned(), seq, scope: scope.to_owned(), index }
    }

    /// What the step is to do. `print` is the fingerprint of what its key does not say; `models`
    /// are those of the run, for a stage that names none. They are compared where both sides say
    /// them: a record of before they were kept is as good as it was.
    ///
    /// # Errors
    /// [`Error::Exit`] when the run has chosen its end, [`Error::Diverged`] under
    /// [`Policy::Refuse`], [`Error::NotRecorded`] when only records may be used.
    pub fn enter(&mut self, slot: &Slot, print: &str, models: &[String]) -> Result<Entry> {
        if self.exited(&slot.scope) {
            self.mark(slot, StepState::Skipped);
            return Err(Error::Exit);
        }
        let id = (slot.key.kind, slot.key.key.clone());
        let Some(record) = self.records.get(&id).cloned() else {
            return self.enter_new(slot);
        };
        self.used.insert(id);
        if let Some(change) = change(&record, print, models) {
            self.report.changed.push(change.clone());
            match self.policy {
                _ if self.replay_only => {}
                Policy::Accept => {}
                Policy::Rerun => return Ok(Entry::Live { replace: true }),
                Policy::Refuse => {
                    self.mark(slot, StepState::Failed);
                    return Err(Error::Diverged(Box::new(change)));
                }
            }
        }
        if record.seq != slot.seq {
            self.report.moved.push(record.key.clone());
        }
        self.mark(slot, StepState::Replayed);
        self.advance(slot);
        Ok(Entry::Replay(Box::new(record)))
    }

    fn enter_new(&mut self, slot: &Slot) -> Result<Entry> {
        let (kind, key) = (slot.key.kind, slot.key.key.clone());
        if self.positions.contains(&(slot.scope.clone(), slot.seq)) {
            self.report.extra.push(key.clone());
        }
        if self.replay_only && kind != Kind::Child {
            self.mark(slot, StepState::Skipped);
            return Err(Error::NotRecorded { kind, key });
        }
        Ok(Entry::Live { replace: false })
    }

    /// Says that a record was found unfit after all: the step is made again.
    pub fn reject(&mut self, slot: &Slot) -> Entry {
        self.mark(slot, StepState::Running);
        Entry::Live { replace: true }
    }

    /// The session to open again: one was recorded for this step and no result.
    pub fn session(&self, slot: &Slot) -> Option<&Record> {
        self.sessions.get(&slot.session_base())
    }

    /// Whether a question was shown before.
    pub fn was_asked(&self, slot: &Slot) -> bool {
        self.records.contains_key(&(Kind::Asked, slot.key.key.clone()))
    }

    /// Takes note of what was recorded.
    pub fn recorded(&mut self, record: Record) {
        self.used.insert((record.kind, record.key.clone()));
        self.learn(record);
    }

    /// Says how a step that was made came out.
    pub fn settle(&mut self, slot: &Slot, state: StepState) {
        self.mark(slot, state);
        self.advance(slot);
    }

    fn mark(&mut self, slot: &Slot, state: StepState) {
        if let Some(step) = self.steps.get_mut(slot.index) {
            step.state = state;
        }
    }

    /// The frontier loses the step's parents and gains the step.
    fn advance(&mut self, slot: &Slot) {
        let Some(step) = self.steps.get(slot.index) else { return };
        let (key, parents) = (step.key.clone(), step.parents.clone());
        let frontier = &mut self.scope(&slot.scope).frontier;
        frontier.retain(|one| !parents.contains(one) && *one != key);
        frontier.push(key);
    }

    /// Chooses the end of the run `scope`. `false`: it was chosen before, and that stands.
    pub fn exit(&mut self, scope: &str, exit: Exit) -> bool {
        let chosen = &mut self.scope(scope).exit;
        let first = chosen.is_none();
        if first {
            *chosen = Some(exit);
        }
        first
    }

    /// Whether the run `scope` has chosen its end.
    pub fn exited(&self, scope: &str) -> bool {
        self.scopes.get(scope).is_some_and(|scope| scope.exit.is_some())
    }

    /// The exit that was chosen for `scope`.
    pub fn chosen_exit(&self, scope: &str) -> Option<&Exit> {
        self.scopes.get(scope)?.exit.as_ref()
    }

    /// The steps, in the order they were called.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How this pass differs from what was recorded.
    pub fn report(&self) -> Report {
        let mut report = self.report.clone();
        let unused: BTreeSet<(u64, &str)> = self
            .records
            .values()
            .filter(|record| record.kind.is_result())
            .filter(|record| !self.used.contains(&(record.kind, record.key.clone())))
            // What is inside a child whose result was replayed is not asked for again.
            .filter(|record| !self.is_inside_a_replayed_child(&record.key))
            .map(|record| (record.seq, record.key.as_str()))
            .collect();
        report.unused = unused.into_iter().map(|(_, key)| key.to_owned()).collect();
        report
    }

    fn is_inside_a_replayed_child(&self, key: &str) -> bool {
        self.steps.iter().any(|step| {
            step.kind == Kind::Child
                && step.state == StepState::Replayed
                && key.strip_prefix(&step.key).is_some_and(|rest| rest.starts_with(':'))
        })
    }

    /// How the run `scope` ends when its body returned this. `killed` beats everything, then the
    /// chosen exit, then the body's own result.
    pub fn end(
        &self,
        scope: &str,
        body: Result<Map<String, Value>>,
        killed: Option<Failure>,
        check: impl FnOnce(Map<String, Value>, bool) -> Result<Map<String, Value>>,
    ) -> End {
        if let Some(failure) = killed {
            return End::ended(Status::Cancelled, false, Some(failure));
        }
        if let Some(exit) = self.chosen_exit(scope) {
            return match check(exit.outputs.clone(), true) {
                Ok(outputs) => End {
                    status: exit.status.status(),
                    resumable: false,
                    outputs: Some(outputs),
                    exit: Some((exit.status, exit.reason.clone())),
                    failure: None,
                },
                Err(error) => End::ended(Status::Failed, false, Some(error.failure())),
            };
        }
        let has_steps = self.scopes.get(scope).is_some_and(|scope| scope.seq > 0);
        let body = body.and_then(
            |outputs| {
                if has_steps { check(outputs, false) } else { Err(Error::Empty) }
            },
        );
        match body {
            Ok(outputs) => {
                End { outputs: Some(outputs), ..End::ended(Status::Completed, false, None) }
            }
            Err(error) if error.pauses() => End::ended(Status::Paused, true, None),
            Err(error) => {
                let failure = error.failure();
                let status = match failure.code.disposition() {
                    Disposition::ActiveBlocked => Status::Blocked,
                    Disposition::TerminalFailed => Status::Failed,
                    Disposition::TerminalKilled => Status::Cancelled,
                };
                End::ended(status, failure.code.is_resumable(), Some(failure))
            }
        }
    }
}

/// How the record differs from what is asked for now.
fn change(record: &Record, print: &str, models: &[String]) -> Option<Divergence> {
    let recorded = record.models();
    let differ = !models.is_empty() && !recorded.is_empty() && recorded != models;
    let other =
        (record.print == print && differ).then(|| OtherModels { recorded, now: models.to_vec() });
    (record.print != print || other.is_some()).then(|| Divergence {
        kind: record.kind,
        key: record.key.clone(),
        recorded: record.print.clone(),
        now: print.to_owned(),
        models: other,
    })
}

impl End {
    fn ended(status: Status, resumable: bool, failure: Option<Failure>) -> Self {
        Self { status, resumable, outputs: None, exit: None, failure }
    }
}
