//! Which headers a caller may send, and how metadata becomes headers and back.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Metadata;
use crate::{Error, Result};

/// Bytes of headers that a call may send, names and values: what a peer takes that has the limit
/// which this crate has (64 KiB), less what the protocol itself sends. No option: it is what the caller
/// sends, and more would end the connection on the other side.
pub const MAX_TOTAL: usize = 60 << 10;

/// Belong to the connection or to the HTTP message, never to a call (PROTOCOL 1).
const REFUSED: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
    "content-length",
    "te",
    "trailer",
];

/// The protocol's own, which win over the caller's (PROTOCOL 1).
const OWN: [&str; 8] = [
    "content-type",
    "content-encoding",
    "accept-encoding",
    "connect-protocol-version",
    "connect-content-encoding",
    "connect-accept-encoding",
    "connect-timeout-ms",
    "grpc-timeout",
];

/// Values that HPACK must not index and nothing must show (FAULTS M89).
const SENSITIVE: [&str; 4] = ["authorization", "cookie", "set-cookie", "proxy-authorization"];

/// Base64 of `-bin` headers: sent without padding, read with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Adds a caller's metadata to `headers`, which hold nothing of the protocol's own yet.
///
/// # Errors
/// `invalid_argument` for a name or value that HTTP does not allow, for a name that belongs to the
/// connection, and for too much of it. The error names the header and never its value (FAULTS M87).
pub fn add(headers: &mut HeaderMap, metadata: &Metadata) -> Result<()> {
    let total: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if total > MAX_TOTAL {
        return Err(Error::invalid(format!(
            "the headers have {total} bytes, {MAX_TOTAL} are allowed"
        )));
    }
    for (name, value) in metadata {
        let (name, value) = check(name, value)?;
        if !OWN.contains(&name.as_str()) {
            headers.append(name, value);
        }
    }
    Ok(())
}

/// One header as HTTP has it.
///
/// # Errors
/// As [`add`].
pub fn check(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Error::invalid(format!("`{shown}` is not a header name")))?;
    if REFUSED.contains(&parsed.as_str()) {
        return Err(Error::invalid(format!(
            "the header `{shown}` belongs to the connection and cannot be set"
        )));
    }
    let plain = value.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte));
    let mut parsed_value =
        plain.then(|| HeaderValue::from_str(value).ok()).flatten().ok_or_else(|| {
            Error::invalid(format!("the value of the header `{shown}` is not plain ASCII text"))
        })?;
    parsed_value.set_sensitive(SENSITIVE.contains(&parsed.as_str()));
    Ok((parsed, parsed_value))
}

/// Headers as metadata: everything in the order it came. What is not UTF-8 is replaced.
pub fn metadata(headers: &HeaderMap) -> Metadata {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

/// A unary answer's headers, split: those that start with `trailer-` are trailers.
pub fn split_trailers(headers: Metadata) -> (Metadata, Metadata) {
    let (trailers, headers): (Metadata, Metadata) =
        headers.into_iter().partition(|(name, _)| name.starts_with("trailer-"));
    let bare = |(name, value): (String, String)| (name["trailer-".len()..].to_owned(), value);
    (headers, trailers.into_iter().map(bare).collect())
}

/// The text of a `-bin` header for these bytes.
pub fn encode_bin(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// The bytes of a `-bin` header; `None` when it is not base64.
pub fn decode_bin(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(name: &str, value: &str) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        add(&mut headers, &vec![(name.to_owned(), value.to_owned())])?;
        Ok(headers)
    }

    #[test]
    fn m87_what_http_does_not_allow_is_refused_without_its_value() {
        let cases = [
            ("x-a", "secret\r\nx: y"),
            ("x-a", "secret\0"),
            ("x-a", "secretä"),
            ("x a", "secret"),
            ("", "secret"),
            (":path", "secret"),
            ("x\r\n", "secret"),
            ("Connection", "secret"),
            ("HOST", "secret"),
            ("content-length", "secret"),
            ("te", "secret"),
        ];
        for (name, value) in cases {
            let error = added(name, value).unwrap_err();
            assert_eq!(error.code(), crate::connect::Code::InvalidArgument);
            assert!(!error.to_string().contains("secret"), "{error}");
            assert!(!error.to_string().contains('\r'));
        }
        assert!(added("x-a", &"v".repeat(MAX_TOTAL)).is_err());
    }

    #[test]
    fn the_protocols_own_headers_win_and_secrets_are_marked() {
        assert!(added("Content-Type", "text/plain").unwrap().is_empty());
        assert!(added("Authorization", "Bearer x").unwrap()["authorization"].is_sensitive());
        assert!(!added("X-Custom", "x").unwrap()["x-custom"].is_sensitive());
    }

    #[test]
    fn trailers_are_told_by_their_prefix() {
        let pairs = |list: &[(&str, &str)]| -> Metadata {
            list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let (headers, trailers) =
            split_trailers(pairs(&[("a", "1"), ("trailer-b", "2"), ("trailer-b", "3")]));
        assert_eq!(headers, pairs(&[("a", "1")]));
        assert_eq!(trailers, pairs(&[("b", "2"), ("b", "3")]));
    }

    #[test]
    fn binary_headers_are_base64_with_or_without_padding() {
        assert_eq!(encode_bin(b"\0\xff\x10\x20"), "AP8QIA");
        assert_eq!(decode_bin("AP8QIA=="), Some(b"\0\xff\x10\x20".to_vec()));
        assert_eq!(decode_bin("AP8QIA"), Some(b"\0\xff\x10\x20".to_vec()));
        assert_eq!(decode_bin("%%"), None);
    }
}
