//! A pipeline of prompts in TOML, for those who need no code of their own.
//!
//! ```toml
//! name = "review"
//!
//! [inputs.topic]
//! kind = "text"
//!
//! [[stage]]
//! name = "draft"
//! prompt = "Write a paragraph about {inputs.topic}."
//!
//! [[stage]]
//! name = "critique"
//! prompt = "What is wrong with this?\n{stages.draft}"
//!
//! [[stage]]
//! name = "publish"
//! ask = "confirm"
//! prompt = "Publish it?\n{stages.critique}"
//! ```
//!
//! A stage that names another in its prompt comes after it, as does one that lists it in `after`;
//! stages that wait for nothing run at the same time. A stage with `ask` (`input`, `confirm`,
//! `select`) asks a person; a `confirm` that is answered with no ends the run. The outputs are
//! those of `[outputs]`, or else what the stages said that no other stage builds on.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ctx::Ctx;
use crate::definition::{Input, InputKind, Workflow};
use crate::error::{Error, Result};
use crate::pool;
use crate::run::{Exit, ExitStatus};
use crate::stage::StageOptions;
use crate::task::TaskStep;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    inputs: BTreeMap<String, InputEntry>,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
    stage: Vec<Stage>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputEntry {
    #[serde(default)]
    kind: Word,
    #[serde(default)]
    choices: Vec<String>,
    default: Option<Value>,
    #[serde(default)]
    optional: bool,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Text,
    Number,
    Integer,
    Boolean,
    Select,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Question {
    Input,
    Confirm,
    Select,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    name: String,
    prompt: String,
    #[serde(default)]
    after: BTreeSet<String>,
    ask: Option<Question>,
    #[serde(default)]
    options: Vec<String>,
    system: Option<String>,
    #[serde(default)]
    models: Vec<String>,
    tools: Option<Vec<String>>,
    schema: Option<Value>,
    mcp_allow: Option<Vec<String>>,
    mcp_deny: Option<Vec<String>>,
}

/// The workflow of a TOML text. `code` says where it is, for those who resume it.
///
/// # Errors
/// [`Error::Definition`] with what is wrong and where: the syntax, a name used twice or unknown, a
/// circle of stages.
pub fn from_toml(text: &str, code: Option<String>) -> Result<Workflow> {
    let file: File = toml::from_str(text).map_err(|error| Error::definition(said(&error, text)))?;
    let plan = plan(&file)?;
    let mut builder = Workflow::builder(&file.name).description(&file.description);
    for (name, entry) in &file.inputs {
        builder = builder.input(name, entry.input());
    }
    for name in plan.outputs.keys() {
        builder = builder.output(name);
    }
    if let Some(code) = code {
        builder = builder.code(code);
    }
    let plan = std::sync::Arc::new(plan);
    builder.body(move |ctx: Ctx, inputs: Map<String, Value>| {
        let plan = plan.clone();
        async move { plan.run(&ctx, &inputs).await }
    })
}

/// What the parser says, on one line: its own text draws the place over several.
fn said(error: &toml::de::Error, text: &str) -> String {
    let message: Vec<&str> = error.message().lines().map(str::trim).collect();
    let message = message.join(", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message;
    };
    let (line, column) = match before.rsplit_once('\n') {
        Some((lines, last)) => (lines.matches('\n').count() + 2, last.chars().count() + 1),
        None => (1, before.chars().count() + 1),
    };
    format!("line {line}, column {column}: {message}")
}

impl InputEntry {
    fn input(&self) -> Input {
        let kind = match self.kind {
            Word::Text => InputKind::Text,
            Word::Number => InputKind::Number,
            Word::Integer => InputKind::Integer,
            Word::Boolean => InputKind::Boolean,
            Word::Select => InputKind::Select(self.choices.clone()),
            Word::Json => InputKind::Json,
        };
        let input = Input::new(kind);
        match &self.default {
            Some(value) => input.default_value(value.clone()),
            None if self.optional => input.optional(),
            None => input,
        }
    }
}

/// Stages in waves: each wave waits for those before it.
#[derive(Debug)]
struct Plan {
    waves: Vec<Vec<Stage>>,
    outputs: BTreeMap<String, String>,
}

fn plan(file: &File) -> Result<Plan> {
    let mut names = BTreeSet::new();
    for stage in &file.stage {
        if !names.insert(stage.name.as_str()) {
            return Err(Error::definition(format!("two stages are called {}", stage.name)));
        }
        if stage.ask == Some(Question::Select) && stage.options.is_empty() {
            let name = &stage.name;
            return Err(Error::definition(format!(
                "stage {name} asks for a choice without options"
            )));
        }
    }
    let mut left = file.stage.clone();
    let mut used = BTreeSet::new();
    for stage in &mut left {
        stage.after.extend(stages_in(&stage.prompt, file, &stage.name)?);
        if let Some(unknown) = stage.after.iter().find(|one| !names.contains(one.as_str())) {
            let name = &stage.name;
            return Err(Error::definition(format!(
                "stage {name} comes after {unknown}, which is not there"
            )));
        }
        used.extend(stage.after.iter().cloned());
    }
    let mut outputs = file.outputs.clone();
    for (name, text) in &outputs {
        stages_in(text, file, name)?;
    }
    if outputs.is_empty() {
        let last = names.iter().filter(|name| !used.contains(**name));
        outputs = last.map(|name| ((*name).to_owned(), format!("{{stages.{name}}}"))).collect();
    }
    let (mut done, mut waves) = (BTreeSet::new(), Vec::new());
    while !left.is_empty() {
        let (ready, waiting): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|stage| stage.after.is_subset(&done));
        if ready.is_empty() {
            let names: Vec<_> = waiting.into_iter().map(|stage| stage.name).collect();
            return Err(Error::definition(format!(
                "stages wait for each other: {}",
                names.join(", ")
            )));
        }
        done.extend(ready.iter().map(|stage| stage.name.clone()));
        waves.push(ready);
        left = waiting;
    }
    Ok(Plan { waves, outputs })
}

