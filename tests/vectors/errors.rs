//! `end-stream.json`, `http-status.json`, `redaction.json`: the reference's classes and its
//! cleaning. The sentences around the peer's text are built here, for the comparison only.

use agentwire::connect::reference::{self, ReferenceClass, ReferenceFailure};
use agentwire::redact::Redactor;
use serde_json::Value;

use crate::framework::{Suite, same, text};

const SECRET: &str = "secret-token-123";

/// Compares a class and a text with what a case expects: either `ok`, or `code` and `message`.
fn compare(
    case: &Value,
    result: Result<(), ReferenceFailure>,
    sentence: fn(&ReferenceFailure) -> String,
) -> Result<(), String> {
    same("ok", &result.is_ok().then_some(true), &case["ok"].as_bool())?;
    let failure = result.err();
    let class = failure.as_ref().map(|failure| failure.class.as_str());
    same("class", &class, &case["code"].as_str())?;
    let sentence = failure.as_ref().map(sentence);
    same("message", &sentence.as_deref(), &case["message"].as_str())
}

fn end_stream_case(case: &Value) -> Result<(), String> {
    let redactor = Redactor::reference([SECRET]);
    let result = reference::end_stream(text(case, "input")?.as_bytes(), &redactor);
    compare(case, result, |failure| match failure.class {
        ReferenceClass::ProtocolError => "Failed to parse Cursor Connect end stream.".to_owned(),
        _ => {
            let said = failure.text.as_deref().unwrap_or("Unknown error");
            format!("Cursor stream ended with {}: {said}.", failure.code)
        }
    })
}

fn http_status_case(case: &Value) -> Result<(), String> {
    let redactor = Redactor::reference([SECRET]);
    let status = case["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let result = reference::http_status(status, text(case, "body")?, &redactor);
    compare(case, result, |failure| {
        let said = failure.text.as_ref().map_or_else(String::new, |text| format!(": {text}"));
        let hint = match failure.code.as_str() {
            "403" | "426" => {
                " Cursor may be rejecting the bundled Cursor CLI-compatible client version \
                 (cli-2026.01.09-231024f); refresh CURSOR_CLIENT_VERSION from current Cursor CLI \
                 traffic if authentication still succeeds in Cursor itself."
            }
            _ => "",
        };
        format!("Cursor API rejected request with HTTP {}{said}{hint}", failure.code)
    })
}

fn redaction_case(case: &Value) -> Result<(), String> {
    let secrets = case["secrets"].as_array().ok_or("no secrets")?;
    let redactor = Redactor::reference(secrets.iter().filter_map(Value::as_str));
    let output = redactor.clean(text(case, "text")?);
    same("output", &output.as_str(), &text(case, "output")?)
}

#[test]
fn end_stream() {
    let expected = &["ok", "code", "message"];
    Suite { file: "end-stream.json", cases: "", expected, check: end_stream_case }.run();
}

#[test]
fn http_status() {
    let expected = &["ok", "code", "message"];
    Suite { file: "http-status.json", cases: "", expected, check: http_status_case }.run();
}

#[test]
fn redaction() {
    Suite { file: "redaction.json", cases: "", expected: &["output"], check: redaction_case }.run();
}
