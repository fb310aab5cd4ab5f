//! [`Client`]: what a host holds on to.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Uri, Version};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::auth::TokenSource;
use crate::codec::{History, Model, RunRequest};
use crate::connect::Limits;
use crate::context::{Context, RequestContext, Tool};
use crate::conversation::{Conversation, ConversationStore};
use crate::error::{Error, Result};
use crate::exec::{Ask, ExecHandler};
use crate::ids::{IdSource, RandomIds};
use crate::recording::Recorder;
use crate::redact::Redactor;
use crate::rpc::http2::Http2Config;
use crate::run::{Options, RetryBudget, Turn};
use crate::secret::Secret;

use super::builder::{ClientBuilder, QueueLimits};
use super::credentials::{Access, Credentials};
use super::endpoint::Endpoint;
use super::headers::{CallShape, Headers};
use super::pool::{Checkout, Pool};
use super::prewarm::Prewarm;
use super::run::{
    BatchLimits, Beside, Handlers, Host, Keeper, Mailbox, Router, Run, Tap, Task, TaskLimits,
};
use super::unary::UnaryLimits;

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
    access: Arc<Access>,
    recorder: Option<Arc<dyn Recorder>>,
}

/// What does not depend on the account.
pub(super) struct Shared {
    runs: Pool,
    unary: Pool,
    /// Where runs go.
    run_uri: Uri,
    headers: Headers,
    options: Options,
    limits: TaskLimits,
    unary_limits: UnaryLimits,
    retries: RetryBudget,
}

impl Shared {
    pub(super) fn new(
        runs: Pool,
        unary: Pool,
        headers: Headers,
        options: Options,
        queue: QueueLimits,
        unary_limits: UnaryLimits,
        http2: &Http2Config,
    ) -> Result<Self> {
        let run_uri = runs.endpoint().uri(RUN)?;
        let window = usize::try_from(http2.stream_window).unwrap_or(usize::MAX);
        // A batch is being read, one waits, one is being filled, and the one that waits may take up
        // the last: so a quarter each keeps the sum. Half the window is left for bytes behind it.
        let bytes = (queue.bytes / 4).min(window / 2).max(1);
        let batch = BatchLimits { bytes, events: (queue.events / 4).max(1) };
        let credit_due = (window / 8).max(1);
        let limits = TaskLimits { batch, credit_due };
        let retries = RetryBudget::default();
        Ok(Self { runs, unary, run_uri, headers, options, limits, unary_limits, retries })
    }
}

