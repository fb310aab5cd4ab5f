//! What a change did, for a person and for `patch`.

use std::fmt::Write;
use std::ops::Range;

use crate::edit::Change;

/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// The hunks of a unified diff, without its two headers, and the first line that changed, in the
/// new file, counted from 1.
pub(crate) fn hunks(text: &str, changes: &[Change]) -> (String, usize) {
    let starts = line_starts(text);
    let spans: Vec<Span<'_>> = spans(text, &starts, changes);
    let mut out = String::new();
    let mut shift: isize = 0;
    let first = spans.first().map_or(1, |span| span.lines.start + 1);
    for group in spans.chunk_by(|one, next| next.lines.start - one.lines.end <= 2 * CONTEXT) {
        shift = hunk(&mut out, text, &starts, group, shift);
    }
    (out, first)
}

/// Whole lines that changed.
struct Span<'a> {
    /// In the old text, counted from 0.
    lines: Range<usize>,
    old: Vec<&'a str>,
    new: Vec<String>,
}

/// Where each line starts, and the end of the text.
fn line_starts(text: &str) -> Vec<usize> {
    let breaks = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
    let mut starts: Vec<usize> = std::iter::once(0).chain(breaks).collect();
    if starts.last() != Some(&text.len()) {
        starts.push(text.len());
    }
    starts
}

fn line_of(starts: &[usize], at: usize) -> usize {
    starts.partition_point(|start| *start <= at).saturating_sub(1).min(starts.len() - 1)
}

fn spans<'a>(text: &'a str, starts: &[usize], changes: &[Change]) -> Vec<Span<'a>> {
    let lines = |change: &Change| {
        let last = starts.len() - 1;
        let end = (line_of(starts, change.at.end) + 1).min(last);
        line_of(starts, change.at.start).min(last)..end
    };
    changes
        .chunk_by(|one, next| lines(next).start < lines(one).end)
        .filter_map(|together| {
            let (first, last) = (together.first()?, together.last()?);
            Span::new(text, starts, lines(first).start..lines(last).end, together)
        })
        .collect()
}

impl<'a> Span<'a> {
    fn new(
        text: &'a str,
        starts: &[usize],
        mut lines: Range<usize>,
        changes: &[Change],
    ) -> Option<Self> {
        let (from, to) = (starts[lines.start], starts[lines.end]);
        let mut new = String::new();
        let mut at = from;
        for change in changes {
            new.push_str(&text[at..change.at.start]);
            new.push_str(&change.to);
            at = change.at.end;
        }
        new.push_str(&text[at..to]);
        let mut old: Vec<_> = text[from..to].split_inclusive('\n').collect();
        let mut new: Vec<_> = new.split_inclusive('\n').map(str::to_owned).collect();
        let same = old.iter().zip(&new).take_while(|(old, new)| *old == new).count();
        old.drain(..same);
        new.drain(..same);
        lines.start += same;
        let same = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new);
        let same = same.count();
        old.truncate(old.len() - same);
        new.truncate(new.len() - same);
        lines.end = lines.start + old.len();
        (!old.is_empty() || !new.is_empty()).then_some(Self { lines, old, new })
    }
}

/// Writes one hunk; gives how far the lines after it have moved.
fn hunk(out: &mut String, text: &str, starts: &[usize], spans: &[Span<'_>], shift: isize) -> isize {
    let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return shift };
    let all = starts.len() - 1;
    let from = first.lines.start.saturating_sub(CONTEXT);
    let to = (last.lines.end + CONTEXT).min(all);
    let grown: isize =
        spans.iter().map(|span| span.new.len() as isize - span.old.len() as isize).sum();
    let old_count = to - from;
    let new_count = old_count.saturating_add_signed(grown);
    // A side without lines names the line before it.
    let start = |at: usize, count: usize| if count == 0 { at } else { at + 1 };
    let _ = writeln!(
        out,
        "@@ -{},{old_count} +{},{new_count} @@",
        start(from, old_count),
        start(from.saturating_add_signed(shift), new_count)
    );
    let mut at = from;
    for span in spans {
        (at..span.lines.start)
            .for_each(|line| put(out, ' ', &text[starts[line]..starts[line + 1]]));
        span.old.iter().for_each(|line| put(out, '-', line));
        span.new.iter().for_each(|line| put(out, '+', line));
        at = span.lines.end;
    }
    (at..to).for_each(|line| put(out, ' ', &text[starts[line]..starts[line + 1]]));
    shift + grown
}

fn put(out: &mut String, mark: char, line: &str) {
    out.push(mark);
    out.push_str(line);
    if !line.ends_with('\n') {
        out.push_str("\n\\ No newline at end of file\n");
    }
}
