//! The headers of a call (PROTOCOL 1): the protocol's own, and what a caller adds.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// What the service is told about the program that calls.
///
/// The service refuses versions that it holds for outdated, with 403, 426 or resource_exhausted;
/// the defaults are the ones the protocol is known to accept. They say how to speak, not who
/// speaks: a host that has its own agreement with the service, or tests that must not look like
/// another program, set their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `x-cursor-client-version`.
    pub version: String,
    /// `x-cursor-client-type`.
    pub client_type: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self { version: "cli-2026.01.09-231024f".to_owned(), client_type: "cli".to_owned() }
    }
}

/// Largest total of the headers that a caller adds, in bytes. 32 KiB: half of what servers of this
/// kind take (FAULTS, promises: header list 64 KiB). No option, as the next two: the caller gives
/// these, and no server would take more.
const MAX_EXTRA: usize = 32 << 10;

/// Largest token, in bytes: 16 KiB, several times the longest one seen.
const MAX_TOKEN: usize = 16 << 10;

/// Longest request id, in bytes.
const MAX_REQUEST_ID: usize = 256;

/// Names that HTTP/2 forbids or that the transport sets itself (PROTOCOL 1).
const FORBIDDEN: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
    "content-length",
];

/// Which of the two shapes of call the headers are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallShape {
    Run,
    Unary,
}

/// The part of the headers that is the same for all calls of a client, put together once.
#[derive(Debug, Clone)]
pub(crate) struct Headers {
    run: HeaderMap,
    unary: HeaderMap,
}

impl Headers {
    pub(crate) fn new(identity: &Identity, extra: &[(String, String)]) -> Result<Self> {
        let mut unary = extra_headers(extra)?;
        unary.remove(header::AUTHORIZATION);
        let put = |map: &mut HeaderMap, name, value| {
            map.insert(HeaderName::from_static(name), value);
        };
        for (name, text) in [("te", "trailers"), ("x-ghost-mode", "true")] {
            put(&mut unary, name, HeaderValue::from_static(text));
        }
        let version = value(&identity.version).ok_or_else(|| bad("client version"))?;
        put(&mut unary, "x-cursor-client-version", version);
        let client_type = value(&identity.client_type).ok_or_else(|| bad("client type"))?;
        put(&mut unary, "x-cursor-client-type", client_type);
        let mut run = unary.clone();
        put(&mut unary, "content-type", HeaderValue::from_static("application/proto"));
        for (name, text) in [
            ("content-type", "application/connect+proto"),
            ("connect-protocol-version", "1"),
            ("connect-accept-encoding", "gzip"),
        ] {
            put(&mut run, name, HeaderValue::from_static(text));
        }
        Ok(Self { run, unary })
    }

    /// All headers of one call. The protocol's own replace a caller's of the same name.
    pub(crate) fn of_call(
        &self,
        shape: CallShape,
        token: Option<&HeaderValue>,
        request_id: &str,
    ) -> Result<HeaderMap> {
        let request_id = Some(request_id)
            .filter(|id| id.len() <= MAX_REQUEST_ID)
            .and_then(value)
            .ok_or_else(|| bad("request id"))?;
        let mut map = match shape {
            CallShape::Run => self.run.clone(),
            CallShape::Unary => self.unary.clone(),
        };
        if let Some(token) = token {
            map.insert(header::AUTHORIZATION, token.clone());
        }
        map.insert(HeaderName::from_static("x-request-id"), request_id);
        Ok(map)
    }
}

/// The value of `authorization`, marked sensitive: h2 never indexes it, `Debug` hides it.
pub(crate) fn bearer(token: &Secret) -> Result<HeaderValue> {
    let token = token.expose();
    if token.is_empty() {
        return Err(Error::invalid("the token is empty"));
    }
    if token.len() > MAX_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid(
            "the token is not one: it is longer than 16 KiB or has blanks, control or non-ASCII characters",
        )
        .with_hint("check for a line break at the end of the token's file"));
    }
    let mut line = zeroize::Zeroizing::new(String::with_capacity(7 + token.len()));
    line.push_str("Bearer ");
    line.push_str(token);
    let mut header =
        HeaderValue::from_str(&line).map_err(|_| Error::invalid("the token is not one"))?;
    header.set_sensitive(true);
    Ok(header)
}