/// The stages that a text names; an error for a name that is not there.
fn stages_in(text: &str, file: &File, place: &str) -> Result<Vec<String>> {
    let mut stages = Vec::new();
    for piece in pieces(text) {
        match piece {
            Piece::Text(_) => {}
            Piece::Input(name) if file.inputs.contains_key(name) => {}
            Piece::Stage(name) if file.stage.iter().any(|stage| stage.name == name) => {
                stages.push(name.to_owned());
            }
            Piece::Input(name) | Piece::Stage(name) => {
                let message = format!("{place} uses {name}, which is not there");
                return Err(Error::definition(message));
            }
        }
    }
    Ok(stages)
}

enum Piece<'a> {
    Text(&'a str),
    Input(&'a str),
    Stage(&'a str),
}

/// A text cut at `{inputs.NAME}` and `{stages.NAME}`; other braces are text.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut out, mut rest, mut from) = (Vec::new(), text, 0);
    while let Some(open) = rest.get(from..).and_then(|tail| tail.find('{')).map(|at| at + from) {
        let inner = rest[open + 1..].split_once('}').map_or("", |(inner, _)| inner);
        let piece = match inner.split_once('.') {
            Some(("inputs", name)) => Piece::Input(name),
            Some(("stages", name)) => Piece::Stage(name),
            _ => {
                from = open + 1;
                continue;
            }
        };
        out.push(Piece::Text(&rest[..open]));
        out.push(piece);
        rest = &rest[open + inner.len() + 2..];
        from = 0;
    }
    out.push(Piece::Text(rest));
    out
}

/// The text with what its placeholders stand for. What is put in is not looked at again.
fn fill(text: &str, inputs: &Map<String, Value>, said: &BTreeMap<String, Value>) -> String {
    let show = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    pieces(text)
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.to_owned(),
            Piece::Input(name) => show(inputs.get(name)),
            Piece::Stage(name) => show(said.get(name)),
        })
        .collect()
}

impl Plan {
    async fn run(&self, ctx: &Ctx, inputs: &Map<String, Value>) -> Result<Map<String, Value>> {
        let mut said: BTreeMap<String, Value> = BTreeMap::new();
        for wave in &self.waves {
            let group = ctx.group();
            let calls = wave.iter().map(|stage| {
                let prompt = fill(&stage.prompt, inputs, &said);
                let group = &group;
                async move { stage.run(group, prompt).await }
            });
            // A question that waits lets the other stages of its wave finish: they are paid for.
            let stops = |result: &Result<Value>| {
                result.as_ref().is_err_and(|error| !matches!(error, Error::Question(_)))
            };
            let results = pool::run(calls, usize::MAX, stops, || group.token.cancel()).await;
            if let Some(first) = results.stopped_by {
                let error = results.all.into_iter().nth(first).flatten();
                return Err(error.and_then(Result::err).unwrap_or_else(|| ctx.why()));
            }
            for (stage, result) in wave.iter().zip(results.all) {
                if let Some(result) = result {
                    said.insert(stage.name.clone(), result?);
                }
            }
        }
        let outputs = self.outputs.iter().map(|(name, text)| {
            // A placeholder alone keeps its JSON; in a text it is written out.
            let value = match pieces(text).as_slice() {
                [Piece::Text(""), Piece::Stage(stage), Piece::Text("")] => {
                    said.get(*stage).cloned()
                }
                _ => None,
            };
            (name.clone(), value.unwrap_or_else(|| fill(text, inputs, &said).into()))
        });
        Ok(outputs.collect())
    }
}

impl Stage {
    async fn run(&self, ctx: &Ctx, prompt: String) -> Result<Value> {
        match self.ask {
            Some(Question::Input) => ctx.input(&prompt).await.map(Value::from),
            Some(Question::Confirm) if ctx.confirm(&prompt).await? => Ok(Value::Bool(true)),
            Some(Question::Confirm) => {
                let reason = format!("{}: answered with no", self.name);
                Err(ctx.exit(Exit::new(ExitStatus::Cancelled).reason(reason)))
            }
            Some(Question::Select) => {
                let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
                ctx.select(&prompt, &options).await.map(Value::from)
            }
            None => {
                let step = TaskStep::new(&self.name).prompt(prompt).options(self.stage_options());
                let result = ctx.verbatim_task(step).await?;
                Ok(result.structured.unwrap_or_else(|| result.text.into()))
            }
        }
    }

    fn stage_options(&self) -> StageOptions {
        StageOptions {
            models: self.models.clone(),
            system: self.system.clone(),
            tools: self.tools.clone(),
            schema: self.schema.clone(),
            limits: None,
            mcp_allow: self.mcp_allow.clone(),
            mcp_deny: self.mcp_deny.clone(),
        }
    }
}
