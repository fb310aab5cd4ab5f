//! `ctx.task`, `ctx.chain`, `ctx.parallel`: stages with prompts that build on each other.

use std::path::PathBuf;
use std::pin::pin;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::failure::{Code, Failure};
use crate::pool;
use crate::run::{Slot, StepState};
use crate::stage::{Said, StageOptions, said};

/// What stands between a prompt and the context that is added to it.
const SEPARATOR: &str = "\n\n---\n";

/// What a task gave. The names in JSON are the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskResult {
    /// The task's name.
    pub name: String,
    /// The stage's name: the same.
    pub stage_name: String,
    /// The answer as text.
    pub text: String,
    /// The value that fits the schema, where the task has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured: Option<Value>,
}

/// One task of a chain or of a parallel group.
#[derive(Debug, Clone, Default)]
pub struct TaskStep {
    name: String,
    prompt: Option<String>,
    previous: Vec<TaskResult>,
    reads: Vec<PathBuf>,
    options: StageOptions,
}

impl TaskStep {
    /// A task of this name. Without a prompt it says what the group's task says.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Sets the prompt. `{previous}` in it stands for the text of the last context, `{task}` for
    /// the group's task.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = Some(prompt.into());
        self
    }

    /// Adds a context: what another task gave.
    #[must_use]
    pub fn previous(mut self, result: &TaskResult) -> Self {
        self.previous.push(result.clone());
        self
    }

    /// Files the model is told to read; their paths become the prompt's first line.
    #[must_use]
    pub fn reads<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.reads = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Sets what the task may use.
    #[must_use]
    pub fn options(mut self, options: StageOptions) -> Self {
        self.options = options;
        self
    }

    /// The prompt as the model gets it.
    fn full_prompt(&self, task: &str, fallback: &str) -> String {
        let raw = self.prompt.as_deref().unwrap_or(fallback).replace("{task}", task);
        let mut text = match self.previous.last() {
            Some(last) if raw.contains("{previous}") => raw.replace("{previous}", &last.text),
            Some(_) => self
                .previous
                .iter()
                .fold(raw, |text, one| format!("{text}{SEPARATOR}{}:\n{}", one.name, one.text)),
            None => raw.replace("{previous}", ""),
        };
        if !self.reads.is_empty() {
            let paths: Vec<String> = self.reads.iter().map(|path| absolute(path)).collect();
            text = format!("Read first: {}\n{text}", paths.join(", "));
        }
        text
    }
}

