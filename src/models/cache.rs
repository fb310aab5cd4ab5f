//! The catalog cache as text: what a file holds, and what is believed of one (BEHAVIOUR 8.7; FAULTS M92,
//! M95).
//!
//! A file is for one account at one endpoint:
//!
//! ```json
//! {"version": 1, "account": "4f1c…", "endpoint": "https://…", "fetchedAt": 1767225600000, "models": [{"id": "…"}]}
//! ```
//!
//! `account` is a digest; `fetchedAt` is milliseconds of the Unix clock; a model has the members `id`,
//! `name`, `displayName`, `contextWindow`, `maxTokens`, `supportsReasoning`, `supportsThinking`,
//! `aliases`, each but the first only where it is known. No token comes near it.

use std::fmt;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::catalog::{Catalog, Entry, Source, number_to_json};
use super::intake::{Dropped, Intake, IntakeLimits};

/// The format's version.
const VERSION: u64 = 1;

/// Whose catalog a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    account: String,
    endpoint: String,
}

impl CacheKey {
    /// The key for an account at a base URL.
    ///
    /// `account` is any text that stays the same for an account and differs between two, as the
    /// subject of its token; only its digest is kept. Of `endpoint` user info, query and fragment are
    /// left out, and case and slashes at the end do not count.
    pub fn new(account: &str, endpoint: &str) -> Self {
        let url = endpoint.split(['?', '#']).next().unwrap_or_default();
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit('@').next().unwrap_or_default();
        let endpoint = format!("{scheme}://{host}").to_ascii_lowercase();
        let path = path.trim_end_matches('/');
        let slash = if path.is_empty() { "" } else { "/" };
        Self { account: digest(account), endpoint: format!("{endpoint}{slash}{path}") }
    }

    /// The name of the file in the cache directory: `models-` and a digest, nothing of the account.
    pub fn file_name(&self) -> String {
        format!("models-{}.json", digest(&format!("{}\n{}", self.account, self.endpoint)))
    }
}

/// The first 128 bits of the SHA-256, in hex: enough to tell accounts apart.
fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What is believed of a cache file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// How old a catalog may get before it is stale, in milliseconds. Default one day: models come and
    /// go in weeks, and a stale catalog is shown all the same while a fresh one is fetched.
    pub fresh_for_ms: u64,
    /// Bytes of one file. Default 4 MiB: 4,096 models with long names are less.
    pub max_bytes: u64,
    /// What is taken of the models in it.
    pub intake: IntakeLimits,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            fresh_for_ms: 24 * 60 * 60 * 1000,
            max_bytes: 4 * 1024 * 1024,
            intake: IntakeLimits::default(),
        }
    }
}

/// What a cache file gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// The catalog; [`Catalog::stale`] says how far it can be relied on.
    pub catalog: Option<Catalog>,
    /// Why there is none, or why it is stale. A file that is not there needs no note.
    pub note: Option<CacheNote>,
    /// Models of the file that were not taken.
    pub dropped: Dropped,
}

impl Loaded {
    /// Nothing, because of `note`.
    pub(super) fn nothing(note: CacheNote) -> Self {
        Self { note: Some(note), ..Self::default() }
    }
}

/// What is to be said about a cache file. `Display` gives a sentence without content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheNote {
    /// It could not be opened or read.
    Unreadable(std::io::ErrorKind),
    /// It is a directory, a link, a pipe: no plain file.
    NotAFile,
    /// It is larger than [`CacheOptions::max_bytes`].
    TooLarge,
    /// It is not JSON, or not the object it should be: cut, damaged, or another program's.
    Damaged,
    /// It is of another version of the format.
    OtherVersion,
    /// It is another account's or endpoint's.
    OtherAccount,
    /// No model in it can be used.
    NoModels,
    /// It is older than [`CacheOptions::fresh_for_ms`].
    Expired,
    /// It is from the future: a clock was set back.
    FromTheFuture,
    /// Its time is no time: negative, or none at all.
    BadTime,
}

impl fmt::Display for CacheNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Unreadable(kind) => return write!(f, "the model cache cannot be read ({kind})"),
            Self::NotAFile => "the model cache is not a plain file and was left alone",
            Self::TooLarge => "the model cache is larger than allowed and was not read",
            Self::Damaged => "the model cache is damaged and was not used",
            Self::OtherVersion => "the model cache is of another version and was not used",
            Self::OtherAccount => "the model cache is another account's and was not used",
            Self::NoModels => "the model cache holds no model that can be used",
            Self::Expired => "the model cache is old",
            Self::FromTheFuture => "the model cache is from the future: was a clock set back?",
            Self::BadTime => "the model cache does not say when it was made",
        };
        f.write_str(what)
    }
}

