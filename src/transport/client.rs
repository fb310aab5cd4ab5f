//! [`Client`]: what a host holds on to.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Version};
use tokio::time::Instant;

use crate::codec::{History, Model, RunRequest};
use crate::context::{Context, RequestContext, Tool};
use crate::conversation::Conversation;
use crate::error::{Error, Result};
use crate::exec::{Ask, ExecHandler};
use crate::ids::{IdSource, RandomIds};
use crate::redact::Redactor;
use crate::rpc::http2::Http2Config;
use crate::run::{Options, Session};
use crate::secret::Secret;

use super::builder::{ClientBuilder, QueueLimits};
use super::endpoint::Endpoint;
use super::headers::{CallShape, Headers};
use super::pool::Pool;
use super::prewarm::Prewarm;
use super::run::{BatchLimits, Handlers, Host, Mailbox, Opening, Run, Task, TaskLimits};

pub(super) const RUN: &str = "/agent.v1.AgentService/Run";

/// A client of one service and one account. Cheap to clone; clones share connections. When the last
/// clone and the last run are gone, the connections close.
///
/// ```no_run
/// # async fn example() -> agentwire::Result<()> {
/// use agentwire::transport::Client;
/// use agentwire::run::Event;
///
/// let client = Client::builder().token("TOKEN").build()?;
/// let mut run = client.prompt("Say hello.").model("composer-2").start().await?;
/// while let Some(event) = run.next().await {
///     match event {
///         Event::Text(text) => print!("{text}"),
///         Event::Ended(end) => drop(end?),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    credentials: Arc<Credentials>,
}

/// What does not depend on the account.
pub(super) struct Shared {
    runs: Pool,
    unary: Pool,
    headers: Headers,
    options: Options,
    limits: TaskLimits,
    unary_limit: Duration,
}

/// What depends on the account.
pub(super) struct Credentials {
    pub(super) authorization: Option<HeaderValue>,
    pub(super) redactor: Redactor,
}

impl Shared {
    pub(super) fn new(
        runs: Pool,
        unary: Pool,
        headers: Headers,
        options: Options,
        queue: QueueLimits,
        unary_limit: Duration,
        http2: &Http2Config,
    ) -> Self {
        let window = usize::try_from(http2.stream_window).unwrap_or(usize::MAX);
        // A batch is being read, one waits, one is being filled, and the one that waits may take up
        // the last: so a quarter each keeps the sum. Half the window is left for bytes behind it.
        let bytes = (queue.bytes / 4).min(window / 2).max(1);
        let batch = BatchLimits { bytes, events: (queue.events / 4).max(1) };
        let credit_due = (window / 8).max(1);
        let limits = TaskLimits { batch, credit_due };
        Self { runs, unary, headers, options, limits, unary_limit }
    }
}

impl Client {
    /// Settings for a client; the defaults talk to the service itself.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(super) fn new(shared: Shared, credentials: Credentials) -> Self {
        Self { shared: Arc::new(shared), credentials: Arc::new(credentials) }
    }

    /// The same client, connections included, with another token: after a refresh. Runs that are
    /// under way keep the one they began with.
    ///
    /// # Errors
    /// When the token cannot be sent as a header; it is not in the error.
    pub fn with_token(&self, token: impl Into<Secret>) -> Result<Self> {
        let credentials = Arc::new(Credentials::new(Some(&token.into()))?);
        Ok(Self { shared: Arc::clone(&self.shared), credentials })
    }

    /// Where runs go.
    pub fn endpoint(&self) -> &Endpoint {
        self.shared.runs.endpoint()
    }

    /// A run that asks one thing, to be filled in further.
    pub fn prompt(&self, text: impl Into<String>) -> RunBuilder {
        self.ask(Context::prompt(text))
    }

    /// A run on a whole context: history, the current message, tools.
    pub fn ask(&self, context: Context) -> RunBuilder {
        self.request(RunRequest { context, ..RunRequest::default() })
    }

    /// A run as `request` has it. One without a request id gets a fresh one.
    pub fn request(&self, request: RunRequest) -> RunBuilder {
        RunBuilder {
            client: self.clone(),
            request,
            conversation: Conversation::default(),
            options: self.shared.options.clone(),
            host: Host::default(),
        }
    }

    /// Makes a connection now, so that the first run finds it warm; with [`Prewarm::run_of`] the
    /// service is told of the run as well. Happens when it is awaited.
    ///
    /// The error is why there is no connection, or what the service said; a later call tries again.
    pub fn prewarm(&self) -> Prewarm {
        Prewarm::new(self.clone())
    }

    /// Starts a run. For options of its own or handlers, see [`Client::request`].
    ///
    /// # Errors
    /// As [`RunBuilder::start`].
    pub async fn run(
        &self,
        request: RunRequest,
        conversation: Conversation,
    ) -> Result<Run, StartError> {
        self.request(request).conversation(conversation).start().await
    }

    async fn start(&self, run: RunBuilder) -> Result<Run, StartError> {
        let RunBuilder { mut request, conversation, mut options, host, .. } = run;
        if !host.is_empty() {
            options.serves = Some(Arc::new(host.clone()));
        }
        let mut ids = RandomIds;
        if request.request_id.is_empty() {
            request.request_id = ids.next_id().to_string();
        }
        let head = match self.head(&request.request_id) {
            Ok(head) => head,
            Err(error) => return Err(StartError::new(error, conversation)),
        };
        let checkout = self.shared.runs.checkout();
        // Lets the dial send its first packet before the request is encoded and hashed.
        tokio::task::yield_now().await;
        let redactor = self.credentials.redactor.clone();
        let now = Instant::now().into_std();
        let ids = Box::new(ids);
        let session = Session::new(&request, conversation, options, redactor.clone(), ids, now)
            .map_err(|refused| StartError::new(refused.0, refused.1))?;
        let opening = Opening::new(self.shared.runs.clone(), checkout, head, redactor);
        let mailbox = Arc::new(Mailbox::default());
        let (handlers, limits) = (Handlers::new(host), self.shared.limits);
        tokio::spawn(Task::new(Arc::clone(&mailbox), limits, session, opening, handlers));
        Ok(Run::new(mailbox, request.request_id))
    }

    /// The head of a run's request.
    fn head(&self, request_id: &str) -> Result<Request<()>> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.endpoint().uri(RUN)?;
        *request.headers_mut() = self.run_headers(request_id)?;
        Ok(request)
    }

    fn headers(&self, shape: CallShape, request_id: &str) -> Result<HeaderMap> {
        let authorization = self.credentials.authorization.as_ref();
        self.shared.headers.of_call(shape, authorization, request_id)
    }

    // For prewarming and the unary calls.

    pub(super) fn run_headers(&self, request_id: &str) -> Result<HeaderMap> {
        self.headers(CallShape::Run, request_id)
    }

    pub(super) fn run_pool(&self) -> &Pool {
        &self.shared.runs
    }

    pub(super) async fn warm(&self) -> Result<()> {
        self.shared.runs.warm().await
    }

    pub(super) fn unary_headers(&self, request_id: &str) -> Result<HeaderMap> {
        self.headers(CallShape::Unary, request_id)
    }

    pub(super) fn unary_pool(&self) -> &Pool {
        &self.shared.unary
    }

    pub(super) fn unary_endpoint(&self) -> &Endpoint {
        self.shared.unary.endpoint()
    }

    pub(super) fn unary_limit(&self) -> Duration {
        self.shared.unary_limit
    }

    pub(super) fn redactor(&self) -> &Redactor {
        &self.credentials.redactor
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("endpoint", self.endpoint()).finish_non_exhaustive()
    }
}

