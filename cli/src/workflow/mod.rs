//! `workflow`: durable pipelines of prompts, from their files to their records.

mod ask;
mod connect;
mod import;
mod kept;
mod list;
mod progress;
mod run;
mod source;

use std::path::PathBuf;
use std::time::SystemTime;

use agentwire::error::{Blame, Kind};
use agentwire_workflow::Error;
use agentwire_workflow::error::StoreError;
use agentwire_workflow::record::Root;
use agentwire_workflow::store::{SqliteStore, Store};

use crate::failure::{Failure, Report};
use kept::Runs;

/// The variable that names the folder of runs.
const FOLDER: &str = "AGENTWIRE_WORKFLOWS";

/// Run pipelines of prompts that survive the end of their process.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentwire workflow run review.toml --local --input topic=tides
  agentwire workflow list
  agentwire workflow answer 3f2a publish yes && agentwire workflow resume 3f2a --local

Environment:
  AGENTWIRE_WORKFLOWS           folder of the runs [default: a folder where the system keeps state]
  AGENTWIRE_WORKFLOW_KEEP_DAYS  days for which runs that are over are kept [default: 30]

Exit codes: 4 when a run waits for an answer or for its provider and can be resumed.")]
pub(crate) struct Args {
    /// Remove runs that have been over for so many days, with their sessions
    /// [default: 30, or AGENTWIRE_WORKFLOW_KEEP_DAYS]
    #[arg(long, value_name = "N", global = true)]
    keep_days: Option<u32>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a workflow file (docs/CLI.md), or one by its name
    #[command(after_help = "Example:
  agentwire workflow run review.toml --local --input topic=tides")]
    Run(run::Run),
    /// Go on with a run that was interrupted, paused, blocked, or failed
    #[command(after_help = "Example:
  agentwire workflow resume 3f2a --local")]
    Resume(run::Resume),
    /// Replay a run against its records without calling anything
    #[command(after_help = "Example:
  agentwire workflow verify 3f2a --file review.toml")]
    Verify(run::Verify),
    /// List runs, newest first
    #[command(after_help = "Example:
  agentwire workflow list --json")]
    List(list::List),
    /// Show a run with its records as a tree
    #[command(after_help = "Example:
  agentwire workflow show 3f2a")]
    Show(list::Show),
    /// End a run for good, also one whose process is dead
    #[command(after_help = "Example:
  agentwire workflow kill 3f2a")]
    Kill(list::Kill),
    /// Answer a question that a run waits for
    #[command(after_help = "Example:
  agentwire workflow answer 3f2a publish yes")]
    Answer(list::Answer),
    /// Take over the runs of another program's state file, to look at them with `show`
    #[command(after_help = "Example:
  agentwire workflow import state.json")]
    Import(import::Import),
}

impl Args {
    pub(crate) fn report(&self) -> Report {
        let json = match &self.command {
            Command::Run(args) => args.shared.json,
            Command::Resume(args) => args.shared.json,
            Command::List(args) => args.json,
            Command::Show(args) => args.json,
            Command::Verify(args) => args.json,
            Command::Kill(_) | Command::Answer(_) | Command::Import(_) => false,
        };
        if json { Report::Json } else { Report::Text }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let runs = Runs::kept(args.keep_days)?;
    match &args.command {
        Command::Run(args) => run::run(args, &runs),
        Command::Resume(args) => run::resume(args, &runs),
        Command::Verify(args) => run::verify(args, &runs),
        Command::List(args) => list::list(args, &runs),
        Command::Show(args) => list::show(args, &runs),
        Command::Kill(args) => list::kill(args, &runs),
        Command::Answer(args) => list::answer(args, &runs),
        Command::Import(args) => import::import(args, &runs),
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

/// Where the sessions of stages are.
fn sessions() -> Result<PathBuf, Failure> {
    Ok(folder()?.join("sessions"))
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
