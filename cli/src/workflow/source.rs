//! Workflow files: where they are found, and inputs from the command line.

use std::path::{Path, PathBuf};

use agentwire::Error;
use agentwire_workflow::scope::{StageTools, ToolScope};
use agentwire_workflow::{InputKind, Workflow, pipeline};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::input::Source;

/// A workflow file that was read.
pub(super) struct Loaded {
    pub(super) workflow: Workflow,
    path: PathBuf,
    /// What its stages say of tools.
    tools: Vec<StageTools>,
}

/// The workflow of a file, or of a name in `.agentwire/workflows` here or in the user's
/// configuration.
pub(super) fn load(what: &str) -> Result<Loaded, Failure> {
    let path = find(what)?;
    let text = Source::File(path.clone()).text()?;
    let wrong = |error| Failure::usage(format!("{}: {error}", path.display()));
    let tools = pipeline::stage_tools(&text).map_err(wrong)?;
    let code = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    let workflow = pipeline::from_toml(&text, Some(code.display().to_string())).map_err(wrong)?;
    Ok(Loaded { workflow, path, tools })
}

impl Loaded {
    /// Whether the stages name only tools and servers that are there.
    pub(super) fn check_tools(&self, scope: &ToolScope) -> Result<(), Failure> {
        self.tools.iter().try_for_each(|stage| scope.check(stage)).map_err(|unknown| {
            let error = Error::invalid(format!("{}: {unknown}", self.path.display()));
            Failure::Usage(error.with_hint(
                "correct the name, or offer the tools with --mcp (--workspace serves files to all \
                 stages, by no name)",
            ))
        })
    }
}

fn find(what: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(what);
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = set("XDG_CONFIG_HOME")
        .or_else(|| set("APPDATA"))
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")));
    let folders = [Some(PathBuf::from(".agentwire")), config.map(|dir| dir.join("agentwire"))];
    let named = folders
        .into_iter()
        .flatten()
        .map(|folder| folder.join("workflows").join(format!("{what}.toml")))
        .find(|candidate| candidate.is_file());
    named.ok_or_else(|| {
        Failure::usage(format!(
            "there is no file {what}, and no workflow of that name in .agentwire/workflows or in \
             the folder agentwire/workflows of your configuration"
        ))
    })
}

/// `KEY=VALUE` pairs as the workflow declares them. Text stays text; the rest is read as JSON.
pub(super) fn inputs(workflow: &Workflow, pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut inputs = Map::new();
    for pair in pairs {
        let Some((key, text)) = pair.split_once('=') else {
            return Err(Failure::usage(format!("--input {pair}: write it as KEY=VALUE")));
        };
        let is_text = workflow
            .inputs()
            .get(key)
            .is_none_or(|input| matches!(input.kind(), InputKind::Text | InputKind::Select(_)));
        let value = if is_text {
            Value::from(text)
        } else {
            serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
        };
        inputs.insert(key.to_owned(), value);
    }
    Ok(inputs)
}
