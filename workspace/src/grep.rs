//! Searching files for a pattern, and files by their names.

use std::ffi::OsString;
use std::io::{self, Read};

use grep_matcher::LineTerminator;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use ignore::overrides::{Override, OverrideBuilder};
use ignore::types::{Types, TypesBuilder};

use crate::Limits;
use crate::clip::cut;
use crate::fault::Fault;
use crate::job::Stop;
use crate::root::{Kind, Place, Root, relative};
use crate::walk::{Budget, Verdict, files};

/// A file with a zero byte before this is binary; in a later place it only ends the search. No option:
/// the rule of grep and git.
const SNIFF: u64 = 8 << 10;

/// Refuses a pattern that is long enough to be work by itself.
pub(crate) fn short(pattern: &str, limits: &Limits) -> Result<(), Fault> {
    let most = limits.pattern_bytes;
    if pattern.len() <= most {
        return Ok(());
    }
    Err(Fault::Invalid(format!("a pattern may have at most {most} bytes")))
}

/// What to search for, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    /// Empty: every file matches, and none is opened.
    pub(crate) pattern: String,
    pub(crate) literal: bool,
    pub(crate) ignore_case: bool,
    pub(crate) multiline: bool,
    /// Which files, in the form of `rg --glob`: `*.rs`, `src/**`, `!*.min.js`.
    pub(crate) glob: Option<String>,
    /// Which files, by the name of a kind: `rust`, `py`.
    pub(crate) kind: Option<String>,
    pub(crate) before: usize,
    pub(crate) after: usize,
    pub(crate) newest_first: Option<bool>,
    pub(crate) descending: bool,
    /// Only whether a file matches, not where.
    pub(crate) first_only: bool,
    /// Lines that are kept, over all files.
    pub(crate) keep_lines: usize,
    /// Matching lines after which the search stops, if that is less than the limit.
    pub(crate) max_matches: Option<u64>,
}

/// One line of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) text: String,
    pub(crate) cut: bool,
    pub(crate) context: bool,
}

/// One file that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Relative to the root.
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
    /// Lines that match, also those that were not kept.
    pub(crate) matched: u64,
}

/// What a search found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) hits: Vec<Hit>,
    /// Lines, those around matches included; also those that were not kept.
    pub(crate) lines: u64,
    pub(crate) matched: u64,
    /// Not all was searched: the numbers are lower bounds.
    pub(crate) stopped: bool,
}

/// Which files a search is about.
struct Filter {
    globs: Override,
    types: Types,
}

impl Filter {
    fn new(query: &Query) -> Result<Self, Fault> {
        let wrong = |error: ignore::Error| Fault::Invalid(error.to_string());
        let mut globs = OverrideBuilder::new("/");
        for glob in query.glob.iter().filter(|glob| !glob.is_empty()) {
            globs.add(glob).map_err(wrong)?;
        }
        let mut types = TypesBuilder::new();
        types.add_defaults();
        for kind in query.kind.iter().filter(|kind| !kind.is_empty()) {
            types.select(kind);
        }
        let unknown = |error: ignore::Error| {
            Fault::Invalid(format!("{error}; use a glob, for instance `*.rs`, instead"))
        };
        Ok(Self { globs: globs.build().map_err(wrong)?, types: types.build().map_err(unknown)? })
    }

    fn verdict(&self, path: &str, kind: Kind) -> Verdict {
        match kind {
            Kind::Folder if self.globs.matched(path, true).is_ignore() => Verdict::Prune,
            Kind::File
                if !self.globs.matched(path, false).is_ignore()
                    && !self.types.matched(path, false).is_ignore() =>
            {
                Verdict::Take
            }
            _ => Verdict::Pass,
        }
    }
}

