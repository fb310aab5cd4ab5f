//! `model-*.json` and `estimated-catalog.json`: models by the reference's rules.

use agentwire::models::{
    Catalog, Effort, LevelMap, Policy, Variant, map, map_json, provider_json, resolve_level,
    with_effort,
};
use serde_json::{Map, Value, json};

use crate::framework::{Suite, same, text};

fn variant(case: &Value) -> Result<(), String> {
    let id = text(case, "id")?;
    let variant = Variant::parse(id);
    let mut parsed = json!({
        "id": variant.id,
        "baseId": variant.base,
        "displayName": variant.title(),
        "fast": variant.fast,
        "thinking": variant.thinking,
    });
    if let Some(effort) = variant.effort {
        parsed["effort"] = effort.as_str().into();
    }
    same("parsed", &parsed, &case["parsed"])?;
    let words = [None].into_iter().chain(Effort::ALL.map(Some));
    let ours: Map<String, Value> = words
        .map(|effort| {
            let word = effort.map_or("default", Effort::as_str);
            (word.to_owned(), with_effort(id, effort).into())
        })
        .collect();
    same("with an effort", &Value::Object(ours), &case["withEffort"])
}

#[test]
fn variants() {
    let expected = &["parsed", "withEffort"];
    Suite { file: "model-variants.json", cases: "", expected, check: variant }.run();
}

fn catalog(case: &Value) -> Result<(), String> {
    let catalog = case["catalog"].to_string();
    let models = map_json(catalog.as_bytes(), Policy::Reference).map_err(|e| e.to_string())?;
    same("models", &models, &case["models"])
}

#[test]
fn catalogs() {
    let expected = &["models"];
    Suite { file: "model-catalogs.json", cases: "", expected, check: catalog }.run();
}

fn resolved(case: &Value) -> Result<(), String> {
    let map = case.get("map").map(|map| serde_json::from_value::<LevelMap>(map.clone()));
    let map = map.transpose().map_err(|error| error.to_string())?;
    let level = case.get("level").map(|level| level.as_str().unwrap_or_default().parse());
    let level = level.transpose().map_err(|error| format!("{error}"))?;
    let ours = resolve_level(text(case, "modelId")?, map.as_ref(), level, Policy::Reference);
    same("id", &ours.id, &text(case, "output")?.to_owned())
}

#[test]
fn resolving() {
    let expected = &["output"];
    Suite { file: "model-resolve.json", cases: "", expected, check: resolved }.run();
}

/// One entry with the members and in the shape of the file; `reasoning` is never anything but false
/// there (BEHAVIOUR 8.6).
fn entry(entry: &agentwire::models::Entry) -> Value {
    let mut value = json!({
        "id": entry.id,
        "name": entry.name,
        "reasoning": false,
        "contextWindow": entry.context_window.map(|tokens| tokens as u64),
        "maxTokens": entry.max_tokens.map(|tokens| tokens as u64),
        "supportsReasoning": entry.supports_reasoning,
    });
    if let Some(flag) = entry.supports_thinking {
        value["supportsThinking"] = flag.into();
    }
    value
}

/// Everything but the note, whose words are ours.
fn estimated(case: &Value) -> Result<(), String> {
    let fetched_at = case["catalog"]["fetchedAt"].as_u64().ok_or("no time")?;
    let catalog = Catalog::estimated(Policy::Reference, fetched_at);
    same("source", &json!(catalog.source.as_str()), &case["catalog"]["source"])?;
    let entries: Value = catalog.entries.iter().map(entry).collect();
    same("entries", &entries, &case["catalog"]["models"])?;
    let models = provider_json(&map(&catalog, Policy::Reference), "https://api2.cursor.sh");
    same("models", &models, &case["models"])
}

#[test]
fn the_estimated_catalog() {
    let expected = &["catalog/source", "catalog/models", "models"];
    Suite { file: "estimated-catalog.json", cases: "", expected, check: estimated }.run();
}
