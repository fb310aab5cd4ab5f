//! Replacing text in a file, so that it is clear what was meant.

use std::ops::Range;

use memchr::memmem;

/// One replacement in the text as it is: where, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: Range<usize>,
    pub(crate) to: String,
}

/// How many places are named when a text is found more than once: enough to choose by.
const NAMED: usize = 5;

/// Finds where each of `edits` (old text, new text) applies in `text`, in the order of the file.
///
/// Each old text must be there exactly once, and no two may touch the same text. Line breaks
/// match in either form; the new text takes the form of the lines it replaces, else that of most
/// lines of the file. Everything outside stays as it is, byte by byte.
pub(crate) fn changes(text: &str, edits: &[(&str, &str)]) -> Result<Vec<Change>, String> {
    let plain = Plain::new(text);
    let mut changes = Vec::with_capacity(edits.len());
    for (number, (old, new)) in edits.iter().enumerate() {
        let at = plain.find(old).map_err(|why| format!("edit {}: {why}", number + 1))?;
        let crlf = match &text[at.clone()] {
            old if old.contains("\r\n") => true,
            old if old.contains('\n') => false,
            _ => plain.mostly_crlf(),
        };
        let to = unix(new);
        let to = if crlf { to.replace('\n', "\r\n") } else { to };
        changes.push((number + 1, Change { at, to }));
    }
    changes.sort_by_key(|(_, change)| change.at.start);
    for pair in changes.windows(2) {
        if let [(first, one), (second, other)] = pair
            && other.at.start < one.at.end
        {
            return Err(format!(
                "edits {first} and {second} overlap; make one edit of them, or let them not touch \
                 the same text"
            ));
        }
    }
    let changes: Vec<_> = changes.into_iter().map(|(_, change)| change).collect();
    if changes.iter().all(|change| text[change.at.clone()] == change.to) {
        return Err("the new text is what is there already; nothing would change".into());
    }
    Ok(changes)
}

/// The text with all changes made.
pub(crate) fn apply(text: &str, changes: &[Change]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for change in changes {
        out.push_str(&text[at..change.at.start]);
        out.push_str(&change.to);
        at = change.at.end;
    }
    out.push_str(&text[at..]);
    out
}

fn unix(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// A text with plain line breaks, that knows where each byte was before.
struct Plain {
    text: String,
    /// For each carriage return that was taken out: where the text went on without it.
    removed: Vec<usize>,
}

impl Plain {
    fn new(text: &str) -> Self {
        let returns = memmem::find_iter(text.as_bytes(), b"\r\n");
        let removed = returns.enumerate().map(|(before, at)| at - before).collect();
        Self { text: unix(text), removed }
    }

    fn mostly_crlf(&self) -> bool {
        let breaks = memchr::memchr_iter(b'\n', self.text.as_bytes()).count();
        self.removed.len() * 2 > breaks
    }

    /// Where a byte was in the text as it is. A carriage return belongs to the break behind it.
    fn before(&self, at: usize) -> usize {
        at + self.removed.partition_point(|removed| *removed < at)
    }

    /// The one place of `old`.
    fn find(&self, old: &str) -> Result<Range<usize>, String> {
        let old = unix(old);
        if old.is_empty() {
            return Err("the old text is empty; name the text to replace".into());
        }
        let mut places = self.places(&old);
        let Some(at) = places.next() else {
            return Err(
                "the old text is not in the file; it must match exactly, with blanks and line \
                 breaks. Read the file again"
                    .into(),
            );
        };
        let others: Vec<_> = places.by_ref().take(NAMED).collect();
        if !others.is_empty() {
            let more = if places.next().is_some() { " and more" } else { "" };
            let lines: Vec<_> =
                std::iter::once(at).chain(others).map(|at| self.line(at).to_string()).collect();
            return Err(format!(
                "the old text is in the file more than once (lines {}{more}); add lines around it \
                 until it is there once",
                lines.join(", ")
            ));
        }
        Ok(self.before(at)..self.before(at + old.len()))
    }

    /// All places, also those that overlap.
    fn places<'a>(&'a self, old: &'a str) -> impl Iterator<Item = usize> + 'a {
        let finder = memmem::Finder::new(old);
        let mut from = 0;
        std::iter::from_fn(move || {
            let at = from + finder.find(self.text.as_bytes().get(from..)?)?;
            from = at + 1;
            Some(at)
        })
    }

    fn line(&self, at: usize) -> usize {
        1 + memchr::memchr_iter(b'\n', &self.text.as_bytes()[..at]).count()
    }
}
