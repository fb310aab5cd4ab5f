//! Fuzz bodies of what reads foreign bytes: tokens, answers, kept sign-ins.

use std::time::{Duration, SystemTime};

use super::{Answer, Claims, Key, Tokens, decode, encode, expiry_ms};
use crate::redact::Redactor;
use crate::secret::Secret;

/// The secret that must not come out of anything.
const SECRET: &str = "secret-token-123";

/// Any text as a token: claims are read or not, and no time of them overflows.
///
/// # Panics
/// When a promise is broken.
pub fn token(text: &str) {
    let claims = Claims::of(text);
    assert!(claims.expires_s.is_none_or(|exp| exp.is_finite() && exp != 0.0));
    assert!(claims.subject.is_none_or(|subject| !subject.chars().any(char::is_control)));
    for now_ms in [0, 1_767_225_600_000, u64::MAX] {
        let _ms = expiry_ms(text, now_ms);
        let tokens = Tokens::new(text, "r", now_ms);
        assert!(tokens.due_at_ms() >= now_ms, "due before it came");
        assert!(!tokens.is_expired(now_ms), "ended before it came");
    }
}

/// Any bytes as the answer to a poll and to a refresh: tokens that can be sent, or an error of one
/// line without a secret.
///
/// # Panics
/// When a promise is broken. The first byte chooses the status.
pub fn answer(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else { return };
    let status = [200, 201, 302, 400, 401, 404, 429, 500].get(usize::from(choice % 8));
    let answer = Answer {
        status: status.copied().unwrap_or(200),
        headers: vec![("content-type".into(), "application/json".into())],
        body: zeroize::Zeroizing::new(body.to_vec()),
        received_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
    };
    let redactor = Redactor::new([SECRET]);
    for result in [answer.poll(&redactor), answer.refresh(&Secret::from(SECRET), &redactor)] {
        match result {
            Ok(tokens) => {
                let text = tokens.access.expose();
                assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            Err(error) => {
                let text = format!("{error} {error:?}");
                assert!(!text.contains(SECRET), "a secret in {text}");
                assert!(!text.contains(['\n', '\u{1b}']), "control characters in {text:?}");
            }
        }
    }
}

/// Any bytes as a kept sign-in: refused without a word of them, or read, and then written and read
/// again as the same.
///
/// # Panics
/// When a promise is broken.
pub fn kept(text: &[u8]) {
    let key = Key::new("https://api.example");
    match decode(text, &key) {
        Ok(tokens) => {
            let again = decode(encode(&key, &tokens).expose().as_bytes(), &key);
            let again = again.expect("what was written can be read");
            assert_eq!((&again.access, &again.refresh), (&tokens.access, &tokens.refresh));
        }
        Err(error) => assert!(!format!("{error} {error:?}").contains(SECRET)),
    }
}
