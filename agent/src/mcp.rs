//! Tools of MCP servers (feature `mcp`), through the official SDK: over the standard streams of a
//! process, or over streamable HTTP.
//!
//! ```no_run
//! # async fn example(client: agentwire::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use agentwire_agent::{Agent, mcp::Server};
//!
//! let files = Server::process("files", ["mcp-server-filesystem", "/srv/data"]).connect().await?;
//! let agent = Agent::builder(client).model("composer-2").shared_tools(files).build()?;
//! # Ok(()) }
//! ```
//!
//! A tool is named after its server, `files_read_file`, so that two servers can have tools of the
//! same name. What a server says of its progress is the tool's; one whose answer is no longer wanted
//! is told so. A server that dies is started again by the next call; a call that was under way then
//! is made again only when its tool says that this changes nothing.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::Deref;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agentwire::redact::Redactor;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, ContentBlock,
    ProgressNotificationParam, ProgressToken, ServerResult, Tool as Listed,
};
use rmcp::service::{
    NotificationContext, Peer, PeerRequestOptions, RequestHandle, RoleClient, RunningService,
    ServiceError,
};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, ServiceExt as _};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::model::Boxed;
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, Toolbox, ToolboxError};

/// How long a server may take to start and to list its tools. 30 s: many are fetched by a package
/// manager when they are started.
const START: Duration = Duration::from_secs(30);
/// The longest name of a tool. No option: the service takes no longer one.
const NAME: usize = 64;
/// The most characters of a server's words about its progress: a line of a terminal or two. No option:
/// it is for a person to read.
const PROGRESS: usize = 200;

/// A server, before it is connected.
#[derive(Debug, Clone)]
#[must_use = "nothing happens until `connect`"]
pub struct Server {
    name: String,
    way: Way,
    start: Duration,
}

#[derive(Clone)]
enum Way {
    Process(Vec<OsString>),
    Http(String),
}

/// Why the tools of a server cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the MCP server `{server}` {what}")]
pub struct McpError {
    server: String,
    what: String,
}

impl Server {
    /// A program and its arguments, spoken to over its standard streams. What it writes to its
    /// standard error is dropped.
    pub fn process<A: Into<OsString>>(
        name: impl Into<String>,
        command: impl IntoIterator<Item = A>,
    ) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { name: name.into(), way: Way::Process(command), start: START }
    }

    /// A server at a URL. What may be a key in it is in no error of this crate; the SDK below
    /// (target `rmcp`) traces URLs as they are.
    pub fn http(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self { name: name.into(), way: Way::Http(url.into()), start: START }
    }

    /// How long it may take to start and to list its tools. Default 30 s.
    pub fn start_limit(mut self, limit: Duration) -> Self {
        self.start = limit;
        self
    }

    /// Starts it and gives its tools. It ends when the last of them is dropped. A tool that no agent
    /// could take up is left out: see [`Tools::left_out`].
    ///
    /// # Errors
    /// It cannot be started, does not answer, or speaks something else.
    pub async fn connect(self) -> Result<Tools, McpError> {
        let redactor = self.way.redactor();
        let server = Arc::new(Connected { server: self, redactor, running: Mutex::new(None) });
        let failed = |what: String| McpError {
            server: server.server.name.clone(),
            what: server.redactor.clean(&what),
        };
        let listing = async {
            let (peer, _) = server.peer().await?;
            peer.list_all_tools().await.map_err(|error| format!("lists no tools: {error}"))
        };
        let listed = tokio::time::timeout(server.server.start, listing).await;
        let listed = listed
            .map_err(|_| failed(format!("did not answer for {:?}", server.server.start)))?
            .map_err(failed)?;
        let handle = Handle(Arc::clone(&server));
        let mut tools = Tools { fit: Vec::new(), left_out: Vec::new(), handle };
        let mut trial = Toolbox::new();
        for listed in listed {
            let tool: Arc<dyn Tool> = Arc::new(McpTool::new(Arc::clone(&server), listed));
            match trial.add(Arc::clone(&tool)) {
                Ok(()) => tools.fit.push(tool),
                Err(error) => tools.left_out.push(error),
            }
        }
        Ok(tools)
    }
}

/// The tools of one server: a slice of them, to be handed on to
/// [`AgentBuilder::shared_tools`](crate::AgentBuilder::shared_tools).
pub struct Tools {
    fit: Vec<Arc<dyn Tool>>,
    left_out: Vec<ToolboxError>,
    handle: Handle,
}

impl Tools {
    /// A handle on the server, to end it while its tools are still held somewhere.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Why tools of the server are not among these, each by its name: its schema is none, or its
    /// name, cut to 64 characters, is that of one before it.
    pub fn left_out(&self) -> &[ToolboxError] {
        &self.left_out
    }
}

impl Deref for Tools {
    type Target = [Arc<dyn Tool>];

    fn deref(&self) -> &Self::Target {
        &self.fit
    }
}

impl IntoIterator for Tools {
    type Item = Arc<dyn Tool>;
    type IntoIter = std::vec::IntoIter<Arc<dyn Tool>>;

