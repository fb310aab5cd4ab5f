//! Reading a file, or some of its lines, whatever its size, and while others write to it.

use std::io::{self, Read, Seek, SeekFrom};

use memchr::{memchr_iter, memrchr};

use crate::Limits;
use crate::clip::{Clip, Clipped, lossy};
use crate::fault::Fault;
use crate::job::Stop;
use crate::root::Stamp;

/// A file with a zero byte in its first bytes is binary: the rule of grep and git.
const SNIFF: usize = 8 << 10;
const BLOCK: usize = 64 << 10;
/// How often a file that changes meanwhile is read before that is the answer. No option: the time of
/// the work bounds it, too.
const ATTEMPTS: usize = 3;

/// An open file.
pub(crate) trait Source: Read + Seek {
    /// What tells whether it changed.
    fn stamp(&mut self) -> io::Result<Stamp>;
}

impl Source for cap_std::fs::File {
    fn stamp(&mut self) -> io::Result<Stamp> {
        Ok(Stamp::of(&self.metadata()?))
    }
}

/// Which lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lines {
    /// The first one, counted from 1; a negative number counts from the end.
    pub(crate) from: i64,
    /// How many at most.
    pub(crate) count: u64,
}

impl Lines {
    pub(crate) const ALL: Self = Self { from: 1, count: u64::MAX };

    /// As the protocol gives them: absent and zero mean "from the start" and "no limit".
    pub(crate) fn asked(offset: Option<i32>, limit: Option<u64>) -> Self {
        let from = offset.filter(|offset| *offset != 0).map_or(1, i64::from);
        Self { from, count: limit.filter(|limit| *limit != 0).unwrap_or(u64::MAX) }
    }
}

/// How much of it is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    pub(crate) head: usize,
    pub(crate) tail: usize,
}

impl Keep {
    pub(crate) fn both(bytes: usize) -> Self {
        Self { head: bytes - bytes / 3, tail: bytes / 3 }
    }
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Text(Clipped),
    Data(Vec<u8>),
}

/// What was read, and what is known about the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) body: Body,
    /// Bytes of the file when reading began.
    pub(crate) size: u64,
    /// Not known for files longer than [`Limits::scan_bytes`].
    pub(crate) total_lines: Option<u64>,
    /// Lines that were taken in, before anything was left out of them.
    pub(crate) lines: u64,
    /// Something of what was asked for is missing.
    pub(crate) truncated: bool,
}

/// Reads until what was read is one state of the file.
///
/// A file that only grows meanwhile, like a log, is answered as it was when reading began, as
/// truncated. One that is changed in another way during each attempt is [`Fault::Changed`].
pub(crate) fn read(
    file: &mut impl Source,
    lines: Lines,
    keep: Keep,
    limits: &Limits,
    stop: &Stop,
) -> Result<Content, Fault> {
    let mut grown = None;
    for _ in 0..ATTEMPTS {
        let before = file.stamp()?;
        let content = Reading { file, size: before.len, keep, limits, stop }.read(lines);
        let after = file.stamp()?;
        if after == before {
            return content;
        }
        grown = Some(content).filter(|_| after.len > before.len);
    }
    let mut content = grown.unwrap_or(Err(Fault::Changed))?;
    content.truncated = true;
    Ok(content)
}

struct Reading<'a, S> {
    file: &'a mut S,
    size: u64,
    keep: Keep,
    limits: &'a Limits,
    stop: &'a Stop,
}

