//! What becomes of a command's output: kept in bounded memory, or sent as it comes.

use agentwire::exec::ShellSink;
use agentwire::proto::{ShellStreamStderr, ShellStreamStdout, shell_stream};

use crate::clip::{Clip, Clipped, Decoder, is_inner, left_out};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Takes output in the order it was read.
pub(crate) trait Output: Send {
    /// Resolves when there is room for more: a command that prints faster waits.
    fn take(&mut self, stream: Stream, bytes: &[u8]) -> impl Future<Output = ()> + Send;
}

/// Keeps head and tail.
#[derive(Debug)]
pub(crate) struct Collector {
    out: Clip,
    err: Clip,
    both: Clip,
    breaks: u64,
    /// The last byte was a line break, or nothing came.
    ended: bool,
}

/// What was kept.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) out: Clipped,
    pub(crate) err: Clipped,
    /// Both in the order they were read, which is about the order they were written.
    pub(crate) both: Clipped,
    /// Of all output.
    pub(crate) lines: u64,
}

impl Collector {
    pub(crate) fn new(max: usize) -> Self {
        let (out, err, both) = (Clip::new(max), Clip::new(max), Clip::new(max));
        Self { out, err, both, breaks: 0, ended: true }
    }

    pub(crate) fn finish(self) -> Collected {
        Collected {
            lines: self.breaks + u64::from(!self.ended),
            out: self.out.finish(),
            err: self.err.finish(),
            both: self.both.finish(),
        }
    }
}

impl Output for Collector {
    async fn take(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Out => self.out.push(bytes),
            Stream::Err => self.err.push(bytes),
        }
        self.both.push(bytes);
        self.breaks += memchr::memchr_iter(b'\n', bytes).count() as u64;
        self.ended = bytes.last().map_or(self.ended, |last| *last == b'\n');
    }
}

/// Sends it on, up to a limit for each stream, and the tail of the rest at the end.
pub(crate) struct Streamer<'a> {
    sink: &'a mut dyn ShellSink,
    out: Channel,
    err: Channel,
}

struct Channel {
    decoder: Decoder,
    room: u64,
    rest: Clip,
}

impl<'a> Streamer<'a> {
    pub(crate) fn new(sink: &'a mut dyn ShellSink, room: u64, tail: usize) -> Self {
        let channel = || Channel { decoder: Decoder::default(), room, rest: Clip::with(0, tail) };
        Self { sink, out: channel(), err: channel() }
    }

    /// Sends what is left.
    pub(crate) async fn finish(mut self) -> &'a mut dyn ShellSink {
        for stream in [Stream::Out, Stream::Err] {
            let channel = self.channel(stream);
            let mut text = channel.decoder.finish();
            let rest = std::mem::replace(&mut channel.rest, Clip::with(0, 0));
            if rest.total() > 0 {
                let rest = rest.finish();
                if rest.elided > 0 {
                    text = format!("{text}\n{}\n{}", left_out(rest.elided), rest.tail);
                } else {
                    text += &rest.head;
                }
            }
            self.send(stream, text).await;
        }
        self.sink
    }

    fn channel(&mut self, stream: Stream) -> &mut Channel {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    async fn send(&mut self, stream: Stream, data: String) {
        if data.is_empty() {
            return;
        }
        let event = match stream {
            Stream::Out => shell_stream::Event::Stdout(ShellStreamStdout { data }),
            Stream::Err => shell_stream::Event::Stderr(ShellStreamStderr { data }),
        };
        self.sink.send(event).await;
    }
}

impl Output for Streamer<'_> {
    async fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let channel = self.channel(stream);
        let mut room = usize::try_from(channel.room).unwrap_or(usize::MAX).min(bytes.len());
        channel.room -= room as u64;
        if channel.rest.total() == 0 {
            // The character that the limit falls into is still sent.
            room += bytes[room..].iter().take(3).take_while(|byte| is_inner(**byte)).count();
        }
        let (now, later) = bytes.split_at(room);
        channel.rest.push(later);
        let text = channel.decoder.push(now);
        self.send(stream, text).await;
    }
}
