//! `workflow`: durable pipelines of prompts, from their files to their records.

mod ask;
mod connect;
mod list;
mod progress;
mod run;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agentwire::error::{Blame, Kind};
use agentwire_workflow::Error;
use agentwire_workflow::error::StoreError;
use agentwire_workflow::record::Root;
use agentwire_workflow::store::{SqliteStore, Store};

use crate::failure::{Failure, Report};

/// The variable that names the folder of runs.
const FOLDER: &str = "AGENTWIRE_WORKFLOWS";
/// How long runs that are over are kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Run pipelines of prompts that survive the end of their process.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentwire workflow run review.toml --local --input topic=tides
  agentwire workflow list
  agentwire workflow answer 3f2a publish yes && agentwire workflow resume 3f2a --local

Environment:
  AGENTWIRE_WORKFLOWS  folder of the runs [default: a folder where the system keeps state]

Exit codes: 4 when a run waits for an answer or for its provider and can be resumed.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a workflow file (docs/CLI.md), or one by its name
    Run(run::Run),
    /// Go on with a run that was interrupted, paused, blocked, or failed
    Resume(run::Resume),
    /// Replay a run against its records without calling anything
    Verify(run::Verify),
    /// List runs, newest first
    List(list::List),
    /// Show a run with its records as a tree
    Show(list::Show),
    /// End a run for good, also one whose process is dead
    Kill(list::Kill),
    /// Answer a question that a run waits for
    Answer(list::Answer),
}

impl Args {
    pub(crate) fn report(&self) -> Report {
        let json = match &self.command {
            Command::Run(args) => args.shared.json,
            Command::Resume(args) => args.shared.json,
            Command::List(args) => args.json,
            Command::Show(args) => args.json,
            Command::Verify(_) | Command::Kill(_) | Command::Answer(_) => false,
        };
        if json { Report::Json } else { Report::Text }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Run(args) => run::run(args),
        Command::Resume(args) => run::resume(args),
        Command::Verify(args) => run::verify(args),
        Command::List(args) => list::list(args),
        Command::Show(args) => list::show(args),
        Command::Kill(args) => list::kill(args),
        Command::Answer(args) => list::answer(args),
    }
}

/// The folder of the variable, else one where the system keeps state.
fn folder() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set(FOLDER) {
        return Ok(PathBuf::from(folder));
    }
    let state = set("XDG_STATE_HOME")
        .or_else(|| set("LOCALAPPDATA"))
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local").join("state")));
    match state {
        Some(state) => Ok(state.join("agentwire").join("workflows")),
        None => Err(Failure::usage(format!(
            "there is no folder to keep runs in; name one in the variable {FOLDER}"
        ))),
    }
}

/// Opens the database of runs; those that were over long ago are removed.
fn store() -> Result<Arc<SqliteStore>, Failure> {
    let store = SqliteStore::open(folder()?.join("workflow.db")).map_err(failed)?;
    let kept = now().saturating_sub(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
    store.prune(kept).map_err(failed)?;
    Ok(Arc::new(store))
}

#[allow(clippy::disallowed_methods, reason = "the command's own clock")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The one run that an id or the beginning of one means.
fn one(store: &SqliteStore, id: &str) -> Result<Root, Failure> {
    let mut found = store.find(id).map_err(failed)?;
    match (found.pop(), found.as_slice()) {
        (Some(root), []) => Ok(root),
        (None, _) => {
            Err(Failure::usage(format!("there is no run {id}; `workflow list` shows them")))
        }
        (Some(last), others) => {
            let ids: Vec<&str> =
                others.iter().chain([&last]).map(|root| root.id.as_str()).collect();
            Err(Failure::usage(format!("{id} is ambiguous: {}", ids.join(", "))))
        }
    }
}

/// An error of the engine or its store, as this program reports it.
fn failed(error: impl Into<Error>) -> Failure {
    let error = error.into();
    // One line, also where several inputs are wrong.
    let message = error.to_string().replace("\n  ", " ");
    match error {
        Error::Definition(_)
        | Error::Inputs(_)
        | Error::Store(StoreError::Unknown(_) | StoreError::NotResumable { .. }) => {
            Failure::usage(message)
        }
        _ => {
            Failure::Failed(agentwire::Error::new(Kind::Rejected, message).with_blame(Blame::Local))
        }
    }
}
