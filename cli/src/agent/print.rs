//! Events of a task as text for people, or as JSON lines for programs.
#![allow(clippy::disallowed_methods, reason = "a driver: it says how long a tool took")]

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use agentwire_agent::{Event, Notice, Outcome, Stop, ToolStatus};
use serde_json::Value;

use crate::chat;
use crate::failure::{Failure, Report};
use crate::output::{self, Look};

/// Pictures of the spinner, one character each: whatever is printed next covers it.
const SPINNER: [&str; 4] = ["|", "/", "-", "\\"];
/// The most characters of a tool's arguments that are shown.
const ARGUMENTS: usize = 80;

/// Prints the answer to stdout and everything else to stderr; as JSON all of it to stdout.
pub(super) struct Printer<W: Write = io::Stdout> {
    stdout: W,
    report: Report,
    show_thinking: bool,
    look: Look,
    /// Whether the last thing on stdout was a line feed (or nothing).
    at_line_start: bool,
    /// Whether a run of thinking is open on stderr.
    thinking: bool,
    /// Tools at work: what was said of each, and since when.
    tools: HashMap<String, (String, Instant)>,
    picture: usize,
}

impl Printer {
    pub(super) fn new(report: Report, show_thinking: bool, look: Look) -> Self {
        Self::to(io::stdout(), report, show_thinking, look)
    }
}

impl<W: Write> Printer<W> {
    fn to(stdout: W, report: Report, show_thinking: bool, look: Look) -> Self {
        Self {
            stdout,
            report,
            show_thinking,
            look,
            at_line_start: true,
            thinking: false,
            tools: HashMap::new(),
            picture: 0,
        }
    }

    /// Whether something is to be seen while nothing happens.
    pub(super) fn spins(&self) -> bool {
        let clear = self.at_line_start && !self.thinking && !chat::Person::of_process().is_asked();
        self.report == Report::Text && self.look.stderr_terminal && self.look.cursor && clear
    }

    /// Draws the next picture and leaves the cursor on it.
    pub(super) fn spin(&mut self) {
        self.picture = (self.picture + 1) % SPINNER.len();
        let picture = SPINNER.get(self.picture).copied().unwrap_or_default();
        let _unread = write!(io::stderr(), "{picture}\r");
    }

