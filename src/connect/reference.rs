//! The reference's classification of errors, for the vectors: which of its five classes an answer
//! falls into, and the peer's text as it cleans it (BEHAVIOUR 7). The sentence around is not ours.

use super::json::string;
use crate::redact::Redactor;

/// The classes that the reference's transport knows (BEHAVIOUR 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReferenceClass {
    /// 401, 403, or the code `unauthenticated`.
    Unauthorized,
    /// Every other refusal.
    CursorApiRejected,
    /// The code `canceled`.
    Aborted,
    /// The codes `resource_exhausted` and `unavailable`.
    NetworkError,
    /// Bytes that do not parse.
    ProtocolError,
}

impl ReferenceClass {
    /// The name in the vectors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "Unauthorized",
            Self::CursorApiRejected => "CursorApiRejected",
            Self::Aborted => "Aborted",
            Self::NetworkError => "NetworkError",
            Self::ProtocolError => "ProtocolError",
        }
    }
}

/// A failure as the reference sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceFailure {
    /// The class.
    pub class: ReferenceClass,
    /// The code that the peer wrote, any string; `unknown` where it wrote none.
    pub code: String,
    /// The peer's message, cleaned; `None` where it gave none and the reference puts its own.
    pub text: Option<String>,
}

/// What the reference makes of an end-stream payload (BEHAVIOUR 7.2). Much that is malformed is a
/// success to it; [`super::EndStream::parse`] is stricter on purpose.
pub fn end_stream(payload: &[u8], redactor: &Redactor) -> Result<(), ReferenceFailure> {
    use serde_json::Value;
    let unknown = |class, text| ReferenceFailure { class, code: "unknown".to_owned(), text };
    let value: Value = serde_json::from_slice(payload)
        .map_err(|_| unknown(ReferenceClass::ProtocolError, None))?;
    match value.get("error") {
        None | Some(Value::Null | Value::Bool(false)) => Ok(()),
        Some(Value::String(text)) if text.is_empty() => Ok(()),
        Some(Value::Number(number)) if number.as_f64() == Some(0.0) => Ok(()),
        Some(Value::Object(error)) => {
            let text = |name| error.get(name).and_then(Value::as_str);
            let code = text("code").unwrap_or("unknown");
            let class = match code {
                "unauthenticated" => ReferenceClass::Unauthorized,
                "canceled" => ReferenceClass::Aborted,
                "resource_exhausted" | "unavailable" => ReferenceClass::NetworkError,
                _ => ReferenceClass::CursorApiRejected,
            };
            let text = text("message").map(|text| redactor.clean(text));
            Err(ReferenceFailure { class, code: code.to_owned(), text })
        }
        Some(other) => {
            let text = redactor.clean(&as_javascript(other));
            Err(unknown(ReferenceClass::CursorApiRejected, Some(text)))
        }
    }
}

/// How JavaScript prints a value that is no object, inside a text.
fn as_javascript(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(items) => items.iter().map(as_javascript).collect::<Vec<_>>().join(","),
        Value::Object(_) => "[object Object]".to_owned(),
        other => string(&other.to_string()).unwrap_or_else(|| other.to_string()),
    }
}

/// What the reference makes of a unary answer's status (BEHAVIOUR 7.3); a missing one is fine.
pub fn http_status(
    status: Option<u16>,
    body: &str,
    redactor: &Redactor,
) -> Result<(), ReferenceFailure> {
    let class = match status {
        None | Some(200..=299) => return Ok(()),
        Some(401 | 403) => ReferenceClass::Unauthorized,
        Some(_) => ReferenceClass::CursorApiRejected,
    };
    let text = Some(redactor.clean(body)).filter(|text| !text.is_empty());
    Err(ReferenceFailure { class, code: status.map_or_else(String::new, |s| s.to_string()), text })
}
