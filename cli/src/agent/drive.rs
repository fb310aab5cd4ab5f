//! One task from its start to its end: print what comes, pass on Ctrl-C.

use std::time::Duration;

use agentwire::Error;
use agentwire::context::{Context, Message};
use agentwire::error::Kind;
use agentwire_agent::model::Hosted;
use agentwire_agent::turn::ContextBudget;
use agentwire_agent::{Agent, Event, Limits, Outcome, Session, Stop};

use super::print::Printer;
use super::{Args, store};
use crate::chat;
use crate::failure::{Failure, exit};
use crate::interrupt::Interrupt;
use crate::models::Known;
use crate::output::Look;

/// Time between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

pub(super) async fn agent(args: &Args, prompt: Option<Message>, look: Look) -> Result<(), Failure> {
    let mut interrupt = Interrupt::install()?;
    let session = session(args, prompt.is_none(), look)?;
    let host = chat::workspace(&args.chat, look)?;
    let connected = tokio::select! {
        biased;
        () = interrupt.wait() => return Err(Failure::Interrupted),
        connected = args.chat.connect(look) => connected?,
    };
    let known = Known::open(&connected, look);
    let mut context = Context::default();
    if let Some(message) = &prompt {
        context.push(message.clone());
    }
    let name = tokio::select! {
        biased;
        () = interrupt.wait() => return Err(Failure::Interrupted),
        name = args.chat.named_model(&known, &context, look) => name?,
    };
    let mut model = Hosted::new(connected.client.clone())
        .options(args.chat.run_options())
        .known_as(args.chat.model_id(), name);
    if let Some(host) = host {
        model = model.execs(host);
    }
    let mut builder = Agent::builder(model).limits(limits(args)).model(args.chat.model_id());
    builder = match args.context_budget {
        None => builder.summarise_by_window(),
        Some(0) => builder,
        Some(tokens) => builder.context_budget(ContextBudget::new(tokens)),
    };
    if let Some(system) = chat::system(&args.chat)? {
        builder = builder.system(system);
    }
    let servers = tokio::select! {
        biased;
        () = interrupt.wait() => return Err(Failure::Interrupted),
        servers = args.tools.start() => servers?,
    };
    let (builder, _scope) = servers.attach(builder, look);
    let agent = builder.build().map_err(|error| Failure::usage(error.to_string()))?;
    let task = match prompt {
        Some(message) => agent.ask(message).session(session),
        None => agent.resume(session),
    };
    let mut running = task.start();
    let mut printer = Printer::new(args.report(), args.chat.shows_thinking(), look);
    let (mut interrupted, mut trouble, mut outcome) = (false, None, None);
    loop {
        let event = tokio::select! {
            biased;
            () = interrupt.wait(), if !interrupted => {
                interrupted = true;
                running.control().cancel();
                continue;
            }
            event = running.next() => event,
            () = tokio::time::sleep(TICK), if printer.spins() => {
                printer.spin();
                continue;
            }
        };
        let Some(event) = event else { break };
        if let Event::Finished { outcome: end } = &event {
            outcome = Some(end.clone());
        }
        if trouble.is_none()
            && let Err(failure) = printer.event(&event)
        {
            // Nobody reads on, or the disk is full: the service is told before we go.
            running.control().cancel();
            trouble = Some(failure);
        }
    }
    // The session's file is released, and the service told, before the program ends.
    let _ended = running.finish().await;
    servers.end().await;
    known.close().await;
    connected.end(look);
    match (trouble, outcome) {
        (Some(failure), _) => Err(failure),
        (None, Some(outcome)) => code(&outcome, interrupted),
        (None, None) => Err(Failure::Said(exit::FAILED)),
    }
}

/// How it ended was said already; this is the exit code.
fn code(outcome: &Outcome, interrupted: bool) -> Result<(), Failure> {
    match &outcome.stop {
        Stop::Completed => Ok(()),
        Stop::Cancelled if interrupted => Err(Failure::Said(exit::INTERRUPTED)),
        Stop::Failed { failure } if failure.kind == Kind::Unauthenticated.as_str() => {
            Err(Failure::Said(exit::NOT_SIGNED_IN))
        }
        _ => Err(Failure::Said(exit::FAILED)),
    }
}

fn session(args: &Args, go_on: bool, look: Look) -> Result<Session, Failure> {
    let Some(name) = &args.session else { return Ok(Session::in_memory()) };
    let store = store::store()?;
    let session = store.open(name).map_err(|error| store::failure(&error))?;
    if let Some(torn) = session.torn() {
        let (line, bytes) = (torn.line, torn.bytes);
        look.remark(&format!(
            "note: the session's last line ({line}) was not whole, {bytes} bytes were dropped"
        ));
    }
    if go_on && session.messages().is_empty() {
        let error = Error::invalid(format!("the session {name} has no task to go on with"));
        return Err(Failure::Usage(error.with_hint("give a task instead of --continue")));
    }
    if !go_on && session.is_unfinished() {
        look.remark(
            "note: the last task of this session was not finished; --continue goes on with it",
        );
    }
    Ok(session)
}

fn limits(args: &Args) -> Limits {
    let mut limits = Limits::default();
    limits.turns = args.max_turns.or(limits.turns);
    limits.wall = args.chat.time();
    limits
}
