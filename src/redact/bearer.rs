//! Tokens that nobody told us about, found by how they are written.

use crate::secret::REDACTED;

/// `authorization: bearer …` and `bearer eyJ….….…`, as the reference has them (BEHAVIOUR 7.4).
pub(super) fn reference_rules(text: &str) -> String {
    let first = rewrite(text, |rest, _| {
        let end = authorization(rest)?;
        Some((end, format!("authorization: Bearer {REDACTED}")))
    });
    rewrite(&first, |rest, _| {
        let token = after_bearer(rest)?;
        let len = jwt(rest.get(token..)?)?;
        Some((token + len, format!("Bearer {REDACTED}")))
    })
}

/// The same, and: quoted headers, opaque tokens after a bare `bearer`, web tokens that stand alone.
pub(super) fn house_rules(text: &str) -> String {
    let text = reference_rules(text);
    rewrite(&text, |rest, before| {
        if let Some(token) = after_bearer(rest) {
            let token_text = rest.get(token..)?;
            let len = opaque(token_text).or_else(|| jwt(token_text))?;
            return Some((token + len, format!("Bearer {REDACTED}")));
        }
        // Inside a longer run `eyJ` is no start; this also keeps the scan linear.
        let is_start = before.is_none_or(|c| !is_base64url(c));
        is_start.then(|| jwt(rest)).flatten().map(|len| (len, REDACTED.to_owned()))
    })
}

/// Goes over `text`; where `rule` matches at a place, what it matched is replaced.
fn rewrite(text: &str, rule: impl Fn(&str, Option<char>) -> Option<(usize, String)>) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut before) = (text, None);
    while let Some(c) = rest.chars().next() {
        // Every rule starts with a letter; this keeps the walk linear in practice.
        let hit = matches!(c, 'a' | 'A' | 'b' | 'B' | 'e' | 'E').then(|| rule(rest, before));
        if let Some((len, with)) = hit.flatten() {
            out.push_str(&with);
            before = rest.get(..len).and_then(|matched| matched.chars().next_back());
            rest = rest.get(len..).unwrap_or_default();
        } else {
            out.push(c);
            before = Some(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

/// Length of `authorization [:=] bearer TOKEN` at the start of `text`.
fn authorization(text: &str) -> Option<usize> {
    let rest = strip_word(text, "authorization")?.trim_start_matches(is_space);
    let rest = rest.strip_prefix([':', '='])?.trim_start_matches(is_space);
    let token = rest.get(after_bearer(rest)?..)?;
    let len = token.find(|c| is_space(c) || c == '"' || c == '\'').unwrap_or(token.len());
    (len > 0).then(|| text.len() - token.len() + len)
}

/// Where the token starts in a `text` that starts with `bearer` and a space.
fn after_bearer(text: &str) -> Option<usize> {
    let rest = strip_word(text, "bearer")?;
    let token = rest.trim_start_matches(is_space);
    (token.len() < rest.len()).then(|| text.len() - token.len())
}

/// Length of three base64url parts joined by dots, the first starting with `eyJ`.
fn jwt(text: &str) -> Option<usize> {
    let mut rest = strip_word(text, "eyj")?;
    for index in 0..3 {
        if index > 0 {
            rest = rest.strip_prefix('.')?;
        }
        let tail = rest.trim_start_matches(is_base64url);
        // The first part has its three letters already.
        if index > 0 && tail.len() == rest.len() {
            return None;
        }
        rest = tail;
    }
    Some(text.len() - rest.len())
}

/// Length of what can only be a token: twelve characters or more, one of them a digit.
fn opaque(text: &str) -> Option<usize> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-._~+/=:|".contains(c);
    let len = text.find(|c| !is_token(c)).unwrap_or(text.len());
    let token = text.get(..len)?;
    (len >= 12 && token.bytes().any(|byte| byte.is_ascii_digit())).then_some(len)
}

/// What follows `word`, compared without case, at the start of `text`.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| text.get(word.len()..)).flatten()
}

fn is_base64url(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// White space as JavaScript's `\s` has it (BEHAVIOUR T07).
fn is_space(c: char) -> bool {
    (c.is_whitespace() && c != '\u{85}') || c == '\u{feff}'
}
