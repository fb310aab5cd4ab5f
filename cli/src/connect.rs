//! Which service a command talks to: the arguments, and the client for them.

use std::path::PathBuf;

use agentwire::Secret;
use agentwire::auth::Claims;
use agentwire::server::serve::Server;
use agentwire::transport::{Client, ClientBuilder, Endpoint, Roots};

use crate::failure::Failure;
use crate::output::Look;
use crate::token;

/// The variable that names the base URL.
const ENDPOINT: &str = "AGENTWIRE_ENDPOINT";

/// The arguments that say it.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Start a server inside this process and talk to it: no account, no network
    #[arg(long, conflicts_with_all = ["endpoint", "token_file", "tls_ca", "allow_cleartext"])]
    pub(crate) local: bool,

    /// Base URL of the service [env: AGENTWIRE_ENDPOINT] [default: https://api2.cursor.sh]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,

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
}

impl Target {
    /// A client for the endpoint that was named, or for a server started here. No connection is made
    /// yet.
    pub(crate) async fn connect(&self, look: Look) -> Result<Connected, Failure> {
        if self.local {
            let server = Server::builder().bind().await?;
            let certificate = server.certificate_pem().unwrap_or_default().to_owned();
            let client = Client::builder()
                .endpoint(server.url())
                .roots(Roots::OnlyAdded)
                .ca_pem(certificate)
                .build()?;
            return Ok(Connected { client, account: "local".to_owned(), server: Some(server) });
        }
        let builder = Client::builder().allow_cleartext(self.allow_cleartext);
        let mut builder = self.at_endpoint(builder)?;
        if let Some(file) = &self.tls_ca {
            builder = builder.ca_file(file);
        }
        let token = token::find(self.token_file.as_deref(), look)?;
        let account = account(&token);
        Ok(Connected { client: builder.token(token).build()?, account, server: None })
    }

    /// The base URL, for people; nothing when it is none.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        Ok(match self.named_endpoint()? {
            Some(url) => Endpoint::parse(&url)?,
            None => Endpoint::default(),
        })
    }

    fn at_endpoint(&self, builder: ClientBuilder) -> Result<ClientBuilder, Failure> {
        Ok(match self.named_endpoint()? {
            Some(url) => builder.endpoint(url),
            None => builder,
        })
    }

    fn named_endpoint(&self) -> Result<Option<String>, Failure> {
        if self.endpoint.is_some() {
            return Ok(self.endpoint.clone());
        }
        match std::env::var(ENDPOINT) {
            Ok(url) if !url.is_empty() => Ok(Some(url)),
            Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(Failure::usage(format!("{ENDPOINT} is not a URL")))
            }
        }
    }
}

/// The token's subject, which outlives the token; else the token, of which the cache keeps a digest.
fn account(token: &Secret) -> String {
    Claims::of(token.expose()).subject.unwrap_or_else(|| token.expose().clone())
}
