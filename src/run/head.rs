//! The response head of a run: is it a stream of ours?

use std::time::SystemTime;

use crate::connect::Compression;
use crate::error::{Error, Result};

/// Status and headers of the response.
#[derive(Clone)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case with their values, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The wall clock when it arrived: a `retry-after` may name a date.
    pub received_at: SystemTime,
}

impl Head {
    /// The first value of a header; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Debug for Head {
    /// Names only: a value can be anything a server likes to echo.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Head").field("status", &self.status).field("headers", &names).finish()
    }
}

/// Content type of a Run stream, both ways (PROTOCOL 1).
pub(crate) const CONTENT_TYPE: &str = "application/connect+proto";

/// Checks the head before a byte of the body is decoded (FAULTS M24, M29, M38–M41).
///
/// `Err(None)` is an HTTP status that is not 200: its body says more and has to be read.
pub(crate) fn check_head(head: &Head) -> Result<Compression, Option<Error>> {
    if head.status != 200 {
        return Err(None);
    }
    let content_type = head.get("content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(CONTENT_TYPE) {
        let got = if content_type.is_empty() { "none".to_owned() } else { shown(content_type) };
        return Err(Some(
            Error::protocol(format!("the answer's content type is {got}, not {CONTENT_TYPE}"))
                .with_http_status(head.status)
                .with_hint("something between here and the service may have answered instead"),
        ));
    }
    if let Some(encoding) = head.get("content-encoding").filter(|e| !is_identity(e)) {
        let encoding = shown(encoding);
        return Err(Some(Error::protocol(format!(
            "the stream as a whole is encoded ({encoding}); only envelopes can be"
        ))));
    }
    match head.get("connect-content-encoding") {
        None => Ok(Compression::None),
        Some(encoding) if is_identity(encoding) => Ok(Compression::None),
        Some(encoding) if encoding.eq_ignore_ascii_case("gzip") => Ok(Compression::Gzip),
        Some(encoding) => Err(Some(Error::protocol(format!(
            "the service compresses with {}, which was not offered",
            shown(encoding)
        )))),
    }
}

fn is_identity(encoding: &str) -> bool {
    encoding.is_empty() || encoding.eq_ignore_ascii_case("identity")
}

/// A header value in an error: quoted, escaped, short.
fn shown(value: &str) -> String {
    format!("\"{}\"", value.chars().take(100).collect::<String>().escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, headers: &[(&str, &str)]) -> Head {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Head { status, headers, received_at: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn a_stream_of_ours_passes() {
        for value in ["application/connect+proto", "Application/Connect+Proto; charset=x"] {
            let plain = head(200, &[("content-type", value)]);
            assert_eq!(check_head(&plain).ok(), Some(Compression::None));
        }
        let gzip =
            head(200, &[("content-type", CONTENT_TYPE), ("connect-content-encoding", "gzip")]);
        assert_eq!(check_head(&gzip).ok(), Some(Compression::Gzip));
    }

    #[test]
    fn anything_else_is_refused_before_decoding() {
        let ours = ("content-type", CONTENT_TYPE);
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[("content-type", "text/html")], "\"text/html\""),
            (&[], "content type is none"),
            (&[ours, ("connect-content-encoding", "b\u{1b}r")], "\"b\\u{1b}r\""),
            (&[ours, ("content-encoding", "gzip")], "as a whole"),
        ];
        for (headers, text) in cases {
            let Err(Some(error)) = check_head(&head(200, headers)) else { panic!("{text}") };
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(matches!(check_head(&head(401, &[ours])), Err(None)));
    }
}
