//! One run from its start to its last event: print what comes, refuse tools, pass on Ctrl-C.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use agentwire::Error;
use agentwire::context::{Context, ToolCall, ToolResult};
use agentwire::error::Kind;
use agentwire::run::{Ended, Event, EventRef, Notice, Retry};
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, ClientBuilder, Roots, Run};
use agentwire::{codec::Model, run};

use super::Args;
use super::print::Printer;
use super::workspace::Host;
use crate::failure::{Failure, exit, exit_of};
use crate::interrupt::Interrupt;
use crate::output::Look;
use crate::token;

/// The variable that names the base URL.
const ENDPOINT: &str = "AGENTWIRE_ENDPOINT";

/// How often a model may be told that no tool is served here. A model that has not understood by
/// then never will, and each round costs tokens.
const TOOL_ROUNDS: u32 = 25;

pub(super) async fn chat(args: &Args, context: Context, look: Look) -> Result<(), Failure> {
    let interrupt = Interrupt::install()?;
    // Dropping the server ends it, so it lives as long as the run.
    let (client, _server) = connect(args, look).await?;
    let mut options = run::Options::default();
    options.deadline = args.timeout;
    let host = Host::new(args, look)?;
    let question = Question { client, context, model: model(args), options, host };
    let run = question.ask().await?;
    let printer = Printer::new(args.report(), args.show_thinking, look);
    let retry = Retry::new(args.retries.unwrap_or(0));
    let chat = Chat { question, run, printer, interrupt, interrupted: false, rounds: 0, retry };
    chat.print_all().await
}

/// What is asked, for one attempt and the next.
struct Question {
    client: Client,
    context: Context,
    model: Model,
    options: run::Options,
    host: Option<Host>,
}

impl Question {
    async fn ask(&self) -> Result<Run, Failure> {
        let ask = self.client.ask(self.context.clone()).model(self.model.clone());
        let mut ask = ask.options(self.options.clone());
        if let Some(host) = &self.host {
            ask = host.attach(ask);
        }
        let run = ask.start().await;
        run.map_err(|refused| Failure::from(Error::from(refused)))
    }
}

fn model(args: &Args) -> Model {
    let model = Model::new(&args.model);
    match &args.thinking {
        // Until a table of models says more, the level goes out as it was typed.
        Some(level) => model.parameter("effort", level),
        None => model,
    }
}

/// A client for the endpoint that was named, or for a server started here.
async fn connect(args: &Args, look: Look) -> Result<(Client, Option<Server>), Failure> {
    if args.local {
        let script = match args.workspace {
            Some(_) => Script::assistant_in_workspace(),
            None => Script::assistant(),
        };
        let server = Server::builder().script(script).bind().await?;
        let certificate = server.certificate_pem().unwrap_or_default().to_owned();
        let client = Client::builder()
            .endpoint(server.url())
            .roots(Roots::OnlyAdded)
            .ca_pem(certificate)
            .build()?;
        return Ok((client, Some(server)));
    }
    let builder = Client::builder().allow_cleartext(args.allow_cleartext);
    let mut builder = at_endpoint(builder, args.endpoint.as_deref())?;
    if let Some(file) = &args.tls_ca {
        builder = builder.ca_file(file);
    }
    let client = builder.token(token::find(args.token_file.as_deref(), look)?).build()?;
    Ok((client, None))
}

/// The endpoint that was named, or that of the variable.
pub(crate) fn at_endpoint(
    builder: ClientBuilder,
    endpoint: Option<&str>,
) -> Result<ClientBuilder, Failure> {
    if let Some(url) = endpoint {
        return Ok(builder.endpoint(url));
    }
    match std::env::var(ENDPOINT) {
        Ok(url) if !url.is_empty() => Ok(builder.endpoint(url)),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(builder),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Failure::usage(format!("{ENDPOINT} is not a URL")))
        }
    }
}

/// A run and what is done with it.
struct Chat {
    question: Question,
    run: Run,
    printer: Printer,
    interrupt: Interrupt,
    interrupted: bool,
    rounds: u32,
    retry: Retry,
}

/// What a batch of events asks of us.
#[derive(Default)]
struct Asked {
    calls: Vec<ToolCall>,
    ended: Option<Ended>,
    /// Something was given to the person: the attempt cannot be repeated.
    handed_out: bool,
    /// The attempt failed and is worth another, after this time. Its error is not shown.
    again: Option<Duration>,
}

impl Chat {
    /// Prints everything up to the last event; the exit code says how it ended.
    async fn print_all(mut self) -> Result<(), Failure> {
        let mut trouble = None;
        let mut handed_out = false;
        loop {
            let asked = match self.batch(trouble.is_none(), handed_out).await {
                Ok(Some(asked)) => asked,
                Ok(None) => break,
                Err(failure) => {
                    // Nobody reads on, or the disk is full: the service is told before we go.
                    self.run.cancel();
                    trouble = Some(failure);
                    continue;
                }
            };
            handed_out |= asked.handed_out;
            if let Some(delay) = asked.again {
                if self.wait(delay).await? {
                    self.run = self.question.ask().await?;
                    continue;
                }
                return Err(Failure::Said(exit::INTERRUPTED));
            }
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
    async fn batch(&mut self, print: bool, handed_out: bool) -> Result<Option<Asked>, Failure> {
        let mut asked = Asked { handed_out, ..Asked::default() };
        let mut result = Ok(());
        let (printer, retry, interrupted) = (&mut self.printer, &mut self.retry, self.interrupted);
        let next = self.run.next_batch(|event| {
            if let EventRef::Other(Event::Ended(Err(error))) = &event
                && print
                && !interrupted
            {
                asked.again = retry.after(error, asked.handed_out, random());
            }
            if print && asked.again.is_none() && result.is_ok() {
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

    /// Says that another attempt follows and waits for it. False: Ctrl-C came first.
    async fn wait(&mut self, delay: Duration) -> Result<bool, Failure> {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let notice = Notice::Retrying { attempt: self.retry.tried(), delay_ms };
        self.printer.event(&EventRef::Other(Event::Notice(notice)))?;
        self.printer.flush()?;
        Ok(tokio::select! {
            biased;
            () = self.interrupt.wait() => false,
            () = tokio::time::sleep(delay) => true,
        })
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
        self.handed_out |= matches!(
            event,
            EventRef::Text(_) | EventRef::Thinking(_) | EventRef::Other(Event::ToolCalls(_))
        );
        match event {
            EventRef::Other(Event::ToolCalls(calls)) => self.calls.extend(calls),
            EventRef::Other(Event::Ended(ended)) => self.ended = Some(ended),
            _ => {}
        }
    }
}

/// A random number for the jitter of a delay: the seed that the system gives every hash map.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
