//! No token in any error, log line or debug print, in any form (FAULTS M88, M89): peers that repeat
//! it everywhere, and a subscriber that writes down every event and span down to trace level, of this
//! library and of those below it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on")]
#![cfg(all(feature = "auth", feature = "server"))]

use std::error::Error as _;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use agentwire::auth::{Account, Auth, FileStore, MemoryStore, TokenSource, TokenStore, Tokens};
use agentwire::error::Error;
use agentwire::provider::{Ask, Provider, ProviderOptions};
use agentwire::secret::Secret;
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::Client;
use agentwire_agent::Agent;
use agentwire_agent::session::Session;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

/// An access token with everything that some encoding has to escape.
const ACCESS: &str = "tok-A1b2C3d4+E5f6/G7h8=i9~J0%k\"L\\m<N>&o";
const REFRESH: &str = "ref-Q1w2E3r4+T5z6/U7i8=o9~P0%a\"S\\d<F>&g";

/// Every form that a peer or a library could write it in.
fn forms(token: &str) -> Vec<(&'static str, String)> {
    let percent = |plain: fn(u8) -> bool| -> String {
        let escape = |byte: u8| {
            if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
        };
        token.bytes().map(escape).collect()
    };
    let quoted = serde_json::to_string(token).unwrap();
    let escaped: String = token.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let mut forms = vec![
        ("plain", token.to_owned()),
        ("percent", percent(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))),
        ("percent, all", percent(|_| false)),
        ("percent, lower", percent(|_| false).to_lowercase()),
        ("json", quoted.trim_matches('"').to_owned()),
        ("json, all", escaped),
        ("debug", format!("{token:?}").trim_matches('"').to_owned()),
    ];
    // Where the token begins in the bytes, modulo 3, makes three of it.
    for before in ["", "x", "xy"] {
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            forms.push(("base64", engine.encode(format!("{before}{token}"))));
        }
    }
    forms
}

/// What to look for: of base64 the middle, which does not depend on what stands around the token.
static NEEDLES: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let all = [ACCESS, REFRESH].into_iter().flat_map(forms);
    all.map(|(form, text)| match form {
        "base64" => (form, text[4..text.len() - 4].to_owned()),
        _ => (form, text),
    })
    .collect()
});

#[track_caller]
fn check(what: &str, text: &str) {
    for (form, needle) in NEEDLES.iter() {
        assert!(!text.contains(needle.as_str()), "{what}: the token ({form}) is in {text}");
    }
}

/// Everything that an error can be made to say.
#[track_caller]
fn check_error(what: &str, error: &Error) {
    check(what, &format!("{error} {error:?} {error:#?} {}", error.message()));
    check(what, &format!("{:?} {:?}", error.hint(), error.metadata()));
    let mut source = error.source();
    while let Some(inner) = source {
        check(what, &format!("{inner} {inner:?}"));
        source = inner.source();
    }
    for detail in error.details() {
        let debug = detail.debug.as_ref().map(Value::to_string).unwrap_or_default();
        check(what, &format!("{detail:?} {} {debug}", detail.type_name));
    }
}

fn check_debug(what: &str, value: &impl Debug) {
    check(what, &format!("{value:?} {value:#?}"));
}

/// Writes down all that is traced.
#[derive(Clone, Default)]
struct Capture {
    lines: Arc<Mutex<Vec<String>>>,
    spans: Arc<AtomicU64>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {}={value:?}", field.name()));
    }
}

impl Capture {
    fn note(&self, metadata: Option<&Metadata<'_>>, record: impl FnOnce(&mut Line)) {
        let mut line = Line(metadata.map(|m| m.target().to_owned()).unwrap_or_default());
        record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }
}

impl tracing::Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.note(Some(span.metadata()), |line| span.record(line));
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        self.note(None, |line| values.record(line));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        self.note(Some(event.metadata()), |line| event.record(line));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A text that repeats a token in every form that a peer may choose.
fn echo(token: &str) -> String {
    let forms: Vec<_> = forms(token).into_iter().map(|(_, text)| text).collect();
    format!("{} {}", forms.join(" "), STANDARD.encode(token))
}

async fn serve(script: Value) -> Server {
    let script = Script::from_json(&script.to_string()).unwrap();
    Server::builder().cleartext().script(script).bind().await.unwrap()
}

fn client(server: &Server) -> Client {
    Client::builder().endpoint(server.url()).token(ACCESS).retries(0).build().unwrap()
}

async fn run_error(client: &Client, what: &str) {
    let run = client.prompt("hi").model("m").start().await.unwrap();
    check_debug(what, &run);
    let ended = tokio::time::timeout(Duration::from_secs(60), run.finish()).await.unwrap().0;
    check_error(what, &ended.unwrap_err());
}

