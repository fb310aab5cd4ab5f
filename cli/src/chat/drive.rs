//! One run from its start to its last event: print what comes, refuse tools, pass on Ctrl-C.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::time::{Duration, Instant};

use agentwire::Error;
use agentwire::context::{Context, ToolCall, ToolResult};
use agentwire::error::Kind;
use agentwire::run::{Ended, Event, EventRef};
use agentwire::server::Script;
use agentwire::transport::Run;

use super::Args;
use super::print::Printer;
use super::workspace::Host;
use crate::failure::{Failure, exit, exit_of};
use crate::interrupt::Interrupt;
use crate::models::Known;
use crate::output::Look;
use crate::trace;

/// How often a model may be told that no tool is served here. A model that has not understood by
/// then never will, and each round costs tokens.
const TOOL_ROUNDS: u32 = 25;

pub(super) async fn chat(args: &Args, context: Context, look: Look) -> Result<(), Failure> {
    if let Some(path) = &args.trace {
        trace::begin(path)?;
    }
    let mut interrupt = Interrupt::install()?;
    let host = Host::new(args, look)?;
    let begun = Instant::now();
    let prepare = async {
        let connected = args.connect(look).await?;
        let known = Known::open(&connected, look);
        let model = args.named_model(&known, &context, look).await?;
        Ok::<_, Failure>((connected, known, model))
    };
    let (connected, known, model) = tokio::select! {
        biased;
        () = interrupt.wait() => return Err(Failure::Interrupted),
        prepared = prepare => prepared?,
    };
    let client = connected.client.clone();
    // One time for all of it: what the list of models took is the run's no more.
    let left = || args.timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
    let mut options = args.run_options();
    options.deadline = left();
    let mut run = client.ask(context).model(model).options(options);
    if let Some(host) = &host {
        run = host.attach(run);
    }
    let run = run.start().await.map_err(|refused| Failure::from(Error::from(refused)))?;
    let printer = Printer::new(args.report(), args.show_thinking, look);
    let chat = Chat { run, printer, interrupt, interrupted: false, rounds: 0 };
    let result = chat.print_all().await;
    // A list that is still under way is worth a second, but none beyond the time that was given.
    let _given_up = tokio::time::timeout(left().unwrap_or(Duration::MAX), known.close()).await;
    connected.end(look);
    result
}

/// What a server of our own plays.
pub(super) fn script(args: &Args) -> Script {
    match args.workspace {
        Some(_) => Script::assistant_in_workspace(),
        None => Script::assistant(),
    }
}

/// A run and what is done with it.
struct Chat {
    run: Run,
    printer: Printer,
    interrupt: Interrupt,
    interrupted: bool,
    rounds: u32,
}

/// What a batch of events asks of us.
#[derive(Default)]
struct Asked {
    calls: Vec<ToolCall>,
    ended: Option<Ended>,
}

impl Chat {
    /// Prints everything up to the last event; the exit code says how it ended.
    async fn print_all(mut self) -> Result<(), Failure> {
        let mut trouble = None;
        loop {
            let asked = match self.batch(trouble.is_none()).await {
                Ok(Some(asked)) => asked,
                Ok(None) => break,
                Err(failure) => {
                    // Nobody reads on, or the disk is full: the service is told before we go.
                    self.run.cancel();
                    trouble = Some(failure);
                    continue;
                }
            };
            if let Some(ended) = asked.ended {
                return self.end(ended, trouble).await;
            }
            if let Err(error) = self.refuse(&asked.calls).await {
                self.run.cancel();
                trouble = trouble.or(Some(Failure::Failed(error)));
            }
        }
        // The stream of events ends with `Ended`, which was handled above.
        Err(trouble.unwrap_or(Failure::Said(exit::FAILED)))
    }

    /// Takes in what is there, or waits for it; `None` after the last event.
    async fn batch(&mut self, print: bool) -> Result<Option<Asked>, Failure> {
        let mut asked = Asked::default();
        let mut result = Ok(());
        let printer = &mut self.printer;
        let next = self.run.next_batch(|event| {
            if print && result.is_ok() {
                result = printer.event(&event);
            }
            asked.note(event);
        });
        let more = tokio::select! {
            biased;
            () = self.interrupt.wait(), if !self.interrupted => {
                self.interrupted = true;
                self.run.cancel();
                return Ok(Some(Asked::default()));
            }
            more = next => more,
        };
        if print {
            // The end is said even when the answer could not be written.
            result.and_then(|()| self.printer.flush())?;
        }
        Ok(more.map(|_| asked))
    }

    /// Answers tool calls: nothing serves them here, and the model should know.
    async fn refuse(&mut self, calls: &[ToolCall]) -> Result<(), Error> {
        if calls.is_empty() {
            return Ok(());
        }
        self.rounds += 1;
        if self.rounds > TOOL_ROUNDS {
            return Err(Error::limit(format!(
                "the model called tools {TOOL_ROUNDS} times, though none is served here"
            )));
        }
        let results = calls.iter().map(|call| {
            let text = "No tool is served by this client. Answer with what you know.";
            ToolResult::error(&call.id, &call.name, text)
        });
        // A call that was aborted, or a run that ended, in the meantime: the next event says so.
        let _late = self.run.answer_some(results.collect()).await;
        Ok(())
    }

    async fn end(mut self, ended: Ended, trouble: Option<Failure>) -> Result<(), Failure> {
        // The program ends next: what the service is still to be told has to leave before.
        let _handled = self.run.finish().await;
        if let Some(failure) = trouble {
            return Err(failure);
        }
        self.printer.finish()?;
        match ended {
            Ok(_) => Ok(()),
            Err(error) if self.interrupted && *error.kind() == Kind::Cancelled => {
                Err(Failure::Said(exit::INTERRUPTED))
            }
            Err(error) => Err(Failure::Said(exit_of(&error))),
        }
    }
}

impl Asked {
    fn note(&mut self, event: EventRef<'_>) {
        let EventRef::Other(event) = event else { return };
        match *event {
            Event::ToolCalls(calls) => self.calls.extend(calls),
            Event::Ended(ended) => self.ended = Some(ended),
            _ => {}
        }
    }
}
