//! A model that plays what it is told: for tests, examples and offline demonstrations.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use agentwire::context::{AssistantPart, Message, ToolCall, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::error::{Error, Kind, Result};
use agentwire::run::{Event, Finish, Usage};
use serde_json::Value;
use tokio::sync::Notify;

use super::{Boxed, Model, ModelRequest, ModelRun, StartError};

type Script = dyn Fn(&ModelRequest) -> Reply + Send + Sync;

/// A model that plays a script: a function of what it is asked.
///
/// The function sees the request with everything that was said so far, results of tools included,
/// so a script that looks at the context alone goes on in a new process where the last one stopped.
///
/// ```
/// use agentwire_agent::model::{Reply, Scripted};
///
/// let model = Scripted::new(|request| match request.context.messages.len() {
///     1 => Reply::new().call("c1", "add", serde_json::json!({"a": 1, "b": 2})),
///     _ => Reply::new().text("3"),
/// });
/// ```
#[derive(Clone)]
pub struct Scripted {
    script: Arc<Script>,
}

impl Scripted {
    /// A model that answers each time as `script` says.
    pub fn new(script: impl Fn(&ModelRequest) -> Reply + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script) }
    }

    /// A model that gives these replies one after the other, and then fails.
    pub fn replies(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = Mutex::new(replies.into_iter().collect::<VecDeque<_>>());
        Self::new(move |_| {
            let next = replies.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            next.unwrap_or_else(|| Reply::new().fail(Error::invalid("the script is over")))
        })
    }

    /// A model that gives these texts one after the other, and then fails.
    pub fn answers<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::replies(texts.into_iter().map(|text| Reply::new().text(text)))
    }
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripted").finish_non_exhaustive()
    }
}

/// One answer of a [`Scripted`] model: events in order, then the end. With tool calls in it the
/// run pauses for their results, and the script is asked again.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    events: Vec<Event>,
    parts: Vec<AssistantPart>,
    error: Option<Error>,
    hangs: bool,
}

impl Reply {
    /// An empty answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece of text.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        self.parts.push(AssistantPart::Text { text: text.clone() });
        self.event(Event::Text(text))
    }

    /// Adds a piece of reasoning.
    #[must_use]
    pub fn thinking(mut self, thinking: impl Into<String>) -> Self {
        let thinking = thinking.into();
        self.parts.push(AssistantPart::Thinking { thinking: thinking.clone() });
        self.event(Event::Thinking(thinking))
    }

    /// Adds a tool call. Calls that follow each other are handed out together.
    #[must_use]
    pub fn call(mut self, id: impl Into<String>, name: impl Into<String>, args: Value) -> Self {
        let call = ToolCall { id: id.into(), name: name.into(), arguments: args };
        self.parts.push(AssistantPart::ToolCall(call.clone()));
        if let Some(Event::ToolCalls(calls)) = self.events.last_mut() {
            calls.push(call);
            return self;
        }
        self.event(Event::ToolCalls(vec![call]))
    }

    /// Adds what was used so far in this run.
    #[must_use]
    pub fn usage(self, input: u64, output: u64) -> Self {
        let usage = Usage { input: Some(input), output, billed: true, ..Usage::default() };
        self.event(Event::Usage(usage))
    }

    /// Adds any event.
    #[must_use]
    pub fn event(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    /// Ends with an error instead.
    #[must_use]
    pub fn fail(mut self, error: Error) -> Self {
        self.error = Some(error);
        self
    }

    /// Never ends: stays silent after its events until it is cancelled.
    #[must_use]
    pub fn hang(mut self) -> Self {
        self.hangs = true;
        self
    }

    fn calls(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::ToolCalls(_)))
    }
}

impl Model for Scripted {
    fn start(&self, request: ModelRequest) -> Boxed<'_, Result<Box<dyn ModelRun>, StartError>> {
        let mut run = Playing {
            script: Arc::clone(&self.script),
            request,
            queue: VecDeque::new(),
            usage: Usage::default(),
            silent: false,
            cancelled: Notify::new(),
            ended: false,
        };
        run.play();
        Box::pin(std::future::ready(Ok(Box::new(run) as Box<dyn ModelRun>)))
    }
}

struct Playing {
    script: Arc<Script>,
    request: ModelRequest,
    queue: VecDeque<Event>,
    usage: Usage,
    /// Nothing more comes by itself: it waits for results, or hangs.
    silent: bool,
    cancelled: Notify,
    ended: bool,
}

impl Playing {
    fn play(&mut self) {
        let reply = (self.script)(&self.request);
        let pauses = reply.calls() && reply.error.is_none();
        for event in &reply.events {
            if let Event::Usage(usage) = event {
                self.usage = *usage;
            }
        }
        self.queue.extend(reply.events);
        self.request.context.push(Message::Assistant { content: reply.parts });
        self.silent = pauses || reply.hangs;
        if !self.silent {
            let finish = Finish { usage: self.usage };
            self.queue.push_back(Event::Ended(reply.error.map_or(Ok(finish), Err)));
        }
    }

    fn end(&mut self) {
        self.queue.clear();
        if !self.ended {
            let error = Error::new(Kind::Cancelled, "the run was cancelled");
            self.queue.push_back(Event::Ended(Err(error)));
        }
        self.cancelled.notify_one();
    }
}

impl ModelRun for Playing {
    fn next(&mut self) -> Boxed<'_, Option<Event>> {
        Box::pin(async move {
            while self.queue.is_empty() && !self.ended {
                self.cancelled.notified().await;
            }
            let event = self.queue.pop_front();
            self.ended |= matches!(event, Some(Event::Ended(_)));
            event
        })
    }

    fn answer(&mut self, results: Vec<ToolResult>, say: Vec<String>) -> Boxed<'_, Result<()>> {
        if self.ended || !self.silent {
            let late = Error::invalid("the run does not wait for an answer");
            return Box::pin(std::future::ready(Err(late)));
        }
        for result in results {
            self.request.context.push(Message::ToolResult(result));
        }
        for text in say {
            self.request.context.push(Message::user(text));
        }
        self.play();
        Box::pin(std::future::ready(Ok(())))
    }

    fn cancel(&mut self) {
        self.end();
    }

    fn finish(self: Box<Self>) -> Boxed<'static, Conversation> {
        Box::pin(std::future::ready(self.request.conversation))
    }
}
