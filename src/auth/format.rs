//! A sign-in as text: what a file or a keyring entry holds.
//!
//! ```json
//! {"version": 1, "endpoint": "https://…", "account": "default", "receivedAt": 1767225600000,
//!  "accessToken": "…", "refreshToken": "…"}
//! ```
//!
//! `receivedAt` is milliseconds of the Unix clock. Nothing else is kept: when the token ends is in the
//! token.

use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::claims::MAX_TOKEN;
use super::store::Key;
use super::tokens::Tokens;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// The format's version.
const VERSION: u64 = 1;

/// The largest text that is read, in bytes: two tokens of the longest kind and room for the rest. No
/// option: only this library writes it, and it writes no more.
pub(super) const MAX_TEXT: usize = 4 * MAX_TOKEN;

/// Why a sign-in cannot be used.
pub(super) const TOO_LARGE: &str = "is larger than it can be";
const DAMAGED: &str = "is damaged";

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
    access_token: Token,
    refresh_token: Token,
}

/// A token on its way in: it goes from the text into memory that is wiped, and nowhere else.
struct Token(Secret);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Token;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token")
            }
            fn visit_str<E>(self, text: &str) -> Result<Token, E> {
                Ok(Token(Secret::from(text)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The text of a sign-in. It holds both tokens in clear.
pub fn encode(key: &Key, tokens: &Tokens) -> Secret {
    /// The names of the members, the punctuation and the two numbers.
    const FRAME: usize = 256;
    let written = Written {
        version: VERSION,
        endpoint: &key.endpoint,
        account: &key.account,
        received_at: tokens.received_at_ms,
        access_token: tokens.access.expose(),
        refresh_token: tokens.refresh.expose(),
    };
    // A character becomes six at most. With room for all of them the text never moves, so that no copy
    // of it is left in memory that nobody wipes.
    let characters =
        [written.endpoint, written.account, written.access_token, written.refresh_token];
    let room = FRAME + 6 * characters.iter().map(|text| text.len()).sum::<usize>();
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    // Text and numbers can always be written, and JSON is UTF-8.
    let _always = serde_json::to_writer_pretty(&mut *text, &written);
    text.push(b'\n');
    Secret::new(String::from_utf8(std::mem::take(&mut *text)).unwrap_or_default())
}

/// Reads the text of a sign-in of `key`.
///
/// # Errors
/// [`Kind::Unauthenticated`]: it is damaged, of another version, or another account's. Nothing of the
/// text is in the error.
pub fn decode(text: &[u8], key: &Key) -> Result<Tokens> {
    read(text, key).map_err(|why| unusable("the kept sign-in", why))
}

/// As [`decode`]; of a failure it gives only the reason, for whoever knows the place.
pub(super) fn read(text: &[u8], key: &Key) -> Result<Tokens, &'static str> {
    if text.len() > MAX_TEXT {
        return Err(TOO_LARGE);
    }
    let versioned: Versioned = serde_json::from_slice(text).map_err(|_| DAMAGED)?;
    if versioned.version != VERSION {
        return Err("is of another version");
    }
    let read: Read = serde_json::from_slice(text).map_err(|_| DAMAGED)?;
    let (Token(access), Token(refresh)) = (read.access_token, read.refresh_token);
    if read.version != VERSION || read.endpoint != key.endpoint || read.account != key.account {
        return Err("is another account's");
    }
    let sound = |token: &Secret| {
        let token = token.expose();
        (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic())
    };
    if !sound(&access) || !sound(&refresh) {
        return Err(DAMAGED);
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

/// The error of a sign-in at a place that cannot be used, with a reason of [`read`]'s.
pub(super) fn unusable(place: &str, why: &str) -> Error {
    Error::new(Kind::Unauthenticated, format!("{place} {why}"))
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
    fn a_text_is_written_where_it_stays() {
        let tokens = Tokens::new("\"".repeat(5_000), "r".repeat(9_000), u64::MAX);
        let key = key().account("\u{1}".repeat(3_000));
        let text = encode(&key, &tokens);
        assert!(text.expose().len() <= text.expose().capacity());
        // Six for each of the account's characters, two for each quote: it fitted the first time.
        let room = 256 + 6 * (key.endpoint.len() + 3_000 + 5_000 + 9_000);
        assert_eq!(text.expose().capacity(), room);
        assert_eq!(decode(text.expose().as_bytes(), &key).unwrap(), tokens);
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
