//! `decode`: a captured stream as JSON lines.

mod recorded;

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};

use agentwire::Error;
use agentwire::connect::Limits;
use agentwire::inspect::{InspectError, Inspected, Stream};
use clap::ValueEnum;

use crate::failure::Failure;
use crate::input::Source;
use crate::output;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// Print a captured stream of envelopes as JSON, one a line.
///
/// Each line has the envelope's offset, flags and length, and its message by the names of the
/// schema; unknown fields are kept under their numbers. A damaged stream prints what came before
/// the damage, then an error with the byte offset; the exit code is then 1. A recording of
/// `chat --record` is known by its first line: both sides are printed in the order in which they
/// spoke, with what else happened (docs/CLI.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agentwire decode --from server capture.bin | jq -r '.message.interaction_update.text_delta.text // empty'")]
pub(crate) struct Args {
    /// The captured bytes, or a recording; `-` is stdin
    #[arg(value_name = "FILE|-", default_value = "-")]
    file: OsString,

    /// Which side sent them; of a recording: this side's envelopes alone
    #[arg(long, value_name = "SIDE")]
    from: Option<Side>,
}

/// Who sent the bytes of one direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// Answers: AgentServerMessage
    Server,
    /// Requests: AgentClientMessage
    Client,
}

impl From<Side> for agentwire::inspect::Side {
    fn from(side: Side) -> Self {
        match side {
            Side::Server => Self::Server,
            Side::Client => Self::Client,
        }
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let source = Source::from(args.file);
    let mut input = BufReader::with_capacity(CHUNK, source.open()?);
    let failed = |error| Failure::usage(format!("cannot read {source}: {error}"));
    // No envelope begins like that: the bit is reserved.
    if input.fill_buf().map_err(failed)?.first() == Some(&b'{') {
        return recorded::print(&source, input, args.from);
    }
    let Some(side) = args.from else {
        return Err(Failure::usage(
            "say with --from which side sent these bytes: server or client",
        ));
    };
    let mut lines = Lines::new(Stream::new(side.into(), Limits::default()), io::stdout());
    loop {
        let read = match input.fill_buf() {
            Ok([]) => return lines.finish(),
            Ok(bytes) => {
                lines.feed(bytes)?;
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        input.consume(read);
    }
}

/// The lines that are printed, and what was wrong inside them.
struct Lines<W: Write> {
    stream: Stream,
    stdout: BufWriter<W>,
    /// How many lines hold something that a decoder of the protocol would refuse, and the first.
    damaged: u64,
    first: Option<InspectError>,
}

impl<W: Write> Lines<W> {
    fn new(stream: Stream, stdout: W) -> Self {
        Self { stream, stdout: BufWriter::new(stdout), damaged: 0, first: None }
    }

    /// Prints what a piece of the stream completes, at once: the stream may be a live one.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream.push(bytes);
        while let Some(line) = self.stream.next() {
            self.line(line)?;
        }
        self.stdout.flush().map_err(output::failed)
    }

    fn finish(mut self) -> Result<(), Failure> {
        if let Some(line) = self.stream.finish() {
            self.line(line)?;
        }
        self.stdout.flush().map_err(output::failed)?;
        match self.first {
            None => Ok(()),
            Some(error) => Err(damage(&error, self.damaged)),
        }
    }

    fn line(&mut self, line: Result<Inspected, InspectError>) -> Result<(), Failure> {
        let inspected = match line {
            Ok(inspected) => inspected,
            Err(error) => {
                self.stdout.flush().map_err(output::failed)?;
                return Err(damage(&error, 1));
            }
        };
        if let Some(error) = inspected.damage {
            self.damaged += 1;
            self.first.get_or_insert(error);
        }
        serde_json::to_writer(&mut self.stdout, &inspected.value)
            .map_err(io::Error::from)
            .and_then(|()| self.stdout.write_all(b"\n"))
            .map_err(output::failed)
    }
}

/// What is wrong with the stream, with the byte offset.
fn damage(error: &InspectError, messages: u64) -> Failure {
    let mut text = error.to_string();
    if messages > 1 {
        text.push_str(&format!("; {messages} messages are damaged"));
    }
    let hint = "the file was cut or changed; what came before the damage is printed";
    Failure::Failed(Error::protocol(text).with_hint(hint))
}