/// Searches the file or folder at `place`.
pub(crate) fn search(
    root: &Root,
    place: &Place,
    query: &Query,
    limits: &Limits,
    stop: &Stop,
) -> Result<Found, Fault> {
    short(&query.pattern, limits)?;
    query.glob.iter().chain(&query.kind).try_for_each(|glob| short(glob, limits))?;
    let filter = Filter::new(query)?;
    let matcher = matcher(query, limits.pattern_memory)?;
    let (paths, complete) = match place.kind {
        Kind::File => (vec![place.names.clone()], true),
        Kind::Folder => {
            let mut budget = Budget::new(limits, stop);
            let found = files(root, &place.names, &mut budget, |names, kind| {
                filter.verdict(&relative(names), kind)
            })?;
            (found.paths, found.complete)
        }
        Kind::Absent => return Err(Fault::NotFound),
        kind => return Err(Fault::Kind { is: kind.words(), wanted: "a file or a folder" }),
    };
    let only = place.kind == Kind::File;
    let paths = order(root, paths, query, stop);
    let mut found = Found { stopped: !complete, ..Found::default() };
    if query.pattern.is_empty() {
        let hit = |names: Vec<OsString>| Hit { path: relative(&names), lines: vec![], matched: 0 };
        found.hits = paths.into_iter().map(hit).collect();
        return Ok(found);
    }
    let (room_lines, room_bytes) = (query.keep_lines, limits.answer_bytes);
    let most = query.max_matches.unwrap_or(u64::MAX).min(limits.grep_matches);
    let mut search = Search { query, limits, stop, found, room_lines, room_bytes, most };
    let mut searcher = searcher(query, limits.search_bytes);
    for names in paths {
        if stop.is_set() || search.found.matched >= most {
            search.found.stopped = true;
            break;
        }
        let place = Place { names, kind: Kind::File };
        // A file that is gone, or may not be read, does not end the search.
        match root.open_file(&place) {
            Ok((file, _)) => {
                let path = place.relative();
                search.file(&mut searcher, &matcher, path, file.into_std());
            }
            // It is what was asked for.
            Err(fault) if only => return Err(fault),
            Err(Fault::NotFound) => {}
            Err(_) => search.found.stopped = true,
        }
    }
    Ok(search.found)
}

/// Puts files into the order that was asked for; by path they are already.
fn order(
    root: &Root,
    mut paths: Vec<Vec<OsString>>,
    query: &Query,
    stop: &Stop,
) -> Vec<Vec<OsString>> {
    if let Some(newest_first) = query.newest_first {
        let modified = |names: &Vec<OsString>| {
            let place = Place { names: names.clone(), kind: Kind::File };
            let (dir, name) = root.open_parent(&place).ok().filter(|_| !stop.is_set())?;
            dir.symlink_metadata(name).ok()?.modified().ok()
        };
        paths.sort_by_cached_key(modified);
        if newest_first {
            paths.reverse();
        }
    } else if query.descending {
        paths.reverse();
    }
    paths
}

fn matcher(query: &Query, memory: usize) -> Result<RegexMatcher, Fault> {
    let mut builder = RegexMatcherBuilder::new();
    builder.case_insensitive(query.ignore_case).fixed_strings(query.literal).multi_line(true);
    builder.size_limit(memory).dfa_size_limit(memory);
    if query.multiline {
        builder.dot_matches_new_line(true);
    } else {
        builder.crlf(true);
    }
    builder.build(&query.pattern).map_err(|error| {
        Fault::Invalid(format!("not a valid pattern (the syntax is that of ripgrep): {error}"))
    })
}

fn searcher(query: &Query, memory: usize) -> Searcher {
    // It must be that of the matcher.
    let end = if query.multiline { LineTerminator::byte(b'\n') } else { LineTerminator::crlf() };
    SearcherBuilder::new()
        .line_number(true)
        .line_terminator(end)
        .multi_line(query.multiline)
        .before_context(query.before)
        .after_context(query.after)
        .binary_detection(BinaryDetection::quit(0))
        .heap_limit(Some(memory))
        .build()
}

struct Search<'a> {
    query: &'a Query,
    limits: &'a Limits,
    stop: &'a Stop,
    found: Found,
    /// Lines and bytes that may still be kept.
    room_lines: usize,
    room_bytes: usize,
    /// Matching lines after which it stops.
    most: u64,
}

