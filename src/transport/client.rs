//! [`Client`]: what a host holds on to.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Method, Request, Version};
use tokio::time::Instant;

use crate::auth::TokenSource;
use crate::codec::{History, Model, RunRequest};
use crate::context::{Context, Tool};
use crate::conversation::Conversation;
use crate::error::{Error, Result};
use crate::exec::{Ask, ExecHandler};
use crate::ids::{IdSource, RandomIds};
use crate::redact::Redactor;
use crate::rpc::http2::Http2Config;
use crate::run::{Options, Session};
use crate::secret::Secret;

use super::builder::{ClientBuilder, QueueLimits};
use super::credentials::{Access, Credentials};
use super::endpoint::Endpoint;
use super::headers::{CallShape, Headers};
use super::pool::{Checkout, Pool};
use super::run::{
    BatchLimits, Handlers, Host, Mailbox, Opening, Refused, Run, Task, TaskLimits, twice,
};

const RUN: &str = "/agent.v1.AgentService/Run";

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
    access: Arc<Access>,
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

    pub(super) fn new(shared: Shared, access: Access) -> Self {
        Self { shared: Arc::new(shared), access: Arc::new(access) }
    }

    /// The same client, connections included, with another token: after a refresh. Runs that are
    /// under way keep the one they began with.
    ///
    /// # Errors
    /// When the token cannot be sent as a header; it is not in the error.
    pub fn with_token(&self, token: impl Into<Secret>) -> Result<Self> {
        let credentials = Arc::new(Credentials::new(Some(&token.into()))?);
        Ok(self.with_access(Access::Fixed(credentials)))
    }

    /// The same client, connections included, with another account. Runs that are under way keep the
    /// one they began with.
    #[must_use]
    pub fn with_tokens(&self, source: impl TokenSource) -> Self {
        self.with_access(Access::from_source(Arc::new(source)))
    }

    fn with_access(&self, access: Access) -> Self {
        Self { shared: Arc::clone(&self.shared), access: Arc::new(access) }
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

    /// Makes a connection now, so that the first run finds it warm.
    ///
    /// # Errors
    /// Why there is none; a later call tries again.
    pub async fn prewarm(&self) -> Result<()> {
        self.shared.runs.warm().await
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
        if request.request_id.is_empty() {
            request.request_id = RandomIds.next_id().to_string();
        }
        let checkout = self.shared.runs.checkout();
        // Lets the dial send its first packet before the request is encoded and hashed.
        tokio::task::yield_now().await;
        let credentials = match self.access.now().await {
            Ok(credentials) => credentials,
            Err(error) => return Err(StartError::new(error, conversation)),
        };
        let mailbox = Arc::new(Mailbox::default());
        let request_id = request.request_id.clone();
        let attempt =
            Attempt { client: self.clone(), request, options, host, mailbox: Arc::clone(&mailbox) };
        let task = attempt
            .task(checkout, &credentials, conversation)
            .map_err(|refused| StartError::new(refused.0, refused.1))?
            .with_second_chance(self.access.has_others());
        tokio::spawn(twice(task, move |refused| attempt.again(refused, credentials)));
        Ok(Run::new(mailbox, request_id))
    }

    /// The head of a run's request.
    fn head(&self, request_id: &str, credentials: &Credentials) -> Result<Request<()>> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.endpoint().uri(RUN)?;
        *request.headers_mut() = self.headers(CallShape::Run, request_id, credentials)?;
        Ok(request)
    }

    fn headers(
        &self,
        shape: CallShape,
        request_id: &str,
        credentials: &Credentials,
    ) -> Result<HeaderMap> {
        let authorization = credentials.authorization.as_ref();
        self.shared.headers.of_call(shape, authorization, request_id)
    }

    // For the unary calls.

    pub(super) fn unary_headers(
        &self,
        request_id: &str,
        credentials: &Credentials,
    ) -> Result<HeaderMap> {
        self.headers(CallShape::Unary, request_id, credentials)
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
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

    pub(super) fn redactor(&self) -> Redactor {
        self.access.redactor()
    }
}

/// What the attempts of a run have in common.
struct Attempt {
    client: Client,
    request: RunRequest,
    options: Options,
    host: Host,
    mailbox: Arc<Mailbox>,
}

impl Attempt {
    fn task(
        &self,
        checkout: Checkout,
        credentials: &Credentials,
        conversation: Conversation,
    ) -> Result<Task, Box<(Error, Conversation)>> {
        let request = &self.request;
        let head = match self.client.head(&request.request_id, credentials) {
            Ok(head) => head,
            Err(error) => return Err(Box::new((error, conversation))),
        };
        let redactor = credentials.redactor.clone();
        let (options, ids) = (self.options.clone(), Box::new(RandomIds));
        let now = Instant::now().into_std();
        let session = Session::new(request, conversation, options, redactor.clone(), ids, now)?;
        let shared = &self.client.shared;
        let opening = Opening::new(shared.runs.clone(), checkout, head, redactor);
        let handlers = Handlers::new(self.host.clone());
        Ok(Task::new(Arc::clone(&self.mailbox), shared.limits, session, opening, handlers))
    }

    /// The same with another token, if there is one. Without one `refused` tells the caller.
    async fn again(self, mut refused: Refused, credentials: Arc<Credentials>) -> Option<Task> {
        match self.client.access.instead_of(&credentials).await {
            Ok(Some(other)) => {
                tracing::debug!("the service refused the token; the run begins again with another");
                let checkout = self.client.shared.runs.checkout();
                match self.task(checkout, &other, refused.take_conversation()) {
                    Ok(task) => return Some(task),
                    Err(failed) => refused.put_back(failed.0, failed.1),
                }
            }
            Ok(None) => {}
            Err(error) => refused.error = error,
        }
        None
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
    /// waiting for either the connection or an answer; only a token that has to be refreshed first is
    /// waited for. A token that the service refuses before the run gave anything is refreshed, too, and
    /// the run begins again, once. Whatever fails from here on, a refused
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
