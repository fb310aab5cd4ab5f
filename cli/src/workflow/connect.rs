//! The model behind the stages.

use std::path::PathBuf;
use std::sync::Arc;

use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, Roots};
use agentwire_agent::Agent;
use agentwire_agent::session::Store as Sessions;

use crate::chat;
use crate::failure::Failure;
use crate::output::Look;
use crate::token;

#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// Start a server inside this process and talk to it: no account, no network
    #[arg(long, conflicts_with_all = ["endpoint", "token_file", "tls_ca", "allow_cleartext"])]
    local: bool,

    /// Base URL of the service [env: AGENTWIRE_ENDPOINT] [default: https://api2.cursor.sh]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

    /// File that holds the access token, instead of the variable AGENTWIRE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Model of the stages that name none
    #[arg(long, value_name = "ID", default_value = "composer-2")]
    model: String,

    /// Further root certificate(s) to trust, PEM
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Allow an http:// endpoint beyond this machine: the token then travels in clear
    #[arg(long)]
    allow_cleartext: bool,
}

impl Connection {
    /// An agent whose sessions are kept, so that a stage can be gone on with. Dropping the server
    /// ends it.
    pub(super) async fn agent(&self, look: Look) -> Result<(Arc<Agent>, Option<Server>), Failure> {
        let (client, server) = self.client(look).await?;
        let sessions = Sessions::new(super::folder()?.join("sessions"));
        let agent = Agent::builder(client).model(&self.model).sessions(sessions).build();
        let agent = agent.map_err(|error| Failure::usage(error.to_string()))?;
        Ok((Arc::new(agent), server))
    }

    async fn client(&self, look: Look) -> Result<(Client, Option<Server>), Failure> {
        if self.local {
            let server = Server::builder().script(Script::assistant()).bind().await?;
            let certificate = server.certificate_pem().unwrap_or_default().to_owned();
            let builder = Client::builder().endpoint(server.url()).roots(Roots::OnlyAdded);
            return Ok((builder.ca_pem(certificate).build()?, Some(server)));
        }
        let builder = Client::builder().allow_cleartext(self.allow_cleartext);
        let mut builder = chat::at_endpoint(builder, self.endpoint.as_deref())?;
        if let Some(file) = &self.tls_ca {
            builder = builder.ca_file(file);
        }
        let token = token::find(self.token_file.as_deref(), look)?;
        Ok((builder.token(token).build()?, None))
    }
}
