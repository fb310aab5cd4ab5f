//! Events as text for people, or as JSON lines for programs.

use std::io::{self, Write};
use std::sync::atomic::Ordering;

use agentwire::run::{Event, EventRef};

use super::{line, words};
use crate::failure::{self, Failure, Report};
use crate::output::{self, LINE_OPEN, Look};

/// Collects what a batch of events prints and writes it in one go.
///
/// In text the answer goes to stdout and nothing else does: thinking, tool calls, notices and the
/// token count are remarks on stderr. In JSON everything is a line on stdout.
pub(crate) struct Printer<W: Write = io::Stdout> {
    stdout: W,
    pending: Vec<u8>,
    report: Report,
    show_thinking: bool,
    look: Look,
    /// Whether the last thing on stdout was a line feed (or nothing).
    at_line_start: bool,
    /// Whether a run of thinking is open on stderr.
    thinking: bool,
}

impl Printer {
    pub(crate) fn new(report: Report, show_thinking: bool, look: Look) -> Self {
        Self::to(io::stdout(), report, show_thinking, look)
    }
}

impl<W: Write> Printer<W> {
    fn to(stdout: W, report: Report, show_thinking: bool, look: Look) -> Self {
        Self {
            stdout,
            pending: Vec::new(),
            report,
            show_thinking,
            look,
            at_line_start: true,
            thinking: false,
        }
    }

    /// Takes in one event; [`Printer::flush`] makes it visible.
    pub(crate) fn event(&mut self, event: &EventRef<'_>) -> Result<(), Failure> {
        if self.report == Report::Json {
            line::put_event(&mut self.pending, event);
            return Ok(());
        }
        match event {
            EventRef::Text(text) => {
                self.end_thinking();
                self.put_answer(text);
                Ok(())
            }
            EventRef::Thinking(text) if self.show_thinking => self.put_thinking(text),
            EventRef::Other(event) => self.cold(event),
            _ => Ok(()),
        }
    }

    fn cold(&mut self, event: &Event) -> Result<(), Failure> {
        match event {
            Event::ToolCalls(calls) => {
                calls.iter().try_for_each(|call| self.remark(&words::tool_call(call)))
            }
            Event::ToolsAborted(_) => self.remark(words::TOOLS_ABORTED),
            Event::Notice(notice) => self.remark(&format!("note: {}", words::notice(notice))),
            Event::Ended(Ok(finish)) if self.look.stderr_terminal => {
                self.remark(&words::usage(&finish.usage))
            }
            Event::Ended(Err(error)) => {
                let text = format!("agentwire: {}", failure::text(error));
                self.end_line()?;
                // Said even where nobody reads it: the exit code says it too.
                let _unread = writeln!(io::stderr(), "{text}");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn put_answer(&mut self, text: &str) {
        let shown = if self.look.stdout_terminal {
            output::for_terminal(text)
        } else {
            std::borrow::Cow::Borrowed(text)
        };
        self.pending.extend_from_slice(shown.as_bytes());
        self.at_line_start = text.ends_with('\n');
    }

    fn put_thinking(&mut self, text: &str) -> Result<(), Failure> {
        if !self.thinking {
            self.end_line()?;
            self.thinking = true;
        }
        let text = output::for_terminal(text);
        let piece =
            if self.look.color { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.into_owned() };
        let _unread = io::stderr().write_all(piece.as_bytes());
        Ok(())
    }

    fn end_thinking(&mut self) {
        if std::mem::take(&mut self.thinking) {
            let _unread = io::stderr().write_all(b"\n");
        }
    }

    fn remark(&mut self, text: &str) -> Result<(), Failure> {
        self.end_line()?;
        self.look.remark(text);
        Ok(())
    }

    /// Ends what is open on both sides, so that a line on stderr does not land inside the answer.
    fn end_line(&mut self) -> Result<(), Failure> {
        self.end_thinking();
        if !self.at_line_start && self.look.stdout_terminal {
            self.pending.push(b'\n');
            self.at_line_start = true;
        }
        self.flush()
    }

    /// Writes what has come together.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if self.pending.is_empty() {
            return Ok(());
        }
        LINE_OPEN.store(self.look.stdout_terminal && !self.at_line_start, Ordering::Relaxed);
        let result = self.stdout.write_all(&self.pending).and_then(|()| self.stdout.flush());
        self.pending.clear();
        result.map_err(output::failed)
    }

    /// Ends the answer with a line feed if it has none, and writes the rest.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if self.report == Report::Text {
            self.end_thinking();
            if !std::mem::replace(&mut self.at_line_start, true) {
                self.pending.push(b'\n');
            }
        }
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Look =
        Look { stdout_terminal: false, stderr_terminal: false, color: false, cursor: false };

    fn printed(report: Report, look: Look, events: &[EventRef<'_>]) -> String {
        let mut stdout = Vec::new();
        let mut printer = Printer::to(&mut stdout, report, true, look);
        for event in events {
            assert!(printer.event(event).is_ok());
        }
        assert!(printer.finish().is_ok());
        String::from_utf8(stdout).unwrap_or_default()
    }

    #[test]
    fn a_pipe_gets_the_answer_and_nothing_else() {
        let events = [
            EventRef::Thinking("hm"),
            EventRef::Text("a\u{1b}"),
            EventRef::Other(Box::new(Event::ToolCalls(vec![]))),
            EventRef::Text("b"),
        ];
        assert_eq!(printed(Report::Text, PIPE, &events), "a\u{1b}b\n");
        assert_eq!(printed(Report::Text, PIPE, &[EventRef::Text("a\n")]), "a\n");
        assert_eq!(printed(Report::Text, PIPE, &[]), "");
    }

    #[test]
    fn a_terminal_gets_no_control_characters_of_the_model() {
        let look = Look { stdout_terminal: true, ..PIPE };
        let events = [EventRef::Text("a\u{1b}[31m")];
        assert_eq!(printed(Report::Text, look, &events), "a\u{fffd}[31m\n");
    }

    #[test]
    fn a_reader_that_went_away_is_not_an_error_to_report() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut printer = Printer::to(Gone, Report::Text, false, PIPE);
        assert!(printer.event(&EventRef::Text("a")).is_ok());
        assert!(matches!(printer.flush(), Err(Failure::ReaderGone)));
    }
}
