//! Catalogs: which ids an account may use, and what is known about each.

use std::collections::HashMap;

use serde_json::Value;

use super::Policy;
use super::intake::{Dropped, Intake, IntakeLimits};
use super::known;
use super::table::ESTIMATED;
use crate::{Error, Result};

/// Where a catalog comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The service listed these ids for this account.
    Live,
    /// Nobody asked yet: the list built into this library.
    Estimated,
}

impl Source {
    /// The word for it in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Estimated => "estimated",
        }
    }
}

/// One id of a catalog, as it was served.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entry {
    /// What goes on the wire.
    pub id: String,
    /// A name for people, the weaker one.
    pub name: Option<String>,
    /// A name for people, the stronger one.
    pub display_name: Option<String>,
    /// Context window in tokens, where somebody said it. The service's list does not, so this is from
    /// runs (what checkpoints report) or from a file, and may be any number there.
    pub context_window: Option<f64>,
    /// Output limit in tokens, as above.
    pub max_tokens: Option<f64>,
    /// Whether the service says that the model reasons.
    pub supports_reasoning: Option<bool>,
    /// Whether the service says that the model shows its thinking.
    pub supports_thinking: Option<bool>,
    /// Other ids of the same model.
    pub aliases: Vec<String>,
}

impl Entry {
    /// An entry of which nothing but the id is known.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// The better of the two names, if there is one that is not empty.
    pub fn label(&self) -> Option<&str> {
        let names = [self.display_name.as_deref(), self.name.as_deref()];
        names.into_iter().flatten().find(|name| !name.is_empty())
    }

    /// Whether the service says that the model reasons, in either of the two ways.
    pub fn says_reasoning(&self) -> bool {
        self.supports_reasoning == Some(true) || self.supports_thinking == Some(true)
    }

    /// Reads one model of a catalog's JSON (the members of BEHAVIOUR 8.7, and `aliases`).
    ///
    /// Members of the wrong type count as absent; `None` without a usable `id`.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let object = value.as_object()?;
        let text = |key: &str| Some(object.get(key)?.as_str()?.to_owned());
        let number = |key: &str| object.get(key)?.as_f64().filter(|number| number.is_finite());
        let flag = |key: &str| object.get(key)?.as_bool();
        let aliases = object.get("aliases").and_then(Value::as_array);
        Some(Self {
            id: text("id").filter(|id| !id.is_empty())?,
            name: text("name"),
            display_name: text("displayName"),
            context_window: number("contextWindow"),
            max_tokens: number("maxTokens"),
            supports_reasoning: flag("supportsReasoning"),
            supports_thinking: flag("supportsThinking"),
            aliases: aliases
                .into_iter()
                .flatten()
                .filter_map(|a| Some(a.as_str()?.to_owned()))
                .collect(),
        })
    }
}

/// A whole number as one, anything else as a fraction.
pub(super) fn number_to_json(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        (number as i64).into()
    } else {
        number.into()
    }
}

/// The ids of one account at one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    /// Where the list comes from.
    pub source: Source,
    /// When it was fetched, in milliseconds of the Unix clock.
    pub fetched_at_ms: u64,
    /// Too old, or with a time that cannot be: good enough to show, not to refuse by.
    pub stale: bool,
    /// The ids, in the order they were served.
    pub entries: Vec<Entry>,
}

impl Catalog {
    /// A list that the service gave at `now_ms`, without what could never be sent.
    pub fn live(entries: Vec<Entry>, now_ms: u64) -> Self {
        Self::admit(entries.into_iter().map(Some), IntakeLimits::default(), now_ms).0
    }

    /// The same under `limits`, with the count of what was dropped; `None` stands for an entry that
    /// could not be read.
    pub fn admit(
        entries: impl Iterator<Item = Option<Entry>>,
        limits: IntakeLimits,
        now_ms: u64,
    ) -> (Self, Dropped) {
        let (entries, dropped) = Intake::collect(entries, limits);
        (Self { source: Source::Live, fetched_at_ms: now_ms, stale: false, entries }, dropped)
    }

    /// The list built into this library (BEHAVIOUR 8.6): 82 ids as the service served them in
    /// 2026-06. By [`Policy::Reference`] each has the reference's limits, else none.
    pub fn estimated(policy: Policy, now_ms: u64) -> Self {
        let limits = match policy {
            Policy::Reference => Some((known::DEFAULT_CONTEXT, known::DEFAULT_OUTPUT)),
            Policy::Current => None,
        };
        let entries = ESTIMATED.iter().map(|(id, name)| Entry {
            id: (*id).to_owned(),
            name: Some((*name).to_owned()),
            context_window: limits.map(|limits| limits.0 as f64),
            max_tokens: limits.map(|limits| limits.1 as f64),
            supports_reasoning: Some(known::reference_reasons(id)),
            supports_thinking: (id.ends_with("-thinking") || id.contains("-thinking-"))
                .then_some(true),
            ..Entry::default()
        });
        let entries = entries.collect();
        Self { source: Source::Estimated, fetched_at_ms: now_ms, stale: false, entries }
    }

