//! `workflow run`, `resume` and `verify`.

use std::io::Write as _;
use std::sync::Arc;

use agentwire_agent::Agent;
use agentwire_workflow::engine::Verdict;
use agentwire_workflow::record::{Root, Status};
use agentwire_workflow::{Control, Engine, Outcome, Policy, import};
use serde_json::{Map, Value, json};

use super::ask::Terminal;
use super::connect::Connection;
use super::kept::{self, Runs};
use super::progress::Progress;
use super::source::{self, Loaded};
use super::{failed, one};
use crate::failure::{Failure, Report, exit};
use crate::interrupt::Interrupt;
use crate::mcp::{self, Servers};
use crate::output::{self, Look, for_terminal};
use crate::runtime;

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The file, or the name of a workflow in .agentwire/workflows
    workflow: String,

    /// An input, `KEY=VALUE` (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    input: Vec<String>,

    /// Id of the run, instead of one drawn at random; one that is there is gone on with
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    #[command(flatten)]
    pub(super) shared: Shared,
}

#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// Id of the run, or the beginning of it
    id: String,

    /// The workflow's file, when it is no longer where it was
    #[arg(long, value_name = "FILE")]
    file: Option<String>,

    #[command(flatten)]
    pub(super) shared: Shared,
}

#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// Id of the run, or the beginning of it
    id: String,

    /// The workflow's file, when it is no longer where it was
    #[arg(long, value_name = "FILE")]
    file: Option<String>,

    /// Print one JSON object (docs/CLI.md)
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Shared {
    /// What to do with a recorded step whose prompt, models or schema have changed
    #[arg(long, value_name = "WHAT", default_value = "refuse", value_enum)]
    changed: Changed,

    /// Stages at the same time
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,

    /// Print one JSON object a line (docs/CLI.md)
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    connection: Connection,

    #[command(flatten)]
    tools: mcp::Args,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Changed {
    Refuse,
    Rerun,
    Accept,
}

pub(super) fn run(args: &Run, runs: &Runs) -> Result<(), Failure> {
    let loaded = source::load(&args.workflow)?;
    let inputs = source::inputs(&loaded.workflow, &args.input)?;
    let inputs = loaded.workflow.check_inputs(&inputs).map_err(failed)?;
    let what = What { loaded: &loaded, id: args.id.as_deref(), inputs: &inputs };
    runtime::block_on(drive(&args.shared, runs, &what))
}

pub(super) fn resume(args: &Resume, runs: &Runs) -> Result<(), Failure> {
    let root = one(&*runs.open()?, &args.id)?;
    let loaded = workflow_of(&root, args.file.as_deref())?;
    let what = What { loaded: &loaded, id: Some(&root.id), inputs: &root.inputs };
    runtime::block_on(drive(&args.shared, runs, &what))
}

/// The workflow of a run, from the file it was made from or another one.
fn workflow_of(root: &Root, file: Option<&str>) -> Result<Loaded, Failure> {
    if root.code == import::CODE {
        let id = &root.id;
        return Err(Failure::usage(format!(
            "the run {id} was imported: it can only be looked at (`agentwire workflow show {id}`)"
        )));
    }
    source::load(file.unwrap_or(&root.code))
}

/// What is run.
struct What<'a> {
    loaded: &'a Loaded,
    id: Option<&'a str>,
    inputs: &'a Map<String, Value>,
}

async fn drive(shared: &Shared, runs: &Runs, what: &What<'_>) -> Result<(), Failure> {
    let mut interrupt = Interrupt::install()?;
    let servers = tokio::select! {
        biased;
        () = interrupt.wait() => return Err(Failure::Interrupted),
        servers = shared.tools.start() => servers?,
    };
    let done = drive_with(&servers, shared, runs, what, interrupt).await;
    servers.end().await;
    done
}

async fn drive_with(
    servers: &Servers,
    shared: &Shared,
    runs: &Runs,
    what: &What<'_>,
    mut interrupt: Interrupt,
) -> Result<(), Failure> {
    let look = Look::detect();
    let report = if shared.json { Report::Json } else { Report::Text };
    let store = runs.open()?;
    let earlier = what.id.map(|id| kept::model_of(&store, id)).transpose()?.flatten();
    let connected = shared.connection.connect(servers, earlier, report, look).await?;
    what.loaded.check_tools(&connected.scope)?;
    let workflow = &what.loaded.workflow;
    let engine = Engine::builder(store, Arc::<Agent>::clone(&connected.agent))
        .ask(Terminal::new(look, shared.json))
        .mcp(connected.scope.clone())
        .observer(Progress::new(look, shared.json))
        .concurrency(usize::from(shared.concurrency))
        .policy(match shared.changed {
            Changed::Refuse => Policy::Refuse,
            Changed::Rerun => Policy::Rerun,
            Changed::Accept => Policy::Accept,
        })
        .build();
    let control = Control::new();
    let run = async {
        match what.id {
            Some(id) => engine.run_as(id, workflow, what.inputs, &control).await,
            None => engine.run(workflow, what.inputs, &control).await,
        }
    };
    let mut interrupted = false;
    let outcome = {
        tokio::pin!(run);
        loop {
            tokio::select! {
                biased;
                () = interrupt.wait(), if !interrupted => {
                    interrupted = true;
                    control.pause();
                }
                outcome = &mut run => break outcome,
            }
        }
    };
    drop(engine);
    connected.close().await;
    let outcome = outcome.map_err(failed)?;
    print(&outcome, shared.json, look)?;
    match outcome.status {
        Status::Completed => Ok(()),
        Status::Paused if interrupted => Err(Failure::Said(exit::INTERRUPTED)),
        Status::Paused | Status::Blocked if outcome.resumable => Err(Failure::Said(exit::WAITS)),
        _ => Err(Failure::Said(exit::FAILED)),
    }
}

