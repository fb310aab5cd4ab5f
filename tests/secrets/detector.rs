//! The detector that the tests of all crates share: two tokens, every form that a peer or a library
//! could write them in, and what is looked through for them.
#![allow(dead_code, reason = "each test looks at what its crate has")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on")]

use std::error::Error as _;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use agentwire::error::Error;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata};

/// An access token with everything that some encoding has to escape.
pub(crate) const ACCESS: &str = "tok-A1b2C3d4+E5f6/G7h8=i9~J0%k\"L\\m<N>&o";
pub(crate) const REFRESH: &str = "ref-Q1w2E3r4+T5z6/U7i8=o9~P0%a\"S\\d<F>&g";

/// Every form that a peer or a library could write it in.
pub(crate) fn forms(token: &str) -> Vec<(&'static str, String)> {
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
pub(crate) fn check(what: &str, text: &str) {
    for (form, needle) in NEEDLES.iter() {
        assert!(!text.contains(needle.as_str()), "{what}: the token ({form}) is in {text}");
    }
}

/// Everything that an error can be made to say.
#[track_caller]
pub(crate) fn check_error(what: &str, error: &Error) {
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

#[track_caller]
pub(crate) fn check_debug(what: &str, value: &impl Debug) {
    check(what, &format!("{value:?} {value:#?}"));
}

/// Writes down all that is traced.
#[derive(Clone, Default)]
pub(crate) struct Capture {
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

impl Capture {
    /// Listens to everything in this process.
    pub(crate) fn begin() -> Self {
        let capture = Self::default();
        tracing::subscriber::set_global_default(capture.clone()).unwrap();
        capture
    }

    /// Leaves out what another project's crate said, for a reason that stands where this is called.
    pub(crate) fn forget(&self, crate_name: &str) {
        self.lines.lock().unwrap().retain(|line| !line.starts_with(crate_name));
    }

    /// Looks through all that was heard, which must have come from each of these crates.
    #[track_caller]
    pub(crate) fn check(&self, from: &[&str]) {
        let lines = std::mem::take(&mut *self.lines.lock().unwrap());
        for target in from {
            assert!(lines.iter().any(|line| line.starts_with(target)), "{target} is not heard");
        }
        for line in lines {
            check("log", &line);
        }
    }
}

/// A text that repeats a token in every form that a peer may choose.
pub(crate) fn echo(token: &str) -> String {
    let forms: Vec<_> = forms(token).into_iter().map(|(_, text)| text).collect();
    format!("{} {}", forms.join(" "), STANDARD.encode(token))
}

/// HTTP answers that repeat `token`: statuses, headers and bodies.
pub(crate) fn statuses(token: &str) -> Vec<Value> {
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

/// Steps of runs that fail and repeat `token` in doing so: stated errors, statuses, a stream that breaks.
pub(crate) fn failures(token: &str) -> Vec<Value> {
    let text = echo(token);
    let details = json!([{"type": token, "value": STANDARD.encode(token), "debug": {"a": text, token: [text]}}]);
    let metadata = json!({"x-echo": [text], token: [token]});
    let codes = ["internal", "unauthenticated", "resource_exhausted", token];
    let stated = codes.map(|code| {
        json!([{"error": {"code": code, "message": text, "details": details, "metadata": metadata}}])
    });
    let mut steps = Vec::from(stated);
    steps.extend(statuses(token).into_iter().map(|status| json!([{ "status": status }])));
    steps.push(json!([{"text": "half"}, {"bytes": {"text": text}}]));
    steps.push(json!([{"text": "half"}, "cut"]));
    steps
}