    /// Whether an id that is not in here is one that the service would refuse.
    pub fn is_authoritative(&self) -> bool {
        self.source == Source::Live && !self.stale
    }

    /// The entry with exactly this id.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// Keeps what a run told about a model: the context window that the checkpoint reported. The
    /// service's list has no limits, so this is the only live value there is. Zero says nothing.
    pub fn observe_window(&mut self, id: &str, tokens: u32) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id && tokens > 0) {
            entry.context_window = Some(f64::from(tokens));
        }
    }

    /// Takes over from an older catalog of the same account what this one does not say: limits.
    /// Ids and flags are this catalog's alone: no id of the older one comes back, and nothing of an
    /// estimated one is taken.
    pub fn inherit(&mut self, older: &Self) {
        if older.source == Source::Estimated {
            return;
        }
        let known: HashMap<_, _> = older.entries.iter().map(|e| (e.id.as_str(), e)).collect();
        for entry in &mut self.entries {
            if let Some(older) = known.get(entry.id.as_str()) {
                entry.context_window = entry.context_window.or(older.context_window);
                entry.max_tokens = entry.max_tokens.or(older.max_tokens);
            }
        }
    }

    /// Reads a catalog from JSON: `{source, fetchedAt, models: […]}`, the same under `catalog`, or the
    /// bare list of models. Without a known `source` it counts as live.
    ///
    /// By [`Policy::Reference`] every model with a non-empty id is taken as it is; by
    /// [`Policy::Current`] what could never be sent is dropped and counted (FAULTS M91).
    ///
    /// # Errors
    /// `InvalidRequest` when the text is not JSON or holds no list of models.
    pub fn from_json(text: &[u8], policy: Policy) -> Result<(Self, Dropped)> {
        let value: Value = serde_json::from_slice(text).map_err(|error| not_a_catalog(&error))?;
        let object = value.get("catalog").unwrap_or(&value);
        let models = object.get("models").unwrap_or(object).as_array().ok_or_else(|| {
            Error::invalid("the catalog holds no list of models")
                .with_hint("expected an object with `models`, or a list of objects with `id`")
        })?;
        let estimated = object.get("source").and_then(Value::as_str) == Some("estimated");
        let (entries, dropped) = match policy {
            Policy::Reference => {
                (models.iter().filter_map(Entry::from_json).collect(), Dropped::default())
            }
            Policy::Current => {
                Intake::collect(models.iter().map(Entry::from_json), IntakeLimits::default())
            }
        };
        let catalog = Self {
            source: if estimated { Source::Estimated } else { Source::Live },
            fetched_at_ms: object.get("fetchedAt").and_then(Value::as_u64).unwrap_or(0),
            stale: false,
            entries,
        };
        Ok((catalog, dropped))
    }
}

/// The text of the JSON is not repeated: a file given by mistake may hold anything.
fn not_a_catalog(error: &serde_json::Error) -> Error {
    Error::invalid(format!(
        "the catalog is not JSON (line {}, column {})",
        error.line(),
        error.column()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(catalog: &Catalog) -> Vec<Option<f64>> {
        catalog.entries.iter().map(|entry| entry.context_window).collect()
    }

    #[test]
    fn a_new_list_keeps_what_runs_told_and_nothing_else() {
        let mut older = Catalog::live(vec![Entry::new("a"), Entry::new("gone")], 1);
        older.observe_window("a", 1000);
        older.observe_window("a", 0);
        older.observe_window("unknown", 5);
        assert_eq!(windows(&older), [Some(1000.0), None]);

        let mut newer = Catalog::live(vec![Entry::new("b"), Entry::new("a")], 2);
        newer.inherit(&older);
        assert_eq!(windows(&newer), [None, Some(1000.0)]);
        let estimated = Catalog::estimated(Policy::Reference, 0);
        let mut live = Catalog::live(vec![Entry::new("gpt-5.2")], 2);
        live.inherit(&estimated);
        assert_eq!(windows(&live), [None]);
    }

    #[test]
    fn json_comes_in_three_shapes() {
        let list = r#"[{"id": "a", "contextWindow": "x"}, {"id": ""}, 7, {"id": "a b"}]"#;
        let object = format!(r#"{{"source": "estimated", "fetchedAt": 7, "models": {list}}}"#);
        let nested = format!(r#"{{"catalog": {object}}}"#);
        for (text, source) in
            [(list, Source::Live), (&object, Source::Estimated), (&nested, Source::Estimated)]
        {
            let (catalog, dropped) = Catalog::from_json(text.as_bytes(), Policy::Current).unwrap();
            assert_eq!(
                (catalog.source, catalog.entries.as_slice()),
                (source, &[Entry::new("a")][..])
            );
            assert_eq!((dropped.malformed, dropped.unsafe_id), (2, 1));
            let (catalog, _) = Catalog::from_json(text.as_bytes(), Policy::Reference).unwrap();
            assert_eq!(catalog.entries.len(), 2);
        }
        for wrong in ["", "{}", "7", r#"{"models": {}}"#] {
            let error = Catalog::from_json(wrong.as_bytes(), Policy::Current).unwrap_err();
            assert_eq!(error.kind(), &crate::error::Kind::InvalidRequest);
        }
    }
}