impl<S: Source> Reading<'_, S> {
    fn read(&mut self, lines: Lines) -> Result<Content, Fault> {
        let mut start = vec![0; SNIFF];
        let filled = self.fill(0, &mut start)?;
        start.truncate(filled);
        if start.contains(&0) {
            return self.data(lines);
        }
        let kept = (self.keep.head + self.keep.tail) as u64;
        if lines == Lines::ALL && self.size > kept.max(self.limits.scan_bytes) {
            return self.ends();
        }
        match lines.from {
            ..0 => self.read_backward(lines),
            _ => self.read_forward(lines),
        }
    }

    /// A binary file: whole or not at all.
    fn data(&mut self, lines: Lines) -> Result<Content, Fault> {
        if lines != Lines::ALL {
            return Err(Fault::Unfit("a binary file has no lines; read it without a range".into()));
        }
        if self.size > self.limits.binary_bytes {
            return Err(Fault::Unfit(format!(
                "a binary file of {} bytes; the limit for one that is not text is {}",
                self.size, self.limits.binary_bytes
            )));
        }
        let mut data = vec![0; usize::try_from(self.size).unwrap_or(usize::MAX)];
        let filled = self.fill(0, &mut data)?;
        data.truncate(filled);
        Ok(self.content(Body::Data(data), None, 0, false))
    }

    /// The head and the tail of a file that is too long to look through.
    fn ends(&mut self) -> Result<Content, Fault> {
        let mut head = vec![0; self.keep.head];
        let filled = self.fill(0, &mut head)?;
        head.truncate(filled);
        let at = self.size.saturating_sub(self.keep.tail as u64).max(filled as u64);
        let mut tail = vec![0; self.keep.tail];
        let filled = self.fill(at, &mut tail)?;
        tail.truncate(filled);
        // Whole lines where there are some.
        if let Some(end) = memrchr(b'\n', &head) {
            head.truncate(end + 1);
        }
        if let Some(end) = memchr::memchr(b'\n', &tail).filter(|end| end + 1 < tail.len()) {
            tail.drain(..=end);
        }
        let missing = self.size.saturating_sub((head.len() + tail.len()) as u64);
        let text = format!(
            "{}[… {missing} bytes left out; ask for lines with an offset, negative from the end …]\n{}",
            lossy(head),
            lossy(tail)
        );
        let body = Body::Text(Clipped { head: text, tail: String::new(), elided: 0 });
        Ok(self.content(body, None, 0, true))
    }

    /// Lines counted from the start, found by looking through the file.
    fn read_forward(&mut self, lines: Lines) -> Result<Content, Fault> {
        let skip = u64::try_from(lines.from).unwrap_or(1).max(1) - 1;
        let end = self.size.min(self.limits.scan_bytes);
        let mut pick = Pick::new(skip, lines.count, self.keep);
        let all_seen = end == self.size;
        self.scan(0, end, |block| {
            pick.take(block);
            // Where not all lines can be counted, those after the range need not be.
            all_seen || pick.taken < lines.count
        })?;
        if !all_seen && pick.seen <= skip {
            return Err(Fault::Invalid(format!(
                "line {} lies beyond the first {end} bytes, which is as far as lines are counted; \
                 use a negative offset to count from the end, or search for the text",
                lines.from
            )));
        }
        // Lines go on where the scan ended.
        let cut = !all_seen && pick.taken < lines.count;
        let total = all_seen.then(|| pick.total());
        Ok(self.picked(pick, total, cut))
    }

    /// Lines counted from the end, found by looking backwards.
    fn read_backward(&mut self, lines: Lines) -> Result<Content, Fault> {
        let wanted = lines.from.unsigned_abs();
        let floor = self.size.saturating_sub(self.limits.scan_bytes);
        let (mut at, mut breaks, mut start) = (self.size, 0, None);
        let mut block = vec![0; BLOCK];
        // To the start of the file, if that is near enough, so that all lines are counted.
        while at > floor && (start.is_none() || floor == 0) {
            self.stop.check()?;
            let from = at.saturating_sub(BLOCK as u64).max(floor);
            let length = usize::try_from(at - from).unwrap_or(BLOCK).min(BLOCK);
            let filled = self.fill(from, &mut block[..length])?;
            for index in memchr::memrchr_iter(b'\n', &block[..filled]) {
                let after = from + index as u64 + 1;
                // The break at the very end ends the last line and begins none.
                if after < self.size {
                    breaks += 1;
                    if breaks == wanted {
                        start = Some(after);
                    }
                }
            }
            at = from;
        }
        let cut = start.is_none() && floor > 0;
        let start = start.unwrap_or(floor);
        let mut pick = Pick::new(0, lines.count, self.keep);
        self.scan(start, self.size, |block| {
            pick.take(block);
            true
        })?;
        let total = (floor == 0).then(|| breaks + u64::from(self.size > 0));
        Ok(self.picked(pick, total, cut))
    }

    fn picked(&self, pick: Pick, total: Option<u64>, cut: bool) -> Content {
        let lines = pick.taken_lines();
        let text = pick.clip.finish();
        let truncated = cut || text.elided > 0;
        self.content(Body::Text(text), total, lines, truncated)
    }

    fn content(&self, body: Body, total: Option<u64>, lines: u64, truncated: bool) -> Content {
        Content { body, size: self.size, total_lines: total, lines, truncated }
    }

    /// Hands `from..to` to `each`, block by block, as long as it wants more.
    fn scan<F>(&mut self, from: u64, to: u64, mut each: F) -> Result<(), Fault>
    where
        F: FnMut(&[u8]) -> bool,
    {
        let mut block = vec![0; BLOCK];
        self.file.seek(SeekFrom::Start(from))?;
        let mut left = to.saturating_sub(from);
        while left > 0 {
            self.stop.check()?;
            let length = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
            let filled = retry(|| self.file.read(&mut block[..length]))?;
            if filled == 0 {
                // Shorter than it was; the stamp tells.
                break;
            }
            if !each(&block[..filled]) {
                break;
            }
            left -= filled as u64;
        }
        Ok(())
    }

    /// Reads at `at` until `buffer` is full or the file ends, but not beyond the size it had.
    fn fill(&mut self, at: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        let room = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let length = buffer.len().min(room);
        self.file.seek(SeekFrom::Start(at))?;
        let mut filled = 0;
        while filled < length {
            self.stop.check()?;
            let end = length.min(filled + BLOCK);
            match retry(|| self.file.read(&mut buffer[filled..end]))? {
                0 => break,
                more => filled += more,
            }
        }
        Ok(filled)
    }
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Picks lines out of blocks, and counts all of them.
struct Pick {
    clip: Clip,
    skip: u64,
    count: u64,
    /// Line breaks seen, in all.
    breaks: u64,
    /// Lines begun, in all.
    seen: u64,
    /// Lines whose end was taken.
    taken: u64,
    /// Whether the next byte begins a line.
    fresh: bool,
}

