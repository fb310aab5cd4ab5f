//! Fuzz bodies of catalogs, cache files and the service's own list; `fuzz/` and the property tests call
//! them.

use super::{
    CacheKey, CacheOptions, Catalog, Entry, FormOptions, IntakeLimits, Level, Policy, Roster,
    decode_cache, decode_listing, encode_cache, is_sendable, map_json,
};
use crate::connect::Limits;
use crate::redact::Redactor;

/// Any text as a catalog: it maps or is refused by both policies, and when the service listed it, no
/// model at any level, and neither way to name it, puts an id on the wire that it did not list.
///
/// # Panics
///
/// When a promise is broken.
pub fn catalog(text: &[u8]) {
    let mapped = [Policy::Current, Policy::Reference].map(|policy| map_json(text, policy).is_ok());
    assert_eq!(mapped[0], mapped[1], "the policies agree on what a catalog is");
    let Ok((catalog, _)) = Catalog::from_json(text, Policy::Current) else { return };
    let roster = Roster::new(catalog, Policy::Current);
    if !roster.catalog().is_authoritative() {
        return;
    }
    for model in roster.models() {
        assert!(model.context_window() >= 1 && model.max_tokens() >= 1);
        for level in Level::ALL.map(Some).into_iter().chain([None]) {
            // A primary id may be one that cannot be sent, as the empty base of `-high`.
            let Ok(choice) = roster.resolve(&model.id, level) else { continue };
            let sent = roster.model_for(&choice, &FormOptions::default());
            let sent = sent.expect("the default options are sound");
            let other = sent.other_form();
            for id in [&choice.id, &sent.id, &other.id] {
                assert!(roster.serves(id) && is_sendable(id), "{id} was not served");
            }
        }
    }
}

/// Any text as a cache file: nothing and a note, or a catalog that is kept again as the same.
///
/// # Panics
///
/// When a promise is broken.
pub fn cache(text: &[u8]) {
    let (key, options) = (CacheKey::new("a", "https://example.invalid"), CacheOptions::default());
    const NOW_MS: u64 = 1_767_225_600_000;
    let loaded = decode_cache(text, &key, NOW_MS, &options);
    let Some(catalog) = loaded.catalog else { return };
    assert!(catalog.entries.iter().all(|entry| is_sendable(&entry.id)));
    assert_eq!(catalog.stale, loaded.note.is_some());
    let again = encode_cache(&catalog, &key).expect("a live catalog that is not empty");
    let again = decode_cache(again.as_bytes(), &key, NOW_MS, &options).catalog;
    let again = again.map(|again| again.entries).unwrap_or_default();
    assert_eq!(again.len(), catalog.entries.len());
    for (again, entry) in again.into_iter().zip(catalog.entries) {
        // Reading a number may be off by its last bit.
        let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= b * 1e-12,
            (a, b) => a == b,
        };
        assert!(near(again.context_window, entry.context_window));
        assert!(near(again.max_tokens, entry.max_tokens));
        let (context_window, max_tokens) = (entry.context_window, entry.max_tokens);
        assert_eq!(Entry { context_window, max_tokens, ..again }, entry);
    }
}

/// Any bytes as the answer to `GetUsableModels`: a list that can be used, or a typed error.
///
/// # Panics
///
/// When a promise is broken.
pub fn listing(body: &[u8]) {
    let limits = Limits::default();
    match decode_listing(body, limits, IntakeLimits::default(), &Redactor::default()) {
        Ok(listing) => {
            assert!(!listing.entries.is_empty());
            assert!(listing.entries.iter().all(|entry| is_sendable(&entry.id)));
        }
        Err(error) => assert!(!error.message().is_empty()),
    }
}