/// HTTP answers that repeat `token`: statuses, headers and bodies.
fn statuses(token: &str) -> Vec<Value> {
    let mut answers = Vec::new();
    let header = token.replace(['"', '\\'], "_");
    for status in [301, 302, 400, 401, 403, 404, 408, 413, 426, 429, 464, 500, 502, 503, 599] {
        let text = echo(token);
        let object = json!({"code": "internal", "message": text, "details": [
            {"type": token, "value": STANDARD.encode(token), "debug": {token: text}}]});
        for (kind, body) in [("application/json", object), ("text/plain", json!(echo(token)))] {
            answers.push(json!({"status": status, "body": body, "headers": {
                "content-type": kind, "x-echo": token, "location": format!("https://x.example/?{header}"),
                "retry-after": token, "set-cookie": format!("a={token}"),
                "www-authenticate": format!("Bearer {token}"), "authorization": format!("Bearer {token}")}}));
        }
    }
    answers
}

async fn runs_and_unary_calls() {
    let text = echo(ACCESS);
    let details = json!([{"type": ACCESS, "value": STANDARD.encode(ACCESS), "debug": {"a": text, ACCESS: [text]}}]);
    let mut steps: Vec<Value> = ["internal", "unauthenticated", "resource_exhausted", ACCESS]
        .map(|code| {
            let metadata = json!({"x-echo": [text], ACCESS: [ACCESS]});
            json!([{"error": {"code": code, "message": text, "details": details, "metadata": metadata}}])
        })
        .into();
    steps.extend(statuses(ACCESS).into_iter().map(|status| json!([{ "status": status }])));
    let long = format!("{}{ACCESS}", "x".repeat(60));
    for header in ["content-type", "content-encoding", "connect-content-encoding"] {
        for value in [ACCESS, long.as_str(), &format!("text/{ACCESS}")] {
            steps.push(json!([{"head": {"headers": {header: value}}}, "close"]));
        }
    }
    steps.push(json!([{"text": "half"}, {"bytes": {"text": text}}]));
    steps.push(json!([{"bytes": {"text": text, "flags": 2}}]));
    // Cut where a long text is cut for people.
    for before in 1_150..1_200 {
        let message = format!("{}{ACCESS}", "x".repeat(before));
        steps.push(json!([{"error": {"code": "internal", "message": message}}]));
    }
    for (n, steps) in steps.iter().enumerate() {
        let server = serve(json!({"rules": [{"steps": steps}]})).await;
        run_error(&client(&server), &format!("run {n}")).await;
    }
    let mut replies: Vec<Value> =
        statuses(ACCESS).into_iter().map(|status| json!({ "status": status })).collect();
    replies.push(json!({"error": {"code": "internal", "message": text, "details": details}}));
    for value in [ACCESS, long.as_str(), &format!("text/{ACCESS}")] {
        replies.push(
            json!({"status": {"status": 200, "headers": {"content-type": value}, "body": "x"}}),
        );
    }
    for (n, reply) in replies.iter().enumerate() {
        let server = serve(json!({"unary": {"default_model": reply}})).await;
        let error = client(&server).default_model().await.unwrap_err();
        check_error(&format!("unary {n}"), &error);
    }
}

async fn sign_ins() {
    let mut replies: Vec<Value> =
        statuses(REFRESH).into_iter().map(|status| json!({ "status": status })).collect();
    for kind in [REFRESH, &format!("text/{REFRESH}"), &format!("{}{REFRESH}", "x".repeat(90))] {
        replies.push(
            json!({"status": {"status": 200, "headers": {"content-type": kind}, "body": "x"}}),
        );
    }
    replies.push(json!({"bytes": {"text": echo(REFRESH)}}));
    for (n, reply) in replies.iter().enumerate() {
        let server = serve(json!({"sign_in": {"refresh": reply}})).await;
        let auth = Auth::builder().endpoint(server.url()).build().unwrap();
        let store = Arc::new(MemoryStore::default());
        let key = Account::key_of(&auth);
        let tokens = Tokens::new(ACCESS, REFRESH, 0);
        let account = Account::keep(auth.clone(), store.clone(), key, tokens).await.unwrap();
        let what = format!("refresh {n}");
        check_debug(&what, &(&auth, &account, &store, account.tokens(), account.tokens().claims()));
        check_error(&what, &account.instead_of(&Secret::from(ACCESS)).await.unwrap_err());
        let client =
            Client::builder().endpoint(server.url()).tokens(account).retries(0).build().unwrap();
        check_debug(&what, &client);
        if let Err(error) = client.prompt("hi").model("m").start().await {
            check_debug(&what, &error);
            check_error(&what, &error.error);
        }
    }
    // What is issued here is nobody's to know, either.
    let server = serve(json!({"sign_in": {"require": true}})).await;
    let auth = Auth::builder().endpoint(server.url()).build().unwrap();
    let login = auth.login().unwrap();
    check_debug("login", &(&login, &server));
    let tokens = login.wait(std::future::pending()).await.unwrap();
    let shown = format!("{tokens:?}");
    assert!(!shown.contains(tokens.access.expose()) && !shown.contains(tokens.refresh.expose()));
}

