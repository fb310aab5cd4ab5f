//! What the head of a request or of an answer must say, for unary calls and for streams.

use http::{HeaderMap, Method};

use crate::connect::{Code, Compression};
use crate::{Error, Result};

/// Content type of a unary request and of its answer.
pub const UNARY: &str = "application/proto";
/// Content type of a stream, both ways.
pub const STREAM: &str = "application/connect+proto";
/// Content type of a unary error.
pub const ERROR: &str = "application/json";

/// Whether a call is unary or a stream of any shape: they differ in everything on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One message each way, bare.
    Unary,
    /// Envelopes each way.
    Stream,
}

impl Shape {
    /// The content type of this shape.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Unary => UNARY,
            Self::Stream => STREAM,
        }
    }

    /// The header that names the compression of its messages.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Unary => "content-encoding",
            Self::Stream => "connect-content-encoding",
        }
    }

    /// The header that names the compressions that the sender can read.
    pub fn accept(self) -> &'static str {
        match self {
            Self::Unary => "accept-encoding",
            Self::Stream => "connect-accept-encoding",
        }
    }
}

/// Judges the head of an answer with status 200. `offered`: we said that we read gzip.
///
/// # Errors
/// `unknown` for an answer that is not of this protocol (FAULTS M41), `internal` for another codec
/// and for a compression that we did not offer (M24, M25, M29).
pub fn check_answer(shape: Shape, headers: &HeaderMap, offered: bool) -> Result<Compression> {
    let kind = content_type(headers).unwrap_or_default();
    if kind != shape.content_type() {
        let shown = shown(&kind);
        let ours = match shape {
            Shape::Unary => kind == ERROR || kind == STREAM,
            Shape::Stream => kind.starts_with("application/connect+"),
        };
        let error = Error::protocol(format!(
            "the answer has the content type `{shown}`, not {}",
            shape.content_type()
        ));
        return Err(if ours { error } else { error.with_code(Code::Unknown) });
    }
    if shape == Shape::Stream {
        encoding(headers, "content-encoding", false)?;
    }
    encoding(headers, shape.encoding(), offered)
}

/// The compression that the header `name` names.
fn encoding(headers: &HeaderMap, name: &str, offered: bool) -> Result<Compression> {
    match text(headers, name).as_str() {
        "" | "identity" => Ok(Compression::None),
        "gzip" if offered => Ok(Compression::Gzip),
        other => Err(Error::protocol(format!(
            "the answer is encoded as `{}`, which was not offered",
            shown(other)
        ))),
    }
}

/// Why a request is refused before anybody looks at its messages.
#[derive(Debug)]
pub enum Refusal {
    /// With this HTTP status: the peer does not speak the protocol, or not to this path.
    Status(u16),
    /// With an error of the protocol.
    Error(Error),
}

/// Judges the head of a request for a path of this shape (FAULTS M100).
///
/// # Errors
/// 405, 415, `invalid_argument` for another protocol version, `unimplemented` for a compression
/// that is not read here.
pub fn check_request(
    shape: Shape,
    method: &Method,
    headers: &HeaderMap,
) -> std::result::Result<Compression, Refusal> {
    if method != Method::POST {
        return Err(Refusal::Status(405));
    }
    if content_type(headers).as_deref() != Some(shape.content_type()) {
        return Err(Refusal::Status(415));
    }
    let version = text(headers, "connect-protocol-version");
    if !matches!(version.as_str(), "" | "1") {
        return Err(Refusal::Error(Error::invalid("the header connect-protocol-version is not 1")));
    }
    match text(headers, shape.encoding()).as_str() {
        "" | "identity" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        other => Err(Refusal::Error(
            Error::invalid(format!(
                "the encoding `{}` is not supported; supported: gzip, identity",
                shown(other)
            ))
            .with_code(Code::Unimplemented),
        )),
    }
}

/// Whether the peer said that it reads gzip.
pub fn accepts_gzip(shape: Shape, headers: &HeaderMap) -> bool {
    let values = headers.get_all(shape.accept()).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let refused = |part: &str| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        parts.next() == Some("gzip") && !parts.any(refused)
    })
}

/// The media type in lower case, without parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("content-type")?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn text(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.unwrap_or_default().trim().to_ascii_lowercase()
}

