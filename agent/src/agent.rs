//! [`Agent`]: a model, tools and settings; and [`Task`], what is asked of it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use agentwire::context::{Message, Part, ToolCall, UserContent};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::drive::Drive;
use crate::limits::Limits;
use crate::model::Model;
use crate::record::calls_of;
use crate::running::Running;
use crate::session::{Session, Store};
use crate::stage::StageError;
use crate::tool::{Approval, Effect, OutputLimits, Tool, Toolbox, ToolboxError};
use crate::turn::{ContextBudget, Turn, TurnOptions};

/// A model, tools and settings. Cheap to clone; any number of tasks run side by side.
#[derive(Clone)]
pub struct Agent {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) toolbox: Arc<Toolbox>,
    pub(crate) system: Option<String>,
    pub(crate) options: TurnOptions,
    pub(crate) store: Option<Store>,
    pub(crate) queue: usize,
}

impl Agent {
    /// An agent that asks `model`: a [`Client`](agentwire::Client), a
    /// [`Hosted`](crate::model::Hosted) one, a [`Scripted`](crate::model::Scripted) one.
    pub fn builder(model: impl Model + 'static) -> AgentBuilder {
        AgentBuilder {
            model: Arc::new(model),
            toolbox: Toolbox::new(),
            system: None,
            options: TurnOptions::default(),
            store: None,
            queue: 256,
            refused: None,
        }
    }

    /// A task that asks one thing.
    pub fn prompt(&self, text: impl Into<String>) -> Task {
        self.task(Some(Message::user(text)))
    }

    /// A task that begins with a whole user message.
    pub fn ask(&self, message: Message) -> Task {
        self.task(Some(message))
    }

    /// A task that goes on where a session stopped, whether its last task broke off or ended
    /// without an answer. A session whose last task has its answer gives that. The model that
    /// answered last is asked first, where it is one of the agent's.
    pub fn resume(&self, session: Session) -> Task {
        self.task(None).session(session)
    }

    pub(crate) fn task(&self, prompt: Option<Message>) -> Task {
        let settled = prompt.is_none();
        Task { agent: self.clone(), prompt, session: None, settled }
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("options", &self.options)
            .field("toolbox", &self.toolbox)
            .finish_non_exhaustive()
    }
}

/// Settings of an [`Agent`].
#[must_use = "nothing happens until `build`"]
pub struct AgentBuilder {
    model: Arc<dyn Model>,
    toolbox: Toolbox,
    system: Option<String>,
    options: TurnOptions,
    store: Option<Store>,
    queue: usize,
    /// The first tool that could not be taken up.
    refused: Option<ToolboxError>,
}

impl AgentBuilder {
    /// Adds a model. The first is asked first; the next one when a provider fails in a way that
    /// may pass, and then that one is stayed with.
    pub fn model(mut self, id: impl Into<String>) -> Self {
        self.options.models.push(id.into());
        self
    }

    /// The system prompt.
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.system = Some(text.into());
        self
    }

    /// Adds a tool.
    pub fn tool(self, tool: impl Tool + 'static) -> Self {
        self.shared_tool(Arc::new(tool))
    }

    /// Adds a tool that is used elsewhere too.
    pub fn shared_tool(mut self, tool: Arc<dyn Tool>) -> Self {
        if let Err(error) = self.toolbox.add(tool) {
            self.refused.get_or_insert(error);
        }
        self
    }

    /// Adds tools that came together, for instance those of a server.
    pub fn shared_tools(self, tools: impl IntoIterator<Item = Arc<dyn Tool>>) -> Self {
        tools.into_iter().fold(self, Self::shared_tool)
    }

    /// Adds those of these tools that can be taken up beside the tools before them, and says why
    /// the others cannot: what a server offers is not the caller's fault.
    pub fn tools_that_fit(
        mut self,
        tools: impl IntoIterator<Item = Arc<dyn Tool>>,
    ) -> (Self, Vec<ToolboxError>) {
        let mut left_out = Vec::new();
        for tool in tools {
            left_out.extend(self.toolbox.add(tool).err());
        }
        (self, left_out)
    }

    /// What each task may use.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// Summarises conversations that grow larger than this.
    pub fn context_budget(mut self, budget: ContextBudget) -> Self {
        self.options.budget = Some(budget);
        self
    }

    /// Summarises conversations that fill three quarters of the model's context window, where the
    /// service names that and there is no [`context_budget`](Self::context_budget). Without either
    /// a conversation is never summarised.
    pub fn summarise_by_window(mut self) -> Self {
        self.options.by_window = true;
        self
    }

    /// Bounds what the model sees of a tool's output.
    pub fn output_limits(mut self, limits: OutputLimits) -> Self {
        self.toolbox.output_limits(limits);
        self
    }

    /// How long a call may take where its tool says nothing. Default 2 minutes.
    pub fn tool_timeout(mut self, timeout: Duration) -> Self {
        self.toolbox.timeout(timeout);
        self
    }

    /// Asks before each tool call; without it every call is run.
    pub fn approve<F, A>(mut self, ask: F) -> Self
    where
        F: Fn(ToolCall, Effect) -> A + Send + Sync + 'static,
        A: Future<Output = Approval> + Send + 'static,
    {
        self.toolbox.approve(ask);
        self
    }

    /// Events that may wait for the caller; then the model is slowed down. Default 256, one at least: a
    /// screen that is drawn sixty times a second is never behind.
    pub fn event_queue(mut self, events: usize) -> Self {
        self.queue = events.max(1);
        self
    }

    /// Keeps the sessions of stages in this folder; without it they live in memory.
    pub fn sessions(mut self, store: Store) -> Self {
        self.store = Some(store);
        self
    }

    /// The agent.
    ///
    /// # Errors
    /// A tool cannot be taken up; see [`ToolboxError`].
    pub fn build(self) -> Result<Agent, ToolboxError> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        Ok(Agent {
            model: self.model,
            toolbox: Arc::new(self.toolbox),
            system: self.system,
            options: self.options,
            store: self.store,
            queue: self.queue,
        })
    }
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBuilder").field("options", &self.options).finish_non_exhaustive()
    }
}

