//! Models as a host's provider list (the shape of `model-catalogs.json`).

use serde_json::{Value, json};

use super::Policy;
use super::catalog::{Catalog, number_to_json};
use super::mapper::{self, Model};
use crate::Result;

/// The API tag of the reference's provider (BEHAVIOUR 1.1).
const API: &str = "cursor-agent";
/// The default base URL (PROTOCOL 1).
const BASE_URL: &str = "https://api2.cursor.sh";

/// The models as a JSON array: id, name, api, baseUrl, reasoning, thinkingLevelMap where there is one,
/// input, cost (all zero: the subscription pays), contextWindow, maxTokens.
pub fn provider_json(models: &[Model], base_url: &str) -> Value {
    models.iter().map(|model| provider_model(model, base_url)).collect()
}

/// A catalog's JSON (see [`Catalog::from_json`]) to the array of [`provider_json`], with the default
/// base URL: no network, no clock, no file.
///
/// # Errors
/// As [`Catalog::from_json`].
pub fn map_json(catalog: &[u8], policy: Policy) -> Result<Value> {
    let (catalog, _) = Catalog::from_json(catalog, policy)?;
    Ok(provider_json(&mapper::map(&catalog, policy), BASE_URL))
}

fn provider_model(model: &Model, base_url: &str) -> Value {
    let input: &[&str] = if model.images { &["text", "image"] } else { &["text"] };
    let mut value = json!({
        "id": model.id,
        "name": model.label(),
        "api": API,
        "baseUrl": base_url,
        "reasoning": model.reasoning,
    });
    if let Some(object) = value.as_object_mut() {
        if let Some(levels) = &model.levels {
            object.insert("thinkingLevelMap".into(), json!(levels));
        }
        object.insert("input".into(), json!(input));
        object.insert(
            "cost".into(),
            json!({"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}),
        );
        object.insert("contextWindow".into(), number_to_json(model.context_window));
        object.insert("maxTokens".into(), number_to_json(model.max_tokens));
    }
    value
}
