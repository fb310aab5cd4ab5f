//! What an error that the peer stated means: its Connect code, details and text, refined by what
//! is known about the run, to one [`Kind`] (PROTOCOL 5).

use std::time::Duration;

use super::Code;
use super::stated::Stated;
use crate::error::{Blame, Error, Kind};

/// What is known where an error arrives. The default knows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Circumstances {
    /// A run, and what was billed or received in it so far; `None` outside a run.
    pub run: Option<RunSoFar>,
    /// How long the peer asked to wait, from a header or a detail.
    pub retry_after: Option<Duration>,
}

/// The state of the run that an error ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunSoFar {
    /// Output tokens that the service counted.
    pub tokens: u64,
    /// Size of the run request in bytes.
    pub request_bytes: usize,
}

/// From this size on a request that the service refuses as exhausted, without a token and without
/// a readable reason, is taken to be too large for it: half of what a message may have by default.
pub const LARGE_REQUEST: usize = 8 << 20;

/// What the hint says where the client version may be to blame (PROTOCOL 1).
const HINT_VERSION: &str =
    "if the account works elsewhere, the setting `client_version` may be outdated";

/// The error for what the peer stated.
pub fn stated_error(stated: Stated, at: &Circumstances) -> Error {
    let code = stated.code.unwrap_or(Code::Unknown);
    let message = stated.message.unwrap_or_else(|| "the service gave no reason".to_owned());
    let error = Error::new(Kind::Rejected, message).with_code(code).with_details(stated.details);
    refine(error, at)
}

