//! The reference's own test cases about models: C014 to C022 and L01 to L09 of BEHAVIOUR 12.
//!
//! Where the later reference took limits from a foreign list (L02, L05, L06, L09), our table is asked.

use agentwire::models::{
    Catalog, Effort, Entry, Level, Model, Policy, Roster, Target, Variant, map, provider_json,
    resolve_level, with_effort,
};
use serde_json::{Value, json};

const BOTH: [Policy; 2] = [Policy::Current, Policy::Reference];

fn live(ids: &[&str]) -> Catalog {
    Catalog::live(ids.iter().map(|id| Entry::new(*id)).collect(), 0)
}

fn ids(models: &[Model]) -> Vec<&str> {
    models.iter().map(|model| model.id.as_str()).collect()
}

fn level_map(models: &[Model], id: &str) -> Value {
    let model = models.iter().find(|model| model.id == id).unwrap();
    json!(model.levels.as_ref().expect("a model with levels"))
}

fn sent(catalog: &Catalog, policy: Policy, model: &str, level: Option<Level>) -> String {
    Roster::new(catalog.clone(), policy).resolve(model, level).unwrap().id
}

fn estimated(policy: Policy) -> Vec<Model> {
    map(&Catalog::estimated(policy, 0), policy)
}

#[test]
fn c014_l08_variants_of_one_model() {
    let mut catalog = live(&[
        "composer-2",
        "composer-2-low",
        "composer-2-medium",
        "composer-2-high",
        "composer-2-max",
        "composer-2-thinking-fast",
    ]);
    catalog.entries[0].display_name = Some("Composer 2!".into());
    catalog.entries[1].context_window = Some(100.0);
    catalog.entries[2].context_window = Some(200.0);
    catalog.entries[1].max_tokens = Some(10.0);
    catalog.entries[2].max_tokens = Some(20.0);
    for policy in BOTH {
        let models = map(&catalog, policy);
        assert_eq!(ids(&models), ["composer-2", "composer-2-thinking-fast"]);
        assert_eq!(models[0].label(), "Composer 2!");
        assert!(models[0].reasoning && models[0].images && models[1].reasoning);
        assert_eq!((models[0].context_window(), models[0].max_tokens()), (200, 20));
        let json = provider_json(&models, "https://h");
        let zero = json!({"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0});
        assert_eq!(json[0]["cost"], zero);
        let mut expected = json!({
            "minimal": "composer-2-low", "low": "composer-2-low", "medium": "composer-2-medium",
            "high": "composer-2-high", "xhigh": "composer-2-max",
        });
        if policy == Policy::Current {
            expected["max"] = "composer-2-max".into();
        }
        assert_eq!(level_map(&models, "composer-2"), expected);
    }
}

#[test]
fn c015_the_estimated_catalog() {
    for policy in BOTH {
        let models = estimated(policy);
        assert_eq!(models.len(), 36);
        for id in ["composer-2", "grok-4.3", "kimi-k2.5"] {
            assert!(models.iter().any(|model| model.id == id && model.images), "{id}");
        }
        let composer = models.iter().find(|model| model.id == "composer-2").unwrap();
        assert!(composer.reasoning && composer.label().contains("estimated"));
        for there in
            ["gpt-5.4", "gpt-5.4-fast", "gpt-5.4-mini", "claude-4.6-opus", "gpt-5.1-codex-max"]
        {
            assert!(ids(&models).contains(&there), "{there}");
        }
        for absent in
            ["gpt-5.4-high", "gpt-5.4-mini-none", "claude-4.6-opus-high", "gpt-5.1-codex-max-high"]
        {
            assert!(!ids(&models).contains(&absent), "{absent}");
        }
    }
}

#[test]
fn c016_a_model_of_which_only_the_id_is_known() {
    for policy in BOTH {
        let catalog = live(&["composer-2.5"]);
        let models = map(&catalog, policy);
        assert!(models[0].reasoning && models[0].images && models[0].levels.is_none());
        assert_eq!(sent(&catalog, policy, "composer-2.5", Some(Level::High)), "composer-2.5");
    }
}

#[test]
fn c017_who_takes_images() {
    for policy in BOTH {
        let with = [
            "claude-4.5-sonnet",
            "gemini-3.1-pro",
            "gpt-5.2",
            "composer-2",
            "kimi-k2.5",
            "grok-4.3",
        ];
        assert!(map(&live(&with), policy).iter().all(|model| model.images));
        let variants = ["grok-4.3-fast", "grok-4.3-thinking"];
        assert!(map(&live(&variants), policy).iter().all(|model| model.images));
        let without = ["grokish-1", "default", "grok-4.30"];
        assert!(map(&live(&without), policy).iter().all(|model| !model.images));
    }
}

#[test]
fn c018_parsing_inserting_and_bare_words() {
    let variant = Variant::parse("claude-4-sonnet-high-thinking-fast");
    assert_eq!((variant.base, variant.title().as_str()), ("claude-4-sonnet", "Claude 4 Sonnet"));
    assert_eq!((variant.effort, variant.fast, variant.thinking), (Some(Effort::High), true, true));
    let max = with_effort("claude-4-sonnet-thinking-fast", Some(Effort::Max));
    assert_eq!(max, "claude-4-sonnet-max-thinking-fast");
    for policy in BOTH {
        for word in ["max", "composer-2-max"] {
            let map = serde_json::from_value(json!({"xhigh": word})).unwrap();
            let leveled = resolve_level("composer-2", Some(&map), Some(Level::Xhigh), policy);
            assert_eq!(leveled.id, "composer-2-max");
        }
    }
}

#[test]
fn c019_default_is_no_effort() {
    for policy in BOTH {
        let catalog = live(&["alpha-high", "alpha-none", "beta-high", "beta-none", "beta-default"]);
        assert_eq!(ids(&map(&catalog, policy)), ["alpha", "beta", "beta-default"]);
        assert_eq!(sent(&catalog, policy, "alpha", Some(Level::High)), "alpha-high");
    }
}

#[test]
fn c020_max_is_an_effort() {
    for policy in BOTH {
        let catalog = live(&["gpt-5.1-codex-max"]);
        assert_eq!(ids(&map(&catalog, policy)), ["gpt-5.1-codex"]);
        assert_eq!(sent(&catalog, policy, "gpt-5.1-codex", Some(Level::High)), "gpt-5.1-codex-max");
    }
}

#[test]
fn c021_l09_fast_and_thinking_are_models_of_their_own() {
    let mut catalog =
        live(&["gpt-5.4", "gpt-5.4-high", "gpt-5.4-fast", "gpt-5.4-high-fast", "gpt-5.4-thinking"]);
    for policy in BOTH {
        let models = map(&catalog, policy);
        assert_eq!(ids(&models), ["gpt-5.4", "gpt-5.4-fast", "gpt-5.4-thinking"]);
        assert_eq!(sent(&catalog, policy, "gpt-5.4", Some(Level::High)), "gpt-5.4-high");
        assert_eq!(sent(&catalog, policy, "gpt-5.4-fast", Some(Level::High)), "gpt-5.4-high-fast");
    }
    catalog.entries[0].display_name = Some("GPT-5.4 1M".into());
    for model in map(&catalog, Policy::Current) {
        assert!(model.context_window() >= 1_000_000, "{}", model.id);
    }
}

#[test]
fn c022_one_model_of_two_variants_and_of_one() {
    for policy in BOTH {
        let [plain, high] = ["claude-4-sonnet-thinking-fast", "claude-4-sonnet-high-thinking-fast"];
        let catalog = live(&[plain, high]);
        assert_eq!(ids(&map(&catalog, policy)), [plain]);
        assert_eq!(sent(&catalog, policy, plain, Some(Level::High)), high);
        assert_eq!(sent(&catalog, policy, plain, Some(Level::Medium)), plain);
        let catalog = live(&["claude-4.5-opus-high"]);
        assert_eq!(ids(&map(&catalog, policy)), ["claude-4.5-opus"]);
        let minimal = sent(&catalog, policy, "claude-4.5-opus", Some(Level::Minimal));
        assert_eq!(minimal, "claude-4.5-opus-high");
    }
}

#[test]
fn l01_xhigh_and_max_are_there_or_not() {
    let models = map(&live(&["demo-high", "demo-max"]), Policy::Current);
    let levels = level_map(&models, "demo");
    assert_eq!((&levels["xhigh"], &levels["max"]), (&json!("demo-max"), &json!("demo-max")));
    let models = map(&live(&["demo-high", "demo-xhigh"]), Policy::Current);
    let levels = level_map(&models, "demo");
    assert_eq!((&levels["xhigh"], &levels["max"]), (&json!("demo-xhigh"), &Value::Null));
}

#[test]
fn l02_limits_of_the_estimated_catalog() {
    let models = estimated(Policy::Current);
    let limits = |id: &str| {
        let model = models.iter().find(|model| model.id == id).unwrap();
        (model.context_window(), model.max_tokens())
    };
    for (id, expected) in [
        ("claude-4-sonnet", (200_000, 64_000)),
        ("claude-4-sonnet-1m", (1_000_000, 64_000)),
        ("claude-4.5-opus", (200_000, 64_000)),
        ("claude-4.5-sonnet", (1_000_000, 64_000)),
        ("claude-4.6-opus", (1_000_000, 128_000)),
        ("claude-4.6-sonnet-thinking", (1_000_000, 64_000)),
        ("composer-2", (200_000, 64_000)),
        ("default", (200_000, 64_000)),
        ("gemini-3.1-pro", (1_048_576, 65_536)),
        ("gpt-5-mini", (400_000, 128_000)),
        ("gpt-5.1-codex-max-fast", (400_000, 128_000)),
        ("gpt-5.3-codex-spark-preview", (200_000, 64_000)),
        ("gpt-5.4", (1_050_000, 128_000)),
        ("gpt-5.4-fast", (1_050_000, 128_000)),
        ("gpt-5.4-mini", (400_000, 128_000)),
        ("grok-4.3", (1_000_000, 30_000)),
        ("kimi-k2.5", (262_144, 65_536)),
    ] {
        assert_eq!(limits(id), expected, "{id}");
    }
}

#[test]
fn l04_l05_l06_limits() {
    let one = |id: &str, context: f64, output: f64| {
        let mut catalog = live(&[id]);
        catalog.entries[0].context_window = Some(context);
        catalog.entries[0].max_tokens = Some(output);
        let model = map(&catalog, Policy::Current).remove(0);
        (model.context_window(), model.max_tokens())
    };
    assert_eq!(one("gpt-5.5", 512_000.0, 12_345.0), (512_000, 12_345));
    assert_eq!(one("mystery", 0.0, -1.0), (200_000, 64_000));
    assert_eq!(one("mystery", f64::NAN, f64::INFINITY), (200_000, 64_000));
    assert_eq!(one("mystery", 10.7, 0.5), (10, 64_000));
    let written = map(&live(&["claude-4-5-sonnet"]), Policy::Current).remove(0);
    let dotted = map(&live(&["claude-4.5-sonnet"]), Policy::Current).remove(0);
    assert_eq!(written.context_window(), dotted.context_window());
    assert_eq!(written.context_window(), 1_000_000);
    // The reference takes what comes (BEHAVIOUR 13, H41).
    let mut catalog = live(&["mystery"]);
    catalog.entries[0].context_window = Some(-5.0);
    catalog.entries[0].max_tokens = Some(10.7);
    let json = provider_json(&map(&catalog, Policy::Reference), "https://h");
    assert_eq!((&json[0]["contextWindow"], &json[0]["maxTokens"]), (&json!(-5), &json!(10.7)));
}

#[test]
fn l07_what_goes_out_without_a_level() {
    let catalog = live(&["gpt-5.5-low", "gpt-5.5-medium", "gpt-5.5-high"]);
    let models = map(&catalog, Policy::Current);
    assert_eq!(ids(&models), ["gpt-5.5"]);
    let levels = models[0].levels.as_ref().unwrap();
    assert_eq!(levels.get(Level::Off), &Target::Id("gpt-5.5-low".into()));
    assert_eq!(levels.get(Level::Xhigh), &Target::Unsupported);
    let sent_at = |level| sent(&catalog, Policy::Current, "gpt-5.5", level);
    assert_eq!(sent_at(None), "gpt-5.5-low");
    assert_eq!(sent_at(Some(Level::High)), "gpt-5.5-high");
    assert_eq!(sent_at(Some(Level::Xhigh)), "gpt-5.5-high");

    let catalog = live(&["gpt-5.2", "gpt-5.2-high"]);
    let models = map(&catalog, Policy::Current);
    assert_eq!(models[0].levels.as_ref().unwrap().get(Level::Off), &Target::Unsaid);
    assert_eq!(sent(&catalog, Policy::Current, "gpt-5.2", None), "gpt-5.2");
}

/// The columns of BEHAVIOUR 8.6 that differ between the two versions.
#[test]
fn the_estimated_levels_of_both_versions() {
    let (current, reference) = (estimated(Policy::Current), estimated(Policy::Reference));
    for (id, old_xhigh, xhigh, max, off) in [
        ("claude-4.5-opus", "high", None, None, Some("high")),
        ("claude-4.6-opus", "max", Some("max"), Some("max"), Some("high")),
        ("claude-4.6-sonnet", "medium", None, None, Some("medium")),
        ("gpt-5.1", "high", None, None, None),
        ("gpt-5.1-codex-max", "xhigh", Some("xhigh"), None, Some("low")),
        ("gpt-5.2", "xhigh", Some("xhigh"), None, None),
        ("gpt-5.4", "xhigh", Some("xhigh"), None, Some("low")),
        ("gpt-5.4-mini", "xhigh", Some("xhigh"), None, Some("none")),
    ] {
        let full =
            |word: Option<&str>| word.map_or(Value::Null, |word| format!("{id}-{word}").into());
        assert_eq!(level_map(&reference, id)["xhigh"], full(Some(old_xhigh)), "{id}");
        let levels = level_map(&current, id);
        assert_eq!(levels["xhigh"], full(xhigh), "{id}");
        assert_eq!(levels["max"], full(max), "{id}");
        assert_eq!(levels.get("off"), off.map(|word| full(Some(word))).as_ref(), "{id}");
        for same in ["minimal", "low", "medium", "high"] {
            assert_eq!(levels[same], level_map(&reference, id)[same], "{id} {same}");
        }
    }
}
