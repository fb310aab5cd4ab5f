//! `replay`: a recording played back, printed as `chat` would have.
#![allow(clippy::disallowed_methods, reason = "a driver: the clock of a replay begins now")]

use std::ffi::OsString;
use std::io::BufReader;
use std::time::Instant;

use agentwire::Error;
use agentwire::recording::{Recording, RecordingError};
use agentwire::run::{Event, EventRef};

use crate::chat::Printer;
use crate::failure::{Failure, Report, exit, exit_of};
use crate::input::Source;
use crate::output::Look;

/// Play a recording back: the events that `chat --record` saw, without a network or an account.
///
/// Everything is decided anew from what the service said then, on a clock that does not wait. So a
/// fault that was recorded is met again, with a debugger at hand. The exit code is that of the last
/// run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  agentwire chat --local --record hello.jsonl \"hello\"
  agentwire replay hello.jsonl")]
pub(crate) struct Args {
    /// The recording; `-` is stdin
    #[arg(value_name = "FILE|-")]
    file: OsString,

    /// Play this run only, counted from 1 [default: all of them, in order]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    run: Option<u32>,

    /// Show the model's reasoning (on stderr, or as `thinking` lines with --json)
    #[arg(long)]
    show_thinking: bool,

    /// Print one JSON object a line, as `chat --json` does
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(crate) fn report(&self) -> Report {
        if self.json { Report::Json } else { Report::Text }
    }
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let look = Look::detect();
    let report = args.report();
    let source = Source::from(args.file);
    let recording = Recording::read(BufReader::new(source.open()?))
        .map_err(|error| unreadable(&source, &error))?;
    if recording.torn {
        look.remark("note: the end of the recording's last line is missing");
    }
    let runs = match args.run {
        Some(run) => vec![run],
        None => recording.runs(),
    };
    if runs.is_empty() {
        return Err(Failure::Failed(Error::invalid(format!("{source} holds no run"))));
    }
    let mut code = 0;
    for run in runs {
        let printer = Printer::new(report, args.show_thinking, look);
        code = play(&recording, run, printer)?;
    }
    if code == 0 { Ok(()) } else { Err(Failure::Said(code)) }
}

/// Plays one run and gives its exit code.
fn play(recording: &Recording, run: u32, mut printer: Printer) -> Result<u8, Failure> {
    let (mut printed, mut code) = (Ok(()), exit::FAILED);
    recording.replay(run, Instant::now(), |event| {
        if printed.is_ok() {
            printed = printer.event(&event);
        }
        if let EventRef::Other(event) = event
            && let Event::Ended(ended) = *event
        {
            code = ended.map_or_else(|error| exit_of(&error), |_| 0);
        }
    })?;
    printed?;
    printer.finish()?;
    Ok(code)
}

/// What is wrong with a file that is no recording.
pub(crate) fn unreadable(source: &Source, error: &RecordingError) -> Failure {
    Failure::Failed(Error::invalid(format!("{source}, {error}")))
}