impl Pick {
    fn new(skip: u64, count: u64, keep: Keep) -> Self {
        let clip = Clip::with(keep.head, keep.tail);
        Self { clip, skip, count, breaks: 0, seen: 0, taken: 0, fresh: true }
    }

    fn take(&mut self, block: &[u8]) {
        let first = self.skip;
        let end = self.skip.saturating_add(self.count);
        let (mut from, mut to) = (None, block.len());
        let mut line = self.breaks;
        if (first..end).contains(&line) {
            from = Some(0);
        }
        for at in memchr_iter(b'\n', block) {
            line += 1;
            if line == first {
                from = Some(at + 1);
            }
            if line == end {
                to = at + 1;
            }
        }
        if let Some(from) = from {
            self.clip.push(&block[from..to]);
        }
        self.breaks = line;
        self.fresh = block.last().map_or(self.fresh, |last| *last == b'\n');
        self.seen = self.total();
        self.taken = line.clamp(first, end) - first;
    }

    /// Lines seen; the last one counts without a break too.
    fn total(&self) -> u64 {
        self.breaks + u64::from(!self.fresh)
    }

    fn taken_lines(&self) -> u64 {
        self.total().clamp(self.skip, self.skip.saturating_add(self.count)) - self.skip
    }
}

#[cfg(test)]
mod tests;