/// Outputs to stdout, how it ended and what to do next to stderr.
fn print(outcome: &Outcome, json: bool, look: Look) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if json {
        let line = json!({
            "type": "result",
            "id": outcome.id,
            "status": outcome.status,
            "resumable": outcome.resumable,
            "outputs": outcome.outputs,
            "failure": outcome.failure,
            "retry_at": outcome.retry_at,
            "report": outcome.report,
        });
        return writeln!(out, "{line}").map_err(output::failed);
    }
    let outputs = outcome.outputs.iter().flatten();
    let several = outcome.outputs.as_ref().is_some_and(|outputs| outputs.len() > 1);
    for (name, value) in outputs {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let text = if look.stdout_terminal { for_terminal(&text) } else { text.as_str().into() };
        let title = if several { format!("{name}:\n") } else { String::new() };
        writeln!(out, "{title}{text}").map_err(output::failed)?;
    }
    drop(out);
    if !outcome.report.is_clean() {
        let report = serde_json::to_string(&outcome.report).unwrap_or_default();
        look.remark(&format!("note: the workflow is not what was recorded: {report}"));
    }
    let id = outcome.id.get(..8).unwrap_or(&outcome.id);
    if let Some((status, reason)) = &outcome.exit {
        let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        look.remark(&format!("run {id} ended itself, {}{reason}", status.as_str()));
        return Ok(());
    }
    let why = match (&outcome.failure, &outcome.error) {
        (Some(failure), _) => format!(": {}", failure.message),
        (None, Some(error)) => format!(": {error}"),
        (None, None) => String::new(),
    };
    look.remark(&format!("run {id} {}{why}", outcome.status.as_str()));
    if outcome.resumable && outcome.status != Status::Completed {
        look.remark(&format!("hint: `agentwire workflow resume {id}` goes on with it"));
    }
    Ok(())
}

pub(super) fn verify(args: &Verify, runs: &Runs) -> Result<(), Failure> {
    let store = runs.open()?;
    let root = one(&store, &args.id)?;
    let workflow = workflow_of(&root, args.file.as_deref())?.workflow;
    let verdict = runtime::block_on(async {
        // Nothing is asked of a model: an engine without one is enough.
        let nobody = agentwire_agent::model::Scripted::answers(Vec::<String>::new());
        let agent = Agent::builder(nobody).build();
        let agent = agent.map_err(|error| Failure::usage(error.to_string()))?;
        let engine = Engine::builder(store, Arc::new(agent)).build();
        engine.verify(&root.id, &workflow).await.map_err(failed)
    })?;
    if args.json {
        say_json(&root, &verdict)?;
    } else {
        say(&verdict)?;
    }
    if verdict.is_ok() { Ok(()) } else { Err(Failure::Said(exit::FAILED)) }
}

fn say_json(root: &Root, verdict: &Verdict) -> Result<(), Failure> {
    let line = json!({
        "id": root.id,
        "ok": verdict.is_ok(),
        "replayed": verdict.replayed,
        "report": verdict.report,
        "stopped": verdict.stopped.as_ref().map(ToString::to_string),
        "same_outputs": verdict.same_outputs,
    });
    writeln!(std::io::stdout().lock(), "{line}").map_err(output::failed)
}

fn say(verdict: &Verdict) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let mut line = |text: String| writeln!(out, "{text}").map_err(output::failed);
    line(format!("{} steps replayed, nothing was called", verdict.replayed))?;
    for change in &verdict.report.changed {
        let (kind, key) = (change.kind.as_str(), &change.key);
        line(format!("changed: {kind} {key} (recorded {}, now {})", change.recorded, change.now))?;
    }
    let lists = [
        ("not asked for any more", &verdict.report.unused),
        ("added", &verdict.report.extra),
        ("moved", &verdict.report.moved),
    ];
    for (title, keys) in lists {
        for key in keys {
            line(format!("{title}: {key}"))?;
        }
    }
    if let Some(error) = &verdict.stopped {
        line(format!("stopped: {error}"))?;
    }
    if verdict.same_outputs == Some(false) {
        line("the outputs are not those that were recorded".into())?;
    }
    line(if verdict.is_ok() { "ok".into() } else { "the workflow has changed".into() })
}
