//! Asking the person at the terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::OnceLock;

use agentwire_workspace::{ApprovalRequest, Decision};
use tokio::sync::{Mutex, MutexGuard, mpsc};

use crate::output::{Look, for_terminal};

/// How often a question is put again when the answer is none of those that it names.
const ATTEMPTS: u32 = 3;

/// Lines of an answer that wait to be read; a person types one at a time.
const LINES: usize = 16;

/// The longest preview of what would be written, in lines: more than a screen is not read.
const PREVIEW: usize = 30;

/// Whoever sits at the terminal.
#[derive(Default)]
pub(crate) struct Person {
    /// One reader for all questions, from the first on: reading a line cannot be called off, so one
    /// for each question would take the answer to the next.
    lines: Mutex<Option<mpsc::Receiver<String>>>,
}

impl Person {
    /// Whether somebody can be asked.
    pub(crate) fn is_there(look: Look) -> bool {
        std::io::stdin().is_terminal() && look.stderr_terminal
    }

    /// The one at the terminal of this process.
    pub(crate) fn of_process() -> &'static Self {
        static PERSON: OnceLock<Person> = OnceLock::new();
        PERSON.get_or_init(Self::default)
    }

    /// Whether a question is open: nothing else is to be written then.
    pub(crate) fn is_asked(&self) -> bool {
        self.lines.try_lock().is_err()
    }

    pub(super) async fn decide(&self, request: &ApprovalRequest) -> Decision {
        self.ask(&question(request), &request.for_run).await
    }

    /// Has the person to oneself for a question, after those that wait already.
    pub(crate) async fn attend(&self) -> Attention<'_> {
        let mut lines = self.lines.lock().await;
        let reader = lines.get_or_insert_with(reader);
        // What was typed before the question is no answer to it.
        while reader.try_recv().is_ok() {}
        Attention(lines)
    }

    /// Puts the question; no answer (end of input) is a no.
    pub(crate) async fn ask(&self, question: &str, for_run: &str) -> Decision {
        let mut attention = self.attend().await;
        say(question);
        for _ in 0..ATTEMPTS {
            say(&format!("Allow? [y]es, [n]o, [a]lways ({for_run}): "));
            match attention.line().await.as_deref().map(answer) {
                Some(Some(decision)) => return decision,
                Some(None) => {}
                None => break,
            }
        }
        Decision::Deny
    }
}

/// The person, with one question at a time.
pub(crate) struct Attention<'a>(MutexGuard<'a, Option<mpsc::Receiver<String>>>);

impl Attention<'_> {
    /// The next line; `None` at the end of the input.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.0.get_or_insert_with(reader).recv().await
    }
}

/// What the model wants, and what it would write.
fn question(request: &ApprovalRequest) -> String {
    let mut text = format!("\nThe model wants to {}\n", request.description);
    let preview = request.preview.as_deref().unwrap_or_default();
    let mut lines = preview.lines();
    for line in lines.by_ref().take(PREVIEW) {
        text.push_str(&format!("  | {line}\n"));
    }
    match lines.count() {
        0 => {}
        more => text.push_str(&format!("  | … {more} more lines\n")),
    }
    text
}

fn answer(line: &str) -> Option<Decision> {
    match line.trim().to_lowercase().as_str() {
        "y" | "yes" => Some(Decision::Allow),
        "a" | "always" => Some(Decision::AllowForRun),
        "n" | "no" => Some(Decision::Deny),
        _ => None,
    }
}

/// Reads lines on a thread of its own, which ends with the input or the program.
fn reader() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Without a terminal to show it there is no answer either.
    let _unread = stderr.write_all(for_terminal(text).as_bytes()).and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (line, decision) in [
            ("y", Some(Decision::Allow)),
            (" YES ", Some(Decision::Allow)),
            ("a", Some(Decision::AllowForRun)),
            ("always\r", Some(Decision::AllowForRun)),
            ("n", Some(Decision::Deny)),
            ("", None),
            ("yy", None),
            ("sure", None),
        ] {
            assert_eq!(answer(line), decision, "{line:?}");
        }
    }
}
