//! Catalogs at random: whatever a service lists, only what it listed goes out.

use std::collections::{HashMap, HashSet};

use agentwire::codec::{Model, ModelForm};
use agentwire::connect::{Limits, put_envelope};
use agentwire::models::{
    CacheKey, CacheOptions, Catalog, Entry, FormOptions, IntakeLimits, Level, Policy, Roster,
    decode_cache, decode_listing, is_sendable,
};
use agentwire::redact::Redactor;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const BASES: [&str; 12] = [
    "gpt-5.4",
    "claude-4.6-opus",
    "composer-2",
    "default",
    "grok-4.3",
    "glm-5",
    "x-fast",
    "x-thinking",
    "max",
    "none",
    "vendor/m_1",
    "",
];
const EFFORTS: [&str; 8] = ["", "-none", "-low", "-medium", "-high", "-xhigh", "-max", "-default"];

/// Names that are nobody's, and some that a model has already.
const ALIASES: [&str; 9] = [
    "latest",
    "opus",
    "gpt-5.4",
    "gpt-5.4-high",
    "composer-2",
    "x",
    "default-fast",
    "latest-high-thinking",
    "not one",
];

fn entry() -> impl Strategy<Value = Entry> {
    let suffixes = (select(&EFFORTS[..]), any::<bool>(), any::<bool>());
    let flags = (any::<Option<bool>>(), any::<Option<bool>>());
    let aliases = vec(select(&ALIASES[..]), 0..3);
    (select(&BASES[..]), suffixes, flags, any::<Option<f64>>(), aliases).prop_map(
        |(base, (effort, thinking, fast), (reasoning, shows), limit, aliases)| {
            let thinking = if thinking { "-thinking" } else { "" };
            let fast = if fast { "-fast" } else { "" };
            Entry {
                supports_reasoning: reasoning,
                supports_thinking: shows,
                context_window: limit,
                max_tokens: limit,
                aliases: aliases.into_iter().map(str::to_owned).collect(),
                ..Entry::new(format!("{base}{effort}{thinking}{fast}"))
            }
        },
    )
}

/// What a caller says beside the id: parameters that an id says, too, and others.
fn parameters() -> impl Strategy<Value = Vec<(String, String)>> {
    const NAMES: [&str; 6] = ["effort", "thinking", "fast", "context", "model", "of-their-own"];
    const VALUES: [&str; 6] = ["low", "high", "true", "false", "1m", "gpt-5.4-high"];
    let pair = (select(&NAMES[..]), select(&VALUES[..]));
    vec(pair.prop_map(|(name, value)| (name.to_owned(), value.to_owned())), 1..=16)
}

/// Every combination of suffixes once: 204 ids and more.
fn everything() -> Vec<Entry> {
    let mut entries = Vec::new();
    for base in &BASES[..9] {
        for effort in EFFORTS {
            for thinking in ["", "-thinking"] {
                for fast in ["", "-fast"] {
                    entries.push(Entry::new(format!("{base}{effort}{thinking}{fast}")));
                }
            }
        }
    }
    entries
}

/// Each form, with and without max mode and parameters.
fn options(parameters: &[(String, String)]) -> Vec<FormOptions> {
    let mut all = Vec::new();
    for form in [ModelForm::Auto, ModelForm::Requested, ModelForm::Details] {
        for max_mode in [false, true] {
            for parameters in [&[], parameters] {
                all.push(FormOptions { form, max_mode, parameters: parameters.to_vec() });
            }
        }
    }
    all
}

fn levels() -> impl Iterator<Item = Option<Level>> {
    Level::ALL.into_iter().map(Some).chain([None])
}

