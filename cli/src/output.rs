//! Where text goes: stdout for what was asked for, stderr for what is said beside it.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::AtomicBool;

use agentwire::Error;
use agentwire::error::{Blame, Kind};

use crate::failure::Failure;

/// What a failed write to stdout means.
#[allow(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
pub(crate) fn failed(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::ReaderGone;
    }
    Failure::Failed(
        Error::new(Kind::Rejected, format!("cannot write the output: {error}"))
            .with_blame(Blame::Local),
    )
}

/// Whether a line of the answer stands open on the terminal: what is said beside it from elsewhere
/// begins a new one.
pub(crate) static LINE_OPEN: AtomicBool = AtomicBool::new(false);

/// Whether stdout is a terminal, and whether colours may be used on stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Stdout is read by a person.
    pub(crate) stdout_terminal: bool,
    /// Stderr is read by a person.
    pub(crate) stderr_terminal: bool,
    /// Escape sequences for dim and bold may go to stderr.
    pub(crate) color: bool,
    /// The terminal of stderr can move its cursor.
    pub(crate) cursor: bool,
}

impl Look {
    /// As the process finds it. `NO_COLOR` with any value turns colours off (no-color.org), as
    /// does `TERM=dumb`.
    pub(crate) fn detect() -> Self {
        let stderr_terminal = io::stderr().is_terminal();
        let capable = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            stdout_terminal: io::stdout().is_terminal(),
            stderr_terminal,
            color: stderr_terminal && wanted && capable,
            cursor: stderr_terminal && capable,
        }
    }

    /// A remark on stderr, dim where that can be shown. One write, so that lines stay whole.
    pub(crate) fn remark(self, text: &str) {
        let text = printable(text);
        let line =
            if self.color { format!("\u{1b}[2m{text}\u{1b}[0m\n") } else { format!("{text}\n") };
        // A remark that nobody can read is not worth failing for.
        let _unread = io::stderr().write_all(line.as_bytes());
    }
}

/// Answer text as it may go to a terminal: control characters that a model or a service sent would
/// move the cursor, retitle the window or worse, so all but line feed and TAB become U+FFFD.
pub(crate) fn for_terminal(text: &str) -> Cow<'_, str> {
    replace_controls(text, |c| c != '\n' && c != '\t')
}

/// The same for text that must stay on one line.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    replace_controls(text, |_| true)
}

fn replace_controls(text: &str, unwanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    let bad = |c: char| c.is_control() && unwanted(c);
    if !text.chars().any(bad) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_do_not_reach_a_terminal() {
        assert!(matches!(for_terminal("plain\n\ttext, naïve 🦀"), Cow::Borrowed(_)));
        assert_eq!(for_terminal("a\u{1b}[31mb\r\u{9b}c"), "a\u{fffd}[31mb\u{fffd}\u{fffd}c");
        assert_eq!(printable("a\nb"), "a\u{fffd}b");
    }
}