/// What is asked of an agent, before it starts.
#[must_use = "nothing happens until it is started"]
#[derive(Debug)]
pub struct Task {
    pub(crate) agent: Agent,
    /// `None`: goes on with the session.
    pub(crate) prompt: Option<Message>,
    pub(crate) session: Option<Session>,
    /// It goes on with what was asked before: with the model that answered then.
    pub(crate) settled: bool,
}

impl Task {
    /// In this session, after what was said in it.
    pub fn session(mut self, session: Session) -> Self {
        self.session = Some(session);
        self
    }

    /// Adds an image to the prompt: base64 of a file, and its MIME type.
    pub fn image(mut self, data: impl Into<String>, mime_type: impl Into<String>) -> Self {
        let image = agentwire::context::Image { data: data.into(), mime_type: mime_type.into() };
        if let Some(Message::User { content }) = &mut self.prompt {
            if let UserContent::Text(text) = content {
                *content = UserContent::Parts(vec![Part::Text { text: std::mem::take(text) }]);
            }
            if let UserContent::Parts(parts) = content {
                parts.push(Part::Image(image));
            }
        }
        self
    }

    /// What this task may use, instead of the agent's limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.agent.options.limits = limits;
        self
    }

    /// The models of this task, instead of the agent's.
    pub fn models<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.agent.options.models = models.into_iter().map(Into::into).collect();
        self
    }

    /// Starts it: a task of its own drives it, and ends when the [`Running`] is dropped. Must be
    /// called inside a tokio runtime.
    pub fn start(self) -> Running {
        let session = self.session.unwrap_or_else(Session::in_memory);
        let messages = session.messages();
        let options = self.agent.options;
        // Only the end of the task is missing in the log: the answer is there.
        let whole = session.is_unfinished()
            && messages.last().is_some_and(|last| {
                matches!(**last, Message::Assistant { .. }) && calls_of(last).next().is_none()
            });
        let done = session.last_outcome().is_some_and(crate::Outcome::is_completed);
        let answered = self.prompt.is_none() && (whole || done);
        let mut turn = match self.prompt {
            Some(prompt) => Turn::new(options, messages, prompt),
            None => Turn::resume(options, messages),
        };
        if let Some(model) = session.last_model().filter(|_| self.settled) {
            turn.begin_with(model);
        }
        if let Some(outcome) = session.last_outcome() {
            turn.recall_context(&outcome.usage);
        }
        if answered {
            turn.conclude_answered();
        }
        let (events, receiver) = mpsc::channel(self.agent.queue);
        let (sender, commands) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        let drive = Drive {
            model: self.agent.model,
            toolbox: Toolbox::clone(&self.agent.toolbox),
            system: self.agent.system,
            session,
            turn,
            events,
            commands,
            cancel: cancel.clone(),
        };
        Running::new(receiver, sender, cancel, tokio::spawn(drive.run()))
    }

    /// Runs it and gives the answer.
    ///
    /// # Errors
    /// It did not complete; [`StageError`] says why.
    pub async fn final_text(self) -> Result<String, StageError> {
        self.start().final_text().await
    }
}
