//! `models`, and the models of `chat`, against real servers and files.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::chat::Service;
use crate::support::{Done, agentwire, finish, run, run_with};

const SCRIPT: &str = r#"
    models = [{ id = "gpt-9-low" }, { id = "gpt-9-high", name = "GPT-9 High" }, { id = "composer-2" },
              { id = "default" }]
    [[rules]]
    steps = [{ text = "{{model}}" }, { turn_end = {} }]
"#;

/// A command against `service`, with a token and, where there is one, a cache.
fn at(service: &Service, cache: Option<&Path>, command: &str, args: &[&str]) -> Done {
    let mut process = agentwire(command.split(' '));
    process.args(["--endpoint", &service.url()]).args(args).env("AGENTWIRE_TOKEN", "tok-1");
    if let Some(dir) = cache {
        process.env("AGENTWIRE_CACHE_DIR", dir);
    }
    finish(process.spawn().unwrap())
}

fn json_of(done: &Done) -> Value {
    serde_json::from_str(done.stdout()).unwrap()
}

#[test]
fn local_models_are_a_table_or_json() {
    let done = run(["models", "--local"]).expect(0);
    let lines: Vec<_> = done.stdout().lines().collect();
    assert!(lines[0].starts_with("MODEL") && lines[0].contains("LEVELS"), "{}", lines[0]);
    let gpt = lines.iter().find(|line| line.starts_with("gpt-5.4 ")).unwrap();
    for part in [
        "GPT-5.4",
        "off minimal low medium high xhigh",
        "1.05M",
        "128k",
        "text, image",
        "our table",
    ] {
        assert!(gpt.contains(part), "{gpt}");
    }
    assert!(lines.iter().any(|line| line.starts_with("default ") && line.contains("  text  ")));
    let last = lines.last().unwrap();
    assert!(last.contains("models, of https://127.0.0.1:") && last.ends_with(" s old"), "{last}");
    assert_eq!(done.stderr, "");

    let all = run(["models", "--local", "--all"]).expect(0);
    assert!(all.stdout().contains("\n  gpt-5.4-high "), "{}", all.stdout());
    assert!(!done.stdout().contains("gpt-5.4-high"));

    let list = json_of(&run(["models", "--local", "--json"]).expect(0));
    assert_eq!((&list["source"], &list["stale"]), (&json!("live"), &json!(false)));
    let models = list["models"].as_array().unwrap();
    let gpt = models.iter().find(|model| model["id"] == "gpt-5.4").unwrap();
    assert_eq!(gpt["levels"]["high"], "gpt-5.4-high");
    assert_eq!(gpt["ids"].as_array().unwrap().len(), 4);
    assert_eq!(
        (&gpt["inputs"], &gpt["context_source"]),
        (&json!(["text", "image"]), &json!("table"))
    );
}

#[test]
fn without_a_token_the_list_built_in_is_shown_and_said_to_be_that() {
    let done = run(["models"]).expect(0);
    assert!(done.stdout().contains("36 models, built in, not of an account"));
    assert!(done.stdout().contains("Composer 2 (estimated)"));
    assert!(done.stderr.contains("AGENTWIRE_TOKEN"), "{}", done.stderr);
    run(["models", "--refresh"]).expect(3);
    assert_eq!(json_of(&run(["models", "--json"]).expect(0))["age_ms"], Value::Null);
}

#[test]
fn a_list_is_asked_for_once_kept_and_refreshed() {
    let service = Service::new(SCRIPT, None);
    let dir = tempfile::tempdir().unwrap();
    let cache = Some(dir.path());
    for _ in 0..3 {
        let done = at(&service, cache, "models", &[]).expect(0);
        assert!(done.stdout().contains("gpt-9") && done.stderr.is_empty(), "{}", done.stderr);
    }
    // The run finds it, too: no second list.
    let done = at(&service, cache, "chat", &["--model", "gpt-9", "--thinking", "high", "hi"]);
    assert_eq!(done.expect(0).stdout(), "gpt-9-high\n");
    at(&service, cache, "models", &["--refresh"]).expect(0);
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 1);
    let text = fs::read_to_string(files[0].path()).unwrap();
    assert!(!text.contains("tok-1"), "{text}");
    // One that is damaged is said to be that, and replaced.
    fs::write(files[0].path(), &text[..text.len() / 2]).unwrap();
    let done = at(&service, cache, "models", &[]).expect(0);
    assert!(done.stderr.contains("damaged") && done.stdout().contains("gpt-9"), "{}", done.stderr);
    assert_eq!(at(&service, cache, "models", &[]).expect(0).stderr, "");
    assert_eq!(service.report().requests, 4, "three lists and a run");
}