/// Those above the client: a provider that asks for models and runs, an agent and its session.
async fn providers_and_agents() {
    let dir = tempfile::tempdir().unwrap();
    for (n, answer) in statuses(ACCESS).into_iter().enumerate() {
        let script = json!({"unary": {"usable_models": {"status": answer}},
            "rules": [{"steps": [{"status": answer}]}]});
        let server = serve(script).await;
        let what = format!("provider {n}");
        let cache_dir = Some(dir.path().join(n.to_string()));
        let options = ProviderOptions { cache_dir, ..ProviderOptions::default() };
        check_debug(&what, &options);
        let provider = Provider::new(options);
        let account = provider.sign_in(ACCESS, client(&server));
        check_error(&what, &account.refresh().await.unwrap_err());
        check_debug(&what, &(&provider, &account.models(), account.cache_note()));
        let ask = Ask::new("composer-2").session("3e1c5a90-0000-4000-8000-000000000001");
        let run = account.client().unwrap().prompt("hi");
        let run = account.start(&ask, run).await.unwrap();
        check_error(&what, &run.finish().await.unwrap_err());
        provider.dispose().await;

        let what = format!("agent {n}");
        let agent = Agent::builder(client(&server)).model("composer-2").build().unwrap();
        let log = dir.path().join(format!("{n}.jsonl"));
        let session = Session::open(&log).unwrap();
        let mut running = agent.prompt("hi").session(session).start();
        while let Some(event) = running.next().await {
            check_debug(&what, &event);
        }
        match running.finish().await {
            Ok(ended) => check_debug(&what, &ended.outcome),
            Err(error) => check(&what, &format!("{error} {error:?}")),
        }
        check(&what, &std::fs::read_to_string(log).unwrap());
    }
}

async fn what_callers_do_wrong() {
    for token in [format!("{ACCESS}\n"), format!("a {ACCESS}"), format!("{ACCESS}\u{e9}")] {
        let builder = Client::builder().token(token.as_str());
        check_debug("builder", &builder);
        check_error("builder", &builder.build().unwrap_err());
        let client = Client::builder().build().unwrap();
        check_error("with_token", &client.with_token(token.as_str()).unwrap_err());
    }
    for url in [format!("https://me:{ACCESS}@host"), format!("https://host/{ACCESS}")] {
        let builder = Client::builder().endpoint(url.as_str());
        check_debug("endpoint", &builder);
        check_error("endpoint", &builder.build().unwrap_err());
        let builder = Auth::builder().endpoint(url.as_str()).refresh_path(ACCESS);
        check_debug("auth", &builder);
        check_error("auth", &builder.build().unwrap_err());
    }
    check_error("path", &Auth::builder().refresh_path(ACCESS).build().unwrap_err());
    let headers = Client::builder().header("x-a", format!("{ACCESS}\r\n"));
    check_debug("header", &headers);
    check_error("header", &headers.build().unwrap_err());
    check_debug("server", &Server::builder().token(ACCESS));

    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let key = agentwire::auth::Key::new("https://api.example");
    store.save(&key, &Tokens::new(ACCESS, REFRESH, 5)).unwrap();
    let text = std::fs::read_to_string(store.path(&key)).unwrap();
    for damaged in
        [&text[..text.len() - 10], &text.replace("\"version\": 1", "\"version\": 2"), ACCESS]
    {
        std::fs::write(store.path(&key), damaged).unwrap();
        check_error("store", &store.load(&key).unwrap_err());
    }
}

#[test]
fn m88_the_detector_finds_each_form() {
    for (form, text) in forms(ACCESS) {
        let found = std::panic::catch_unwind(|| check("x", &format!("a {text} b")));
        assert!(found.is_err(), "{form}");
    }
    assert!(std::panic::catch_unwind(|| check("x", &STANDARD.encode(ACCESS))).is_err());
}

#[tokio::test]
async fn m88_m89_no_token_in_any_error_log_or_debug_print() {
    let capture = Capture::default();
    tracing::subscriber::set_global_default(capture.clone()).unwrap();
    runs_and_unary_calls().await;
    sign_ins().await;
    providers_and_agents().await;
    what_callers_do_wrong().await;
    let lines = std::mem::take(&mut *capture.lines.lock().unwrap());
    assert!(lines.iter().any(|line| line.starts_with("h2")), "those below are heard");
    assert!(lines.iter().any(|line| line.starts_with("agentwire::auth")), "and we are");
    for line in lines {
        check("log", &line);
    }
}
