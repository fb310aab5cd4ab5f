//! The vectors `model-*.json` and `estimated-catalog.json`, by the reference's rules.

use agentwire::models::{
    Catalog, Effort, LevelMap, Policy, Variant, map, map_json, provider_json, resolve_level,
    with_effort,
};
use serde_json::{Value, json};

fn vectors(name: &str) -> Value {
    let path = format!("{}/tests/data/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn variants() {
    let cases = vectors("model-variants");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 166);
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let variant = Variant::parse(id);
        let mut parsed = json!({
            "id": variant.id, "baseId": variant.base, "displayName": variant.title(),
            "fast": variant.fast, "thinking": variant.thinking,
        });
        if let Some(effort) = variant.effort {
            parsed["effort"] = effort.as_str().into();
        }
        assert_eq!(parsed, case["parsed"], "{id}");
        for (word, expected) in case["withEffort"].as_object().unwrap() {
            let effort = Effort::from_word(word);
            assert_eq!(effort.is_none(), word == "default");
            assert_eq!(with_effort(id, effort), expected.as_str().unwrap(), "{id} {word}");
        }
    }
}

#[test]
fn catalogs() {
    let cases = vectors("model-catalogs");
    assert_eq!(cases.as_array().unwrap().len(), 8);
    for case in cases.as_array().unwrap() {
        let catalog = serde_json::to_vec(&case["catalog"]).unwrap();
        let models = map_json(&catalog, Policy::Reference).unwrap();
        assert_eq!(models, case["models"], "{}", case["name"]);
    }
}

#[test]
fn resolving() {
    let cases = vectors("model-resolve");
    assert_eq!(cases.as_array().unwrap().len(), 30);
    for case in cases.as_array().unwrap() {
        let map =
            case.get("map").map(|map| serde_json::from_value::<LevelMap>(map.clone()).unwrap());
        let level = case.get("level").map(|level| level.as_str().unwrap().parse().unwrap());
        let model = case["modelId"].as_str().unwrap();
        let leveled = resolve_level(model, map.as_ref(), level, Policy::Reference);
        assert_eq!(leveled.id, case["output"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn the_estimated_catalog() {
    let case = vectors("estimated-catalog");
    let catalog = Catalog::estimated(Policy::Reference, 0);
    let expected = case["catalog"]["models"].as_array().unwrap();
    assert_eq!((catalog.entries.len(), expected.len()), (82, 82));
    for (entry, expected) in catalog.entries.iter().zip(expected) {
        assert_eq!(entry.id, expected["id"].as_str().unwrap());
        assert_eq!(entry.name.as_deref(), expected["name"].as_str());
        assert_eq!(entry.context_window, expected["contextWindow"].as_f64());
        assert_eq!(entry.max_tokens, expected["maxTokens"].as_f64());
        assert_eq!(entry.supports_reasoning, expected["supportsReasoning"].as_bool());
        assert_eq!(
            entry.supports_thinking,
            expected.get("supportsThinking").and_then(Value::as_bool)
        );
    }
    let models = provider_json(&map(&catalog, Policy::Reference), "https://api2.cursor.sh");
    assert_eq!(models, case["models"]);
}