/// For every model, every name of it and every level, what goes out was served, in each form and
/// whatever is said beside it.
fn only_served_ids_go_out(entries: Vec<Entry>, parameters: &[(String, String)]) {
    let roster = Roster::new(Catalog::live(entries, 0), Policy::Current);
    let options = options(parameters);
    for model in roster.models() {
        assert!(model.context_window() >= 1 && model.max_tokens() >= 1);
        for name in model.variants.iter().chain([&model.id]).filter(|name| !name.is_empty()) {
            for level in levels() {
                only_served(&roster, name, level, &options);
                let choice = roster.resolve(name, level).unwrap();
                assert!(model.variants.contains(&choice.id), "{name} became another model's");
            }
        }
        for (level, id) in model.levels.iter().flat_map(agentwire::models::LevelMap::supported) {
            assert!(model.variants.iter().any(|served| served == id), "{level}: {id}");
        }
    }
    let entries = &roster.catalog().entries;
    for alias in entries.iter().flat_map(|entry| &entry.aliases) {
        for level in levels() {
            only_served(&roster, alias, level, &options);
        }
        // A name that a model has itself is that model's; else the first that was listed with it.
        if !roster.serves(alias) && roster.models().iter().all(|model| model.id != *alias) {
            let first = entries.iter().find(|entry| entry.aliases.contains(alias)).unwrap();
            assert_eq!(roster.resolve(alias, None).unwrap().id, first.id, "{alias}");
            let model = roster.model(&first.id).unwrap();
            for level in levels() {
                let choice = roster.resolve(alias, level).unwrap();
                assert!(model.variants.contains(&choice.id), "{alias} became another model's");
            }
        }
    }
}

/// What goes out for a name and a level was served.
fn only_served(roster: &Roster, name: &str, level: Option<Level>, options: &[FormOptions]) {
    let choice = roster.resolve(name, level).unwrap();
    let served = roster.catalog().get(&choice.id).is_some();
    assert!(served, "{name} at {level:?} became {}", choice.id);
    for options in options {
        let sent = match roster.model_for(&choice, options) {
            Ok(sent) => sent,
            Err(error) => {
                let cannot = options.form == ModelForm::Details && !options.parameters.is_empty();
                assert!(cannot, "{name} at {level:?}, {options:?}: {error}");
                continue;
            }
        };
        let other = sent.other_form();
        let wanted = options.form == ModelForm::Auto || sent.form == options.form;
        assert!(wanted && sent.form != other.form, "{options:?}");
        for form in [&sent, &other] {
            let id = &form.id;
            assert!(roster.serves(id), "{name} at {level:?}, {options:?}: {id} went out");
            assert_eq!(form.max_mode, options.max_mode);
            said_once(form, options);
        }
    }
}

/// Each parameter of the caller goes out with its last value, each name once, and only in the form
/// that has them.
fn said_once(sent: &Model, options: &FormOptions) {
    if sent.form == ModelForm::Details {
        return assert!(sent.parameters.is_empty());
    }
    let names: HashSet<_> = sent.parameters.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), sent.parameters.len(), "{:?}", sent.parameters);
    let wanted: HashMap<_, _> = options.parameters.iter().cloned().collect();
    for pair in wanted {
        assert!(sent.parameters.contains(&pair), "{pair:?} is not in {:?}", sent.parameters);
    }
}

#[test]
fn all_suffixes_of_all_bases() {
    let entries = everything();
    assert!(entries.len() >= 204);
    only_served_ids_go_out(entries, &[("context".into(), "1m".into())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn catalogs_at_random(entries in vec(entry(), 0..=204), parameters in parameters()) {
        only_served_ids_go_out(entries, &parameters);
    }

    #[test]
    fn ids_at_random(ids in vec("[a-z0-9.-]{1,12}(-(low|high|max|thinking|fast)){0,4}", 0..=40)) {
        only_served_ids_go_out(ids.into_iter().map(Entry::new).collect(), &[]);
    }

    #[test]
    fn no_answer_and_no_cache_file_panics(bytes in vec(any::<u8>(), 0..200), flags in 0..4_u8) {
        let listing = |body: &[u8]| {
            decode_listing(body, Limits::default(), IntakeLimits::default(), &Redactor::default())
        };
        let mut enveloped = Vec::new();
        put_envelope(&mut enveloped, flags, &bytes);
        for body in [&bytes, &enveloped] {
            if let Ok(listing) = listing(body) {
                assert!(!listing.entries.is_empty());
                assert!(listing.entries.iter().all(|entry| is_sendable(&entry.id)));
            }
        }
        let key = CacheKey::new("a", "b");
        prop_assert!(decode_cache(&bytes, &key, 0, &CacheOptions::default()).catalog.is_none());
    }

    #[test]
    fn no_catalog_file_panics(text in "[\\[\\]{}:,\"0-9a-z.eE+-]{0,60}", bytes in vec(any::<u8>(), 0..60)) {
        for policy in [Policy::Current, Policy::Reference] {
            let _ = agentwire::models::map_json(text.as_bytes(), policy);
            let _ = agentwire::models::map_json(&bytes, policy);
        }
    }
}
