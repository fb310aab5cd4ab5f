//! A sign-in as text: what a file or a keyring entry holds.
//!
//! ```json
//! {"version": 1, "endpoint": "https://…", "account": "default", "receivedAt": 1767225600000,
//!  "accessToken": "…", "refreshToken": "…"}
//! ```
//!
//! `receivedAt` is milliseconds of the Unix clock. Nothing else is kept: when the token ends is in the
//! token.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::claims::MAX_TOKEN;
use super::store::Key;
use super::tokens::Tokens;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// The format's version.
const VERSION: u64 = 1;

/// The largest text that is read, in bytes: two tokens of the longest kind and room for the rest.
pub(super) const MAX_TEXT: usize = 4 * MAX_TOKEN;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    version: u64,
    endpoint: &'a str,
    account: &'a str,
    received_at: u64,
    access_token: &'a str,
    refresh_token: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    version: u64,
    endpoint: String,
    account: String,
    received_at: f64,
    access_token: String,
    refresh_token: String,
}

/// The text of a sign-in. It holds both tokens in clear.
pub fn encode(key: &Key, tokens: &Tokens) -> Secret {
    let text = serde_json::to_string_pretty(&Written {
        version: VERSION,
        endpoint: &key.endpoint,
        account: &key.account,
        received_at: tokens.received_at_ms,
        access_token: tokens.access.expose(),
        refresh_token: tokens.refresh.expose(),
    });
    // Text and numbers can always be written.
    Secret::new(text.unwrap_or_default() + "\n")
}

/// Reads the text of a sign-in of `key`.
///
/// # Errors
/// [`Kind::Unauthenticated`]: it is damaged, of another version, or another account's. Nothing of the
/// text is in the error.
pub fn decode(text: &[u8], key: &Key) -> Result<Tokens> {
    if text.len() > MAX_TEXT {
        return Err(unusable("is larger than it can be"));
    }
    let versioned: Versioned = serde_json::from_slice(text).map_err(|_| unusable("is damaged"))?;
    if versioned.version != VERSION {
        return Err(unusable("is of another version"));
    }
    let read: Read = serde_json::from_slice(text).map_err(|_| unusable("is damaged"))?;
    let (access, refresh) = (Secret::new(read.access_token), Secret::new(read.refresh_token));
    if read.version != VERSION || read.endpoint != key.endpoint || read.account != key.account {
        return Err(unusable("is another account's"));
    }
    let sound = |token: &Secret| {
        let token = token.expose();
        (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
    };
    if !sound(&access) || !sound(&refresh) {
        return Err(unusable("is damaged"));
    }
    // A time that is none (FAULTS M95) makes the token old: it is refreshed before it is used.
    let received_at =
        if read.received_at.is_finite() { read.received_at.max(0.0) as u64 } else { 0 };
    Ok(Tokens::new(access, refresh, received_at))
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// The tokens' text in memory that is wiped.
pub(super) fn bytes(text: Vec<u8>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text)
}

pub(super) fn unusable(why: &str) -> Error {
    Error::new(Kind::Unauthenticated, format!("the sign-in that is kept here {why}"))
        .with_hint("sign in again: `agentwire login`")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn key() -> Key {
        Key::new("HTTPS://api.example/")
    }

    fn with(change: impl FnOnce(&mut Value)) -> Result<Tokens> {
        let text = encode(&key(), &Tokens::new("acc", "ref", 1_767_225_600_000));
        let mut value: Value = serde_json::from_str(text.expose()).unwrap();
        change(&mut value);
        decode(value.to_string().as_bytes(), &key())
    }

    #[test]
    fn a_sign_in_comes_back_as_it_was() {
        assert_eq!(with(|_| {}).unwrap(), Tokens::new("acc", "ref", 1_767_225_600_000));
        assert_eq!(key().endpoint, "https://api.example");
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_being_shown() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for damaged in ["", "{not json", "[]", "null", "{}", &deep, "\u{0}\u{1}"] {
            let error = decode(damaged.as_bytes(), &key()).unwrap_err();
            assert!(error.message().ends_with("is damaged"), "{error}");
        }
        let cases: [(&str, Value, &str); 9] = [
            ("version", json!(2), "another version"),
            ("version", json!("1"), "damaged"),
            ("endpoint", json!("https://other.example"), "another account"),
            ("account", json!("work"), "another account"),
            ("accessToken", json!(""), "damaged"),
            ("accessToken", json!("zz9\r\n"), "damaged"),
            ("refreshToken", json!(["zz9"]), "damaged"),
            ("refreshToken", json!("z".repeat(MAX_TOKEN + 1)), "damaged"),
            ("receivedAt", json!("zz9"), "damaged"),
        ];
        for (member, value, why) in cases {
            let error = with(|file| file[member] = value).unwrap_err();
            assert_eq!(error.kind(), &Kind::Unauthenticated);
            assert!(error.message().contains(why), "{member}: {error}");
            assert!(!format!("{error:?}").contains("zz9"));
        }
        assert!(decode(&vec![b' '; MAX_TEXT + 1], &key()).is_err());
    }

    #[test]
    fn m95_a_time_that_cannot_be_makes_a_token_old() {
        for time in [json!(-5), json!(-1e300)] {
            let tokens = with(|file| file["receivedAt"] = time).unwrap();
            assert_eq!(tokens.received_at_ms, 0);
        }
    }
}
