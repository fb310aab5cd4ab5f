//! Whether a result is the expected one, by the rules of the suite's own runner.

use std::collections::BTreeMap;
use std::fmt::Debug;

use prost::Message;
use prost_types::Any;

use crate::cases::same;
use crate::proto::conformance_payload::RequestInfo;
use crate::proto::{ClientResponseResult, ConformancePayload, Error, Header, TestCase};

/// How much of a timeout may be gone when the server tells it, in ms.
const GRACE: i64 = 500;

/// What is wrong with `actual`, one line each.
pub(crate) fn check(case: &TestCase, actual: &ClientResponseResult) -> Vec<String> {
    let mut wrong = Vec::new();
    let expected = case.expected_response.clone().unwrap_or_default();
    headers(&mut wrong, "headers", &expected.response_headers, &actual.response_headers);
    headers(&mut wrong, "trailers", &expected.response_trailers, &actual.response_trailers);
    payloads(&mut wrong, &expected.payloads, &actual.payloads);
    error(&mut wrong, case, expected.error.as_ref(), actual.error.as_ref());
    if actual.num_unsent_requests > expected.num_unsent_requests {
        differ(&mut wrong, "unsent", &expected.num_unsent_requests, &actual.num_unsent_requests);
    }
    if let Some(status) = expected.http_status_code {
        differ(&mut wrong, "status", &Some(status), &actual.http_status_code);
    }
    wrong
}

fn differ<T: PartialEq + Debug>(wrong: &mut Vec<String>, what: &str, expected: &T, actual: &T) {
    if expected != actual {
        let short = |value: &T| format!("{value:?}").chars().take(300).collect::<String>();
        wrong.push(format!("{what}: expected {}, got {}", short(expected), short(actual)));
    }
}

fn by_name(headers: &[Header]) -> BTreeMap<String, Vec<String>> {
    let values = |header: &Header| -> Vec<String> {
        // A list may come as several values or as one with commas.
        let split = header.value.iter().flat_map(|value| value.split(','));
        split.map(|part| part.strip_prefix(' ').unwrap_or(part).to_owned()).collect()
    };
    headers.iter().map(|header| (header.name.to_ascii_lowercase(), values(header))).collect()
}

fn headers(wrong: &mut Vec<String>, what: &str, expected: &[Header], actual: &[Header]) {
    let actual = by_name(actual);
    for (name, values) in by_name(expected) {
        differ(wrong, &format!("{what} {name}"), &Some(&values), &actual.get(&name));
    }
}

fn payloads(
    wrong: &mut Vec<String>,
    expected: &[ConformancePayload],
    actual: &[ConformancePayload],
) {
    differ(wrong, "number of messages", &expected.len(), &actual.len());
    for (at, (expected, actual)) in expected.iter().zip(actual).enumerate() {
        differ(wrong, &format!("data {at}"), &expected.data, &actual.data);
        let info = |payload: &ConformancePayload| payload.request_info.clone().unwrap_or_default();
        request_info(wrong, &info(expected), &info(actual), at == 0);
    }
}

fn request_info(
    wrong: &mut Vec<String>,
    expected: &RequestInfo,
    actual: &RequestInfo,
    first: bool,
) {
    if first {
        headers(wrong, "request headers", &expected.request_headers, &actual.request_headers);
        match (expected.timeout_ms, actual.timeout_ms) {
            (Some(most), Some(told)) if (most - GRACE..=most).contains(&told) => {}
            (expected, actual) => differ(wrong, "timeout", &expected, &actual),
        }
    }
    differ(wrong, "number of requests", &expected.requests.len(), &actual.requests.len());
    for (expected, actual) in expected.requests.iter().zip(&actual.requests) {
        if !same(expected, actual) {
            differ(wrong, "request", expected, actual);
        }
    }
}

fn error(
    wrong: &mut Vec<String>,
    case: &TestCase,
    expected: Option<&Error>,
    actual: Option<&Error>,
) {
    let (Some(expected), Some(actual)) = (expected, actual) else {
        return differ(wrong, "error", &expected, &actual);
    };
    if !case.other_allowed_error_codes.contains(&actual.code) {
        differ(wrong, "code", &expected.code(), &actual.code());
    }
    if expected.message.is_some() {
        differ(wrong, "message", &expected.message, &actual.message);
    }
    differ(wrong, "number of details", &expected.details.len(), &actual.details.len());
    for (expected, actual) in expected.details.iter().zip(&actual.details) {
        match (info(expected), info(actual)) {
            (Some(expected), Some(actual)) => request_info(wrong, &expected, &actual, true),
            _ if same(expected, actual) => {}
            _ => differ(wrong, "detail", expected, actual),
        }
    }
}

fn info(detail: &Any) -> Option<RequestInfo> {
    let known =
        detail.type_url.ends_with("connectrpc.conformance.v1.ConformancePayload.RequestInfo");
    known.then(|| RequestInfo::decode(&detail.value[..]).ok()).flatten()
}