/// A peer's word for an error text: short and escaped.
fn shown(word: &str) -> String {
    word.chars().take(40).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    #[allow(clippy::type_complexity, reason = "a table")]
    fn m41_m24_m29_answers() {
        use Shape::{Stream, Unary};
        let ct = "content-type";
        let cases: &[(Shape, &[(&str, &str)], bool, Option<Code>)] = &[
            (Stream, &[(ct, "application/connect+proto")], true, None),
            (Stream, &[(ct, "Application/Connect+Proto; charset=x")], true, None),
            (Stream, &[(ct, "application/connect+json")], true, Some(Code::Internal)),
            (Stream, &[(ct, "application/proto")], true, Some(Code::Unknown)),
            (Stream, &[(ct, "text/html")], true, Some(Code::Unknown)),
            (Stream, &[], true, Some(Code::Unknown)),
            (Stream, &[(ct, STREAM), ("connect-content-encoding", "gzip")], true, None),
            (Stream, &[(ct, STREAM), ("connect-content-encoding", "identity")], false, None),
            (
                Stream,
                &[(ct, STREAM), ("connect-content-encoding", "gzip")],
                false,
                Some(Code::Internal),
            ),
            (
                Stream,
                &[(ct, STREAM), ("connect-content-encoding", "lz4")],
                true,
                Some(Code::Internal),
            ),
            (Stream, &[(ct, STREAM), ("content-encoding", "gzip")], true, Some(Code::Internal)),
            (Unary, &[(ct, UNARY)], true, None),
            (Unary, &[(ct, UNARY), ("content-encoding", "gzip")], true, None),
            (Unary, &[(ct, UNARY), ("content-encoding", "br")], true, Some(Code::Internal)),
            (Unary, &[(ct, "application/json")], true, Some(Code::Internal)),
            (Unary, &[(ct, "image/jpeg")], true, Some(Code::Unknown)),
        ];
        for (shape, list, offered, expected) in cases {
            let result = check_answer(*shape, &headers(list), *offered);
            assert_eq!(result.err().map(|error| error.code()), *expected, "{list:?}");
        }
        let evil = headers(&[(ct, STREAM), ("connect-content-encoding", "a\u{9f}\u{e4}")]);
        let error = check_answer(Stream, &evil, true).unwrap_err();
        assert!(error.to_string().is_ascii(), "{error}");
    }

    #[test]
    #[allow(clippy::type_complexity, reason = "a table")]
    fn m100_requests() {
        let refusal = |method: Method, list: &[(&'static str, &str)]| match check_request(
            Shape::Unary,
            &method,
            &headers(list),
        ) {
            Ok(_) => None,
            Err(Refusal::Status(status)) => Some(status.to_string()),
            Err(Refusal::Error(error)) => Some(error.code().to_string()),
        };
        let ok = ("content-type", UNARY);
        let cases: &[(Method, &[(&str, &str)], Option<&str>)] = &[
            (Method::POST, &[ok], None),
            (Method::POST, &[ok, ("connect-protocol-version", "1")], None),
            (Method::POST, &[ok, ("connect-protocol-version", "2")], Some("invalid_argument")),
            (Method::GET, &[ok], Some("405")),
            (Method::DELETE, &[ok], Some("405")),
            (Method::POST, &[], Some("415")),
            (Method::POST, &[("content-type", STREAM)], Some("415")),
            (Method::POST, &[ok, ("content-encoding", "gzip")], None),
            (Method::POST, &[ok, ("content-encoding", "zstd")], Some("unimplemented")),
        ];
        for (method, list, expected) in cases {
            assert_eq!(refusal(method.clone(), list).as_deref(), *expected, "{method} {list:?}");
        }
    }

    #[test]
    fn gzip_is_accepted_when_it_is_listed() {
        let accepts =
            |value: &str| accepts_gzip(Shape::Unary, &headers(&[("accept-encoding", value)]));
        assert!(accepts("gzip") && accepts("br, gzip;q=0.5"));
        assert!(!accepts("br") && !accepts("gzip;q=0") && !accepts("gzipx"));
        assert!(!accepts_gzip(Shape::Unary, &HeaderMap::new()));
    }
}
