//! The unary calls of the service: models and names.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use crate::connect::Limits;
use crate::error::{Error, Kind, NetworkFault, Result};
use crate::ids::{IdSource, RandomIds};
use crate::models::{Entry, IntakeLimits, Listing, decode_listing, is_sendable};
use crate::proto::{
    GetDefaultModelForCliRequest, GetDefaultModelForCliResponse, GetUsableModelsRequest,
    NameAgentRequest, NameAgentResponse,
};
use crate::redact;
use crate::rpc::client::{Call, CallOptions, RpcClient};

use super::client::Client;
use super::credentials::Credentials;

const USABLE_MODELS: &str = "/agent.v1.AgentService/GetUsableModels";
const DEFAULT_MODEL: &str = "/agent.v1.AgentService/GetDefaultModelForCli";
const NAME_AGENT: &str = "/agent.v1.AgentService/NameAgent";

/// The longest answer that names one thing, in bytes. 64 KiB: hundreds of times a real one.
const SMALL_ANSWER: usize = 64 << 10;

/// The longest text that is sent to be named, in bytes: the service looks at its beginning.
const NAMED_TEXT: usize = 16 << 10;

/// Attempts after the first one, where a call is repeated at all (FAULTS, promises).
const RETRIES: u32 = 2;

/// The longest pause before another attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// The longest pause that a peer may ask for; with a longer one the error is given at once.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

impl Client {
    /// The models that this account may use. The answer is as long at most as a message of a run
    /// ([`Options::limits`](crate::run::Options::limits) of the client). Repeated twice at most when the network or the service
    /// fails for the moment, within the time limit of a unary call.
    ///
    /// # Errors
    /// [`Kind::ModelNotAvailable`] when there is none, and what the call itself ran into.
    pub async fn usable_models(&self) -> Result<Listing> {
        let request = GetUsableModelsRequest::default().encode_to_vec();
        let limits = self.limits();
        let body = self.unary(USABLE_MODELS, request, limits, RETRIES).await?;
        decode_listing(&body, limits, IntakeLimits::default(), &self.redactor())
    }

    /// The model that the service suggests; `None` when it suggests none that can be sent.
    ///
    /// # Errors
    /// What the call ran into; it is made once.
    pub async fn default_model(&self) -> Result<Option<Entry>> {
        let request = GetDefaultModelForCliRequest::default().encode_to_vec();
        let body = self.unary(DEFAULT_MODEL, request, small(), 0).await?;
        let answer = GetDefaultModelForCliResponse::decode(body)
            .map_err(|_| Error::protocol("the answer to GetDefaultModelForCli cannot be read"))?;
        Ok(answer.model.map(Entry::from).filter(|entry| is_sendable(&entry.id)))
    }

    /// A short name for a conversation that begins with `text`, in one line. Of a long text the
    /// first 16 KiB are sent.
    ///
    /// # Errors
    /// What the call ran into; it is made once.
    pub async fn name_agent(&self, text: &str) -> Result<String> {
        let end = text.floor_char_boundary(NAMED_TEXT);
        let user_message = text.get(..end).unwrap_or_default().to_owned();
        let request = NameAgentRequest { user_message }.encode_to_vec();
        let body = self.unary(NAME_AGENT, request, small(), 0).await?;
        let answer = NameAgentResponse::decode(body)
            .map_err(|_| Error::protocol("the answer to NameAgent cannot be read"))?;
        Ok(redact::clean(answer.name.trim()))
    }

