//! What is let into a catalog: ids that can be sent, names that can be printed (FAULTS M91).

use std::collections::HashSet;

use super::catalog::Entry;
use crate::redact::is_unprintable;

/// How much a peer may put into a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntakeLimits {
    /// Models in one catalog. Default 4,096: twenty times the 204 ids that the service served at most.
    pub models: usize,
    /// Characters of one name; longer ones are cut. Default 200.
    pub name_chars: usize,
    /// Aliases of one model. Default 16.
    pub aliases: usize,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self { models: 4096, name_chars: 200, aliases: 16 }
    }
}

/// How many models were not taken, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// The id was empty or blank.
    pub blank: usize,
    /// The id held what an id cannot hold, see [`is_sendable`].
    pub unsafe_id: usize,
    /// The id was longer than the limit.
    pub too_long: usize,
    /// The id was there already; the first one counts.
    pub duplicate: usize,
    /// The catalog was full.
    pub beyond_limit: usize,
    /// The entry could not be read.
    pub malformed: usize,
}

impl Dropped {
    /// All together.
    pub fn total(&self) -> usize {
        self.blank
            + self.unsafe_id
            + self.too_long
            + self.duplicate
            + self.beyond_limit
            + self.malformed
    }
}

/// The longest id there can be, in bytes: the longest one known has 33. No option: what may be sent
/// must not differ between who lists it and who keeps it.
pub const MAX_ID_BYTES: usize = 200;

/// Whether a model id may go into a message, onto a terminal and into a file: at most
/// [`MAX_ID_BYTES`] of visible ASCII without backslash, no `-` in front (an option, on a command
/// line), no `.` or `..` as a part of a path. That keeps out line ends, escape sequences,
/// bidirectional marks and look-alike letters; all ids that were ever seen pass.
pub fn is_sendable(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_ID_BYTES
        && !id.starts_with('-')
        && id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && !id.split('/').any(|part| matches!(part, "." | ".."))
}

/// Collects entries under the limits.
#[derive(Debug, Default)]
pub(super) struct Intake {
    limits: IntakeLimits,
    entries: Vec<Entry>,
    seen: HashSet<String>,
    dropped: Dropped,
}

impl Intake {
    /// Takes what is good of `entries`; `None` stands for one that could not be read.
    pub(super) fn collect(
        entries: impl Iterator<Item = Option<Entry>>,
        limits: IntakeLimits,
    ) -> (Vec<Entry>, Dropped) {
        let mut intake = Self { limits, ..Self::default() };
        for entry in entries {
            intake.take(entry);
        }
        (intake.entries, intake.dropped)
    }

    fn take(&mut self, entry: Option<Entry>) {
        match entry {
            None => self.dropped.malformed += 1,
            Some(entry) => {
                let id = entry.id.trim();
                match self.fault(id) {
                    Some(count) => *count += 1,
                    None => {
                        self.seen.insert(id.to_owned());
                        self.entries.push(self.clean(entry));
                    }
                }
            }
        }
    }

    /// The counter of the reason not to take this id.
    fn fault(&mut self, id: &str) -> Option<&mut usize> {
        let dropped = &mut self.dropped;
        if id.is_empty() {
            Some(&mut dropped.blank)
        } else if id.len() > MAX_ID_BYTES {
            Some(&mut dropped.too_long)
        } else if !is_sendable(id) {
            Some(&mut dropped.unsafe_id)
        } else if self.seen.contains(id) {
            Some(&mut dropped.duplicate)
        } else if self.entries.len() >= self.limits.models {
            Some(&mut dropped.beyond_limit)
        } else {
            None
        }
    }

    fn clean(&self, mut entry: Entry) -> Entry {
        entry.id = entry.id.trim().to_owned();
        entry.name = self.clean_name(entry.name);
        entry.display_name = self.clean_name(entry.display_name);
        entry.aliases.retain(|alias| is_sendable(alias));
        entry.aliases.truncate(self.limits.aliases);
        entry
    }

    /// The name without what would act on a terminal, in one line; `None` when nothing is left.
    fn clean_name(&self, name: Option<String>) -> Option<String> {
        let name = name?;
        let mut clean = String::new();
        let printable = name.chars().filter(|c| c.is_whitespace() || !is_unprintable(*c));
        for c in printable.take(self.limits.name_chars) {
            clean.push(if c.is_whitespace() { ' ' } else { c });
        }
        let clean = clean.trim();
        (!clean.is_empty()).then(|| clean.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intake(ids: &[&str]) -> (Vec<String>, Dropped) {
        let entries = ids.iter().map(|id| Some(Entry::new(*id)));
        let (entries, dropped) = Intake::collect(entries, IntakeLimits::default());
        (entries.into_iter().map(|entry| entry.id).collect(), dropped)
    }

    #[test]
    fn only_ids_that_can_be_sent_are_taken() {
        let long = "x".repeat(100 * 1024);
        let (ids, dropped) = intake(&[
            " gpt-5.4 ",
            "vendor/model:1",
            "a\r\nx-evil: 1",
            "\u{1b}[2Jb",
            "../../etc/passwd",
            "a/../b",
            "a\u{202e}b",
            "  ",
            "",
            &long,
            "gpt-5.4",
            "gрt-5",
            "a\\b",
            "two words",
        ]);
        assert_eq!(ids, ["gpt-5.4", "vendor/model:1"]);
        let expected =
            Dropped { blank: 2, unsafe_id: 8, too_long: 1, duplicate: 1, ..Dropped::default() };
        assert_eq!(dropped, expected);
        assert_eq!(dropped.total(), 12);
    }

    #[test]
    fn a_catalog_has_an_end() {
        let ids: Vec<_> = (0..100_000).map(|n| format!("m{n}")).collect();
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        let (taken, dropped) = intake(&ids);
        assert_eq!((taken.len(), dropped.beyond_limit), (4096, 100_000 - 4096));
    }

    #[test]
    fn names_are_one_printable_line() {
        let name = |text: &str| {
            let entry = Entry { name: Some(text.into()), ..Entry::new("a") };
            let (entries, _) = Intake::collect([Some(entry)].into_iter(), IntakeLimits::default());
            entries[0].name.clone()
        };
        assert_eq!(name("Opus\r\n4.6\u{1b}[31m"), Some("Opus  4.6[31m".into()));
        assert_eq!(name("\u{202e}x\u{200b}"), Some("x".into()));
        assert_eq!(name(" \u{7} "), None);
        assert_eq!(name(&"é".repeat(1000)).unwrap().chars().count(), 200);
    }
}
