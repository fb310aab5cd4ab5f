//! The model behind the stages.

#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentwire::Client;
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire_agent::Agent;
use agentwire_agent::model::{Boxed, Hosted, Model, ModelRequest, ModelRun, StartError};
use agentwire_agent::session::Store as Sessions;
use agentwire_workflow::scope::ToolScope;
#[cfg(unix)]
use agentwire_workspace::Access;

#[cfg(unix)]
use crate::chat;
use crate::connect::Target;
use crate::failure::{Failure, Report};
use crate::mcp::Servers;
use crate::models::{Known, Named};
use crate::output::Look;

/// The model where nothing names one.
const MODEL: &str = "composer-2";

#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    #[command(flatten)]
    target: Target,

    /// Model of the stages that name none, as `agentwire models` lists it [default: that which
    /// the stages of the run had so far, else composer-2]
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Serve the files under this folder to the stages: reading is free, the rest is asked for at
    /// the terminal, and refused where there is none
    #[cfg(unix)]
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,

    /// What may be done in the workspace without asking (repeatable). Commands are not held inside
    /// the folder: `shell` lets the model do what you can do
    #[cfg(unix)]
    #[arg(long, value_name = "WHAT", requires = "workspace", value_parser = chat::access())]
    allow: Vec<Access>,
}

/// An agent for the stages, and what belongs to it.
pub(super) struct Connected {
    pub(super) agent: Arc<Agent>,
    /// Which tools the stages have, and from where.
    pub(super) scope: ToolScope,
    known: Arc<Known>,
    /// The server of `--local`: dropping it ends it, so it lives as long as the run.
    _server: Option<Server>,
}

impl Connected {
    /// Ends what is under way in the background.
    pub(super) async fn close(self) {
        drop(self.agent);
        if let Some(known) = Arc::into_inner(self.known) {
            known.close().await;
        }
    }
}

impl Connection {
    /// An agent whose sessions are kept, so that a stage can be gone on with.
    /// `earlier` is the model of the run so far.
    pub(super) async fn connect(
        &self,
        servers: &Servers,
        earlier: Option<String>,
        report: Report,
        look: Look,
    ) -> Result<Connected, Failure> {
        let model = self.model.clone().or(earlier).unwrap_or_else(|| MODEL.to_owned());
        let connected = self.target.connect(look, self.script()).await?;
        let known = Arc::new(Known::open(&connected, look));
        let hosted = self.hosted(connected.client, report, look)?;
        let sessions = Sessions::new(super::sessions()?);
        let listed = Listed { hosted, known: Arc::clone(&known), look };
        let builder = Agent::builder(listed).model(model).sessions(sessions);
        let (builder, scope) = servers.attach(builder, look);
        let agent = builder.build().map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Connected { agent: Arc::new(agent), scope, known, _server: connected.server })
    }

    #[cfg(unix)]
    fn script(&self) -> Script {
        match self.workspace {
            Some(_) => Script::assistant_in_workspace(),
            None => Script::assistant(),
        }
    }

    #[cfg(unix)]
    fn hosted(&self, client: Client, report: Report, look: Look) -> Result<Hosted, Failure> {
        let hosted = Hosted::new(client);
        let Some(folder) = &self.workspace else { return Ok(hosted) };
        Ok(hosted.execs(chat::workspace_over(folder, &self.allow, report, look)?))
    }

    #[cfg(not(unix))]
    fn script(&self) -> Script {
        Script::assistant()
    }

    #[cfg(not(unix))]
    fn hosted(&self, client: Client, _: Report, _: Look) -> Result<Hosted, Failure> {
        Ok(Hosted::new(client))
    }
}

/// The service with the models of the account: each stage names its own, and one that the account
/// does not have is refused before anything is sent.
struct Listed {
    hosted: Hosted,
    known: Arc<Known>,
    look: Look,
}

impl Model for Listed {
    fn start(&self, request: ModelRequest) -> Boxed<'_, Result<Box<dyn ModelRun>, StartError>> {
        Box::pin(async move {
            let (named, context) = (Named::default(), &request.context);
            let name = match self
                .known
                .model(&request.model, &named, context, self.look, Duration::MAX)
                .await
            {
                Ok(name) => name,
                Err(error) => {
                    let conversation = Box::new(request.conversation);
                    return Err(StartError { error, conversation });
                }
            };
            self.hosted.clone().known_as(&request.model, name).start(request).await
        })
    }
}
