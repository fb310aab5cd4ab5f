//! `models`: the list as a table or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;

use agentwire::models::{LevelMap, LimitSource, Model, Roster};
use serde_json::{Map, Value, json};

use super::args::Args;
use super::known::Shown;
use crate::failure::Failure;
use crate::output::{self, Look};
use crate::runtime;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let look = Look::detect();
    let shown = runtime::block_on(Shown::find(&args.target, args.refresh, look))?;
    let text = if args.json {
        format!("{}\n", to_json(&shown))
    } else {
        let table = table(&shown.roster, args.all);
        let count = shown.roster.models().len();
        format!("{table}\n{count} models, {}\n", shown.origin())
    };
    print(&text)
}

/// Everything to stdout.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(output::failed)
}

const HEADS: [&str; 7] =
    ["MODEL", "NAME", "LEVELS", "CONTEXT", "OUTPUT", "INPUTS", "CONTEXT IS FROM"];

/// One line a model, the columns as wide as what is in them.
pub(super) fn table(roster: &Roster, all: bool) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    for model in roster.models() {
        rows.push([
            model.id.clone(),
            model.label(),
            levels(model),
            tokens(model.context_window()),
            tokens(model.max_tokens()),
            inputs(model).join(", "),
            source(model),
        ]);
        let ids = model.variants.iter().filter(|_| all);
        rows.extend(ids.map(|id| {
            let blank = String::new;
            [format!("  {id}"), blank(), levels_of(model, id), blank(), blank(), blank(), blank()]
        }));
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..HEADS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a string cannot fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(&output::printable(line.trim_end()));
        text.push('\n');
    }
    text
}

/// The levels that the model has, in words.
fn levels(model: &Model) -> String {
    let Some(map) = &model.levels else { return "-".to_owned() };
    let words: Vec<_> = map.supported().map(|(level, _)| level.as_str()).collect();
    words.join(" ")
}

/// The levels that stand for one id.
fn levels_of(model: &Model, id: &str) -> String {
    let map = model.levels.iter();
    let pairs = map.flat_map(LevelMap::supported).filter(|(_, other)| *other == id);
    pairs.map(|(level, _)| level.as_str()).collect::<Vec<_>>().join(" ")
}

fn inputs(model: &Model) -> Vec<&'static str> {
    if model.images { vec!["text", "image"] } else { vec!["text"] }
}

fn source(model: &Model) -> String {
    match model.window_source {
        LimitSource::Live => "the service".to_owned(),
        LimitSource::Table { date, .. } => format!("our table, {date}"),
        LimitSource::Default => "the default".to_owned(),
    }
}

/// `200k`, `1.05M`, `1.048576M`: exact, and short where that is possible.
fn tokens(count: u64) -> String {
    for (unit, letter) in [(1_000_000, 'M'), (1_000, 'k')] {
        if count >= unit {
            let fraction =
                format!("{:0width$}", count % unit, width = if unit == 1_000 { 3 } else { 6 });
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            return format!("{}{dot}{fraction}{letter}", count / unit);
        }
    }
    count.to_string()
}

fn to_json(shown: &Shown) -> Value {
    let catalog = shown.roster.catalog();
    json!({
        "source": catalog.source.as_str(),
        "endpoint": shown.endpoint,
        "age_ms": shown.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "stale": catalog.stale,
        "models": shown.roster.models().iter().map(model_json).collect::<Vec<_>>(),
    })
}

fn model_json(model: &Model) -> Value {
    let (source, date) = match model.window_source {
        LimitSource::Live => ("live", None),
        LimitSource::Table { date, .. } => ("table", Some(date)),
        LimitSource::Default => ("default", None),
    };
    let levels = model.levels.as_ref().map(|map| {
        let pairs = map.supported().map(|(level, id)| (level.to_string(), Value::from(id)));
        pairs.collect::<Map<_, _>>()
    });
    json!({
        "id": model.id,
        "name": model.name,
        "estimated": model.estimated,
        "reasoning": model.reasoning,
        "inputs": inputs(model),
        "levels": levels,
        "context_window": model.context_window(),
        "max_tokens": model.max_tokens(),
        "context_source": source,
        "context_date": date,
        "ids": model.variants,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_counts_are_short_and_exact() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (8_192, "8.192k"),
            (200_000, "200k"),
            (1_000_000, "1M"),
            (1_050_000, "1.05M"),
            (1_048_576, "1.048576M"),
        ] {
            assert_eq!(tokens(count), text);
        }
    }
}