/// The file's text for a live catalog; none for one that is not worth a file: estimated, or empty.
pub fn encode(catalog: &Catalog, key: &CacheKey) -> Option<String> {
    if catalog.source == Source::Estimated || catalog.entries.is_empty() {
        return None;
    }
    let file = json!({
        "version": VERSION,
        "account": key.account,
        "endpoint": key.endpoint,
        "fetchedAt": catalog.fetched_at_ms,
        "models": catalog.entries.iter().map(write_entry).collect::<Vec<_>>(),
    });
    // Writing a `Value` into memory cannot fail; if it did, no file is what a caller can live with.
    serde_json::to_string_pretty(&file).ok().map(|text| text + "\n")
}

/// Reads a file's text. Never fails: what cannot be used is no catalog and a note.
///
/// `now_ms` is the Unix clock in milliseconds. A catalog that is too old, from the future or without
/// a time is stale, not lost.
pub fn decode(text: &[u8], key: &CacheKey, now_ms: u64, options: &CacheOptions) -> Loaded {
    if text.len() as u64 > options.max_bytes {
        return Loaded::nothing(CacheNote::TooLarge);
    }
    let Ok(Value::Object(file)) = serde_json::from_slice(text) else {
        return Loaded::nothing(CacheNote::Damaged);
    };
    if file.get("version").and_then(Value::as_u64) != Some(VERSION) {
        return Loaded::nothing(CacheNote::OtherVersion);
    }
    let says = |member: &str, ours: &str| file.get(member).and_then(Value::as_str) == Some(ours);
    if !says("account", &key.account) || !says("endpoint", &key.endpoint) {
        return Loaded::nothing(CacheNote::OtherAccount);
    }
    let Some(models) = file.get("models").and_then(Value::as_array) else {
        return Loaded::nothing(CacheNote::Damaged);
    };
    let (entries, dropped) = Intake::collect(models.iter().map(read_entry), options.intake);
    if entries.is_empty() {
        return Loaded { dropped, ..Loaded::nothing(CacheNote::NoModels) };
    }
    let (fetched_at_ms, note) = age(file.get("fetchedAt"), now_ms, options.fresh_for_ms);
    let catalog = Catalog { source: Source::Live, fetched_at_ms, stale: note.is_some(), entries };
    Loaded { catalog: Some(catalog), note, dropped }
}

/// The time of a file, and what is wrong with it.
fn age(fetched_at: Option<&Value>, now_ms: u64, fresh_for_ms: u64) -> (u64, Option<CacheNote>) {
    let time = fetched_at.and_then(Value::as_f64).filter(|time| time.is_finite() && *time >= 0.0);
    let Some(time) = time else { return (0, Some(CacheNote::BadTime)) };
    let time = time as u64;
    let note = match now_ms.checked_sub(time) {
        None => Some(CacheNote::FromTheFuture),
        Some(age) if age > fresh_for_ms => Some(CacheNote::Expired),
        Some(_) => None,
    };
    (time, note)
}

/// One model of a file; `None` when a member is there and is not what it should be (BEHAVIOUR 8.7).
/// A flag that is `false` is a flag: the reference lost every model with one (BEHAVIOUR 13, H33).
fn read_entry(value: &Value) -> Option<Entry> {
    let object = value.as_object()?;
    let all = |keys: [&str; 2], test: fn(&Value) -> bool| {
        keys.iter().all(|key| object.get(*key).is_none_or(test))
    };
    let positive = |value: &Value| value.as_f64().is_some_and(|v| v.is_finite() && v > 0.0);
    let sound = all(["name", "displayName"], Value::is_string)
        && all(["contextWindow", "maxTokens"], positive)
        && all(["supportsReasoning", "supportsThinking"], Value::is_boolean);
    sound.then(|| Entry::from_json(value)).flatten()
}

