//! What the service's answers to a poll and to a refresh mean (BEHAVIOUR 9).

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::claims::MAX_TOKEN;
use super::tokens::Tokens;
use crate::connect::error_from_http;
use crate::error::{Error, Kind, Result};
use crate::redact::Redactor;
use crate::secret::Secret;

/// An HTTP answer, as far as it counts here. `Debug` shows no content.
#[derive(Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case with their values.
    pub headers: Vec<(String, String)>,
    /// The body, as far as the limits of the sign-in let it be read.
    pub body: zeroize::Zeroizing<Vec<u8>>,
    /// The wall clock when it came.
    pub received_at: SystemTime,
}

impl Answer {
    /// The tokens of a poll's answer: both have to be there.
    ///
    /// # Errors
    /// The answer is no success, no JSON, or without one of the tokens.
    pub fn poll(&self, redactor: &Redactor) -> Result<Tokens> {
        let what = "the sign-in was not confirmed";
        let (access, refresh) = self.tokens(what, redactor)?;
        let missing = |name| no_token(format!("{what}: the service sent no {name} token"));
        let access = access.ok_or_else(|| missing("access"))?;
        let refresh = refresh.ok_or_else(|| missing("refresh"))?;
        Ok(Tokens::new(access, refresh, self.received_at_ms()))
    }

    /// The tokens of a refresh's answer; the old refresh token stays where no new one came.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] for 401 and 403: the refresh token is no longer good, and only a new
    /// sign-in helps. Else the answer is no success, no JSON, or without an access token.
    pub fn refresh(&self, old: &Secret, redactor: &Redactor) -> Result<Tokens> {
        let what = "the token could not be refreshed";
        if matches!(self.status, 401 | 403) {
            let text = "the sign-in has ended: the service no longer takes its refresh token";
            return Err(Error::new(Kind::Unauthenticated, text)
                .with_http_status(self.status)
                .with_hint("sign in again: `agentwire login`"));
        }
        let (access, refresh) = self.tokens(what, redactor)?;
        let access =
            access.ok_or_else(|| no_token(format!("{what}: the service sent no access token")))?;
        let refresh = refresh.unwrap_or_else(|| old.clone());
        Ok(Tokens::new(access, refresh, self.received_at_ms()))
    }

    /// How long a failed attempt should wait, where the service says so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        crate::connect::retry_after(&self.headers, self.received_at)
    }

    fn received_at_ms(&self) -> u64 {
        let since = self.received_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// The tokens in a successful answer; an empty one counts as none.
    fn tokens(&self, what: &str, redactor: &Redactor) -> Result<(Option<Secret>, Option<Secret>)> {
        if !(200..300).contains(&self.status) {
            let (headers, body) = (&self.headers, self.body.as_slice());
            let error = error_from_http(self.status, headers, body, redactor, self.received_at);
            let text = redactor.clean(&format!("{what}: {}", error.message()));
            return Err(error.with_message(text));
        }
        self.check_content_type(what, redactor)?;
        let members: Members<'_> = serde_json::from_slice(&self.body)
            .map_err(|_| no_token(format!("{what}: the answer is not a JSON object")))?;
        let access = token(members.access.or(members.access_snake), what)?;
        let refresh = token(members.refresh.or(members.refresh_snake), what)?;
        Ok((access, refresh))
    }

    fn check_content_type(&self, what: &str, redactor: &Redactor) -> Result<()> {
        let given = self.headers.iter().find(|(name, _)| name == "content-type");
        let given = given.map_or("", |(_, value)| value.as_str());
        let media = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if media == "application/json" || media.ends_with("+json") {
            return Ok(());
        }
        let short: String = given.chars().take(100).collect();
        let shown = if given.is_empty() { "missing".into() } else { redactor.clean(&short) };
        let text = format!("{what}: the answer's content type is {shown}, not application/json");
        Err(Error::protocol(text)
            .with_http_status(self.status)
            .with_hint("something between here and the service may have answered instead"))
    }
}

/// The members that count, not yet looked into.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, rename = "accessToken")]
    access: Option<&'a RawValue>,
    #[serde(borrow, rename = "access_token")]
    access_snake: Option<&'a RawValue>,
    #[serde(borrow, rename = "refreshToken")]
    refresh: Option<&'a RawValue>,
    #[serde(borrow, rename = "refresh_token")]
    refresh_snake: Option<&'a RawValue>,
}

/// A token that can be sent; `None` for what is no text, or an empty one.
fn token(value: Option<&RawValue>, what: &str) -> Result<Option<Secret>> {
    let text = value.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let Some(token) = text.map(Secret::new).filter(|token| !token.expose().is_empty()) else {
        return Ok(None);
    };
    let text = token.expose();
    if text.len() > MAX_TOKEN || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(no_token(format!("{what}: the service sent a token that cannot be one")));
    }
    Ok(Some(token))
}

