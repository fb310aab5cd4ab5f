//! A recording as JSON lines: envelopes decoded, everything else as it stands there.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufWriter, Write};

use agentwire::connect::Limits;
use agentwire::inspect::{InspectError, Inspected, Stream};
use agentwire::recording::{Reader, Record, What};
use serde_json::{Value, json};

use super::{Side, damage};
use crate::failure::Failure;
use crate::input::Source;
use crate::output;
use crate::replay::unreadable;

/// Prints all of a recording, or, with `from`, the envelopes of that side.
pub(super) fn print(
    source: &Source,
    input: impl BufRead,
    from: Option<Side>,
) -> Result<(), Failure> {
    let mut reader = Reader::new(input).map_err(|error| unreadable(source, &error))?;
    let stdout = BufWriter::new(io::stdout());
    let mut printer = Printer { stdout, from, bodies: BTreeMap::new(), damaged: 0, first: None };
    for record in reader.by_ref() {
        // What was recorded before the damage is whole and is printed.
        let record = record.map_err(|error| unreadable(source, &error));
        match record {
            Ok(record) => printer.record(&record)?,
            Err(failure) => {
                printer.stdout.flush().map_err(output::failed)?;
                return Err(failure);
            }
        }
        printer.stdout.flush().map_err(output::failed)?;
    }
    printer.finish(reader.is_torn())
}

/// Run, stream and side.
type Place = (u32, u32, bool);

/// One direction of one stream.
enum Body {
    /// Envelopes.
    Stream(Stream),
    /// The answer was an HTTP error; its body is text.
    Text,
}

struct Printer<W: Write> {
    stdout: W,
    from: Option<Side>,
    bodies: BTreeMap<Place, Body>,
    damaged: u64,
    first: Option<InspectError>,
}

impl<W: Write> Printer<W> {
    fn record(&mut self, record: &Record) -> Result<(), Failure> {
        match &record.what {
            What::Client { bytes } => self.body(record, Side::Client, bytes),
            What::Server { bytes } => self.body(record, Side::Server, bytes),
            What::Head { status, .. } => {
                if *status != 200 {
                    self.bodies.insert((record.run, record.stream, true), Body::Text);
                }
                self.event(record)
            }
            _ => self.event(record),
        }
    }

    /// A record that is not about bytes, as it is.
    fn event(&mut self, record: &Record) -> Result<(), Failure> {
        if self.from.is_some() {
            return Ok(());
        }
        let line = serde_json::to_value(record).map_err(io::Error::from);
        line.and_then(|line| put(&mut self.stdout, &line)).map_err(output::failed)
    }

    fn body(&mut self, record: &Record, side: Side, bytes: &[u8]) -> Result<(), Failure> {
        if self.from.is_some_and(|from| from != side) {
            return Ok(());
        }
        let place = (record.run, record.stream, side == Side::Server);
        let new = || Body::Stream(Stream::new(side.into(), Limits::default()));
        let Body::Stream(stream) = self.bodies.entry(place).or_insert_with(new) else {
            return self.text(record, bytes);
        };
        stream.push(bytes);
        let lines: Vec<_> = std::iter::from_fn(|| stream.next()).collect();
        lines.into_iter().try_for_each(|line| self.envelope(record, side, line))
    }

    /// A piece of the body of an HTTP error.
    fn text(&mut self, record: &Record, bytes: &[u8]) -> Result<(), Failure> {
        if self.from.is_some() {
            return Ok(());
        }
        let mut line = place(record, Side::Server);
        line["body"] = String::from_utf8_lossy(bytes).into();
        put(&mut self.stdout, &line).map_err(output::failed)
    }

    fn envelope(
        &mut self,
        record: &Record,
        side: Side,
        line: Result<Inspected, InspectError>,
    ) -> Result<(), Failure> {
        let inspected = match line {
            Ok(inspected) => inspected,
            Err(error) => return self.broken(record, side, error),
        };
        if let Some(error) = inspected.damage {
            self.damaged += 1;
            self.first.get_or_insert(error);
        }
        let line = match (self.from, inspected.value) {
            // As `encode` takes them.
            (Some(_), line) => line,
            (None, Value::Object(members)) => {
                let mut line = place(record, side);
                if let Value::Object(all) = &mut line {
                    all.extend(members);
                }
                line
            }
            (None, other) => other,
        };
        put(&mut self.stdout, &line).map_err(output::failed)
    }

    /// The bytes of this direction are no envelopes from here on; the others go on.
    fn broken(&mut self, record: &Record, side: Side, error: InspectError) -> Result<(), Failure> {
        if self.from.is_none() {
            let mut line = place(record, side);
            line["damaged"] = json!({ "offset": error.offset(), "reason": error.reason() });
            put(&mut self.stdout, &line).map_err(output::failed)?;
        }
        self.damaged += 1;
        self.first.get_or_insert(error);
        Ok(())
    }

    /// A stream that was cut inside an envelope is not damaged: that is what was recorded.
    fn finish(mut self, torn: bool) -> Result<(), Failure> {
        if torn && self.from.is_none() {
            put(&mut self.stdout, &json!({ "torn": true })).map_err(output::failed)?;
        }
        self.stdout.flush().map_err(output::failed)?;
        match self.first {
            None => Ok(()),
            Some(error) => Err(damage(&error, self.damaged)),
        }
    }
}

/// The members that say where and when bytes came.
fn place(record: &Record, side: Side) -> Value {
    let from = match side {
        Side::Server => "server",
        Side::Client => "client",
    };
    let Record { at_us, run, stream, .. } = record;
    json!({ "at_us": at_us, "run": run, "stream": stream, "from": from })
}

fn put(out: &mut impl Write, line: &Value) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
