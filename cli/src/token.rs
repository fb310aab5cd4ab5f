//! Where the token comes from: the environment or a file, never an argument (arguments are visible
//! to every user of the machine).

use std::path::Path;

use agentwire::Secret;
use agentwire::error::{Error, Kind};

use crate::failure::Failure;
use crate::input;
use crate::output::Look;

/// The variable that holds the token.
pub(crate) const VARIABLE: &str = "AGENTWIRE_TOKEN";

/// More than any bearer token; header lists of servers end at 64 KiB.
const LIMIT: u64 = 64 << 10;

/// The token of `--token-file`, else of the environment.
pub(crate) fn find(file: Option<&Path>, look: Look) -> Result<Option<Secret>, Failure> {
    match file {
        Some(path) => from_file(path, look).map(Some),
        None => from_environment(),
    }
}

/// The token of the environment.
pub(crate) fn from_environment() -> Result<Option<Secret>, Failure> {
    match std::env::var(VARIABLE) {
        Ok(value) => check(&value, VARIABLE),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(not_a_token(VARIABLE)),
    }
}

fn from_file(path: &Path, look: Look) -> Result<Secret, Failure> {
    let name = path.display().to_string();
    let bytes = input::file(path, LIMIT)?;
    warn_when_readable_by_others(path, look);
    let text = String::from_utf8(bytes).map_err(|_| not_a_token(&name))?;
    check(&text, &name)?
        .ok_or_else(|| Failure::NotSignedIn(unauthenticated(format!("{name} holds no token"))))
}

/// The trimmed token; `None` when nothing is left. What cannot stand in a header is refused here,
/// where its source can be named.
fn check(text: &str, source: &str) -> Result<Option<Secret>, Failure> {
    let token = text.trim();
    if token.is_empty() {
        return Ok(None);
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(not_a_token(source));
    }
    Ok(Some(Secret::from(token)))
}

/// What is said when there is neither a token nor a sign-in; exit code 3.
pub(crate) fn missing() -> Failure {
    Failure::NotSignedIn(unauthenticated("there is no access token for the service").with_hint(
        format!(
            "sign in with `agentwire login`, put one into the variable {VARIABLE} or into a file \
             named with --token-file, or try it without an account: agentwire chat --local \
             \"hello\""
        ),
    ))
}

fn unauthenticated(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Unauthenticated, message)
}

fn not_a_token(source: &str) -> Failure {
    Failure::usage(format!(
        "{source} is not one token: it holds blanks, line breaks or characters outside ASCII"
    ))
}

#[cfg(unix)]
fn warn_when_readable_by_others(path: &Path, look: Look) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if metadata.permissions().mode() & 0o044 != 0 {
        let path = path.display();
        look.remark(&format!(
            "warning: {path} can be read by other users of this machine; chmod 600 {path}"
        ));
    }
}

/// Other systems keep access lists, which the mode bits do not show.
#[cfg(not(unix))]
fn warn_when_readable_by_others(_path: &Path, _look: Look) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_checked_without_being_shown() {
        let token = check(" tok-1\n", "f").ok().flatten();
        assert_eq!(token, Some(Secret::from("tok-1")));
        assert!(matches!(check(" \n", "f"), Ok(None)));
        for bad in ["tok 1", "a\nb", "naïve"] {
            let Err(Failure::Usage(error)) = check(bad, "f") else { panic!("{bad} passed") };
            assert!(!error.to_string().contains(bad));
        }
    }
}
