//! Which service a command talks to: the arguments, and the client for them.

use std::path::PathBuf;

use agentwire::auth::Claims;
use agentwire::server::Script;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, Endpoint, Roots};

use crate::account::{self, Place, Way};
use crate::failure::Failure;
use crate::output::Look;
use crate::record::Recording;
use crate::token;

/// The arguments that say it.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Start a server inside this process and talk to it: no account, no network
    #[arg(long, conflicts_with_all = ["endpoint", "token_file", "tls_ca", "allow_cleartext"])]
    pub(crate) local: bool,

    #[command(flatten)]
    place: Place,

    /// File that holds the access token, instead of the variable AGENTWIRE_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Further root certificate(s) to trust, PEM
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Allow an http:// endpoint beyond this machine: the token then travels in clear
    #[arg(long)]
    allow_cleartext: bool,
}

/// A client, and what belongs to it.
pub(crate) struct Connected {
    pub(crate) client: Client,
    /// Whose models these are: a text that stays the same for an account.
    pub(crate) account: String,
    /// The server of `--local`. Dropping it ends it, so it lives as long as the client is used.
    pub(crate) server: Option<Server>,
    /// What writes down the client's runs.
    pub(crate) recording: Option<Recording>,
}

impl Connected {
    /// Says what there is to say when all runs are over.
    pub(crate) fn end(&self, look: Look) {
        if let Some(recording) = &self.recording {
            recording.end(look);
        }
    }
}

impl Target {
    /// A client for the endpoint that was named, or for a server started here that plays `script`. No
    /// connection is made yet.
    pub(crate) async fn connect(&self, look: Look, script: Script) -> Result<Connected, Failure> {
        if self.local {
            let server = Server::builder().script(script).bind().await?;
            let certificate = server.certificate_pem().unwrap_or_default().to_owned();
            let client = Client::builder()
                .endpoint(server.url())
                .roots(Roots::OnlyAdded)
                .ca_pem(certificate)
                .build()?;
            return Ok(Connected {
                client,
                account: "local".to_owned(),
                server: Some(server),
                recording: None,
            });
        }
        let mut builder = Client::builder().allow_cleartext(self.allow_cleartext);
        if let Some(url) = account::endpoint(self.place.endpoint.as_deref())? {
            builder = builder.endpoint(url);
        }
        if let Some(file) = &self.tls_ca {
            builder = builder.ca_file(file);
        }
        let connected =
            |client, account| Connected { client, account, server: None, recording: None };
        if let Some(token) = token::find(self.token_file.as_deref(), look)? {
            // The subject outlives the token; of a token without one the cache keeps a digest.
            let subject = Claims::of(token.expose()).subject;
            let account = subject.unwrap_or_else(|| token.expose().clone());
            return Ok(connected(builder.token(token).build()?, account));
        }
        let (tls_ca, allow_cleartext) = (self.tls_ca.as_deref(), self.allow_cleartext);
        let way = Way { tls_ca, allow_cleartext, ..Way::default() };
        let stored = self.place.stored(way).await?.ok_or_else(token::missing)?;
        let account = account::catalog_owner(&stored.tokens(), &self.place.account);
        Ok(connected(builder.tokens(stored).build()?, account))
    }

    /// The base URL, for people; nothing when it is none.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        Ok(match account::endpoint(self.place.endpoint.as_deref())? {
            Some(url) => Endpoint::parse(&url)?,
            None => Endpoint::default(),
        })
    }
}
