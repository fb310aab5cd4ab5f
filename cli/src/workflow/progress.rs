//! What a run does, while it does it: on a terminal the steps under way stand on one line that
//! changes; elsewhere each event is a line.

use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use agentwire_workflow::event::{Event, Observer};

use crate::chat::Person;
use crate::output::{Look, printable};

pub(super) struct Progress {
    look: Look,
    json: bool,
    /// Names of the steps under way, in the order they began.
    under_way: Mutex<Vec<(String, String)>>,
}

impl Progress {
    pub(super) fn new(look: Look, json: bool) -> Self {
        Self { look, json, under_way: Mutex::default() }
    }

    fn say(&self, text: &str) {
        if self.look.stderr_terminal {
            // Over the line of what is under way.
            let _unread = std::io::stderr().write_all(b"\r\x1b[K");
        }
        self.look.remark(text);
    }

    fn show(&self, under_way: &[(String, String)]) {
        // The line of an open question is not written over.
        if !self.look.stderr_terminal || Person::of_process().is_asked() {
            return;
        }
        let names: Vec<_> = under_way.iter().map(|(_, name)| printable(name)).collect();
        let line = if names.is_empty() {
            "\r\x1b[K".to_owned()
        } else {
            // Longer than a line would wrap and could not be taken back.
            let all: String = names.join(", ").chars().take(60).collect();
            format!("\r\x1b[K… {all}")
        };
        let _unread = std::io::stderr().write_all(line.as_bytes());
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event) {
        if self.json {
            if let Ok(line) = serde_json::to_string(event) {
                // A reader that has gone is noticed when the result is printed.
                let _gone = writeln!(std::io::stdout().lock(), "{line}");
            }
            return;
        }
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { id, recorded: 0, .. } => self.say(&format!("run {id}")),
            Event::Started { id, recorded, .. } => {
                self.say(&format!("run {id} goes on ({recorded} records)"));
            }
            Event::StepStarted { key, name, .. } => {
                if !self.look.stderr_terminal {
                    self.say(&format!("  {name} …"));
                }
                under_way.push((key.clone(), name.clone()));
            }
            Event::StepReplayed { name, .. } => self.say(&format!("  {name}: recorded")),
            Event::StepEnded { key, name, done, elapsed_ms, .. } => {
                under_way.retain(|(one, _)| one != key);
                let how = if *done { "done" } else { "not done" };
                self.say(&format!(
                    "  {name}: {how} ({}.{} s)",
                    elapsed_ms / 1_000,
                    elapsed_ms % 1_000 / 100
                ));
            }
            Event::Retrying { name, attempt, wait_ms } => {
                self.say(&format!("  {name}: attempt {attempt} failed, next in {wait_ms} ms"));
            }
            Event::SessionLost { name, .. } => {
                self.say(&format!("  {name}: its conversation is gone, another begins"));
            }
            Event::Blocked { .. } => {
                self.say("  the provider asks to wait; the run goes on by itself");
            }
            _ => under_way.clear(),
        }
        self.show(&under_way);
    }
}