/// A run that could not be started. Becomes an [`Error`] with `?`.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct StartError {
    /// What is wrong with the request.
    pub error: Error,
    /// The conversation, as it was given.
    pub conversation: Box<Conversation>,
}

impl StartError {
    fn new(error: Error, conversation: Conversation) -> Self {
        Self { error, conversation: Box::new(conversation) }
    }
}

impl From<StartError> for Error {
    fn from(refused: StartError) -> Self {
        refused.error
    }
}

/// One run, before it starts.
#[must_use = "nothing happens until `start`"]
pub struct RunBuilder {
    client: Client,
    request: RunRequest,
    conversation: Conversation,
    options: Options,
    host: Host,
}

impl RunBuilder {
    /// The model that is asked; needed.
    pub fn model(mut self, model: impl Into<Model>) -> Self {
        self.request.model = model.into();
        self
    }

    /// The system prompt.
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.request.context.system_prompt = Some(text.into());
        self
    }

    /// Adds a tool that the model may call.
    pub fn tool(mut self, tool: Tool) -> Self {
        self.request.context = self.request.context.tool(tool);
        self
    }

    /// What the model is told about the host and its workspace; nothing by default.
    pub fn about(mut self, about: impl Into<Arc<RequestContext>>) -> Self {
        self.request.context.about = about.into();
        self
    }

    /// Goes on with a conversation, as [`Run::finish`] gave it back.
    pub fn conversation(mut self, conversation: Conversation) -> Self {
        self.conversation = conversation;
        self
    }

    /// How the history is sent.
    pub fn history(mut self, history: History) -> Self {
        self.request.history = history;
        self
    }

    /// Limit for the whole run, tools included.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Changes anything of the request that has no method here.
    pub fn configure(mut self, change: impl FnOnce(&mut RunRequest)) -> Self {
        change(&mut self.request);
        self
    }

    /// Serves what the service asks this machine to do; everything is refused without it.
    pub fn execs(mut self, handler: Arc<dyn ExecHandler>) -> Self {
        self.host.execs = Some(handler);
        self
    }

    /// Answers what the service asks a person; everything is refused without it.
    pub fn asker(mut self, asker: Arc<dyn Ask>) -> Self {
        self.host.asker = Some(asker);
        self
    }

    /// Limits and times of this run.
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Starts the run: encodes the request while the connection is being made, and returns without
    /// waiting for either the connection or an answer. Whatever fails from here on, a refused
    /// connection included, is the run's last event, so that there is one place to look.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The request cannot be sent as it is; the conversation comes back with the error.
    pub async fn start(self) -> Result<Run, StartError> {
        let client = self.client.clone();
        client.start(self).await
    }
}

impl std::fmt::Debug for RunBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunBuilder").field("request", &self.request).finish_non_exhaustive()
    }
}
