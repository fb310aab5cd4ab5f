//! The driver of a [`Turn`]: holds the model's run, the tools at work and the session, and decides
//! nothing.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use agentwire::context::{AssistantPart, Context, ToolCall, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::error::{Error, Kind};
use agentwire::run;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::failure::{Failure, FailureClass};
use crate::model::{Model, ModelRequest, ModelRun};
use crate::outcome::Outcome;
use crate::resume::{self, Ending, Open};
use crate::session::{Session, SessionError};
use crate::tool::{ToolContext, Toolbox};
use crate::turn::{ModelCall, Step, Turn};

/// Words of tools about their progress that may wait; more are dropped. No option: only the last ones
/// are worth showing.
const PROGRESS: usize = 1_024;

/// What the caller wants of a running task.
#[derive(Debug)]
pub(crate) enum Command {
    Steer(String),
    FollowUp(String),
}

/// What a driver holds from its start.
pub(crate) struct Drive {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) toolbox: Toolbox,
    pub(crate) system: Option<String>,
    pub(crate) session: Session,
    pub(crate) turn: Turn,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) cancel: CancellationToken,
}

/// What is under way.
struct Busy {
    run: Option<Box<dyn ModelRun>>,
    /// The run is for a summary: its conversation is thrown away.
    aside: bool,
    /// The run's conversation at its last checkpoint, for a run that breaks off.
    state: Option<Conversation>,
    tools: JoinSet<ToolResult>,
    calls: HashMap<Id, (ToolCall, AbortHandle, CancellationToken)>,
    progress: mpsc::Sender<(String, String)>,
    progressed: mpsc::Receiver<(String, String)>,
    start: Instant,
    /// Events that the caller has not taken.
    unheard: VecDeque<Event>,
    /// The log cannot be written; it was said.
    unwritten: bool,
}

/// What came first.
enum Happened {
    Cancelled,
    Command(Command),
    Said(Option<run::Event>),
    Tool(Result<(Id, ToolResult), JoinError>),
    Progress(String, String),
    Time,
}

impl Drive {
    /// Runs the task to its end; gives the session back.
    pub(crate) async fn run(mut self) -> (Outcome, Session) {
        let (progress, progressed) = mpsc::channel(PROGRESS);
        let mut busy = Busy {
            run: None,
            aside: false,
            state: None,
            tools: JoinSet::new(),
            calls: HashMap::new(),
            progress,
            progressed,
            start: Instant::now() - self.turn.elapsed(),
            unheard: VecDeque::new(),
            unwritten: false,
        };
        loop {
            let step = self.turn.poll_step(busy.start.elapsed());
            self.write(&mut busy).await;
            if self.turn.is_over() {
                self.wind_down(&mut busy).await;
            }
            self.hand_out(&mut busy).await;
            match step {
                Some(Step::Done(outcome)) => return (*outcome, self.session),
                // Called off while its events waited, or the log could not be written: what is not on
                // record is not done.
                Some(_) if self.turn.is_over() => {}
                Some(Step::CallModel(call)) => self.call_model(&mut busy, call).await,
                Some(Step::CallTools(calls)) => self.start_tools(&mut busy, calls),
                None => {
                    let happened = self.wait(&mut busy).await;
                    self.take(&mut busy, happened).await;
                }
            }
            self.stop_unwanted(&mut busy);
        }
    }

    /// Writes all records; a log that cannot be written ends the task.
    async fn write(&mut self, busy: &mut Busy) {
        loop {
            let records: Vec<_> = std::iter::from_fn(|| self.turn.poll_record()).collect();
            if records.is_empty() {
                return;
            }
            if busy.unwritten {
                continue;
            }
            if let Err(error) = self.session.append(records).await {
                busy.unwritten = true;
                self.turn.fail(unwritable(&error));
            }
        }
    }