    fn into_iter(self) -> Self::IntoIter {
        self.fit.into_iter()
    }
}

impl<'a> IntoIterator for &'a Tools {
    type Item = &'a Arc<dyn Tool>;
    type IntoIter = std::slice::Iter<'a, Arc<dyn Tool>>;

    fn into_iter(self) -> Self::IntoIter {
        self.fit.iter()
    }
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.fit.iter().map(|tool| tool.name()).collect::<Vec<_>>();
        f.debug_struct("Tools").field("fit", &names).field("left_out", &self.left_out).finish()
    }
}

/// A connected server, apart from its tools.
#[derive(Clone)]
pub struct Handle(Arc<Connected>);

impl Handle {
    /// Ends the server and waits for it, `patience` at most: the input of a process is closed, which
    /// tells it to go. One that stays is stopped in the background, and killed at the latest with
    /// the runtime. A call that is made afterwards starts it again.
    pub async fn end(&self, patience: Duration) {
        let ended = async {
            let running = self.0.running.lock().await.take();
            if let Some(mut service) = running {
                // Gone or not, nothing more can be done about it here.
                let _gone = service.close_with_timeout(patience).await;
            }
        };
        // The lock is held by whoever is starting it.
        let _late = tokio::time::timeout(patience, ended).await;
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.0.server).finish()
    }
}

/// A server that is started when it is needed.
struct Connected {
    server: Server,
    /// Knows what of the server's URL may be a key: the HTTP client's errors name the URL.
    redactor: Redactor,
    running: Mutex<Option<Running>>,
}

type Running = RunningService<RoleClient, Progress>;

/// Hands what a server says of its progress to the call that it is about.
#[derive(Clone, Default)]
struct Progress {
    calls: Arc<Mutex<HashMap<ProgressToken, ToolContext>>>,
}

impl ClientHandler for Progress {
    async fn on_progress(
        &self,
        said: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        if let Some(call) = self.calls.lock().await.get(&said.progress_token) {
            call.progress(words(&said));
        }
    }
}

/// How far a call is: `3 of 10: reading`.
fn words(said: &ProgressNotificationParam) -> String {
    let mut words = said.progress.to_string();
    if let Some(total) = said.total {
        words.push_str(&format!(" of {total}"));
    }
    if let Some(message) = &said.message {
        let line = message.lines().next().unwrap_or_default();
        words.push_str(": ");
        words.extend(line.chars().take(PROGRESS));
    }
    words
}

/// One request for a call. Dropped before its answer came it tells the server that nobody waits.
struct Asked {
    request: Option<RequestHandle<RoleClient>>,
    progress: Progress,
}

impl Asked {
    async fn send(
        (peer, progress): (Peer<RoleClient>, Progress),
        params: CallToolRequestParams,
        context: &ToolContext,
    ) -> Result<Self, ServiceError> {
        // Held until the call is known: its first progress may be here before we are.
        let mut calls = progress.calls.lock().await;
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let options = PeerRequestOptions::no_options();
        let request = peer.send_cancellable_request(request, options).await?;
        calls.insert(request.progress_token.clone(), context.clone());
        drop(calls);
        Ok(Self { request: Some(request), progress })
    }

    async fn answer(mut self) -> Result<CallToolResult, ServiceError> {
        let Some(request) = &mut self.request else { return Err(ServiceError::TransportClosed) };
        let answer = (&mut request.rx).await;
        if let Some(request) = self.request.take() {
            self.progress.calls.lock().await.remove(&request.progress_token);
        }
        match answer.map_err(|_| ServiceError::TransportClosed)?? {
            ServerResult::CallToolResult(result) => Ok(result),
            // A server that leaves out an empty content.
            ServerResult::EmptyResult(_) => Ok(CallToolResult::default()),
            _ => Err(ServiceError::UnexpectedResponse),
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(request) = self.request.take() else { return };
        let progress = self.progress.clone();
        // Without a runtime the server is ending anyway.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                progress.calls.lock().await.remove(&request.progress_token);
                // One that is gone needs not be told.
                let _gone = request.cancel(Some("the result is no longer wanted".into())).await;
            });
        }
    }
}

impl Connected {
    /// The server, started again when it is not there, and who hears of its progress.
    async fn peer(&self) -> Result<(Peer<RoleClient>, Progress), String> {
        let mut running = self.running.lock().await;
        if let Some(service) = &*running
            && !service.is_closed()
            && !service.is_transport_closed()
        {
            return Ok((service.peer().clone(), service.service().clone()));
        }
        *running = None;
        let service = tokio::time::timeout(self.server.start, self.start()).await;
        let service =
            service.map_err(|_| format!("did not start in {:?}", self.server.start))??;
        let peer = (service.peer().clone(), service.service().clone());
        *running = Some(service);
        Ok(peer)
    }

