//! `workflow list`, `show`, `kill` and `answer`.

use std::collections::BTreeSet;
use std::io::Write as _;

use agentwire_workflow::key::Kind;
use agentwire_workflow::record::{Record, Root};
use agentwire_workflow::store::Store as _;
use serde_json::{Value, json};

use super::kept::Runs;
use super::{ask, failed, now, one};
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

    /// The question, as `show` lists it: the name of its stage, its text or a part of it, or the
    /// beginning of its key
    question: String,

    /// The answer: text, yes or no, one of the options, or JSON
    value: String,
}

fn put(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(output::failed)
}

pub(super) fn list(args: &List, runs: &Runs) -> Result<(), Failure> {
    let store = runs.open()?;
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

pub(super) fn show(args: &Show, runs: &Runs) -> Result<(), Failure> {
    let store = runs.open()?;
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
    let mut lines = Vec::new();
    tree(&records, "", 1, &mut lines);
    lines.iter().try_for_each(|line| put(line))
}

/// The results of one run in the order they were called, children below their parents; then the
/// questions nobody has answered.
fn tree(records: &[Record], scope: &str, depth: usize, out: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    let mut level: Vec<&Record> =
        records.iter().filter(|one| one.scope == scope && one.kind != Kind::Session).collect();
    level.sort_by_key(|one| one.seq);
    for record in level {
        if record.kind == Kind::Asked {
            let answered = records.iter().any(|one| one.kind == Kind::Ask && one.key == record.key);
            if !answered {
                out.push(format!("{indent}waits: {} [{}]", printable(&asks(record)), record.key));
            }
            continue;
        }
        out.push(format!(
            "{indent}{} {}{} [{}]",
            record.kind.as_str(),
            printable(&record.name),
            took(record),
            record.key
        ));
        if record.kind == Kind::Child {
            tree(records, &record.key, depth + 1, out);
        }
    }
    // A child that is not done has no record of its own yet.
    let scopes: BTreeSet<&str> = records.iter().map(|one| one.scope.as_str()).collect();
    let is_done = |key: &str| records.iter().any(|one| one.kind == Kind::Child && one.key == key);
    let open = scopes.iter().filter(|one| is_below(one, scope) && !is_done(one)).filter(|one| {
        // One below another of these is shown there.
        !scopes.iter().any(|two| is_below(two, scope) && is_below(one, two))
    });
    for child in open {
        out.push(format!("{indent}child under way [{child}]"));
        tree(records, child, depth + 1, out);
    }
}

/// Whether the scope `inner` lies in `outer`.
fn is_below(inner: &str, outer: &str) -> bool {
    match inner.strip_prefix(outer) {
        Some(rest) if outer.is_empty() => !rest.is_empty(),
        Some(rest) => rest.starts_with(':'),
        None => false,
    }
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

/// What the author calls a question: in a pipeline its stage.
fn named(asked: &Record) -> &str {
    asked.detail.as_ref().and_then(|detail| detail["name"].as_str()).unwrap_or_default()
}

/// A question with its name, where it has one.
fn asks(asked: &Record) -> String {
    match named(asked) {
        "" => message(asked),
        name => format!("{name}: {}", message(asked)),
    }
}

/// The one question that is meant: by its name, its whole text, its kind, the beginning of its
/// key, or a part of its text. What is exact goes before what is not, and what still waits before
/// what was answered.
fn meant<'a>(records: &'a [Record], wanted: &str) -> Result<&'a Record, Failure> {
    let own = |one: &'a Record| one.key.rsplit(':').next().unwrap_or_default();
    let small = wanted.to_lowercase();
    let tests: [&dyn Fn(&'a Record) -> bool; 5] = [
        &|one| named(one) == wanted,
        &|one| message(one) == wanted,
        &|one| one.name == wanted,
        &|one| one.key.starts_with(wanted) || own(one).starts_with(wanted),
        &|one| message(one).to_lowercase().contains(&small),
    ];
    let answered = |key: &str| records.iter().any(|one| one.kind == Kind::Ask && one.key == key);
    for test in tests.into_iter().filter(|_| !wanted.is_empty()) {
        let asked = records.iter().filter(|one| one.kind == Kind::Asked && test(one));
        let (old, open): (Vec<_>, Vec<_>) = asked.partition(|one| answered(&one.key));
        match (open.as_slice(), old.as_slice()) {
            ([], []) => {}
            ([one], _) | ([], [one]) => return Ok(one),
            (several, others) => {
                let all = several.iter().chain(others).map(|one| one.key.as_str());
                let keys = all.collect::<Vec<_>>().join(", ");
                return Err(Failure::usage(format!(
                    "several questions fit; give the beginning of one key of {keys}"
                )));
            }
        }
    }
    Err(Failure::usage("no such question was asked; `workflow show` lists them"))
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

pub(super) fn kill(args: &Kill, runs: &Runs) -> Result<(), Failure> {
    let store = runs.open()?;
    let root = one(&store, &args.id)?;
    if store.kill(&root.id, now()).map_err(failed)? {
        return put(&format!("run {} is cancelled", root.id));
    }
    let status = root.status.as_str();
    Err(Failure::usage(format!("the run {} is over already ({status})", root.id)))
}

pub(super) fn answer(args: &Answer, runs: &Runs) -> Result<(), Failure> {
    let store = runs.open()?;
    let root = one(&store, &args.id)?;
    let records = store.records(&root.id).map_err(failed)?;
    let question = meant(&records, &args.question)?;
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

    fn record(kind: Kind, scope: &str, key: &str, name: &str, seq: u64) -> Record {
        Record {
            kind,
            key: key.into(),
            scope: scope.into(),
            name: name.into(),
            seq,
            print: String::new(),
            value: Some(Value::Null),
            detail: None,
            at: 0,
        }
    }

    fn question(key: &str, name: &str, message: &str) -> Record {
        let detail = Some(json!({"name": name, "message": message}));
        Record { detail, ..record(Kind::Asked, "", key, "confirm", 9) }
    }

    #[test]
    fn children_stand_below_their_parents_in_the_order_of_the_calls() {
        let kid = "workflow:kid:1";
        let inner = "workflow:kid:1:workflow:toy:1";
        let records = [
            record(Kind::Stage, kid, "workflow:kid:1:stage:b:1", "b", 2),
            record(Kind::Stage, inner, "workflow:kid:1:workflow:toy:1:stage:t:1", "t", 1),
            record(Kind::Child, "", kid, "kid", 2),
            record(Kind::Child, kid, inner, "toy", 1),
            record(Kind::Stage, "", "stage:last:1", "last", 3),
            record(Kind::Tool, "", "h1", "first", 1),
            record(Kind::Stage, "workflow:open:1", "workflow:open:1:stage:o:1", "o", 1),
            record(Kind::Tool, "workflow:open:1:workflow:workflow:in:1", "h5", "deep", 1),
            record(Kind::Session, "", "stage-session:stage:last:1:h", "last", 3),
            question("h2", "sure", "Sure?"),
        ];
        let mut lines = Vec::new();
        tree(&records, "", 1, &mut lines);
        let expected = [
            "  tool first [h1]",
            "  child kid [workflow:kid:1]",
            "    child toy [workflow:kid:1:workflow:toy:1]",
            "      stage t [workflow:kid:1:workflow:toy:1:stage:t:1]",
            "    stage b [workflow:kid:1:stage:b:1]",
            "  stage last [stage:last:1]",
            "  waits: sure: Sure? [h2]",
            "  child under way [workflow:open:1]",
            "    stage o [workflow:open:1:stage:o:1]",
            "    child under way [workflow:open:1:workflow:workflow:in:1]",
            "      tool deep [h5]",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_question_is_found_by_what_is_said_of_it() {
        let records = [
            question("h1a", "publish", "Publish the draft?"),
            question("h1b", "h1a", "Is it done?"),
            question("workflow:kid:1:h2c", "again", "Publish it again?"),
            question("h3d", "old", "Was it good?"),
            record(Kind::Ask, "", "h3d", "confirm", 9),
        ];
        let found = |wanted: &str| meant(&records, wanted).ok().map(|one| one.key.as_str());
        for (wanted, key) in [
            ("publish", "h1a"),
            ("h1a", "h1b"),
            ("Publish it again?", "workflow:kid:1:h2c"),
            ("h2", "workflow:kid:1:h2c"),
            ("workflow:kid", "workflow:kid:1:h2c"),
            ("the DRAFT", "h1a"),
            ("good", "h3d"),
            // Several have an "it"; those are not guessed between.
        ] {
            assert_eq!(found(wanted), Some(key), "{wanted}");
        }
        for wanted in ["", "h1", "it", "confirm", "nobody"] {
            assert_eq!(found(wanted), None, "{wanted:?}");
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_826_154_000), "2000-02-29 12:09:14Z");
        assert_eq!(time(1_767_225_600_000), "2026-01-01 00:00:00Z");
    }
}