    /// Hands out all events, waiting for the caller to take them. A cancel and the deadline do not
    /// wait for that; what they come to is written first, so it is handed out later.
    async fn hand_out(&mut self, busy: &mut Busy) {
        busy.unheard.extend(std::iter::from_fn(|| self.turn.poll_event()));
        while !busy.unheard.is_empty() {
            let over = self.turn.is_over();
            let deadline = self.turn.deadline().map(|deadline| busy.start + deadline);
            let events = self.events.clone();
            let (room, late) = tokio::select! {
                biased;
                room = events.reserve() => (room.ok(), false),
                () = self.cancel.cancelled(), if !over => (None, false),
                () = at(deadline), if !over => (None, true),
            };
            let Some(room) = room else {
                if over {
                    // Nobody listens any more.
                    busy.unheard.clear();
                }
                return self.call_off(busy, late);
            };
            if let Some(event) = busy.unheard.pop_front() {
                room.send(event);
            }
        }
    }

    fn call_off(&mut self, busy: &mut Busy, late: bool) {
        match late {
            true => self.turn.handle_timeout(busy.start.elapsed()),
            false => self.turn.cancel(),
        }
        if let Some(run) = busy.run.as_mut().filter(|_| self.turn.is_over()) {
            run.cancel();
        }
        self.stop_unwanted(busy);
    }

    async fn call_model(&mut self, busy: &mut Busy, call: ModelCall) {
        match call {
            ModelCall::Start { model, fresh } => {
                self.end_run(busy, Ending::Stopped).await;
                if fresh {
                    self.session.conversation.discard();
                }
                let conversation = std::mem::take(&mut self.session.conversation);
                let open = conversation.open_turn();
                let open =
                    open.map(|open| Open { covers: open.covers(), messages: open.messages() });
                let (messages, said) = resume::request(open, self.turn.messages());
                let tools = self.toolbox.declared();
                let context = Context {
                    system_prompt: self.system.clone(),
                    messages,
                    tools,
                    ..Context::default()
                };
                self.start(busy, ModelRequest { model, context, conversation }).await;
                if busy.run.is_some() {
                    self.say_again(said, busy.start.elapsed());
                }
            }
            ModelCall::Summarise { model, messages } => {
                self.end_run(busy, Ending::Stopped).await;
                busy.aside = true;
                let system_prompt = self.system.clone();
                let context = Context { system_prompt, messages, ..Context::default() };
                let conversation = Conversation::new();
                self.start(busy, ModelRequest { model, context, conversation }).await;
            }
            ModelCall::Answer { results, say } => {
                let answered = match &mut busy.run {
                    Some(run) => tokio::select! {
                        answered = run.answer(results, say) => answered.is_ok(),
                        () = self.cancel.cancelled() => true,
                    },
                    None => false,
                };
                if !answered {
                    self.end_run(busy, Ending::Stopped).await;
                    self.turn.handle_refused();
                }
            }
        }
    }

    async fn start(&mut self, busy: &mut Busy, request: ModelRequest) {
        match self.model.start(request).await {
            Ok(run) => busy.run = Some(run),
            Err(refused) => {
                if !std::mem::take(&mut busy.aside) {
                    self.session.conversation = *refused.conversation;
                }
                let failure = self.model.classify(&refused.error);
                self.turn.handle_failure(failure, busy.start.elapsed());
            }
        }
    }

    /// The run goes on after this, which the checkpoint covers and no record has.
    fn say_again(&mut self, said: Vec<AssistantPart>, now: Duration) {
        for part in said {
            match part {
                AssistantPart::Text { text } => self.turn.handle_event(run::Event::Text(text), now),
                AssistantPart::Thinking { thinking } => {
                    self.turn.handle_event(run::Event::Thinking(thinking), now);
                }
                // A call that waits is handed out by the run.
                AssistantPart::ToolCall(_) => {}
            }
        }
    }

    /// Keeps the conversation as it is at a checkpoint: a process that is killed later goes on from
    /// there.
    async fn keep_state(&mut self, busy: &mut Busy) {
        let Some(run) = busy.run.as_mut().filter(|_| !busy.aside && !busy.unwritten) else {
            return;
        };
        let Some(state) = run.state().await.filter(resume::is_worth_keeping) else { return };
        if let Err(error) = self.session.save_state(&state).await {
            busy.unwritten = true;
            self.turn.fail(unwritable(&error));
        }
        busy.state = Some(state);
    }

