//! `sessions`: look at what is kept, copy it, remove it.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use agentwire_agent::record::Record;
use agentwire_agent::session::{Entry, Store};
use serde_json::json;

use super::store;
use crate::failure::Failure;
use crate::output;

/// List, show, fork, export and remove the sessions of `agent --session`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  agentwire sessions list
  agentwire sessions fork review review-2 --at 12
  agentwire sessions export review > review.md

Environment:
  AGENTWIRE_SESSIONS  folder of the sessions, where it is not the system's own for state")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List all sessions, the one used last first
    #[command(after_help = "Example:
  agentwire sessions list --json")]
    List {
        /// Print one JSON object a line (docs/CLI.md)
        #[arg(long)]
        json: bool,
    },
    /// Show the records of a session, a line each, with their numbers
    #[command(after_help = "Example:
  agentwire sessions show review")]
    Show {
        /// Name of the session
        name: String,
        /// Print the records as JSON, one a line, as they are in the log
        #[arg(long)]
        json: bool,
    },
    /// Begin a new session with the first records of another
    #[command(after_help = "Example:
  agentwire sessions fork review review-2 --at 12")]
    Fork {
        /// Name of the session
        name: String,
        /// Name of the new session
        new: String,
        /// How many records to take, as `show` numbers them [default: all]
        #[arg(long, value_name = "N")]
        at: Option<usize>,
    },
    /// Write a session as Markdown
    #[command(after_help = "Example:
  agentwire sessions export review --output review.md")]
    Export {
        /// Name of the session
        name: String,
        /// File to write, instead of stdout
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Remove sessions
    #[command(after_help = "Example:
  agentwire sessions rm review review-2")]
    Rm {
        /// Names of the sessions
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let store = store::store()?;
    let failed = |error| store::failure(&error);
    match &args.command {
        Command::List { json } => list(&store, *json),
        Command::Show { name, json } => {
            // What can be read is shown first: a fork can begin with it.
            let read = store.readable(name).map_err(failed)?;
            if let Some(torn) = read.torn {
                eprintln!("note: line {} of the log is not whole", torn.line);
            }
            show(&read.entries, *json)?;
            read.damage.map_or(Ok(()), |damage| Err(failed(damage)))
        }
        Command::Fork { name, new, at } => store.fork(name, new, *at).map_err(failed),
        Command::Export { name, output } => {
            let text = store.export(name).map_err(failed)?;
            match output {
                None => print(&text),
                Some(path) => std::fs::write(path, text).map_err(|error| {
                    Failure::usage(format!("cannot write {}: {error}", path.display()))
                }),
            }
        }
        Command::Rm { names } => {
            names.iter().try_for_each(|name| store.remove(name)).map_err(failed)
        }
    }
}

fn list(store: &Store, json: bool) -> Result<(), Failure> {
    let all = store.list().map_err(|error| store::failure(&error))?;
    let mut text = String::new();
    for one in &all {
        if json {
            let line = json!({
                "name": one.name, "id": one.id, "created": one.created, "updated": one.updated,
                "records": one.records, "unfinished": one.unfinished, "task": one.task,
                "damage": one.damage,
            });
            text.push_str(&format!("{line}\n"));
        } else {
            let state = match (&one.damage, one.unfinished) {
                (Some(_), _) => "damaged",
                (None, true) => "unfinished",
                (None, false) => "done",
            };
            let records = one.records;
            text.push_str(&format!("{:<24} {records:>6}  {state:<10}  {}\n", one.name, one.task));
        }
    }
    print(&text)?;
    for damage in all.iter().filter(|_| !json).filter_map(|one| one.damage.as_ref()) {
        eprintln!("note: {}", output::printable(damage));
    }
    Ok(())
}

fn show(entries: &[Entry], json: bool) -> Result<(), Failure> {
    let mut text = String::new();
    for (index, entry) in entries.iter().enumerate() {
        let line = match json {
            true => serde_json::to_string(entry).unwrap_or_default(),
            false => format!("{:>5}  {}", index + 1, output::printable(&words(&entry.record))),
        };
        text.push_str(&line);
        text.push('\n');
    }
    print(&text)
}

/// One line about a record.
fn words(record: &Record) -> String {
    use agentwire_agent::record::text_of;
    match record {
        Record::User { message, .. } => format!("user: {}", start(&text_of(message))),
        Record::Assistant { message, model } => {
            let calls: Vec<_> =
                agentwire_agent::record::calls_of(message).map(|call| call.name.as_str()).collect();
            let calls = match calls.as_slice() {
                [] => String::new(),
                calls => format!(" [calls {}]", calls.join(", ")),
            };
            format!("{model}: {}{calls}", start(&text_of(message)))
        }
        Record::ToolStarted { id } => format!("tool started: {id}"),
        Record::ToolResult { result, status } => {
            format!("tool result: {} ({})", result.tool_name, status.as_str())
        }
        Record::Compaction { boundary, .. } => format!("summary of {boundary} messages"),
        Record::End { outcome } => {
            let stop = serde_json::to_value(&outcome.stop).unwrap_or_default();
            format!("end: {}", stop["stop"].as_str().unwrap_or("unknown"))
        }
        _ => "a record of another version".to_owned(),
    }
}

/// The beginning of a text, on one line.
fn start(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(100).collect();
    if short.len() < text.trim_end().len() { format!("{short} ...") } else { short }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let shown = match stdout.is_terminal() {
        true => output::for_terminal(text),
        false => text.into(),
    };
    stdout.write_all(shown.as_bytes()).and_then(|()| stdout.flush()).map_err(output::failed)
}