    async fn start(&self) -> Result<Running, String> {
        match &self.server.way {
            Way::Process(command) => {
                let (program, arguments) = command.split_first().ok_or("has no command")?;
                let mut command = tokio::process::Command::new(program);
                // It is told to go by the end of its input. One that does not heed that must not
                // outlive a runtime that ends before it was waited for.
                command.args(arguments).kill_on_drop(true);
                let (process, _) = TokioChildProcess::builder(command)
                    .stderr(Stdio::null())
                    .spawn()
                    .map_err(|error| format!("cannot be started: {error}"))?;
                let served = Progress::default().serve(process).await;
                served.map_err(|error| format!("does not speak MCP: {error}"))
            }
            Way::Http(url) => {
                ring();
                let transport = StreamableHttpClientTransport::from_uri(url.as_str());
                let served = Progress::default().serve(transport).await;
                served.map_err(|error| format!("cannot be reached: {error}"))
            }
        }
    }
}

/// The HTTP client asks for the process's crypto provider; the one that the transport uses too.
fn ring() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else was faster: then there is one.
        let _there = rustls::crypto::ring::default_provider().install_default();
    }
}

/// One tool of a server.
struct McpTool {
    server: Arc<Connected>,
    /// As the model sees it.
    name: String,
    listed: Listed,
}

impl McpTool {
    fn new(server: Arc<Connected>, listed: Listed) -> Self {
        let good =
            |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        let name = format!("{}_{}", server.server.name, listed.name);
        let name = name.chars().map(good).take(NAME).collect();
        Self { server, name, listed }
    }

    async fn run(&self, context: &ToolContext, arguments: Value) -> Result<ToolOutput, ToolError> {
        let arguments = match arguments {
            Value::Object(arguments) => arguments,
            _ => serde_json::Map::new(),
        };
        let params = CallToolRequestParams::new(self.listed.name.clone()).with_arguments(arguments);
        let name = &self.server.server.name;
        for again in [false, true] {
            let peer = self.server.peer().await;
            let peer = peer.map_err(|what| {
                format!("The MCP server `{name}` {}.", self.server.redactor.clean(&what))
            })?;
            let asked = Asked::send(peer, params.clone(), context).await;
            let answered = match asked {
                Ok(asked) => asked.answer().await,
                Err(error) => Err(error),
            };
            match answered {
                Ok(result) => return output(result),
                Err(ServiceError::TransportClosed | ServiceError::TransportSend(_))
                    if !again && self.effect() != Effect::SideEffect => {}
                Err(error @ (ServiceError::TransportClosed | ServiceError::TransportSend(_))) => {
                    let why = self.server.redactor.clean(&error.to_string());
                    return Err(ToolError::new(format!(
                        "The MCP server `{name}` died during the call, which may have had its \
                         effect ({why}). The next call starts it again."
                    )));
                }
                Err(error) => {
                    return Err(ToolError::new(self.server.redactor.hide(&error.to_string())));
                }
            }
        }
        Err(ToolError::new(format!("The MCP server `{name}` died twice.")))
    }
}

fn output(result: CallToolResult) -> Result<ToolOutput, ToolError> {
    let mut output = ToolOutput::default();
    for block in result.content {
        output = match block {
            ContentBlock::Text(text) => output.and_text(text.text),
            ContentBlock::Image(image) => output.image(image.data, image.mime_type),
            other => output.and_text(serde_json::to_string(&other).unwrap_or_default()),
        };
    }
    if output.parts.is_empty()
        && let Some(value) = result.structured_content
    {
        output = output.and_text(value.to_string());
    }
    if result.is_error == Some(true) { Err(ToolError::new(output.to_text())) } else { Ok(output) }
}

impl Tool for McpTool {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> &str {
        self.listed.description.as_deref().unwrap_or_default()
    }

    fn schema(&self) -> Value {
        Value::Object((*self.listed.input_schema).clone())
    }

    /// What the server says of it: a hint, not a promise.
    fn effect(&self) -> Effect {
        let Some(hints) = &self.listed.annotations else { return Effect::SideEffect };
        match (hints.read_only_hint, hints.idempotent_hint) {
            (Some(true), _) => Effect::ReadOnly,
            (_, Some(true)) => Effect::Idempotent,
            _ => Effect::SideEffect,
        }
    }

    fn call<'a>(
        &'a self,
        context: &'a ToolContext,
        arguments: Value,
    ) -> Boxed<'a, Result<ToolOutput, ToolError>> {
        Box::pin(self.run(context, arguments))
    }
}

impl Way {
    /// Takes out what of the URL may be a key: user and password, the values of the query, and parts
    /// of the path that are too long for a name.
    fn redactor(&self) -> Redactor {
        /// The shortest part of a path that may be a key: an UUID has 36 characters, a name fewer
        /// than this as a rule.
        const KEY: usize = 16;
        let Self::Http(url) = self else { return Redactor::default() };
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        let values = query
            .split(['&', '#'])
            .map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        let keys = path.split('/').filter(|part| part.len() >= KEY);
        Redactor::new(user.split(':').chain(values).chain(keys).map(plain))
    }
}

/// The text without its percent encoding, which the redactor sees through where it looks.
fn plain(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let pair = after.first_chunk::<2>().filter(|_| first == b'%');
        let hex = pair.and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Debug for Way {
    /// Arguments and URLs can hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(command) => write!(f, "Process({:?})", command.first()),
            Self::Http(_) => f.write_str("Http"),
        }
    }
}