fn absolute(path: &std::path::Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// How a parallel group runs.
#[derive(Debug, Clone)]
pub struct Parallel {
    /// Tasks at work at a time; `None`: all.
    pub concurrency: Option<usize>,
    /// The first failure calls the others off and is the group's error. Otherwise all finish, and
    /// one error counts those that failed.
    pub fail_fast: bool,
    /// What steps without a prompt say.
    pub task: Option<String>,
}

impl Default for Parallel {
    fn default() -> Self {
        Self { concurrency: None, fail_fast: true, task: None }
    }
}

impl Ctx {
    /// One stage and one prompt, with one record.
    ///
    /// # Errors
    /// As [`crate::stage::StageCall::prompt`].
    pub async fn task(&self, step: TaskStep) -> Result<TaskResult> {
        let slot = self.task_slot(&step);
        self.run_task(slot, &step, "", "").await
    }

    /// A task whose prompt is complete: nothing in it is replaced.
    pub(crate) async fn verbatim_task(&self, step: TaskStep) -> Result<TaskResult> {
        let slot = self.task_slot(&step);
        let prompt = step.prompt.clone().unwrap_or_default();
        self.ask_task(slot, &step, &prompt).await
    }

    /// Tasks one after the other, each with the result of the one before as its context. A step
    /// without a prompt says `task` when it is the first, and what the one before said otherwise.
    ///
    /// # Errors
    /// That of the first task that fails.
    pub async fn chain(&self, task: &str, steps: Vec<TaskStep>) -> Result<Vec<TaskResult>> {
        let mut results: Vec<TaskResult> = Vec::with_capacity(steps.len());
        for mut step in steps {
            let fallback = if results.is_empty() { "{task}" } else { "{previous}" };
            if step.previous.is_empty() {
                step.previous.extend(results.last().cloned());
            }
            let slot = self.task_slot(&step);
            results.push(self.run_task(slot, &step, task, fallback).await?);
        }
        Ok(results)
    }

    /// Tasks at the same time; results in the order of the steps. All keys are fixed before the
    /// first begins, so the order in which they finish changes nothing.
    ///
    /// # Errors
    /// With [`Parallel::fail_fast`] the first failure; otherwise [`Error::Parallel`].
    pub async fn parallel(
        &self,
        steps: Vec<TaskStep>,
        options: Parallel,
    ) -> Result<Vec<TaskResult>> {
        let first_prompt = steps.first().and_then(|step| step.prompt.clone());
        let task = options.task.or(first_prompt).unwrap_or_default();
        let group = self.group();
        let slots: Vec<Slot> = steps.iter().map(|step| self.task_slot(step)).collect();
        let calls = steps.iter().zip(&slots).map(|(step, slot)| {
            let (group, task) = (&group, task.as_str());
            async move { group.run_task(slot.clone(), step, task, "{task}").await }
        });
        let limit = options.concurrency.unwrap_or(usize::MAX);
        let stop = |result: &Result<TaskResult>| match result {
            Ok(_) => false,
            Err(Error::Exit | Error::Paused) => true,
            Err(_) => options.fail_fast,
        };
        let call_off = || group.token.cancel();
        let results = pin!(pool::run(calls, limit, stop, call_off)).await;
        for (slot, result) in slots.iter().zip(&results.all) {
            if result.is_none() {
                self.pass.run().settle(slot, StepState::Skipped);
            }
        }
        if let Some(first) = results.stopped_by {
            let error = results.all.into_iter().nth(first).flatten();
            return Err(error.and_then(Result::err).unwrap_or_else(|| self.why()));
        }
        settled(results.all)
    }

    fn task_slot(&self, step: &TaskStep) -> Slot {
        self.reserve(&step.name, |ordinals| ordinals.task(&step.name))
    }

    async fn run_task(
        &self,
        slot: Slot,
        step: &TaskStep,
        task: &str,
        fallback: &str,
    ) -> Result<TaskResult> {
        self.ask_task(slot, step, &step.full_prompt(task, fallback)).await
    }

    async fn ask_task(&self, slot: Slot, step: &TaskStep, prompt: &str) -> Result<TaskResult> {
        let structured = step.options.schema.is_some();
        let file = |answer: Value| {
            let result = task_result(&step.name, answer, structured);
            serde_json::to_value(result).unwrap_or(Value::Null)
        };
        let Said { value, .. } = said(self, &slot, &step.options, prompt, file).await?;
        serde_json::from_value(value).map_err(|_| {
            Error::failed(format!("the record of task {} does not hold a task's result", step.name))
        })
    }
}

fn task_result(name: &str, answer: Value, structured: bool) -> TaskResult {
    let text = match &answer {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    TaskResult {
        name: name.to_owned(),
        stage_name: name.to_owned(),
        text,
        structured: structured.then_some(answer),
    }
}

/// All results, or one error that counts those that failed.
fn settled(all: Vec<Option<Result<TaskResult>>>) -> Result<Vec<TaskResult>> {
    let total = all.len();
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for result in all.into_iter().flatten() {
        match result {
            Ok(result) => done.push(result),
            Err(error) => errors.push(error),
        }
    }
    let failures: Vec<Failure> = errors.iter().map(Error::failure).collect();
    let failed = errors.len();
    let Some(first) = errors.into_iter().next() else {
        return Ok(done);
    };
    let failure =
        Failure::worst(&failures).unwrap_or_else(|| Failure::new(Code::Unknown, first.to_string()));
    Err(Error::Parallel { failed, total, first: Box::new(first), failure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_put_together() {
        let done = task_result("one", "ONE".into(), false);
        let step = |prompt: &str| TaskStep::new("two").prompt(prompt);
        let full = |step: &TaskStep| step.full_prompt("TASK", "{task}");
        assert_eq!(full(&step("a {previous} b").previous(&done)), "a ONE b");
        assert_eq!(full(&step("a").previous(&done)), "a\n\n---\none:\nONE");
        assert_eq!(full(&step("a {previous}")), "a ");
        assert_eq!(full(&TaskStep::new("two")), "TASK");
        assert_eq!(full(&step("do {task}")), "do TASK");
        let reads = full(&step("a").reads(["/x/a.md", "/x/b.md"]));
        assert_eq!(reads, "Read first: /x/a.md, /x/b.md\na");
    }
}
