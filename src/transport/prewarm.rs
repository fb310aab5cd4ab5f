//! Getting ready for a run that is likely to come.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use crate::codec::request::check_id;
use crate::codec::{Model, reply};
use crate::error::{Error, Kind, Result};
use crate::ids::{IdSource, RandomIds};
use crate::rpc::client::{Call, CallOptions, RpcClient};

use super::client::{Client, RUN};

/// Bytes of an envelope's header.
const HEADER: usize = 5;

/// Getting ready for a run; awaited, it happens. Made by [`Client::prewarm`].
///
/// ```no_run
/// # async fn example(client: agentwire::Client) -> agentwire::Result<()> {
/// client.prewarm().await?;
/// client.prewarm().run_of("composer-2", "conversation-1").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens until it is awaited"]
pub struct Prewarm {
    client: Client,
    announced: Option<(Model, String)>,
}

impl Prewarm {
    pub(super) fn new(client: Client) -> Self {
        Self { client, announced: None }
    }

    /// Also tells the service which model and which conversation the run will be of
    /// (`prewarm_request`), on a stream of its own, and waits until it has taken note. A
    /// conversation that is not known yet has an empty id.
    pub fn run_of(mut self, model: impl Into<Model>, conversation_id: impl Into<String>) -> Self {
        self.announced = Some((model.into(), conversation_id.into()));
        self
    }

    async fn go(self) -> Result<()> {
        let Some((model, conversation_id)) = self.announced else {
            return self.client.warm().await;
        };
        check_id("model id", &model.id)?;
        if !conversation_id.is_empty() {
            check_id("conversation id", &conversation_id)?;
        }
        let limit = self.client.unary_limits().timeout;
        let announced = announce(&self.client, &model, &conversation_id);
        tokio::time::timeout(limit, announced).await.unwrap_or_else(|_| Err(late(limit)))
    }
}

async fn announce(client: &Client, model: &Model, conversation_id: &str) -> Result<()> {
    let credentials = client.access().now().await?;
    let headers = client.run_headers(&RandomIds.next_id().to_string(), &credentials)?;
    let lease = client.run_pool().checkout().await?;
    let rpc = RpcClient::new(lease.connection.clone(), &client.endpoint().to_string())?;
    let options = CallOptions { redactor: credentials.redactor.clone(), ..CallOptions::default() };
    let call = Call::new(RUN).with_prepared(headers).with_options(options);
    let envelope = reply::prewarm(model, conversation_id);
    let mut answer = rpc.server_stream(call, envelope.get(HEADER..).unwrap_or_default()).await?;
    while answer.next().await?.is_some() {}
    Ok(())
}

fn late(limit: Duration) -> Error {
    Error::new(
        Kind::DeadlineExceeded,
        format!("the service did not take note of the coming run within {limit:?}"),
    )
    .with_hint("runs work without it")
}

impl IntoFuture for Prewarm {
    type Output = Result<()>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.go())
    }
}
