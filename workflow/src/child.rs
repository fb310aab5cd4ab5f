//! `ctx.workflow`: a workflow inside a workflow, recorded under the root.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::ctx::{Ctx, Level};
use crate::definition::Workflow;
use crate::error::{Error, Result};
use crate::failure::{Code, Failure};
use crate::hash::durable_hash;
use crate::record::Status;
use crate::run::{End, Entry, Slot};

/// What a child gave. The names in JSON are the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildResult {
    /// The workflow's normalised name.
    pub workflow: String,
    /// The child's own id.
    pub run_id: String,
    /// `completed`, or the status of its exit.
    pub status: String,
    /// Whether it chose its end.
    pub exited: bool,
    /// Its outputs; of an exit, as far as there are any.
    pub outputs: Map<String, Value>,
    /// Why it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_reason: Option<String>,
}

/// A child that is being prepared. Its key was fixed when it was called.
#[derive(Debug)]
#[must_use = "a child does nothing until `run`"]
pub struct ChildCall {
    ctx: Ctx,
    workflow: Workflow,
    slot: Slot,
}

impl Ctx {
    /// A child run of `workflow`.
    pub fn workflow(&self, workflow: &Workflow) -> ChildCall {
        self.workflow_as(&format!("workflow:{}", workflow.normalized()), workflow)
    }

    /// The same behind a boundary of this name.
    pub fn workflow_as(&self, boundary: &str, workflow: &Workflow) -> ChildCall {
        let slot = self.reserve(boundary, |ordinals| ordinals.child(boundary));
        ChildCall { ctx: self.clone(), workflow: workflow.clone(), slot }
    }
}

impl ChildCall {
    /// Runs the child to its end, unless its result is recorded.
    ///
    /// # Errors
    /// [`Error::Inputs`] before anything begins; [`Error::Depth`]; [`Error::Child`] when it fails
    /// or is killed; what the parent must stop for as it is (a divergence, a store that fails, a
    /// pause).
    pub async fn run(self, inputs: Map<String, Value>) -> Result<ChildResult> {
        let Self { ctx, workflow, slot } = self;
        let inputs = workflow.check_inputs(&inputs)?;
        let max = ctx.pass.engine.parts.max_depth;
        if ctx.level.depth + 1 >= max {
            return Err(Error::Depth(max));
        }
        let print = durable_hash(&Value::Object(inputs.clone()));
        let replace = match ctx.enter(&slot, &print)? {
            Entry::Replay(record) => return read(&slot, record.value),
            Entry::Live { replace } => replace,
        };
        let began = ctx.step_started(&slot);
        let result = run_child(&ctx, &workflow, &slot, inputs).await;
        let recorded = match result.and_then(|result| {
            serde_json::to_value(result).map_err(|error| Error::Outputs(error.to_string()))
        }) {
            // Replaying alone there is nothing to write: all steps of the child had records.
            Ok(value) if ctx.pass.lease.is_none() => Ok(slot.record(&print, Some(value), 0)),
            Ok(value) => ctx.record(slot.record(&print, Some(value), ctx.now()), replace).await,
            Err(error) => Err(error),
        };
        ctx.step_ended(&slot, began, &recorded);
        read(&slot, recorded?.value)
    }
}

fn read(slot: &Slot, value: Option<Value>) -> Result<ChildResult> {
    serde_json::from_value(value.unwrap_or(Value::Null)).map_err(|_| {
        Error::failed(format!("the record of {} does not hold a child's result", slot.name))
    })
}

async fn run_child(
    ctx: &Ctx,
    workflow: &Workflow,
    slot: &Slot,
    inputs: Map<String, Value>,
) -> Result<ChildResult> {
    let scope = slot.key.key.clone();
    let token = ctx.token.child_token();
    let level = Arc::new(Level {
        scope: scope.clone(),
        depth: ctx.level.depth + 1,
        id: ctx.pass.engine.parts.entropy.uuid().to_string(),
        limiter: Arc::new(Semaphore::new(ctx.pass.engine.concurrency(&inputs)?)),
        token: token.clone(),
        parent: Some(Arc::clone(&ctx.level)),
    });
    let level_of_child = Arc::clone(&level);
    let child = Ctx { pass: Arc::clone(&ctx.pass), level: level_of_child, token, place: None };
    let body = tokio::select! {
        biased;
        body = workflow.start(child, inputs) => body,
        () = async {
            ctx.token.cancelled().await;
            ctx.pass.engine.parts.clock.sleep(ctx.pass.engine.parts.grace).await;
        } => Err(ctx.why()),
    };
    // What the parent must stop for is passed up as it is.
    if let Err(error) = &body
        && (error.pauses()
            || matches!(error, Error::Store(_) | Error::Diverged(_) | Error::NotRecorded { .. }))
        && !ctx.pass.run().exited(&scope)
    {
        return body.map(|_| empty(&level, workflow));
    }
    let killed = ctx.gate().err().map(|why| match why {
        Error::Exit => Failure::new(Code::Cancelled, "the parent workflow exited"),
        other => other.failure(),
    });
    let end = ctx
        .pass
        .run()
        .end(&scope, body, killed, |outputs, partial| workflow.check_outputs(outputs, partial));
    finish(workflow, &level, end)
}

fn empty(level: &Level, workflow: &Workflow) -> ChildResult {
    ChildResult {
        workflow: workflow.normalized().to_owned(),
        run_id: level.id.clone(),
        status: Status::Completed.as_str().to_owned(),
        exited: false,
        outputs: Map::new(),
        exit_reason: None,
    }
}

fn finish(workflow: &Workflow, level: &Level, end: End) -> Result<ChildResult> {
    let result = empty(level, workflow);
    match (end.exit, end.outputs, end.failure) {
        (Some((status, exit_reason)), outputs, _) => Ok(ChildResult {
            status: status.as_str().to_owned(),
            exited: true,
            outputs: outputs.unwrap_or_default(),
            exit_reason,
            ..result
        }),
        (None, Some(outputs), _) => Ok(ChildResult { outputs, ..result }),
        (None, None, failure) => Err(Error::Child {
            workflow: workflow.normalized().to_owned(),
            status: end.status.as_str().to_owned(),
            failure: failure.unwrap_or_else(|| Failure::new(Code::Unknown, "it was paused")),
        }),
    }
}
