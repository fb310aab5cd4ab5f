//! The transport as a model.

use agentwire::Client;
use agentwire::codec::Model as Name;
use agentwire::context::ToolResult;
use agentwire::conversation::Conversation;
use agentwire::error::Result;
use agentwire::exec::{Ask, ExecHandler};
use agentwire::run::{Event, Options};
use agentwire::transport::Run;
use std::sync::Arc;

use super::{Boxed, Model, ModelRequest, ModelRun, StartError};

impl Model for Client {
    fn start(&self, request: ModelRequest) -> Boxed<'_, Result<Box<dyn ModelRun>, StartError>> {
        Hosted::new(self.clone()).begin(request)
    }
}

/// A client with what serves the service's own questions: execs (files, shell) and queries.
#[derive(Clone)]
pub struct Hosted {
    client: Client,
    execs: Option<Arc<dyn ExecHandler>>,
    asker: Option<Arc<dyn Ask>>,
    options: Option<Options>,
    parameters: Vec<(String, String)>,
    known: Vec<(String, Name)>,
}

impl Hosted {
    /// The client alone: execs and queries are refused.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            execs: None,
            asker: None,
            options: None,
            parameters: Vec::new(),
            known: Vec::new(),
        }
    }

    /// Serves what the service asks this machine to do.
    #[must_use]
    pub fn execs(mut self, handler: Arc<dyn ExecHandler>) -> Self {
        self.execs = Some(handler);
        self
    }

    /// Answers what the service asks a person.
    #[must_use]
    pub fn asker(mut self, asker: Arc<dyn Ask>) -> Self {
        self.asker = Some(asker);
        self
    }

    /// Limits and times of each run, instead of the client's.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = Some(options);
        self
    }

    /// Parameters that go with every model, for instance `effort` with a level.
    #[must_use]
    pub fn parameters(mut self, parameters: Vec<(String, String)>) -> Self {
        self.parameters = parameters;
        self
    }

    /// The model of this name goes out as `model`, in place of its name with the parameters: what a
    /// catalog made of it.
    #[must_use]
    pub fn known_as(mut self, name: impl Into<String>, model: Name) -> Self {
        self.known.push((name.into(), model));
        self
    }

    fn begin(self, request: ModelRequest) -> Boxed<'static, Result<Box<dyn ModelRun>, StartError>> {
        let ModelRequest { model, context, conversation } = request;
        let known = self.known.into_iter().find(|(name, _)| *name == model);
        let with = |model: Name, (name, value)| model.parameter(name, value);
        let model = match known {
            Some((_, model)) => model,
            None => self.parameters.into_iter().fold(Name::new(model), with),
        };
        let mut run = self.client.ask(context).model(model).conversation(conversation);
        if let Some(execs) = self.execs {
            run = run.execs(execs);
        }
        if let Some(asker) = self.asker {
            run = run.asker(asker);
        }
        if let Some(options) = self.options {
            run = run.options(options);
        }
        Box::pin(async move {
            let run = run.start().await?;
            Ok(Box::new(run) as Box<dyn ModelRun>)
        })
    }
}

impl std::fmt::Debug for Hosted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosted").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Model for Hosted {
    fn start(&self, request: ModelRequest) -> Boxed<'_, Result<Box<dyn ModelRun>, StartError>> {
        self.clone().begin(request)
    }
}

impl ModelRun for Run {
    fn next(&mut self) -> Boxed<'_, Option<Event>> {
        Box::pin(Self::next(self))
    }

    fn answer(&mut self, results: Vec<ToolResult>, say: Vec<String>) -> Boxed<'_, Result<()>> {
        let handle = self.handle();
        Box::pin(async move {
            // What is said comes first: the answer lets the model go on at once.
            for text in say {
                handle.say(text).await?;
            }
            handle.answer_some(results).await
        })
    }

    fn state(&mut self) -> Boxed<'_, Option<Conversation>> {
        Box::pin(async move { Some(self.snapshot().await) })
    }

    fn cancel(&mut self) {
        Self::cancel(self);
    }

    fn finish(self: Box<Self>) -> Boxed<'static, Conversation> {
        Box::pin(async move { Self::finish(*self).await.1 })
    }
}