    pub(super) fn event(&mut self, event: &Event) -> Result<(), Failure> {
        if self.report == Report::Json {
            return self.write(&line(event));
        }
        match event {
            Event::Text { text } => {
                self.end_thinking();
                self.at_line_start = text.ends_with('\n');
                match self.look.stdout_terminal {
                    true => self.write(output::for_terminal(text).as_bytes()),
                    false => self.write(text.as_bytes()),
                }
            }
            Event::Thinking { text } if self.show_thinking => self.think(text),
            Event::ToolStarted { call } => {
                let what = format!("{} {}", call.name, brief(&call.arguments));
                self.tools.insert(call.id.clone(), (what, Instant::now()));
                Ok(())
            }
            Event::ToolProgress { id, text } => {
                let what = self.tools.get(id).map_or("tool", |(what, _)| what);
                self.remark(&format!("  {what}: {text}"))
            }
            Event::ToolFinished { result, status } => {
                let (what, since) = self
                    .tools
                    .remove(&result.tool_call_id)
                    .unwrap_or_else(|| (result.tool_name.clone(), Instant::now()));
                let mark = match status {
                    ToolStatus::Ok => "ok",
                    ToolStatus::Error => "failed",
                    ToolStatus::Interrupted => "interrupted",
                    ToolStatus::NotRun => "not run",
                };
                let time = seconds(since.elapsed());
                self.remark(&format!("tool: {what}: {mark} ({time})"))
            }
            Event::Notice { notice } => match words(notice) {
                Some(text) => self.remark(&format!("note: {text}")),
                None => Ok(()),
            },
            Event::Finished { outcome } => self.finish(outcome),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        self.end_thinking();
        if !std::mem::replace(&mut self.at_line_start, true) {
            self.write(b"\n")?;
        }
        let why = match &outcome.stop {
            Stop::Completed => None,
            Stop::Cancelled => Some("cancelled".to_owned()),
            Stop::Limit { limit } => {
                Some(format!("stopped at the limit of {}", limit.as_str().replace('_', " ")))
            }
            Stop::Failed { failure } => Some(failure.message.clone()),
            _ => Some("it did not complete".to_owned()),
        };
        if let Some(why) = why {
            // Said even where nobody reads it: the exit code says it too.
            let _unread = writeln!(io::stderr(), "agentwire: {}", output::printable(&why));
        }
        self.look.remark(&summary(outcome, chat::workspace_steps()));
        Ok(())
    }

    fn think(&mut self, text: &str) -> Result<(), Failure> {
        if !self.thinking {
            self.end_line()?;
            self.thinking = true;
        }
        let _unread = io::stderr().write_all(output::for_terminal(text).as_bytes());
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
            self.at_line_start = true;
            return self.write(b"\n");
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.stdout.write_all(bytes).and_then(|()| self.stdout.flush());
        written.map_err(output::failed)
    }
}

/// An event as a line: its members, with `type` for its kind (docs/CLI.md).
fn line(event: &Event) -> Vec<u8> {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Some(members) = value.as_object_mut()
        && let Some(kind) = members.shift_remove("event")
    {
        members.shift_insert(0, "type".to_owned(), kind);
    }
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn words(notice: &Notice) -> Option<String> {
    match notice {
        Notice::Transport { of } => Some(chat::notice_words(of)),
        Notice::Again { model, next, failure, discarded } => {
            let lost = match discarded {
                0 => String::new(),
                _ => "; the answer begins anew".to_owned(),
            };
            Some(format!("{model} failed ({}), {next} is asked{lost}", failure.message))
        }
        Notice::Compacted { messages } => {
            Some(format!("{messages} messages were summarised to make room"))
        }
        _ => None,
    }
}

/// One line about what it took.
fn summary(outcome: &Outcome, workspace: usize) -> String {
    let count = |n: usize, one: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    };
    let tools = outcome.tool_calls as usize + workspace;
    let usage = &outcome.usage;
    let tokens = match usage.input {
        Some(input) => format!("{input} tokens in, {} out", usage.output),
        None => format!("{} tokens out", usage.output),
    };
    format!(
        "{}, {}, {tokens}, {}",
        count(outcome.turns as usize, "turn"),
        count(tools, "tool"),
        seconds(Duration::from_millis(outcome.elapsed_ms))
    )
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// The beginning of arguments, on one line.
fn brief(arguments: &Value) -> String {
    let text = arguments.to_string();
    match text.char_indices().nth(ARGUMENTS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use agentwire::context::{ToolCall, ToolResult};

    use super::*;

    const PIPE: Look =
        Look { stdout_terminal: false, stderr_terminal: false, color: false, cursor: false };

    fn printed(report: Report, look: Look, events: &[Event]) -> String {
        let mut stdout = Vec::new();
        let mut printer = Printer::to(&mut stdout, report, true, look);
        for event in events {
            assert!(printer.event(event).is_ok());
        }
        String::from_utf8(stdout).unwrap_or_default()
    }

    fn events() -> Vec<Event> {
        let call = ToolCall { id: "1".into(), name: "ls".into(), arguments: Value::Null };
        vec![
            Event::Thinking { text: "hm".into() },
            Event::Text { text: "a\u{1b}".into() },
            Event::ToolStarted { call },
            Event::ToolFinished {
                result: ToolResult::text("1", "ls", "x"),
                status: ToolStatus::Ok,
            },
            Event::Text { text: "b".into() },
        ]
    }

    #[test]
    fn a_pipe_gets_the_answer_and_nothing_else() {
        assert_eq!(printed(Report::Text, PIPE, &events()), "a\u{1b}b");
    }

    #[test]
    fn a_terminal_gets_lines_and_no_control_characters() {
        let look = Look { stdout_terminal: true, ..PIPE };
        assert_eq!(printed(Report::Text, look, &events()), "a\u{fffd}\nb");
    }

    #[test]
    fn json_is_a_line_for_each_event() {
        let lines = printed(Report::Json, PIPE, &events());
        assert_eq!(lines.lines().count(), 5);
        assert_eq!(lines.lines().nth(1), Some("{\"type\":\"text\",\"text\":\"a\\u001b\"}"));
        assert!(lines.contains("\"type\":\"tool_finished\""), "{lines}");
    }

    #[test]
    fn a_spinner_is_for_terminals_that_can_show_it() {
        let terminal = Look { stderr_terminal: true, cursor: true, ..PIPE };
        assert!(!Printer::to(Vec::new(), Report::Text, false, PIPE).spins());
        assert!(!Printer::to(Vec::new(), Report::Json, false, terminal).spins());
        let mut printer = Printer::to(Vec::new(), Report::Text, false, terminal);
        assert!(printer.spins());
        // Not into a line of the answer.
        assert!(printer.event(&Event::Text { text: "a".into() }).is_ok());
        assert!(!printer.spins());
    }
}
