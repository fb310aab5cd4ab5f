//! What is done in a workspace, as lines on stderr or as JSON lines on stdout.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde_json::Value;

use crate::failure::Report;
use crate::output::{LINE_OPEN, Look};

/// Lines of output that a person is shown of one command; the model sees more.
const SHOWN: usize = 20;
/// The most characters of one line.
const WIDTH: usize = 200;

/// Steps that were begun in this process: a command line serves one task.
pub(super) static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// Says it where it is to be said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tell {
    report: Report,
    look: Look,
}

/// A line of `chat --json` (docs/CLI.md).
#[derive(Debug, Serialize)]
struct Line<'a> {
    r#type: &'static str,
    state: &'static str,
    exec: u32,
    tool: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'static str>,
    text: &'a str,
}

impl Tell {
    pub(super) const fn new(report: Report, look: Look) -> Self {
        Self { report, look }
    }

    /// A step begins.
    pub(super) fn begin(self, exec: u32, tool: &'static str, what: String) -> Step {
        BEGUN.fetch_add(1, Ordering::Relaxed);
        let step = Step { tell: self, exec, tool, what, shown: Mutex::default(), ended: false };
        match self.report {
            Report::Json => step.json("started", None, None, &step.what),
            // A command can take long; the rest is told when it is done.
            Report::Text if step.is_command() => self.remark(&step.what),
            Report::Text => {}
        }
        step
    }

    fn remark(self, text: &str) {
        self.line(&format!("workspace: {}", cut(text)));
    }

    /// A line by itself, also where the answer has not ended its own.
    fn line(self, text: &str) {
        if LINE_OPEN.swap(false, Ordering::Relaxed) && self.look.stderr_terminal {
            let _unread = std::io::stderr().write_all(b"\n");
        }
        self.look.remark(text);
    }
}

/// Something that is being done. One that is not ended was given up.
pub(super) struct Step {
    tell: Tell,
    exec: u32,
    tool: &'static str,
    what: String,
    /// Lines of output shown to a person, and the one that is not ended yet.
    shown: Mutex<Shown>,
    ended: bool,
}

#[derive(Default)]
struct Shown {
    lines: usize,
    open: String,
}

impl Step {
    fn is_command(&self) -> bool {
        self.what.starts_with("run ")
    }

    /// A piece of what a command prints.
    pub(super) fn output(&self, stream: &'static str, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.tell.report == Report::Json {
            return self.json("output", None, Some(stream), text);
        }
        let Ok(mut shown) = self.shown.lock() else { return };
        for piece in text.split_inclusive('\n') {
            // A line without an end does not grow without one.
            if shown.open.len() < 4 * WIDTH {
                shown.open.push_str(piece);
            }
            if piece.ends_with('\n') {
                self.show(&mut shown);
            }
        }
    }

    fn show(&self, shown: &mut Shown) {
        let line = std::mem::take(&mut shown.open);
        shown.lines += 1;
        if shown.lines <= SHOWN {
            self.tell.line(&format!("  | {}", cut(line.trim_end())));
        }
    }

    /// It is done: `result` has one member, named as the case of the answer.
    pub(super) fn end(mut self, result: &Value) {
        self.ended = true;
        let case = result.as_object().and_then(|cases| {
            // Beside the case a result may have members of its own.
            let known = |(name, value): &(&String, &Value)| {
                value.is_object() && name.as_str() != "sandbox_policy"
            };
            cases.iter().find(known)
        });
        let (outcome, body) = case.map_or(("unknown", &Value::Null), |(name, body)| (name, body));
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        for stream in ["stdout", "stderr"] {
            self.output(stream, text(stream).unwrap_or_default());
        }
        let output = if self.is_command() { text("output") } else { None };
        self.output("stdout", output.unwrap_or_default());
        let summary = summary(outcome, body);
        if self.tell.report == Report::Json {
            return self.json("finished", Some(outcome), None, &summary);
        }
        if let Ok(mut shown) = self.shown.lock() {
            if !shown.open.is_empty() {
                self.show(&mut shown);
            }
            if shown.lines > SHOWN {
                let more = shown.lines - SHOWN;
                self.tell.line(&format!("  | … {more} more lines"));
            }
        }
        self.tell.remark(&format!("{}: {summary}", cut(&self.what)));
    }

    fn json(
        &self,
        state: &'static str,
        outcome: Option<&str>,
        stream: Option<&'static str>,
        text: &str,
    ) {
        let (exec, tool) = (self.exec, self.tool);
        let line = Line { r#type: "workspace", state, exec, tool, outcome, stream, text };
        if let Ok(mut bytes) = serde_json::to_vec(&line) {
            bytes.push(b'\n');
            // In one piece, so that lines stay whole. That nobody reads on shows with the answer.
            let mut stdout = std::io::stdout().lock();
            let _unread = stdout.write_all(&bytes).and_then(|()| stdout.flush());
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        const GIVEN_UP: &str = "given up: the service or the end of the run called it off";
        match (self.ended, self.tell.report) {
            (true, _) => {}
            (false, Report::Json) => self.json("finished", Some("aborted"), None, GIVEN_UP),
            (false, Report::Text) => {
                self.tell.remark(&format!("{}: {GIVEN_UP}", cut(&self.what)));
            }
        }
    }
}

/// A few words about an answer: why it is a no, or how much it is.
fn summary(outcome: &str, body: &Value) -> String {
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let reason = ["reason", "error", "client_visible_error"].into_iter().find_map(text);
    if let Some(reason) = reason.filter(|_| outcome != "success") {
        return format!("{}: {reason}", outcome.replace('_', " "));
    }
    if let Some(code) = body.get("exit_code").and_then(Value::as_i64).filter(|code| *code != 0) {
        let ended = body.get("aborted").and_then(Value::as_bool).unwrap_or(false);
        return match ended {
            true => "ended at its time limit".to_owned(),
            false => format!("exit code {code}"),
        };
    }
    if let Some(files) = body.pointer("/directory_tree_root/num_files").and_then(Value::as_i64) {
        return if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
    }
    let lines = ["content", "output"].into_iter().find_map(text).map(|text| text.lines().count());
    match (outcome, lines) {
        ("success", Some(1)) => "1 line".to_owned(),
        ("success", Some(lines)) => format!("{lines} lines"),
        ("success", None) => "done".to_owned(),
        (other, _) => other.replace('_', " "),
    }
}

/// The beginning of a text that may be long.
fn cut(text: &str) -> String {
    let line = text.replace('\n', "⏎");
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_summary_says_why_or_how_much() {
        for (outcome, body, expected) in [
            ("success", json!({"content": "a\nb\n"}), "2 lines"),
            ("success", json!({"output": "a"}), "1 line"),
            ("success", json!({"path": "x"}), "done"),
            ("success", json!({"directory_tree_root": {"num_files": 7}}), "7 files"),
            ("permission_denied", json!({"error": "no"}), "permission denied: no"),
            ("file_not_found", json!({"path": "x"}), "file not found"),
            ("failure", json!({"exit_code": 3}), "exit code 3"),
            ("failure", json!({"exit_code": 137, "aborted": true}), "ended at its time limit"),
        ] {
            assert_eq!(summary(outcome, &body), expected);
        }
    }

    #[test]
    fn long_commands_are_cut_and_stay_on_one_line() {
        assert_eq!(cut("a\nb"), "a⏎b");
        assert_eq!(cut(&"ä".repeat(500)).chars().count(), WIDTH + 1);
    }
}