impl Client {
    /// Settings for a client; the defaults talk to the service itself.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(super) fn new(shared: Shared, access: Access) -> Self {
        Self { shared: Arc::new(shared), access: Arc::new(access), recorder: None }
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
        Self { access: Arc::new(access), ..self.clone() }
    }

    /// The same client, connections included, of which each run is written down; see
    /// [`recording`](crate::recording).
    #[must_use]
    pub fn recorded(&self, recorder: Arc<dyn Recorder>) -> Self {
        Self { recorder: Some(recorder), ..self.clone() }
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
        let wanted = Box::new(Wanted {
            request,
            conversation: Conversation::default(),
            options: self.shared.options.clone(),
            host: Host::default(),
            store: None,
        });
        RunBuilder { client: self.clone(), wanted }
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

    async fn start(&self, mut wanted: Box<Wanted>) -> Result<Run, StartError> {
        let request_id = &mut wanted.request.request_id;
        if request_id.is_empty() {
            *request_id = RandomIds.next_id().to_string();
        }
        let head = match self.head(request_id) {
            Ok(head) => head,
            Err(error) => return Err(StartError::new(error, wanted.conversation)),
        };
        let checkout = self.shared.runs.checkout();
        if !checkout.is_there() {
            // Lets the dial send its first packet before the request is encoded and hashed.
            tokio::task::yield_now().await;
        }
        match self.access.now().await {
            Ok(credentials) => self.launch(*wanted, head, checkout, credentials),
            Err(error) => Err(StartError::new(error, wanted.conversation)),
        }
    }

    /// Nothing is waited for from here on: what is large stays out of the future of [`Self::start`],
    /// which callers move about.
    fn launch(
        &self,
        wanted: Wanted,
        head: Request<()>,
        checkout: Checkout,
        credentials: Arc<Credentials>,
    ) -> Result<Run, StartError> {
        let Wanted { request, conversation, mut options, host, store } = wanted;
        if !host.is_empty() {
            options.serves = Some(Arc::new(host.clone()));
        }
        let request_id = request.request_id.clone();
        let redactor = credentials.redactor.clone();
        let access = Arc::clone(&self.access);
        let renewable = access.has_others();
        let router = Router::new(self.shared.runs.clone(), head, access, credentials);
        let now = Instant::now().into_std();
        let budget = self.shared.retries.clone();
        let ids = Box::new(RandomIds);
        let recorder = self.recorder.clone();
        let tap = Tap::new(recorder, &request_id, &options, renewable, redactor.clone(), now);
        let turn = Turn::new(request, conversation, options, budget, redactor, ids, now)
            .map_err(|refused| StartError::new(refused.0, refused.1))?
            .renewable(renewable);
        let turn = if store.is_some() { turn.kept() } else { turn };
        let (opening, keeper) = (router.open_with(checkout), Keeper::new(store));
        let mailbox = Arc::new(Mailbox::default());
        let (handlers, limits) = (Handlers::new(host), self.shared.limits);
        let span = tap.span();
        let beside = Beside { handlers, keeper, tap };
        let task = Task::new(Arc::clone(&mailbox), limits, Box::new(turn), router, opening, beside);
        tokio::spawn(task.instrument(span));
        Ok(Run::new(mailbox, request_id))
    }

    /// The head of a run's request, without credentials.
    fn head(&self, request_id: &str) -> Result<Request<()>> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.shared.run_uri.clone();
        *request.headers_mut() = self.headers(CallShape::Run, request_id, None)?;
        Ok(request)
    }

    fn headers(
        &self,
        shape: CallShape,
        request_id: &str,
        authorization: Option<&HeaderValue>,
    ) -> Result<HeaderMap> {
        self.shared.headers.of_call(shape, authorization, request_id)
    }

    // For prewarming and the unary calls.

    pub(super) fn run_headers(
        &self,
        request_id: &str,
        credentials: &Credentials,
    ) -> Result<HeaderMap> {
        self.headers(CallShape::Run, request_id, credentials.authorization.as_ref())
    }

    pub(super) fn run_pool(&self) -> &Pool {
        &self.shared.runs
    }

    pub(super) async fn warm(&self) -> Result<()> {
        self.shared.runs.warm().await
    }

    pub(super) fn unary_headers(
        &self,
        request_id: &str,
        credentials: &Credentials,
    ) -> Result<HeaderMap> {
        self.headers(CallShape::Unary, request_id, credentials.authorization.as_ref())
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

    /// Sizes of what the service sends.
    pub(super) fn limits(&self) -> Limits {
        self.shared.options.limits
    }

    /// Bytes kept of an error answer's body.
    pub(super) fn error_body(&self) -> usize {
        self.shared.options.error_body
    }

    pub(crate) fn unary_limits(&self) -> &UnaryLimits {
        &self.shared.unary_limits
    }

    pub(super) fn redactor(&self) -> Redactor {
        self.access.redactor()
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
    /// Boxed: some kilobytes, and each method moves the builder.
    wanted: Box<Wanted>,
}

/// What a run is made of.
struct Wanted {
    request: RunRequest,
    conversation: Conversation,
    options: Options,
    host: Host,
    store: Option<Arc<dyn ConversationStore>>,
}

impl RunBuilder {
    /// The model that is asked; needed.
    pub fn model(mut self, model: impl Into<Model>) -> Self {
        self.wanted.request.model = model.into();
        self
    }

    /// The system prompt.
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.wanted.request.context.system_prompt = Some(text.into());
        self
    }

    /// Adds a tool that the model may call.
    pub fn tool(mut self, tool: Tool) -> Self {
        let context = &mut self.wanted.request.context;
        *context = std::mem::take(context).tool(tool);
        self
    }

    /// What the model is told about the host and its workspace; nothing by default.
    pub fn about(mut self, about: impl Into<Arc<RequestContext>>) -> Self {
        self.wanted.request.context.about = about.into();
        self
    }

    /// Goes on with a conversation, as [`Run::finish`] gave it back.
    pub fn conversation(mut self, conversation: Conversation) -> Self {
        self.wanted.conversation = conversation;
        self
    }

    /// How the history is sent.
    pub fn history(mut self, history: History) -> Self {
        self.wanted.request.history = history;
        self
    }

    /// Limit for the whole run, tools included.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.wanted.options.deadline = Some(deadline);
        self
    }

    /// Changes anything of the request that has no method here.
    pub fn configure(mut self, change: impl FnOnce(&mut RunRequest)) -> Self {
        change(&mut self.wanted.request);
        self
    }

    /// Serves what the service asks this machine to do; everything is refused without it.
    pub fn execs(mut self, handler: Arc<dyn ExecHandler>) -> Self {
        self.wanted.host.execs = Some(handler);
        self
    }

    /// Answers what the service asks a person; everything is refused without it.
    pub fn asker(mut self, asker: Arc<dyn Ask>) -> Self {
        self.wanted.host.asker = Some(asker);
        self
    }

    /// Attempts after the first when the way to the service fails; see
    /// [`RetryOptions`](crate::run::RetryOptions). 0: one attempt, whatever comes of it.
    pub fn retries(mut self, retries: u32) -> Self {
        self.wanted.options.retry.retries = retries;
        self
    }

    /// Adds a tool that only looks: a turn that breaks off may be made again although it ran.
    pub fn read_only_tool(mut self, tool: Tool) -> Self {
        self.wanted.options.retry.read_only_tools.insert(tool.name.clone());
        self.tool(tool)
    }

    /// Keeps the conversation here while the run is under way and when it is over: a process that
    /// is started again loads it and goes on where this one was, tool calls that wait included.
    ///
    /// ```no_run
    /// # async fn example(client: agentwire::Client) -> agentwire::Result<()> {
    /// use std::sync::Arc;
    /// use agentwire::conversation::{Conversation, ConversationStore, DiskStore};
    ///
    /// let store = Arc::new(DiskStore::new("conversations"));
    /// let conversation = match store.load("my-conversation")? {
    ///     Some(kept) => kept,
    ///     None => Conversation::with_id("my-conversation"),
    /// };
    /// let run = client.prompt("hello").model("composer-2").conversation(conversation);
    /// let run = run.store(store).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn store(mut self, store: Arc<dyn ConversationStore>) -> Self {
        self.wanted.store = Some(store);
        self
    }

    /// Limits and times of this run.
    pub fn options(mut self, options: Options) -> Self {
        self.wanted.options = options;
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
        let Self { client, wanted } = self;
        client.start(wanted).await
    }
}

impl std::fmt::Debug for RunBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunBuilder").field("request", &self.wanted.request).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_starts_can_be_moved_about() -> Result<()> {
        let client = Client::builder().build()?;
        let run = client.prompt("hello").model("composer-2");
        assert!(size_of_val(&run) <= 64);
        assert!(size_of_val(&run.start()) <= 2 << 10);
        Ok(())
    }
}
