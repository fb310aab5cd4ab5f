//! What a token says about itself. Nothing is verified: only the service can do that, and it does.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::redact;

/// The longest token that is looked at, in bytes: 16 KiB, what the client would send. No option:
/// servers take 64 KiB of headers in all, and what is kept of a sign-in is bounded by it.
pub(super) const MAX_TOKEN: usize = 16 << 10;

/// The longest subject that is taken, in bytes: a line that is shown, no more. No option: nothing
/// depends on it.
const MAX_SUBJECT: usize = 256;

/// Either alphabet is mapped to this one, padding is dropped, and bits left over do not matter: tokens
/// are read as leniently as the reference does it (BEHAVIOUR, T09).
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Claims of a JSON web token; all empty for a token of another kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claims {
    /// `sub`: who it is for, on one printable line.
    pub subject: Option<String>,
    /// `exp` in seconds of the Unix clock, where it is a finite number other than 0. It may be
    /// negative or have a fraction.
    pub expires_s: Option<f64>,
}

impl Claims {
    /// Reads the claims of `token`; never fails.
    pub fn of(token: &str) -> Self {
        let Some(Value::Object(payload)) = payload(token) else { return Self::default() };
        let subject = payload.get("sub").and_then(Value::as_str).map(redact::clean);
        let subject = subject.filter(|text| !text.is_empty() && text.len() <= MAX_SUBJECT);
        let exp = payload.get("exp").and_then(Value::as_f64);
        Self { subject, expires_s: exp.filter(|exp| exp.is_finite() && *exp != 0.0) }
    }
}

/// The second part of a token as JSON.
fn payload(token: &str) -> Option<Value> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let part = token.split('.').nth(1)?;
    let standard = part.bytes().filter_map(|byte| match byte {
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        b'+' | b'/' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => Some(byte),
        _ => None,
    });
    let text: Zeroizing<Vec<u8>> = Zeroizing::new(standard.collect());
    // One character too many says nothing.
    let end = text.len() - usize::from(text.len() % 4 == 1);
    let json = Zeroizing::new(LENIENT.decode(text.get(..end)?).ok()?);
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A token with these claims.
    pub(in crate::auth) fn jwt(claims: &str) -> String {
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(r#"{"alg":"none"}"#), part(claims))
    }

    #[test]
    fn claims_are_read_leniently() {
        let claims = |text: &str| Claims::of(&jwt(text));
        let full = claims(r#"{"sub":"auth0|user_1","exp":2000}"#);
        assert_eq!(full.subject.as_deref(), Some("auth0|user_1"));
        assert_eq!(full.expires_s, Some(2000.0));
        assert_eq!(claims(r#"{"exp":-1.5}"#).expires_s, Some(-1.5));
        for nothing in [r#"{"exp":0}"#, r#"{"exp":"2000"}"#, r#"{"exp":null,"sub":7}"#, "[]", "{"] {
            assert_eq!(claims(nothing), Claims::default(), "{nothing}");
        }
        for opaque in ["", "tok", "a.b", "a.!.c", "..", "key_abc"] {
            assert_eq!(Claims::of(opaque), Claims::default(), "{opaque}");
        }
        let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(claims(&deep), Claims::default());
        assert_eq!(Claims::of(&"a.".repeat(MAX_TOKEN)), Claims::default());
    }

    #[test]
    fn both_alphabets_padding_and_stray_characters() {
        // {"exp":9,"sub":"?>~"} uses both of the characters that differ.
        let token = jwt(r#"{"exp":9,"sub":"??>>~~"}"#);
        let expected = Claims::of(&token);
        assert_eq!(expected.expires_s, Some(9.0));
        let mut parts = token.split('.');
        let (head, body) = (parts.next().unwrap(), parts.next().unwrap());
        for body in [
            body.replace('-', "+").replace('_', "/"),
            format!("{body}=="),
            format!("{} \n{}", &body[..5], &body[5..]),
        ] {
            assert_eq!(Claims::of(&format!("{head}.{body}")), expected, "{body}");
        }
    }

    #[test]
    fn a_subject_is_one_printable_line() {
        let subject = Claims::of(&jwt("{\"sub\":\"a\\u001b[2Jb\\nc\"}")).subject.unwrap();
        assert!(!subject.contains(['\u{1b}', '\n']), "{subject}");
    }
}