fn no_token(text: String) -> Error {
    Error::protocol(text)
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (status, bytes) = (self.status, self.body.len());
        f.debug_struct("Answer").field("status", &status).field("bytes", &bytes).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::claims::tests::jwt;
    use super::*;

    /// An answer at second 1 of the Unix clock.
    pub(in crate::auth) fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            headers: vec![("content-type".into(), "application/json; charset=utf-8".into())],
            body: zeroize::Zeroizing::new(body.as_bytes().to_vec()),
            received_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1),
        }
    }

    fn redactor() -> Redactor {
        Redactor::new(["verifier-of-this-login"])
    }

    #[test]
    fn both_spellings_of_the_tokens_are_known() {
        for body in [
            r#"{"accessToken":"a","refreshToken":"r"}"#,
            r#"{"access_token":"a","refresh_token":"r","more":[1]}"#,
            r#"{"accessToken":"a","refresh_token":"r"}"#,
        ] {
            let tokens = answer(200, body).poll(&redactor()).unwrap();
            assert_eq!(tokens, Tokens::new("a", "r", 1_000));
        }
    }

    #[test]
    fn answers_without_both_tokens_are_refused_at_once() {
        for body in [
            "",
            "{",
            "[]",
            "null",
            "7",
            "{}",
            r#"{"accessToken":"a"}"#,
            r#"{"refreshToken":"r"}"#,
            r#"{"accessToken":"","refreshToken":"r"}"#,
            r#"{"accessToken":7,"refreshToken":"r"}"#,
            r#"{"accessToken":"a b","refreshToken":"r"}"#,
            "{\"accessToken\":\"a\\r\\nx\",\"refreshToken\":\"r\"}",
        ] {
            let error = answer(200, body).poll(&redactor()).unwrap_err();
            assert_eq!(error.kind(), &Kind::Protocol, "{body}");
            assert!(error.message().starts_with("the sign-in was not confirmed"), "{error}");
        }
        let long =
            format!(r#"{{"accessToken":"{}","refreshToken":"r"}}"#, "a".repeat(MAX_TOKEN + 1));
        assert!(answer(200, &long).poll(&redactor()).is_err());
    }

    /// C003: the old refresh token is kept; the new access token's `exp` counts.
    #[test]
    fn c003_a_refresh_without_a_new_refresh_token_keeps_the_old_one() {
        let access = jwt(r#"{"exp":3000}"#);
        for more in ["", r#","refreshToken":"""#, r#","refreshToken":null"#] {
            let body = format!(r#"{{"accessToken":"{access}"{more}}}"#);
            let tokens = answer(200, &body).refresh(&Secret::from("old"), &redactor()).unwrap();
            assert_eq!(tokens.refresh.expose(), "old");
            assert_eq!(tokens.due_at_ms(), 2_700_000);
            assert_eq!(super::super::expiry_ms(tokens.access.expose(), 1_000), 2_700_000);
            let shown = format!("{tokens:?} {}", tokens.access);
            assert!(!shown.contains(&access) && !shown.contains("old"), "{shown}");
        }
        let body = r#"{"accessToken":"a","refreshToken":"new"}"#;
        let tokens = answer(200, body).refresh(&Secret::from("old"), &redactor()).unwrap();
        assert_eq!(tokens.refresh.expose(), "new");
        assert!(answer(200, "{}").refresh(&Secret::from("old"), &redactor()).is_err());
    }

    #[test]
    fn a_refused_refresh_token_means_a_new_sign_in() {
        for status in [401, 403] {
            let error = answer(status, "x").refresh(&Secret::from("old"), &redactor()).unwrap_err();
            assert_eq!(error.kind(), &Kind::Unauthenticated);
            assert!(error.hint().unwrap().contains("login"));
        }
    }

    #[test]
    fn c004_an_answer_that_repeats_the_secret_is_cleaned() {
        let old = Secret::from("old-refresh-token-1");
        let redactor = Redactor::new([old.expose()]);
        let error = answer(500, "no: old-refresh-token-1").refresh(&old, &redactor).unwrap_err();
        assert_eq!(error.http_status(), Some(500));
        assert!(!format!("{error} {error:?}").contains("old-refresh-token-1"), "{error}");
        let mut html = answer(200, "<html>");
        html.headers = vec![("content-type".into(), "text/old-refresh-token-1".into())];
        let error = html.refresh(&old, &redactor).unwrap_err();
        assert_eq!(error.kind(), &Kind::Protocol);
        assert!(!error.to_string().contains("old-refresh-token-1"), "{error}");
        html.headers.clear();
        assert!(html.refresh(&old, &redactor).unwrap_err().message().contains("missing"));
    }
}
