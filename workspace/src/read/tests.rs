//! Files that change under the reader, at the very moment that matters.

use std::io::{Cursor, Read, Seek, SeekFrom};

use super::*;

type Change = Box<dyn FnMut(usize, &mut Vec<u8>) -> bool>;

/// A file in memory that somebody changes: before each read `change` gets the number of the read
/// and the content, and says whether it touched it.
struct Live {
    content: Vec<u8>,
    at: u64,
    reads: usize,
    version: u64,
    change: Change,
}

impl Live {
    fn new(content: &str, change: impl FnMut(usize, &mut Vec<u8>) -> bool + 'static) -> Self {
        let content = content.as_bytes().to_vec();
        Self { content, at: 0, reads: 0, version: 0, change: Box::new(change) }
    }
}

impl Read for Live {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.version += u64::from((self.change)(self.reads, &mut self.content));
        self.reads += 1;
        let mut content = Cursor::new(&self.content);
        content.set_position(self.at);
        let filled = content.read(buffer)?;
        self.at += filled as u64;
        Ok(filled)
    }
}

impl Seek for Live {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(at) = to else { return Err(io::ErrorKind::Unsupported.into()) };
        self.at = at;
        Ok(at)
    }
}

impl Source for Live {
    fn stamp(&mut self) -> io::Result<Stamp> {
        Ok(Stamp::made(self.content.len() as u64, self.version))
    }
}

fn whole(file: &mut Live) -> Result<Content, Fault> {
    read(file, Lines::ALL, Keep::both(1_000), &Limits::default(), &Stop::default())
}

fn text(content: Content) -> String {
    match content.body {
        Body::Text(text) => text.into_text(),
        Body::Data(_) => unreachable!("no zero byte was written"),
    }
}

#[test]
fn a_file_that_is_cut_once_is_read_again() {
    for cut_at in 0..2 {
        let mut file = Live::new("one\ntwo\nthree\n", move |read, content| {
            read == cut_at && {
                content.truncate(4);
                true
            }
        });
        let content = whole(&mut file).unwrap();
        assert!(!content.truncated && content.size == 4);
        assert_eq!(text(content), "one\n");
    }
}

#[test]
fn a_file_that_grows_all_the_time_is_given_as_it_was() {
    let mut file = Live::new("one\n", |_, content| {
        content.extend_from_slice(b"more\n");
        true
    });
    let content = whole(&mut file).unwrap();
    assert!(content.truncated, "its end is missing, and that is told");
    let (size, text) = (content.size, text(content));
    assert!(text.starts_with("one\nmore\n") && text.ends_with("more\n"), "{text}");
    assert_eq!(text.len() as u64, size, "not a byte of what came while it was read");
}

#[test]
fn a_file_that_never_holds_still_is_said_to_be_changed() {
    // The same length, other content: no attempt sees one state.
    let mut file = Live::new("aaaa", |read, content| {
        content.fill(if read % 2 == 0 { b'a' } else { b'b' });
        true
    });
    assert_eq!(whole(&mut file), Err(Fault::Changed));
    assert_eq!(file.reads, ATTEMPTS * 2, "it is not tried for ever");
}

#[test]
fn reading_stops_when_it_is_told_to() {
    let stop = Stop::default();
    let told = stop.clone();
    let mut file = Live::new(&"a\n".repeat(1 << 20), move |read, _| {
        if read == 3 {
            told.set_for_test();
        }
        false
    });
    let answer = read(&mut file, Lines::ALL, Keep::both(1_000), &Limits::default(), &stop);
    assert_eq!(answer, Err(Fault::TimedOut));
    assert_eq!(file.reads, 4);
}

/// Every line by itself, through blocks of any size and with any ends.
#[test]
fn ranges_are_what_splitting_gives() {
    for content in ["", "\n", "a", "a\nb", "a\nb\n", "\n\na\n\n", "a\r\nb\r\n"] {
        let all: Vec<_> = content.split_inclusive('\n').collect();
        let count = i64::try_from(all.len()).unwrap();
        for from in -count - 1..=count + 1 {
            for limit in 1..=3 {
                let lines = Lines { from: if from == 0 { 1 } else { from }, count: limit };
                let mut file = Live::new(content, |_, _| false);
                let got =
                    read(&mut file, lines, Keep::both(100), &Limits::default(), &Stop::default());
                let first = if from < 0 { (count + from).max(0) } else { (from - 1).max(0) };
                let first = usize::try_from(first).unwrap();
                let expected: String =
                    all.iter().skip(first).take(usize::try_from(limit).unwrap()).copied().collect();
                let got = got.unwrap();
                assert_eq!(got.total_lines, Some(all.len() as u64), "{content:?}");
                assert_eq!(text(got), expected, "{content:?} from {from}, {limit} lines");
            }
        }
    }
}
