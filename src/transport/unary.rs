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

/// Limits of the calls that are no runs: models and names. Every default has its reason beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnaryLimits {
    /// How long a call may take, connecting and repeating included. 60 s (BEHAVIOUR 1.6).
    pub timeout: Duration,
    /// The longest answer that names one thing, in bytes. 64 KiB: hundreds of times a real one. A
    /// list of models may be as long as a message of a run.
    pub answer: usize,
    /// The longest text that is sent to be named, in bytes; of a longer one the beginning is. 16 KiB:
    /// the service looks at no more than that.
    pub named_text: usize,
    /// Attempts after the first one, where a call is repeated at all. 2 (FAULTS, promises).
    pub retries: u32,
    /// The longest pause before another attempt; the first is half a second, and each further one
    /// twice as long. 8 s: the fourth; a person waits for this call.
    pub longest_pause: Duration,
    /// The longest pause that the service may ask for; with a longer one the error is given at once.
    /// 60 s, the limit of the whole call.
    pub longest_asked: Duration,
    /// What is taken of a list of models: how many, how long their names.
    pub models: IntakeLimits,
}

impl Default for UnaryLimits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            answer: 64 << 10,
            named_text: 16 << 10,
            retries: 2,
            longest_pause: Duration::from_secs(8),
            longest_asked: Duration::from_secs(60),
            models: IntakeLimits::default(),
        }
    }
}

impl Client {
    /// The models that this account may use. The answer is as long at most as a message of a run
    /// ([`Options::limits`](crate::run::Options::limits) of the client), and what is taken of it has
    /// its own limits ([`UnaryLimits::models`]). Repeated twice at most when the network or the
    /// service fails for the moment, within the time limit of a unary call.
    ///
    /// # Errors
    /// [`Kind::ModelNotAvailable`] when there is none, and what the call itself ran into.
    pub async fn usable_models(&self) -> Result<Listing> {
        let request = GetUsableModelsRequest::default().encode_to_vec();
        let limits = self.limits();
        let body = self.unary(USABLE_MODELS, request, limits, self.unary_limits().retries).await?;
        decode_listing(&body, limits, self.unary_limits().models, &self.redactor())
    }

    /// The model that the service suggests; `None` when it suggests none that can be sent.
    ///
    /// # Errors
    /// What the call ran into; it is made once.
    pub async fn default_model(&self) -> Result<Option<Entry>> {
        let request = GetDefaultModelForCliRequest::default().encode_to_vec();
        let body = self.unary(DEFAULT_MODEL, request, self.small(), 0).await?;
        let answer = GetDefaultModelForCliResponse::decode(body)
            .map_err(|_| Error::protocol("the answer to GetDefaultModelForCli cannot be read"))?;
        Ok(answer.model.map(Entry::from).filter(|entry| is_sendable(&entry.id)))
    }

    /// A short name for a conversation that begins with `text`, in one line. Of a long text the
    /// first 16 KiB are sent ([`UnaryLimits::named_text`]).
    ///
    /// # Errors
    /// What the call ran into; it is made once.
    pub async fn name_agent(&self, text: &str) -> Result<String> {
        let end = text.floor_char_boundary(self.unary_limits().named_text);
        let user_message = text.get(..end).unwrap_or_default().to_owned();
        let request = NameAgentRequest { user_message }.encode_to_vec();
        let body = self.unary(NAME_AGENT, request, self.small(), 0).await?;
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
        let own = self.unary_limits();
        let limit = own.timeout;
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
            let pause = pause_after(&error, attempt, chance, own).filter(|pause| *pause < left());
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
            error_body: self.error_body(),
            ..CallOptions::default()
        };
        let call = Call::new(path).with_prepared(headers).with_options(options);
        let reply = client.unary(call, request).await;
        reply.result.map_err(|error| error.cleaned(&credentials.redactor))
    }

    /// The limits of an answer that names one thing.
    fn small(&self) -> Limits {
        let answer = self.unary_limits().answer;
        Limits { message: answer, decompressed: answer, end_stream: answer, ..self.limits() }
    }
}

/// How long to wait before another attempt, if one makes sense: after a failure of the network, and
/// after 408, 429, 502, 503 and 504. Half a second, doubled each time, less up to a quarter by
/// `chance`; or what the peer asked for.
fn pause_after(error: &Error, attempt: u32, chance: u8, limits: &UnaryLimits) -> Option<Duration> {
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
        return (asked <= limits.longest_asked).then_some(asked);
    }
    let full = Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(attempt));
    let full = full.min(limits.longest_pause);
    Some(full - full.mul_f64(f64::from(chance) / 255.0 / 4.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit_and_the_peer_may_ask_for_another() {
        let cut = Error::network(NetworkFault::Cut, "cut");
        let limits = UnaryLimits::default();
        let ms =
            |attempt, chance| pause_after(&cut, attempt, chance, &limits).map(|d| d.as_millis());
        assert_eq!((ms(0, 0), ms(1, 0), ms(3, 0)), (Some(500), Some(1_000), Some(4_000)));
        assert_eq!((ms(40, 0), ms(0, 255)), (Some(8_000), Some(375)));
        let busy = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            pause_after(&Error::new(Kind::Overloaded { retry_after }, "busy"), 0, 0, &limits)
        };
        assert_eq!((busy(7), busy(61)), (Some(Duration::from_secs(7)), None));
        let status = |status| {
            let error = Error::new(Kind::Rejected, "x").with_http_status(status);
            pause_after(&error, 0, 0, &limits).is_some()
        };
        assert!(status(502) && status(408) && !status(500) && !status(401));
        assert!(pause_after(&Error::protocol("x"), 0, 0, &limits).is_none());
        assert!(pause_after(&Error::network(NetworkFault::Tls, "x"), 0, 0, &limits).is_none());
    }

    #[test]
    fn the_longest_pauses_can_be_set() {
        let (second, two) = (Duration::from_secs(1), Duration::from_secs(2));
        let limits =
            UnaryLimits { longest_pause: second, longest_asked: two, ..UnaryLimits::default() };
        let cut = Error::network(NetworkFault::Cut, "cut");
        assert_eq!(pause_after(&cut, 9, 0, &limits), Some(second));
        let asked = |asked| {
            let kind = Kind::Overloaded { retry_after: Some(asked) };
            pause_after(&Error::new(kind, "busy"), 0, 0, &limits)
        };
        assert_eq!(asked(two), Some(two));
        assert_eq!(asked(two + Duration::from_millis(1)), None);
    }
}
