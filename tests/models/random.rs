//! Catalogs at random: whatever a service lists, only what it listed goes out.

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

fn entry() -> impl Strategy<Value = Entry> {
    let suffixes = (select(&EFFORTS[..]), any::<bool>(), any::<bool>());
    let flags = (any::<Option<bool>>(), any::<Option<bool>>());
    (select(&BASES[..]), suffixes, flags, any::<Option<f64>>()).prop_map(
        |(base, (effort, thinking, fast), (reasoning, shows), limit)| {
            let thinking = if thinking { "-thinking" } else { "" };
            let fast = if fast { "-fast" } else { "" };
            Entry {
                supports_reasoning: reasoning,
                supports_thinking: shows,
                context_window: limit,
                max_tokens: limit,
                ..Entry::new(format!("{base}{effort}{thinking}{fast}"))
            }
        },
    )
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

/// For every model, every served id and every level, what goes out was served.
fn only_served_ids_go_out(entries: Vec<Entry>) {
    let roster = Roster::new(Catalog::live(entries, 0), Policy::Current);
    let levels = || Level::ALL.into_iter().map(Some).chain([None]);
    for model in roster.models() {
        assert!(model.context_window() >= 1 && model.max_tokens() >= 1);
        for name in model.variants.iter().chain([&model.id]).filter(|name| !name.is_empty()) {
            for level in levels() {
                let choice = roster.resolve(name, level).unwrap();
                let served = roster.catalog().get(&choice.id).is_some();
                assert!(served, "{name} at {level:?} became {}", choice.id);
                assert!(model.variants.contains(&choice.id), "{name} became another model's");
                let sent = roster.model_for(&choice, &FormOptions::default()).unwrap();
                for form in [sent.other_form(), sent] {
                    assert!(roster.serves(&form.id), "{name} at {level:?} went out as {}", form.id);
                }
            }
        }
        for (level, id) in model.levels.iter().flat_map(agentwire::models::LevelMap::supported) {
            assert!(model.variants.iter().any(|served| served == id), "{level}: {id}");
        }
    }
}

#[test]
fn all_suffixes_of_all_bases() {
    let entries = everything();
    assert!(entries.len() >= 204);
    only_served_ids_go_out(entries);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn catalogs_at_random(entries in vec(entry(), 0..=204)) {
        only_served_ids_go_out(entries);
    }

    #[test]
    fn ids_at_random(ids in vec("[a-z0-9.-]{1,12}(-(low|high|max|thinking|fast)){0,4}", 0..=40)) {
        only_served_ids_go_out(ids.into_iter().map(Entry::new).collect());
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