#[test]
fn what_is_known_is_shown_when_the_service_fails_and_refresh_says_why_not() {
    let script = "models = [{ id = \"m-1\" }]\n[unary.usable_models]\nstatus = { status = 404 }";
    let service = Service::new(script, None);
    let done = at(&service, None, "models", &[]).expect(0);
    assert!(done.stderr.contains("did not list its models"), "{}", done.stderr);
    assert!(done.stdout().contains("built in"));
    let done = at(&service, None, "models", &["--refresh", "--json"]).expect(1);
    assert_eq!(done.lines()[0]["type"], "error");
    // A run goes on without: the service decides.
    let done = at(&service, None, "chat", &["--model", "m-1", "hi"]).expect(0);
    assert_eq!(done.stderr, "");
}

#[test]
fn resolve_says_what_is_sent_and_why() {
    let done = run(["models", "resolve", "--local", "gpt-5.4", "--thinking", "max"]).expect(0);
    for part in [
        "model   gpt-5.4\n",
        "level   max\n",
        "sent    model_details gpt-5.4-xhigh\n",
        "the nearest that it has is xhigh",
        "requested_model gpt-5.4-xhigh, once",
    ] {
        assert!(done.stdout().contains(part), "{part}: {}", done.stdout());
    }
    let args = ["models", "resolve", "--local", "--json", "composer-2", "--param", "context=1m"];
    let sent = json_of(&run(args).expect(0));
    assert_eq!(sent["sent"]["form"], "requested_model");
    assert_eq!(sent["sent"]["parameters"], json!({"context": "1m"}));
    assert_eq!(
        (&sent["then"]["form"], &sent["then"]["parameters"]),
        (&json!("model_details"), &json!({}))
    );
    assert_eq!(sent["source"], "live");
    let wrong = run(["models", "resolve", "--local", "composer2"]).expect(1);
    assert!(wrong.stderr.contains("near it are composer-2"), "{}", wrong.stderr);
    assert_eq!(wrong.stderr.lines().count(), 1);
}

#[test]
fn chat_sends_no_id_that_was_not_served_and_no_image_to_a_model_of_text() {
    let service = Service::new(SCRIPT, None);
    let done = at(&service, None, "chat", &["--model", "gpt-8", "hi"]).expect(1);
    assert!(done.stderr.contains("near it are gpt-9"), "{}", done.stderr);
    let dir = tempfile::tempdir().unwrap();
    let png = dir.path().join("a.png");
    fs::write(&png, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    let image = ["--image", png.to_str().unwrap(), "hi"];
    let done =
        at(&service, None, "chat", &[&["--model", "default"][..], &image].concat()).expect(2);
    assert!(done.stderr.contains("default takes text only"), "{}", done.stderr);
    at(&service, None, "chat", &image).expect(0);
    let note = at(&service, None, "chat", &["--thinking", "high", "hi"]).expect(0);
    assert!(note.stderr.contains("composer-2 at level high"), "{}", note.stderr);
    assert_eq!(service.report().requests, 4 + 2, "four lists and two runs");
}

#[test]
fn map_is_what_the_vectors_say() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/vectors");
    let load = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(vectors.join(name)).unwrap()).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.json");
    let path = file.to_str().unwrap();
    let mut cases = load("model-catalogs.json").as_array().unwrap().clone();
    cases.push(load("estimated-catalog.json"));
    for case in cases {
        let Some(models) = case.get("models") else { continue };
        fs::write(&file, case["catalog"].to_string()).unwrap();
        let done = run(["models", "map", "--catalog", path, "--json", "--reference"]).expect(0);
        assert_eq!(&json_of(&done), models, "{}", case["name"]);
        assert!(done.stderr.is_empty());
    }
    let list = br#"[{"id": "a-high"}, {"id": "a-low"}]"#;
    let done = run_with(["models", "map", "--catalog", "-", "--json"], list).expect(0);
    assert_eq!(json_of(&done)[0]["thinkingLevelMap"]["off"], "a-low");
    let table = run_with(["models", "map", "--catalog", "-"], list).expect(0);
    assert!(table.stdout().contains("off minimal low medium high"), "{}", table.stdout());
    let wrong = run_with(["models", "map", "--catalog", "-", "--json"], b"secret").expect(2);
    assert!(!wrong.stderr.contains("secret"), "{}", wrong.stderr);
}
