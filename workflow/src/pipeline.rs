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
//! a stage begins as soon as those it comes after are done, whatever else is under way. A stage with `ask` (`input`, `confirm`,
//! `select`) asks a person; a `confirm` that is answered with no ends the run. The outputs are
//! those of `[outputs]`, or else what the stages said that no other stage builds on.
//!
//! A stage has all tools of its runner. `tools` names those that it may use; `mcp_allow` and
//! `mcp_deny` name MCP servers and tools of theirs ([`crate::scope`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ctx::Ctx;
use crate::definition::{Input, InputKind, Workflow};
use crate::error::{Error, Result};
use crate::pool;
use crate::run::{Exit, ExitStatus};
use crate::scope::StageTools;
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

/// What the stages say of tools, in the order of the file: for a host that has some, to look at
/// before a run begins ([`ToolScope::check`](crate::scope::ToolScope::check)). Stages that say
/// nothing of them are left out.
///
/// # Errors
/// [`Error::Definition`] for a text that is no pipeline.
pub fn stage_tools(text: &str) -> Result<Vec<StageTools>> {
    let file: File = toml::from_str(text).map_err(|error| Error::definition(said(&error, text)))?;
    let lists = file.stage.into_iter().map(|stage| StageTools {
        stage: stage.name,
        tools: stage.tools,
        mcp_allow: stage.mcp_allow,
        mcp_deny: stage.mcp_deny,
    });
    Ok(lists.filter(StageTools::says_something).collect())
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

/// Stages in the order of their places: each after those it waits for, and those that could begin
/// together in the order of the file. In what order they do begin is up to the models and people.
#[derive(Debug)]
struct Plan {
    stages: Vec<Planned>,
    outputs: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Planned {
    stage: Stage,
    /// Questions that may turn out to say the same as this one. The key of a question counts those
    /// that say the same, so this one is asked after them, answered or not.
    alike: Vec<usize>,
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
    let (mut done, mut stages) = (BTreeSet::new(), Vec::<Planned>::new());
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
        for stage in ready {
            let alike = stages.iter().enumerate().filter(|(_, one)| one.stage.may_ask_as(&stage));
            let alike = alike.map(|(index, _)| index).collect();
            stages.push(Planned { stage, alike });
        }
        left = waiting;
    }
    Ok(Plan { stages, outputs })
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
        let said = self.stages(ctx, inputs).await?;
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

impl Plan {
    /// What all stages said. The first failure calls the others off; a question that waits does
    /// not: the others are paid for, and so is what can be built on them.
    async fn stages(
        &self,
        ctx: &Ctx,
        inputs: &Map<String, Value>,
    ) -> Result<BTreeMap<String, Value>> {
        let group = ctx.group();
        let (mut said, mut waits) = (BTreeMap::new(), BTreeMap::new());
        let (mut begun, mut at_work) = (BTreeSet::new(), Vec::new());
        let mut failed = None;
        loop {
            for (index, one) in self.stages.iter().enumerate() {
                let ready = failed.is_none() && !begun.contains(&index) && one.ready(&said, &begun);
                if ready {
                    begun.insert(index);
                    let prompt = fill(&one.stage.prompt, inputs, &said);
                    // Places are counted from 1.
                    let ctx = group.placed(index as u64 + 1, &one.stage.name);
                    let call = async move { one.stage.run(&ctx, prompt).await };
                    at_work.push((index, Box::pin(call)));
                }
            }
            let Some((index, result)) = pool::first(&mut at_work).await else { break };
            match (result, self.stages.get(index)) {
                (Ok(value), Some(one)) => {
                    said.insert(one.stage.name.clone(), value);
                }
                (Err(Error::Question(waiting)), _) => {
                    waits.insert(index, waiting);
                }
                (Err(error), _) => {
                    failed.get_or_insert(error);
                    group.token.cancel();
                }
                (Ok(_), None) => {}
            }
        }
        let first_question = waits.into_values().next().map(Error::Question);
        failed.or(first_question).map_or(Ok(said), Err)
    }
}

impl Planned {
    fn ready(&self, said: &BTreeMap<String, Value>, begun: &BTreeSet<usize>) -> bool {
        self.stage.after.iter().all(|name| said.contains_key(name))
            && self.alike.iter().all(|index| begun.contains(index))
    }
}

impl Stage {
    /// Whether the two may ask the same: the texts that their prompts begin and end with decide,
    /// as what stands in between is not known yet.
    fn may_ask_as(&self, other: &Self) -> bool {
        if self.ask.is_none() || self.ask != other.ask || self.options != other.options {
            return false;
        }
        let ends = |stage: &Self| {
            let text = |piece: Option<&Piece<'_>>| match piece {
                Some(Piece::Text(text)) => (*text).to_owned(),
                _ => String::new(),
            };
            let pieces = pieces(&stage.prompt);
            (text(pieces.first()), text(pieces.last()), pieces.len() == 1)
        };
        let ((head, tail, whole), (head2, tail2, whole2)) = (ends(self), ends(other));
        if whole && whole2 {
            return head == head2;
        }
        (head.starts_with(&head2) || head2.starts_with(&head))
            && (tail.ends_with(&tail2) || tail2.ends_with(&tail))
    }

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
            mcp_allow: self.mcp_allow.clone(),
            mcp_deny: self.mcp_deny.clone(),
            ..StageOptions::default()
        }
    }
}
