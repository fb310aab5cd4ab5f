//! How a command fails: what is said, where it is said, and the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use agentwire::Error;
use agentwire::error::{Blame, Kind};

use crate::{chat, output};

/// How a command tells people or programs that it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// One line of text on stderr.
    Text,
    /// One `error` line on stdout (docs/CLI.md).
    Json,
}

/// Why a command ends without being done.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong.
    Failed(Error),
    /// The arguments do not fit together, or a file they name is not what it should be.
    Usage(Error),
    /// There is no token.
    NotSignedIn(Error),
    /// Ctrl-C came before there was a run that could end with it.
    Interrupted,
    /// It was already said what went wrong; only the exit code is left.
    Said(u8),
    /// Whoever read our output has gone: nothing is left to do, and nobody to tell.
    ReaderGone,
}

/// Exit codes, as the help text states them.
pub(crate) mod exit {
    pub(crate) const FAILED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const NOT_SIGNED_IN: u8 = 3;
    /// A workflow run waits for an answer or its provider and can be resumed.
    pub(crate) const WAITS: u8 = 4;
    pub(crate) const INTERRUPTED: u8 = 130;
}

impl Failure {
    /// Wrong arguments: `message` says which, and what would be right.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(Error::invalid(message.into()))
    }

    /// Says what went wrong and gives the exit code.
    pub(crate) fn report(self, report: Report) -> ExitCode {
        let code = self.exit();
        let error = match self {
            Self::Failed(error) | Self::Usage(error) | Self::NotSignedIn(error) => error,
            Self::Interrupted => Error::new(Kind::Cancelled, "it was cancelled before it began"),
            Self::Said(_) | Self::ReaderGone => return ExitCode::from(code),
        };
        say(&error, report);
        ExitCode::from(code)
    }

    fn exit(&self) -> u8 {
        match self {
            Self::Failed(error) => exit_of(error),
            Self::Usage(_) => exit::USAGE,
            Self::NotSignedIn(_) => exit::NOT_SIGNED_IN,
            Self::Interrupted => exit::INTERRUPTED,
            Self::Said(code) => *code,
            Self::ReaderGone => 0,
        }
    }
}

/// The exit code of a run that ended with `error`.
pub(crate) fn exit_of(error: &Error) -> u8 {
    match error.kind() {
        Kind::Unauthenticated => exit::NOT_SIGNED_IN,
        _ => exit::FAILED,
    }
}

/// Prints `error` where `report` says. Nothing is done when that fails: nobody is left to tell.
fn say(error: &Error, report: Report) {
    let _unread = match report {
        Report::Text => writeln!(std::io::stderr(), "agentwire: {}", text(error)),
        Report::Json => {
            let mut line = Vec::new();
            chat::put_error(&mut line, error);
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&line).and_then(|()| stdout.flush())
        }
    };
}

/// One line for people: without the code where it adds nothing to what the message says.
pub(crate) fn text(error: &Error) -> String {
    let mut line = match error.kind() {
        Kind::InvalidRequest | Kind::Cancelled => error.message().to_owned(),
        // This machine said it in its own words; no code was stated.
        Kind::Rejected if error.blame() == Blame::Local => error.message().to_owned(),
        _ => format!("{} ({})", error.message(), error.code()),
    };
    if let Some(hint) = error.hint() {
        line.push_str("; ");
        line.push_str(hint);
    }
    output::printable(&line).into_owned()
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::InvalidRequest => Self::Usage(error),
            _ => Self::Failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_from_the_kind() {
        let exit = |kind| Failure::from(Error::new(kind, "x")).exit();
        assert_eq!(exit(Kind::Rejected), 1);
        assert_eq!(exit(Kind::InvalidRequest), 2);
        assert_eq!(exit(Kind::Unauthenticated), 3);
        assert_eq!(Failure::ReaderGone.exit(), 0);
    }

    #[test]
    fn a_message_for_people_is_one_printable_line() {
        let error = Error::new(Kind::Overloaded { retry_after: None }, "busy\u{1b}[2J\n")
            .with_hint("try later");
        assert_eq!(text(&error), "busy\u{fffd}[2J\u{fffd} (unavailable); try later");
        assert_eq!(text(&Error::invalid("no prompt")), "no prompt");
    }
}