    /// Takes the conversation back from the run, and keeps it.
    async fn end_run(&mut self, busy: &mut Busy, ending: Ending) {
        let Some(mut run) = busy.run.take() else { return };
        if ending == Ending::Stopped {
            run.cancel();
        }
        let conversation = run.finish().await;
        let state = busy.state.take();
        if std::mem::take(&mut busy.aside) {
            return;
        }
        self.session.conversation = resume::left_of_run(state, conversation, ending);
        if busy.unwritten {
            return;
        }
        if let Err(error) = self.session.save_state(&self.session.conversation).await {
            busy.unwritten = true;
            self.turn.fail(unwritable(&error));
        }
    }

    fn start_tools(&self, busy: &mut Busy, calls: Vec<ToolCall>) {
        for call in calls {
            let cancelled = CancellationToken::new();
            let context = ToolContext {
                call: call.clone(),
                cancelled: cancelled.clone(),
                progress: Some(busy.progress.clone()),
            };
            let toolbox = self.toolbox.clone();
            let task = busy.tools.spawn(async move { toolbox.run(&context).await });
            busy.calls.insert(task.id(), (call, task, cancelled));
        }
    }

    /// Stops tools whose results are no longer waited for.
    fn stop_unwanted(&self, busy: &mut Busy) {
        for (call, task, cancelled) in busy.calls.values() {
            if !self.turn.awaits(&call.id) {
                cancelled.cancel();
                task.abort();
            }
        }
    }

    async fn wait(&mut self, busy: &mut Busy) -> Happened {
        let deadline = self.turn.deadline().map(|deadline| busy.start + deadline);
        let said = async {
            match &mut busy.run {
                Some(run) => run.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Happened::Cancelled,
            () = self.events.closed() => Happened::Cancelled,
            Some(command) = self.commands.recv() => Happened::Command(command),
            Some(done) = busy.tools.join_next_with_id() => Happened::Tool(done),
            Some((id, text)) = busy.progressed.recv() => Happened::Progress(id, text),
            event = said => Happened::Said(event),
            () = at(deadline) => Happened::Time,
        }
    }

    async fn take(&mut self, busy: &mut Busy, happened: Happened) {
        let now = busy.start.elapsed();
        match happened {
            Happened::Cancelled => self.turn.cancel(),
            Happened::Time => self.turn.handle_timeout(now),
            Happened::Progress(id, text) => self.turn.handle_tool_progress(&id, text),
            // A task that takes no more is about to end.
            Happened::Command(Command::Steer(text)) => drop(self.turn.steer(text)),
            Happened::Command(Command::FollowUp(text)) => drop(self.turn.follow_up(text)),
            Happened::Tool(Ok((id, result))) => {
                busy.calls.remove(&id);
                self.turn.handle_tool(result, now);
            }
            Happened::Tool(Err(error)) => {
                if let Some((call, ..)) = busy.calls.remove(&error.id()) {
                    let text = "The tool broke down; it may have had its effect.";
                    self.turn.handle_tool(ToolResult::error(&call.id, &call.name, text), now);
                }
            }
            Happened::Said(Some(run::Event::Ended(end))) => {
                let ending = if end.is_ok() { Ending::Complete } else { Ending::Failed };
                // What the run committed is kept before anybody hears that it ended.
                self.end_run(busy, ending).await;
                match end {
                    Ok(finish) => self.turn.handle_event(run::Event::Ended(Ok(finish)), now),
                    Err(error) => self.turn.handle_failure(self.model.classify(&error), now),
                }
            }
            Happened::Said(Some(event)) => {
                if matches!(event, run::Event::Checkpoint(_)) {
                    self.keep_state(busy).await;
                }
                self.turn.handle_event(event, now);
            }
            Happened::Said(None) => {
                self.end_run(busy, Ending::Stopped).await;
                let error = Error::new(Kind::Interrupted, "the run gave no end");
                self.turn.handle_failure(Failure::from(&error), now);
            }
        }
    }

    async fn wind_down(&mut self, busy: &mut Busy) {
        for (_, _, cancelled) in busy.calls.values() {
            cancelled.cancel();
        }
        busy.tools.shutdown().await;
        busy.calls.clear();
        self.end_run(busy, Ending::Stopped).await;
    }
}

/// Waits for an instant; for ever when there is none.
async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// A log that cannot be written. The path may be told, it is the caller's own.
fn unwritable(error: &SessionError) -> Failure {
    let kind = Kind::LimitExceeded;
    let mut failure = Failure::new(FailureClass::Fatal, &kind, error.to_string());
    failure.kind = "session".into();
    failure
}