impl Search<'_> {
    fn file(
        &mut self,
        searcher: &mut Searcher,
        matcher: &RegexMatcher,
        path: String,
        file: std::fs::File,
    ) {
        let (limits, stop) = (self.limits, self.stop);
        let mut reader = Bounded::new(file, limits.grep_file_bytes, stop);
        let mut lines = Lines {
            hit: Hit { path, lines: Vec::new(), matched: 0 },
            seen: 0,
            room_lines: self.room_lines,
            room_bytes: self.room_bytes,
            matches_left: self.most.saturating_sub(self.found.matched),
            line_bytes: limits.line_bytes,
            first_only: self.query.first_only,
            stop,
            full: false,
        };
        let done = searcher.search_reader(matcher, &mut reader, &mut lines);
        // What is not text has no lines: as for ripgrep.
        if reader.zero.is_some_and(|at| at < SNIFF) {
            return;
        }
        self.found.stopped |= done.is_err() || reader.more || lines.full;
        self.found.lines += lines.seen;
        self.found.matched += lines.hit.matched;
        if lines.hit.matched > 0 {
            self.room_lines -= lines.hit.lines.len();
            self.room_bytes = lines.room_bytes.saturating_sub(lines.hit.path.len());
            self.found.hits.push(lines.hit);
        }
    }
}

/// A file as far as it is searched; stops when it is told to.
struct Bounded<'a> {
    file: std::fs::File,
    at: u64,
    left: u64,
    stop: &'a Stop,
    /// The file goes on behind the bound.
    more: bool,
    /// It begins with the mark of text with two bytes a character, which is full of zeros.
    wide: bool,
    /// Where the first zero byte is: the file is searched up to there. The searcher's own way would
    /// leave out up to a block before it.
    zero: Option<u64>,
}

impl<'a> Bounded<'a> {
    fn new(file: std::fs::File, left: u64, stop: &'a Stop) -> Self {
        Self { file, at: 0, left, stop, more: false, wide: false, zero: None }
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_set() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if self.zero.is_some() {
            return Ok(0);
        }
        if self.left == 0 && !buffer.is_empty() {
            let mut probe = [0];
            self.more |= self.file.read(&mut probe)? > 0;
            return Ok(0);
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let mut filled = self.file.read(&mut buffer[..room])?;
        if self.at == 0 {
            self.wide = matches!(buffer[..filled], [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..]);
        }
        if !self.wide
            && let Some(zero) = memchr::memchr(0, &buffer[..filled])
        {
            self.zero = Some(self.at + zero as u64);
            self.more = true;
            filled = zero;
        }
        self.at += filled as u64;
        self.left -= filled as u64;
        Ok(filled)
    }
}

/// Takes the lines of one file.
struct Lines<'a> {
    hit: Hit,
    /// Lines seen, those around matches included.
    seen: u64,
    room_lines: usize,
    room_bytes: usize,
    matches_left: u64,
    line_bytes: usize,
    first_only: bool,
    stop: &'a Stop,
    /// Not all of the file was searched.
    full: bool,
}

impl Lines<'_> {
    /// Takes one piece, which is several lines where a match goes over them. False ends the file.
    fn take(&mut self, number: Option<u64>, bytes: &[u8], context: bool) -> bool {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        for (number, line) in (number.unwrap_or(0)..).zip(lines) {
            self.seen += 1;
            if self.hit.lines.len() < self.room_lines && self.room_bytes > 0 {
                let line = self.line(number, line, context);
                self.room_bytes = self.room_bytes.saturating_sub(line.text.len() + 8);
                self.hit.lines.push(line);
            }
        }
        if !context {
            self.hit.matched += 1;
            self.matches_left = self.matches_left.saturating_sub(1);
            self.full |= self.matches_left == 0;
        }
        !(self.matches_left == 0 || self.stop.is_set() || (self.first_only && !context))
    }

    fn line(&self, number: u64, bytes: &[u8], context: bool) -> Line {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        // A character more than is kept, so that what is cut is cut between two.
        let head = &bytes[..bytes.len().min(self.line_bytes + 4)];
        let text = String::from_utf8_lossy(head);
        let kept = cut(&text, self.line_bytes);
        let cut = kept.len() < text.len() || head.len() < bytes.len();
        Line { number, text: kept.to_owned(), cut, context }
    }
}

impl Sink for Lines<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        Ok(self.take(found.line_number(), found.bytes(), false))
    }

    fn context(&mut self, _: &Searcher, found: &SinkContext<'_>) -> io::Result<bool> {
        Ok(self.take(found.line_number(), found.bytes(), true))
    }

    fn binary_data(&mut self, _: &Searcher, at: u64) -> io::Result<bool> {
        // In text of two bytes a character, the only kind that the reader leaves to the searcher.
        self.full = true;
        Ok(at >= SNIFF)
    }
}
