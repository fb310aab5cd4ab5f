//! `workflow list`, `show`, `kill` and `answer`.

use std::io::Write as _;

use agentwire_workflow::key::Kind;
use agentwire_workflow::record::{Record, Root};
use agentwire_workflow::store::Store as _;
use serde_json::{Value, json};

use super::{ask, failed, now, one, store};
use crate::failure::Failure;
use crate::output::{self, Look, printable};

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only runs that can be gone on with
    #[arg(long)]
    resumable: bool,

    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Id of the run, or the beginning of it
    id: String,

    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Kill {
    /// Id of the run, or the beginning of it
    id: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct Answer {
    /// Id of the run, or the beginning of it
    id: String,

    /// The question: its key or the beginning of it, as `show` lists it, or its whole text
    question: String,

    /// The answer: text, yes or no, one of the options, or JSON
    value: String,
}

fn put(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(output::failed)
}

pub(super) fn list(args: &List) -> Result<(), Failure> {
    let store = store()?;
    let roots = if args.resumable { store.resumable() } else { store.roots() };
    let roots = roots.map_err(failed)?;
    if roots.is_empty() && !args.json {
        Look::detect().remark("there are no workflow runs");
    }
    for root in roots {
        put(&if args.json { head(&root).to_string() } else { line(&root) })?;
    }
    Ok(())
}

fn line(root: &Root) -> String {
    let id = root.id.get(..8).unwrap_or(&root.id);
    let plural = if root.records == 1 { "" } else { "s" };
    let asks = if root.pending > 0 { ", waits for an answer" } else { "" };
    let name = printable(&root.name);
    format!("{id} {:<9} {name}, {} record{plural}{asks}", root.status.as_str(), root.records)
}

fn head(root: &Root) -> Value {
    serde_json::to_value(root).unwrap_or(Value::Null)
}

pub(super) fn show(args: &Show) -> Result<(), Failure> {
    let store = store()?;
    let root = one(&store, &args.id)?;
    let records = store.records(&root.id).map_err(failed)?;
    if args.json {
        return put(&json!({"run": root, "records": records}).to_string());
    }
    put(&line(&root))?;
    put(&format!(
        "  id {}, created {}, updated {}",
        root.id,
        time(root.created),
        time(root.updated)
    ))?;
    if let Some(failure) = &root.failure {
        put(&format!("  failure: {}", printable(&failure.message)))?;
    }
    if let Some(at) = root.retry_at {
        put(&format!("  can be tried again at {}", time(at)))?;
    }
    tree(&records, "", 1)
}

/// The results of one run in the order they were called, children below their parents; then the
/// questions nobody has answered.
fn tree(records: &[Record], scope: &str, depth: usize) -> Result<(), Failure> {
    let indent = "  ".repeat(depth);
    let mut level: Vec<&Record> =
        records.iter().filter(|one| one.scope == scope && one.kind != Kind::Session).collect();
    level.sort_by_key(|one| one.seq);
    for record in level {
        if record.kind == Kind::Asked {
            let answered = records.iter().any(|one| one.kind == Kind::Ask && one.key == record.key);
            if !answered {
                put(&format!("{indent}waits: {} [{}]", printable(&message(record)), record.key))?;
            }
            continue;
        }
        if record.kind == Kind::Child {
            tree(records, &record.key, depth + 1)?;
        }
        put(&format!(
            "{indent}{} {}{} [{}]",
            record.kind.as_str(),
            printable(&record.name),
            took(record),
            record.key
        ))?;
    }
    // A child that is not done has no record of its own yet.
    let mut open: Vec<&str> = records
        .iter()
        .map(|one| one.scope.as_str())
        .filter(|one| is_child_of(one, scope))
        .filter(|one| !records.iter().any(|two| two.kind == Kind::Child && two.key == **one))
        .collect();
    open.sort_unstable();
    open.dedup();
    for child in open {
        put(&format!("{indent}child under way [{child}]"))?;
        tree(records, child, depth + 1)?;
    }
    Ok(())
}

/// Whether `child` is a scope directly below `scope`: the shortest there is.
fn is_child_of(child: &str, scope: &str) -> bool {
    let inner = if scope.is_empty() {
        Some(child)
    } else {
        child.strip_prefix(scope).and_then(|rest| rest.strip_prefix(':'))
    };
    inner.is_some_and(|inner| !inner.is_empty() && inner.matches(":workflow:").count() <= 1)
}

/// Model, attempts, tokens and time of a stage.
fn took(record: &Record) -> String {
    let Some(took) = record.detail.as_ref().map(|detail| &detail["took"]) else {
        return String::new();
    };
    let Some(model) = took["model"].as_str() else { return String::new() };
    let attempts = took["attempts"].as_array().map_or(0, Vec::len) + 1;
    let tokens = ["input", "output"].map(|side| took["usage"][side].as_u64().unwrap_or_default());
    format!(
        " ({}, {attempts} attempt{}, {} tokens in, {} out, {} ms)",
        printable(model),
        if attempts == 1 { "" } else { "s" },
        tokens[0],
        tokens[1],
        took["elapsed_ms"].as_u64().unwrap_or_default()
    )
}

fn message(asked: &Record) -> String {
    let detail = asked.detail.as_ref();
    detail.and_then(|detail| detail["message"].as_str()).unwrap_or_default().to_owned()
}

/// UTC, by the calendar rules of Howard Hinnant's `civil_from_days`.
fn time(millis: u64) -> String {
    let seconds = millis / 1_000;
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

pub(super) fn kill(args: &Kill) -> Result<(), Failure> {
    let store = store()?;
    let root = one(&store, &args.id)?;
    if store.kill(&root.id, now()).map_err(failed)? {
        return put(&format!("run {} is cancelled", root.id));
    }
    let status = root.status.as_str();
    Err(Failure::usage(format!("the run {} is over already ({status})", root.id)))
}

pub(super) fn answer(args: &Answer) -> Result<(), Failure> {
    let store = store()?;
    let root = one(&store, &args.id)?;
    let records = store.records(&root.id).map_err(failed)?;
    let mut asked = records.iter().filter(|one| {
        let wanted = args.question.as_str();
        let own = one.key.rsplit(':').next().unwrap_or_default();
        one.kind == Kind::Asked
            && (one.key.starts_with(wanted) || own.starts_with(wanted) || message(one) == wanted)
    });
    let question = match (asked.next(), asked.next()) {
        (Some(question), None) => question,
        (None, _) => {
            return Err(Failure::usage("no such question was asked; `workflow show` lists them"));
        }
        _ => return Err(Failure::usage("several questions fit; give more of the key")),
    };
    let details = question.detail.as_ref().map(|detail| detail["details"].clone());
    let value = ask::answer(&question.name, &details.unwrap_or(Value::Null), &args.value)
        .map_err(Failure::usage)?;
    if store.answer(&root.id, &question.key, &value, now()).map_err(failed)? {
        return put(&format!("answered; `agentwire workflow resume {}` goes on", root.id));
    }
    Err(Failure::usage("the question was answered before; the first answer stands"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_826_154_000), "2000-02-29 12:09:14Z");
        assert_eq!(time(1_767_225_600_000), "2026-01-01 00:00:00Z");
    }
}