/// The same error with kind, blame and hint decided anew, now that more is known.
pub fn refine(error: Error, at: &Circumstances) -> Error {
    let evidence = Evidence::gather(&error);
    let kind = kind(error.code(), &evidence, at);
    let hint = hint(&kind, error.code(), at.retry_after);
    let blame = blame(&kind);
    let error = error.with_kind(kind).with_blame(blame);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The text of an error in one case, for words to be looked up in it.
struct Evidence {
    text: String,
    provider_status: Option<u64>,
}

impl Evidence {
    fn gather(error: &Error) -> Self {
        let mut evidence = Self { text: error.message().to_lowercase(), provider_status: None };
        for detail in error.details() {
            if let Some(debug) = &detail.debug {
                evidence.read(debug, 8);
            }
        }
        evidence
    }

    /// Adds the strings of a `debug` member, `levels` deep, and the provider's status.
    fn read(&mut self, value: &serde_json::Value, levels: u32) {
        use serde_json::Value;
        let Some(levels) = levels.checked_sub(1) else { return };
        match value {
            Value::String(text) => {
                self.text.push('\n');
                self.text.push_str(&text.to_lowercase());
            }
            Value::Array(items) => items.iter().for_each(|item| self.read(item, levels)),
            Value::Object(members) => {
                for (name, value) in members {
                    if name == "providerStatusCode" {
                        let text = value.as_str().and_then(|text| text.parse().ok());
                        self.provider_status = value.as_u64().or(text);
                    } else {
                        self.read(value, levels);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Whether one of `phrases` is in the text; `_` in it counts as a space.
    fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| {
            self.text.contains(phrase) || self.text.contains(&phrase.replace(' ', "_"))
        })
    }
}

/// Words of the service's error codes and titles, by what they mean; the first that fits counts.
fn by_words(evidence: &Evidence, at: &Circumstances) -> Option<Kind> {
    let retry_after = at.retry_after;
    let table: [(&[&str], Kind); 8] = [
        (&["blob not found"], Kind::BlobMissing),
        (
            &[
                "outdated client",
                "client is outdated",
                "client version",
                "update your client",
                "unsupported version",
                "please update",
                "update required",
            ],
            Kind::ClientOutdated,
        ),
        (
            &[
                "bad model name",
                "model not found",
                "unknown model",
                "invalid model",
                "model is not available",
                "model not available",
                "model does not exist",
                "unsupported model",
                "no such model",
            ],
            Kind::ModelNotAvailable,
        ),
        (&["not logged in", "invalid token", "token expired"], Kind::Unauthenticated),
        (
            &[
                "payload too large",
                "request too large",
                "message too large",
                "body too large",
                "too many bytes",
                "larger than max",
                "conversation too long",
                "prompt is too long",
                "context length",
            ],
            Kind::PayloadTooLarge,
        ),
        (
            &[
                "usage limit",
                "spend limit",
                "spending limit",
                "hard limit",
                "quota",
                "billing",
                "upgrade",
                "subscription",
                "pro user only",
                "your plan",
                "free user",
                "usage pricing",
                "out of credits",
            ],
            Kind::PlanLimit,
        ),
        (&["rate limit", "too many requests"], Kind::RateLimited { retry_after }),
        (&["overloaded", "high demand", "at capacity"], Kind::Overloaded { retry_after }),
    ];
    table.into_iter().find(|(phrases, _)| evidence.says(phrases)).map(|(_, kind)| kind)
}

/// The kind of a stated error.
fn kind(code: Code, evidence: &Evidence, at: &Circumstances) -> Kind {
    let retry_after = at.retry_after;
    match code {
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::Canceled => Kind::Cancelled,
        Code::DeadlineExceeded => Kind::DeadlineExceeded,
        Code::Unavailable => match evidence.provider_status {
            Some(429) => Kind::RateLimited { retry_after },
            _ => Kind::Overloaded { retry_after },
        },
        Code::ResourceExhausted => exhausted(evidence, at),
        Code::PermissionDenied => match by_words(evidence, at) {
            Some(kind @ (Kind::ClientOutdated | Kind::ModelNotAvailable | Kind::PlanLimit)) => kind,
            _ => Kind::PermissionDenied,
        },
        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition => {
            match by_words(evidence, at) {
                // A repair is tried for these; a word in passing must not start it.
                Some(Kind::BlobMissing) if code != Code::NotFound => Kind::Rejected,
                Some(kind) => kind,
                None => Kind::Rejected,
            }
        }
        Code::Internal | Code::Unknown => {
            match (by_words(evidence, at), evidence.provider_status) {
                (Some(Kind::BlobMissing), _) if code == Code::Internal => Kind::BlobMissing,
                (_, Some(429)) => Kind::RateLimited { retry_after },
                (_, Some(502..=504 | 529)) => Kind::Overloaded { retry_after },
                _ => Kind::Rejected,
            }
        }
        _ => Kind::Rejected,
    }
}

/// The code that means eight things. Without a readable reason: a run that was refused before its
/// first token is a request that is too large, else a conversation id that the service no longer
/// takes; after that, or outside a run, it is a quota. None of these is retried blindly.
fn exhausted(evidence: &Evidence, at: &Circumstances) -> Kind {
    let retry_after = at.retry_after;
    if let Some(kind) = by_words(evidence, at) {
        return kind;
    }
    match (evidence.provider_status, at.run) {
        (Some(413), _) => Kind::PayloadTooLarge,
        (Some(429), _) => Kind::RateLimited { retry_after },
        (Some(529), _) => Kind::Overloaded { retry_after },
        (_, Some(run)) if run.tokens == 0 && run.request_bytes >= LARGE_REQUEST => {
            Kind::PayloadTooLarge
        }
        (_, Some(run)) if run.tokens == 0 => Kind::ConversationPoisoned,
        _ if retry_after.is_some() => Kind::RateLimited { retry_after },
        _ => Kind::PlanLimit,
    }
}

/// What a person can do, where more is known than the kind: how long to wait, and that the version
/// may be to blame where the code is one that an outdated client gets (PROTOCOL 1).
fn hint(kind: &Kind, code: Code, retry_after: Option<Duration>) -> Option<String> {
    let wait = match (kind, retry_after) {
        (Kind::RateLimited { .. } | Kind::Overloaded { .. }, Some(wait)) => {
            Some(format!("try again in {} s", wait.as_secs().max(1)))
        }
        _ => None,
    };
    let version = match kind {
        Kind::PermissionDenied => return Some(HINT_VERSION.to_owned()),
        Kind::PlanLimit | Kind::RateLimited { .. } | Kind::Rejected => {
            code == Code::ResourceExhausted
        }
        _ => false,
    };
    match (wait, kind.advice()) {
        (Some(wait), _) if version => Some(format!("{wait}; {HINT_VERSION}")),
        (None, Some(advice)) if version => Some(format!("{advice}; {HINT_VERSION}")),
        (None, None) if version => Some(HINT_VERSION.to_owned()),
        (wait, _) => wait,
    }
}

/// Whose fault a stated error is: what the caller can change is the caller's, else the peer's.
fn blame(kind: &Kind) -> Blame {
    match kind {
        Kind::Unauthenticated
        | Kind::PermissionDenied
        | Kind::PlanLimit
        | Kind::RateLimited { .. }
        | Kind::PayloadTooLarge
        | Kind::ModelNotAvailable => Blame::Caller,
        Kind::ClientOutdated => Blame::Local,
        _ => Blame::Remote,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redactor;

    fn stated(json: &str, at: &Circumstances) -> Error {
        stated_error(Stated::parse(json, &Redactor::default()).unwrap(), at)
    }

    fn run(tokens: u64, request_bytes: usize) -> Circumstances {
        Circumstances { run: Some(RunSoFar { tokens, request_bytes }), retry_after: None }
    }

    #[test]
    fn each_code_alone() {
        let none = Circumstances::default();
        let expected = |code| match code {
            Code::Canceled => Kind::Cancelled,
            Code::DeadlineExceeded => Kind::DeadlineExceeded,
            Code::PermissionDenied => Kind::PermissionDenied,
            Code::ResourceExhausted => Kind::PlanLimit,
            Code::Unavailable => Kind::Overloaded { retry_after: None },
            Code::Unauthenticated => Kind::Unauthenticated,
            _ => Kind::Rejected,
        };
        for code in Code::ALL {
            let error = stated(&format!(r#"{{"code":"{code}","message":"no"}}"#), &none);
            assert_eq!((error.kind(), error.code()), (&expected(code), code));
            assert_eq!(error.message(), "no");
        }
    }

    #[test]
    fn resource_exhausted_by_circumstance() {
        let json = r#"{"code":"resource_exhausted","message":"Error"}"#;
        let cases = [
            (Circumstances::default(), Kind::PlanLimit),
            (run(0, 1000), Kind::ConversationPoisoned),
            (run(0, LARGE_REQUEST), Kind::PayloadTooLarge),
            (run(12, 1000), Kind::PlanLimit),
        ];
        for (at, expected) in cases {
            let error = stated(json, &at);
            assert_eq!(error.kind(), &expected);
            assert!(!error.is_retryable());
            assert_eq!(refine(stated(json, &Circumstances::default()), &at).kind(), &expected);
        }
    }

    #[test]
    fn words_and_details_say_more_than_the_code() {
        let retry_after = None;
        let cases = [
            (
                "resource_exhausted",
                "Your client version is no longer supported",
                Kind::ClientOutdated,
            ),
            ("resource_exhausted", "Upgrade to Pro", Kind::PlanLimit),
            ("resource_exhausted", "ERROR_RATE_LIMITED", Kind::RateLimited { retry_after }),
            ("resource_exhausted", "ERROR_BAD_MODEL_NAME", Kind::ModelNotAvailable),
            ("resource_exhausted", "payload too large", Kind::PayloadTooLarge),
            ("not_found", "Blob not found: ab", Kind::BlobMissing),
            ("internal", "Blob not found", Kind::BlobMissing),
            ("unknown", "Blob not found", Kind::Rejected),
            ("not_found", "model not found", Kind::ModelNotAvailable),
            ("permission_denied", "please update", Kind::ClientOutdated),
            ("internal", "the quota code broke", Kind::Rejected),
        ];
        for (code, text, expected) in cases {
            let plain = format!(r#"{{"code":"{code}","message":"{text}"}}"#);
            assert_eq!(stated(&plain, &run(0, 9)).kind(), &expected, "{text}");
            let debug = format!(
                r#"{{"code":"{code}","message":"Error","details":[{{"type":"aiserver.v1.ErrorDetails",
                   "value":"","debug":{{"details":{{"title":"{text}"}}}}}}]}}"#
            );
            assert_eq!(stated(&debug, &run(0, 9)).kind(), &expected, "{text} in debug");
        }
    }

    #[test]
    fn the_providers_status_counts() {
        let with = |code: &str, status: &str| {
            let json = format!(
                r#"{{"code":"{code}","details":[{{"type":"t","value":"",
                   "debug":{{"additionalInfo":{{"providerStatusCode":{status}}}}}}}]}}"#
            );
            stated(&json, &run(0, 9)).kind().clone()
        };
        let limited = Kind::RateLimited { retry_after: None };
        assert_eq!(with("resource_exhausted", "429"), limited);
        assert_eq!(with("unavailable", r#""429""#), limited);
        assert_eq!(with("internal", "529"), Kind::Overloaded { retry_after: None });
        assert_eq!(with("resource_exhausted", "413"), Kind::PayloadTooLarge);
        assert_eq!(with("internal", "400"), Kind::Rejected);
    }
}