    /// One call, `retries` more where that is safe and promising, all within the time limit.
    async fn unary(
        &self,
        path: &'static str,
        request: Vec<u8>,
        limits: Limits,
        retries: u32,
    ) -> Result<Bytes> {
        let limit = self.unary_limit();
        let deadline = Instant::now().checked_add(limit);
        let left = || deadline.map_or(limit, |at| at.saturating_duration_since(Instant::now()));
        let request = Bytes::from(request);
        let late = || {
            let text = format!("no answer from {} within {limit:?}", self.unary_endpoint());
            Error::new(Kind::DeadlineExceeded, text)
        };
        let mut credentials =
            tokio::time::timeout(left(), self.access().now()).await.map_err(|_| late())??;
        let (mut attempt, mut renewed) = (0, false);
        loop {
            let call = self.call(path, request.clone(), limits, &credentials);
            let result = tokio::time::timeout(left(), call).await.unwrap_or_else(|_| Err(late()));
            let Err(error) = result else { return result };
            if *error.kind() == Kind::Unauthenticated && !renewed {
                renewed = true;
                let other = self.access().instead_of(&credentials);
                match tokio::time::timeout(left(), other).await.map_err(|_| late())?? {
                    Some(other) => credentials = other,
                    None => return Err(error),
                }
                continue;
            }
            let chance = RandomIds.next_id().as_bytes()[0];
            let pause = pause_after(&error, attempt, chance).filter(|pause| *pause < left());
            let Some(pause) = pause.filter(|_| attempt < retries) else { return Err(error) };
            tracing::debug!(path, attempt, %error, ?pause, "another attempt");
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn call(
        &self,
        path: &'static str,
        request: Bytes,
        limits: Limits,
        credentials: &Credentials,
    ) -> Result<Bytes> {
        let headers = self.unary_headers(&RandomIds.next_id().to_string(), credentials)?;
        let lease = self.unary_pool().checkout().await?;
        let client = RpcClient::new(lease.connection.clone(), &self.unary_endpoint().to_string())?;
        let options = CallOptions {
            limits,
            redactor: credentials.redactor.clone(),
            accept_enveloped: true,
            ..CallOptions::default()
        };
        let call = Call::new(path).with_prepared(headers).with_options(options);
        let reply = client.unary(call, request).await;
        reply.result.map_err(|error| error.cleaned(&credentials.redactor))
    }
}

fn small() -> Limits {
    Limits { message: SMALL_ANSWER, decompressed: SMALL_ANSWER, end_stream: SMALL_ANSWER }
}

/// How long to wait before another attempt, if one makes sense: after a failure of the network, and
/// after 408, 429, 502, 503 and 504. Half a second, doubled each time, less up to a quarter by
/// `chance`; or what the peer asked for.
fn pause_after(error: &Error, attempt: u32, chance: u8) -> Option<Duration> {
    let asked = match error.kind() {
        Kind::Network(NetworkFault::Alpn | NetworkFault::Tls) => return None,
        Kind::Network(_) => None,
        Kind::RateLimited { retry_after } | Kind::Overloaded { retry_after } => *retry_after,
        _ => match error.http_status() {
            Some(408 | 429 | 502 | 503 | 504) => None,
            _ => return None,
        },
    };
    if let Some(asked) = asked {
        return (asked <= LONGEST_ASKED).then_some(asked);
    }
    let full = Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(attempt));
    let full = full.min(LONGEST_PAUSE);
    Some(full - full.mul_f64(f64::from(chance) / 255.0 / 4.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_the_peer_may_ask_for_another() {
        let cut = Error::network(NetworkFault::Cut, "cut");
        let ms = |attempt, chance| pause_after(&cut, attempt, chance).map(|d| d.as_millis());
        assert_eq!((ms(0, 0), ms(1, 0), ms(3, 0)), (Some(500), Some(1_000), Some(4_000)));
        assert_eq!((ms(40, 0), ms(0, 255)), (Some(8_000), Some(375)));
        let busy = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            pause_after(&Error::new(Kind::Overloaded { retry_after }, "busy"), 0, 0)
        };
        assert_eq!((busy(7), busy(61)), (Some(Duration::from_secs(7)), None));
        let status = |status| {
            pause_after(&Error::new(Kind::Rejected, "x").with_http_status(status), 0, 0).is_some()
        };
        assert!(status(502) && status(408) && !status(500) && !status(401));
        assert!(pause_after(&Error::protocol("x"), 0, 0).is_none());
        assert!(pause_after(&Error::network(NetworkFault::Tls, "x"), 0, 0).is_none());
    }
}
