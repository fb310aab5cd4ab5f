//! `models resolve`: what would go on the wire for a model, and why.

use std::fmt::Write as _;

use agentwire::codec::Model;
use agentwire::models::{Choice, Level};
use serde_json::{Map, Value, json};

use super::args::ResolveArgs;
use super::known::Shown;
use super::table::print;
use crate::failure::Failure;
use crate::output::{self, Look};
use crate::runtime;

pub(super) fn run(args: &ResolveArgs) -> Result<(), Failure> {
    let look = Look::detect();
    let shown = runtime::block_on(Shown::find(&args.target, false, look))?;
    let (choice, model) = shown.choose(&args.model, &args.named)?;
    let text = if args.json {
        format!("{}\n", to_json(&shown, &choice, &model))
    } else {
        in_words(&shown, &choice, &model)
    };
    print(&text)
}

fn in_words(shown: &Shown, choice: &Choice, model: &Model) -> String {
    let other = wire(&model.other_form());
    let lines = [
        ("model", choice.model.clone()),
        ("level", choice.level.map(|level| level.to_string())),
        ("sent", Some(wire(model))),
        ("why", Some(choice.reason.to_string())),
        ("then", Some(format!("{other}, once, if that is not found"))),
        ("models", Some(shown.origin())),
    ];
    let mut text = String::new();
    for (head, line) in lines {
        if let Some(line) = line {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{head:8}{}", output::printable(&line));
        }
    }
    text
}

/// `model_details gpt-5.4-high`, `requested_model gpt-5.4 (effort=high)`.
fn wire(model: &Model) -> String {
    let mut said: Vec<_> =
        model.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if model.max_mode {
        said.push("max mode".to_owned());
    }
    let said = if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) };
    format!("{} {}{said}", model.form().as_str(), model.id)
}

fn to_json(shown: &Shown, choice: &Choice, model: &Model) -> Value {
    let mut object = json!({
        "model": choice.model,
        "level": choice.level.map(Level::as_str),
        "sent": wire_json(model),
        "why": choice.reason.to_string(),
        "then": wire_json(&model.other_form()),
        "source": shown.roster.catalog().source.as_str(),
    });
    object["age_ms"] =
        shown.age().map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)).into();
    object
}

fn wire_json(model: &Model) -> Value {
    let pairs = model.parameters.iter().map(|(name, value)| (name.clone(), Value::from(&**value)));
    json!({
        "form": model.form().as_str(),
        "id": model.id,
        "max_mode": model.max_mode,
        "parameters": pairs.collect::<Map<_, _>>(),
    })
}
