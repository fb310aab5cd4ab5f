//! The secret of one login, and the page on which a person confirms it (PROTOCOL 1, BEHAVIOUR 9).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::secret::Secret;

/// The page's path, below the web base.
pub const LOGIN_PATH: &str = "/loginDeepControl";

/// Where it is asked whether the login was confirmed, below the API base.
pub const POLL_PATH: &str = "/auth/poll";

/// Random bytes that a verifier is made of: 96, which is 128 characters, the most that RFC 7636
/// section 4.1 allows.
pub const ENTROPY: usize = 96;

/// One login: its id, its secret (the verifier), and the digest of that (the challenge).
///
/// Only the challenge is in the page's address; whoever sees that cannot fetch the tokens.
#[derive(Debug, Clone)]
pub struct Pkce {
    verifier: Secret,
    id: Secret,
    challenge: String,
}

impl Pkce {
    /// A login with the id `uuid`; `entropy` is from the system's generator and used once.
    pub fn new(entropy: &[u8; ENTROPY], uuid: impl Into<Secret>) -> Self {
        let verifier = URL_SAFE_NO_PAD.encode(entropy);
        let challenge = Self::challenge_of(&verifier);
        Self { verifier: verifier.into(), id: uuid.into(), challenge }
    }

    /// The S256 challenge of a verifier: its SHA-256 in base64url.
    pub fn challenge_of(verifier: &str) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
    }

    /// The challenge, as the page's address has it.
    pub fn challenge(&self) -> &str {
        &self.challenge
    }

    /// The address of the page that a person opens. `web_base` is scheme and host.
    pub fn page(&self, web_base: &str) -> String {
        let query = form(&[
            ("challenge", &self.challenge),
            ("uuid", self.id.expose()),
            ("mode", "login"),
            ("redirectTarget", "cli"),
        ]);
        format!("{}{LOGIN_PATH}?{query}", web_base.trim_end_matches('/'))
    }

    /// Path and query of the poll. It holds the verifier: the service wants it there.
    pub fn poll_target(&self) -> Secret {
        let query = form(&[("uuid", self.id.expose()), ("verifier", self.verifier.expose())]);
        Secret::new(format!("{POLL_PATH}?{query}"))
    }

    /// What must not come back in an error: the verifier and the id.
    pub fn secrets(&self) -> [&str; 2] {
        [self.verifier.expose(), self.id.expose()]
    }
}

/// Names and values as a form sends them: a blank is `+`.
fn form(fields: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in fields {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                    query.push(char::from(byte));
                }
                b' ' => query.push('+'),
                // Writing to a string cannot fail.
                _ => drop(write!(query, "%{byte:02X}")),
            }
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_96_sevens() {
        let pkce = Pkce::new(&[7; ENTROPY], "uuid-1");
        assert_eq!(pkce.verifier.expose().len(), 128);
        assert_eq!(pkce.challenge(), "ACJEUpYJg-d2X7Y9gQ8_l_humuBtq83VdRChja2AhDw");
        assert_eq!(
            pkce.page("https://cursor.com/"),
            "https://cursor.com/loginDeepControl?challenge=ACJEUpYJg-d2X7Y9gQ8_l_humuBtq83VdRChja2AhDw\
             &uuid=uuid-1&mode=login&redirectTarget=cli"
        );
        let target = pkce.poll_target();
        assert!(target.expose().starts_with("/auth/poll?uuid=uuid-1&verifier=BwcHBwcH"));
    }

    #[test]
    fn nothing_secret_is_printed_and_the_page_has_no_verifier() {
        let pkce = Pkce::new(&[9; ENTROPY], "uuid-1");
        let verifier = pkce.verifier.expose();
        assert!(!format!("{pkce:?}").contains(verifier) && !format!("{pkce:?}").contains("uuid-1"));
        assert!(!pkce.page("https://web.example").contains(verifier));
    }

    #[test]
    fn queries_are_encoded_as_forms() {
        assert_eq!(form(&[("a", "x y&z=\u{e9}"), ("b", "~*")]), "a=x+y%26z%3D%C3%A9&b=%7E*");
    }
}