fn extra_headers(extra: &[(String, String)]) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    let mut total = 0_usize;
    for (index, (name, text)) in extra.iter().enumerate() {
        total = total.saturating_add(name.len()).saturating_add(text.len());
        if total > MAX_EXTRA {
            return Err(Error::invalid("the extra headers are larger than 32 KiB together"));
        }
        if name.starts_with(':') {
            return Err(Error::invalid(format!(
                "extra header {index} is a pseudo-header; HTTP/2 sets those itself"
            )));
        }
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Error::invalid(format!("extra header {index} has no valid name")))?;
        if FORBIDDEN.contains(&name.as_str()) {
            return Err(Error::invalid(format!(
                "extra header `{name}` is about the connection; the transport sets it itself"
            )));
        }
        let text = HeaderValue::from_str(text).map_err(|_| {
            Error::invalid(format!("extra header `{name}` has a control character in its value"))
        })?;
        map.append(name, text);
    }
    Ok(map)
}

/// A header value of visible ASCII and blanks inside.
fn value(text: &str) -> Option<HeaderValue> {
    let fine = !text.is_empty()
        && text.len() <= 1_024
        && text.trim() == text
        && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    if fine { HeaderValue::from_str(text).ok() } else { None }
}

fn bad(what: &str) -> Error {
    Error::invalid(format!("the {what} cannot be a header: it must be short, visible ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(extra: &[(&str, &str)], shape: CallShape) -> Vec<(String, String)> {
        let extra: Vec<_> = extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let token = bearer(&Secret::from("tok")).unwrap();
        let headers = Headers::new(&Identity::default(), &extra).unwrap();
        let map = headers.of_call(shape, Some(&token), "req-9").unwrap();
        let text = |v: &HeaderValue| v.to_str().unwrap().to_owned();
        map.iter().map(|(k, v)| (k.to_string(), text(v))).collect()
    }

    #[test]
    fn the_protocols_own_headers_win_over_a_callers() {
        let extra = [
            ("X-Team", "a"),
            ("x-team", "b"),
            ("Authorization", "Bearer mine"),
            ("TE", "gzip"),
            ("X-Request-ID", "other"),
            ("Connect-Protocol-Version", "7"),
        ];
        let got = all(&extra, CallShape::Run);
        let values = |name: &str| -> Vec<&str> {
            got.iter().filter(|(k, _)| k == name).map(|(_, v)| v.as_str()).collect()
        };
        assert_eq!(values("x-team"), ["a", "b"]);
        assert_eq!(values("authorization"), ["Bearer tok"]);
        assert_eq!(values("te"), ["trailers"]);
        assert_eq!(values("x-request-id"), ["req-9"]);
        assert_eq!(values("connect-protocol-version"), ["1"]);
        assert_eq!(values("connect-accept-encoding"), ["gzip"]);
    }

    #[test]
    fn unary_calls_do_not_say_how_they_stream() {
        let got = all(&[], CallShape::Unary);
        assert!(got.iter().all(|(name, _)| !name.starts_with("connect-")), "{got:?}");
        assert!(got.contains(&("content-type".to_owned(), "application/proto".to_owned())));
    }

    #[test]
    fn headers_of_the_connection_are_refused() {
        for name in
            FORBIDDEN.into_iter().chain([":path", ":authority", "bad name", "", "Host", "x\r\ny"])
        {
            let error = Headers::new(&Identity::default(), &[(name.to_owned(), "zz9".to_owned())])
                .expect_err(name);
            assert!(!error.to_string().contains("zz9"), "{error}");
        }
        let injected = ("x-a".to_owned(), "zz9\r\nx-b: 1".to_owned());
        assert!(Headers::new(&Identity::default(), &[injected]).is_err());
        let huge = ("x-a".to_owned(), "z".repeat(MAX_EXTRA));
        assert!(Headers::new(&Identity::default(), &[huge]).is_err());
    }

    #[test]
    fn a_token_that_is_none_is_refused_without_showing_it() {
        for token in ["", "zz9\n", "zz9\r\nx: y", "zz9 b", "zz9\u{e9}", "zz9\0"] {
            let error = bearer(&Secret::from(token)).expect_err("refused");
            assert!(!format!("{error:?}").contains("zz9"));
        }
        assert!(bearer(&Secret::new("t".repeat(1 << 20))).is_err());
        let header = bearer(&Secret::from("zz9")).unwrap();
        assert!(header.is_sensitive() && !format!("{header:?}").contains("zz9"));
    }

    #[test]
    fn ids_and_versions_that_cannot_be_headers_are_refused() {
        let headers = Headers::new(&Identity::default(), &[]).unwrap();
        for id in ["", "a\nb", "\u{fc}", " a", &"x".repeat(300)] {
            assert!(headers.of_call(CallShape::Run, None, id).is_err(), "{id:?}");
        }
        let identity = Identity { version: "1\r\nx: y".to_owned(), ..Identity::default() };
        assert!(Headers::new(&identity, &[]).is_err());
    }
}