/// One model for a file: known members only, in the order of BEHAVIOUR 8.7.
fn write_entry(entry: &Entry) -> Value {
    let positive =
        |number: Option<f64>| number.filter(|number| number.is_finite() && *number > 0.0);
    let members = [
        ("id", Some(entry.id.as_str().into())),
        ("name", entry.name.as_deref().map(Value::from)),
        ("displayName", entry.display_name.as_deref().map(Value::from)),
        ("contextWindow", positive(entry.context_window).map(number_to_json)),
        ("maxTokens", positive(entry.max_tokens).map(number_to_json)),
        ("supportsReasoning", entry.supports_reasoning.map(Value::from)),
        ("supportsThinking", entry.supports_thinking.map(Value::from)),
        ("aliases", (!entry.aliases.is_empty()).then(|| entry.aliases.clone().into())),
    ];
    let known = members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(known.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_767_225_600_000;

    fn key() -> CacheKey {
        CacheKey::new("user-1", "https://api2.cursor.sh")
    }

    fn catalog() -> Catalog {
        let full = Entry {
            name: Some("N".into()),
            display_name: Some("D".into()),
            context_window: Some(1234.0),
            max_tokens: Some(10.5),
            supports_reasoning: Some(false),
            supports_thinking: Some(false),
            aliases: vec!["b".into()],
            ..Entry::new("a")
        };
        Catalog::live(vec![full, Entry::new("bare")], NOW)
    }

    fn load(text: &str) -> Loaded {
        decode(text.as_bytes(), &key(), NOW, &CacheOptions::default())
    }

    fn with(change: impl Fn(&mut Value)) -> Loaded {
        let mut file: Value = serde_json::from_str(&encode(&catalog(), &key()).unwrap()).unwrap();
        change(&mut file);
        load(&file.to_string())
    }

    #[test]
    fn a_catalog_comes_back_as_it_was() {
        let text = encode(&catalog(), &key()).unwrap();
        assert!(text.ends_with("}\n") && !text.contains("user-1"));
        assert_eq!(load(&text), Loaded { catalog: Some(catalog()), ..Loaded::default() });
        assert_eq!(encode(&Catalog::estimated(super::super::Policy::Current, NOW), &key()), None);
        assert_eq!(encode(&Catalog::live(Vec::new(), NOW), &key()), None);
    }

    #[test]
    fn what_cannot_be_used_is_ignored_with_a_note() {
        let text = encode(&catalog(), &key()).unwrap();
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for damaged in ["", "{not json", "[]", "null", &text[..text.len() / 2], &deep, "\u{0}\u{1}"]
        {
            assert_eq!(load(damaged), Loaded::nothing(CacheNote::Damaged));
        }
        assert_eq!(with(|file| file["version"] = json!(2)).note, Some(CacheNote::OtherVersion));
        assert_eq!(with(|file| file["version"] = json!("1")).note, Some(CacheNote::OtherVersion));
        assert_eq!(with(|file| file["models"] = json!({})).note, Some(CacheNote::Damaged));
        assert_eq!(with(|file| file["models"] = json!([1, {}])).note, Some(CacheNote::NoModels));
        for other in ["account", "endpoint"] {
            assert_eq!(
                with(|file| file[other] = json!("x")),
                Loaded::nothing(CacheNote::OtherAccount)
            );
        }
        let small = CacheOptions { max_bytes: 10, ..CacheOptions::default() };
        let loaded = decode(text.as_bytes(), &key(), NOW, &small);
        assert_eq!(loaded, Loaded::nothing(CacheNote::TooLarge));
    }

    #[test]
    fn a_time_that_cannot_be_makes_a_catalog_stale() {
        for (time, note) in [
            (json!(NOW + 1), CacheNote::FromTheFuture),
            (json!(1e300), CacheNote::FromTheFuture),
            (json!(-1), CacheNote::BadTime),
            (json!(null), CacheNote::BadTime),
            (json!("now"), CacheNote::BadTime),
            (json!(NOW - 24 * 60 * 60 * 1000 - 1), CacheNote::Expired),
        ] {
            let loaded = with(|file| file["fetchedAt"] = time.clone());
            assert_eq!(loaded.note, Some(note), "{time}");
            assert!(loaded.catalog.unwrap().stale);
        }
        assert!(!with(|file| file["fetchedAt"] = json!(NOW as f64 - 0.5)).catalog.unwrap().stale);
    }

    #[test]
    fn bad_models_are_dropped_one_by_one() {
        let loaded = with(|file| {
            file["models"] = json!([
                {"id": "good", "supportsReasoning": false, "contextWindow": 1.5},
                {"id": "a", "name": 1}, {"id": "b", "displayName": null}, {"id": "c", "contextWindow": 0},
                {"id": "d", "maxTokens": -1}, {"id": "e", "supportsThinking": "yes"}, {"id": ""}, 7,
                {"id": "good"}, {"id": "../x"},
            ]);
        });
        assert_eq!(loaded.catalog.unwrap().entries.len(), 1);
        let expected = Dropped { malformed: 7, duplicate: 1, unsafe_id: 1, ..Dropped::default() };
        assert_eq!(loaded.dropped, expected);
    }

    #[test]
    fn a_key_is_an_account_at_an_endpoint() {
        let same = CacheKey::new("user-1", "HTTPS://me:pw@API2.cursor.sh//?q=1#f");
        assert_eq!(same, key());
        for other in [
            CacheKey::new("user-2", "https://api2.cursor.sh"),
            CacheKey::new("user-1", "https://h/x"),
        ] {
            assert_ne!(other.file_name(), key().file_name());
        }
        assert_eq!(CacheKey::new("u", "http://h/p/").endpoint, "http://h/p");
        let name = key().file_name();
        assert!(
            name.len() == 44
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        );
    }
}
