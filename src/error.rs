//! The one error type of the crate: what happened, whose fault it is, what to do about it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::connect::Code;
use crate::redact::Redactor;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The caller of this library: a request that cannot be sent, a call out of order.
    Caller,
    /// This machine: its network, its limits, its clock.
    Local,
    /// The peer: it broke the protocol, refused, or failed.
    Remote,
}

/// How the way to the peer failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NetworkFault {
    /// The host name could not be resolved.
    Dns,
    /// No TCP connection (refused, unreachable, timed out).
    Connect,
    /// The proxy refused or broke the tunnel.
    Proxy,
    /// The TLS handshake failed; the message names the certificate's fault.
    Tls,
    /// The peer did not agree to `h2` in ALPN: something on the way speaks HTTP/1.1.
    Alpn,
    /// The peer refused the stream before it did anything (`REFUSED_STREAM`, GOAWAY below our id).
    Refused,
    /// The peer reset the stream with this HTTP/2 code.
    Reset(u32),
    /// The connection ended with this HTTP/2 code (GOAWAY with an error).
    GoAway(u32),
    /// The connection was cut: reset, closed, or a PING that was never answered.
    Cut,
    /// Nothing came, or nothing could be written, for longer than the limit.
    Stalled,
}

impl NetworkFault {
    /// A stable name in snake case, without the code inside: for logs and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Alpn => "alpn",
            Self::Refused => "refused",
            Self::Reset(_) => "reset",
            Self::GoAway(_) => "goaway",
            Self::Cut => "cut",
            Self::Stalled => "stalled",
        }
    }

    /// The HTTP/2 code that came with it.
    pub const fn http2_code(self) -> Option<u32> {
        match self {
            Self::Reset(code) | Self::GoAway(code) => Some(code),
            _ => None,
        }
    }
}

/// What a caller can match on. New kinds may come; match with a wildcard arm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The request cannot be sent as it is; nothing was written.
    InvalidRequest,
    /// No valid credentials: sign in again.
    Unauthenticated,
    /// Signed in, but the account may not do this.
    PermissionDenied,
    /// The plan or its quota does not allow it.
    PlanLimit,
    /// Too many requests; try again after the time given.
    RateLimited {
        /// What the peer asked for, if it said so.
        retry_after: Option<Duration>,
    },
    /// The service cannot serve now; try again after the time given.
    Overloaded {
        /// What the peer asked for, if it said so.
        retry_after: Option<Duration>,
    },
    /// The request is larger than the service takes.
    PayloadTooLarge,
    /// No such model, or not for this account.
    ModelNotAvailable,
    /// The client version is no longer accepted.
    ClientOutdated,
    /// The service refuses this conversation id for good; a fresh one may work.
    ConversationPoisoned,
    /// The service asked for a blob that nobody has; the conversation must be rebuilt.
    BlobMissing,
    /// The way to the peer failed.
    Network(NetworkFault),
    /// The peer broke the protocol.
    Protocol,
    /// A limit of this library was crossed; the message names it.
    LimitExceeded,
    /// The time that the caller allowed ran out. A peer that stalls is `Network(Stalled)`.
    DeadlineExceeded,
    /// The caller cancelled.
    Cancelled,
    /// The turn broke off after something was handed out; what came before it stands.
    Interrupted,
    /// The service stated an error that has no closer kind; the code says more.
    Rejected,
}

impl Kind {
    /// What a person can do about an error of this kind, where nothing closer is known. `None` where
    /// the message has to say it: what is wrong with a request, what a service's own words mean.
    pub const fn advice(&self) -> Option<&'static str> {
        use NetworkFault::{Alpn, Connect, Cut, Dns, GoAway, Proxy, Refused, Reset, Stalled, Tls};
        Some(match self {
            Self::InvalidRequest | Self::Cancelled | Self::Rejected => return None,
            Self::Unauthenticated => "sign in again",
            Self::PermissionDenied => "check what this account may do",
            Self::PlanLimit => "check the plan and its usage, or choose another model",
            Self::RateLimited { .. } => "wait before the next request",
            Self::Overloaded { .. } => "try again later",
            Self::PayloadTooLarge => "shorten the history, the tools or the images",
            Self::ModelNotAvailable => "choose a model that the account's catalog lists",
            Self::ClientOutdated => "set `client_version` to that of a current client",
            Self::ConversationPoisoned => "a fresh conversation id may work",
            Self::BlobMissing => "begin a new conversation with the same history",
            Self::Network(Dns) => "check the name and the network",
            Self::Network(Connect) => "check the address, and whether a firewall is in the way",
            Self::Network(Proxy) => "check the proxy's address and credentials",
            Self::Network(Tls) => "check the certificate, and this machine's clock",
            Self::Network(Alpn) => "something on the way may only speak HTTP/1.1",
            Self::Network(Refused | Reset(_) | GoAway(_)) => "try again",
            Self::Network(Cut | Stalled) => "check the network, and try again",
            Self::Protocol => "something on the way may have answered, or the service has changed",
            Self::LimitExceeded => "raise the limit if that much is wanted",
            Self::DeadlineExceeded => "allow more time, or try again",
            Self::Interrupted => "what came before it stands; ask again to go on",
        })
    }

    /// A stable name in snake case, without the values inside: for logs, counters and JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::PlanLimit => "plan_limit",
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::PayloadTooLarge => "payload_too_large",
            Self::ModelNotAvailable => "model_not_available",
            Self::ClientOutdated => "client_outdated",
            Self::ConversationPoisoned => "conversation_poisoned",
            Self::BlobMissing => "blob_missing",
            Self::Network(_) => "network",
            Self::Protocol => "protocol",
            Self::LimitExceeded => "limit_exceeded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
            Self::Rejected => "rejected",
        }
    }
}

impl Blame {
    /// A stable name in snake case: for logs, counters and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// One entry of `details` in a Connect error.
#[derive(Clone, PartialEq, Eq)]
pub struct Detail {
    /// Fully qualified message name, without the `type.googleapis.com/` prefix.
    pub type_name: String,
    /// The message's bytes.
    pub value: Bytes,
    /// The `debug` member as it came: readable JSON, for people.
    pub debug: Option<serde_json::Value>,
}

impl fmt::Debug for Detail {
    /// The type and the size only: a detail can repeat what the caller sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detail")
            .field("type_name", &self.type_name)
            .field("value_len", &self.value.len())
            .finish_non_exhaustive()
    }
}

/// What went wrong.
///
/// `Display` is one line: the message, then the Connect code when the peer stated one, then the
/// hint. The text holds no token, no prompt and no file content; control characters that a peer
/// sent are escaped (FAULTS M22, M88).
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    blame: Blame,
    code: Code,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    details: Vec<Detail>,
    metadata: Vec<(String, String)>,
    http_status: Option<u16>,
    /// Asking again could do something twice.
    had_effects: bool,
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; the code and the blame follow from the kind and can be set after.
    ///
    /// `message` says what happened and where, in one line, without secrets: text of a peer goes
    /// through [`crate::redact::clean`] first.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        let (blame, code) = defaults(&kind);
        Self(Box::new(Inner {
            kind,
            blame,
            code,
            message: message.into(),
            hint: None,
            details: Vec::new(),
            metadata: Vec::new(),
            http_status: None,
            had_effects: false,
        }))
    }

    /// The caller's request cannot be sent.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidRequest, message)
    }

    /// The peer broke the protocol.
    pub fn protocol(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Protocol, message)
    }

    /// A limit of this library was crossed.
    pub fn limit(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::LimitExceeded, message)
    }

    /// The way to the peer failed.
    pub fn network(fault: NetworkFault, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Network(fault), message)
    }

    /// The same error with another Connect code.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.0.code = code;
        self
    }

    /// The same error in other words, for instance without a secret that a peer repeated.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = message.into();
        self
    }

    /// The same error, of which no text repeats a secret of `redactor`.
    #[must_use]
    pub(crate) fn cleaned(mut self, redactor: &Redactor) -> Self {
        let clean = redactor.clean(&self.0.message);
        if clean != self.0.message {
            self.0.message = clean.into();
        }
        for (_, value) in &mut self.0.metadata {
            *value = redactor.hide(value);
        }
        self
    }

    /// The same error with another culprit.
    #[must_use]
    pub fn with_blame(mut self, blame: Blame) -> Self {
        self.0.blame = blame;
        self
    }

    /// The same error with a sentence that says what a person can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same error with the details that the peer sent.
    #[must_use]
    pub fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.0.details = details;
        self
    }

    /// The same error with the metadata (headers, trailers) that came with it.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Vec<(String, String)>) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// The same error with the HTTP status that it came with.
    #[must_use]
    pub fn with_http_status(mut self, status: u16) -> Self {
        self.0.http_status = Some(status);
        self
    }

    /// The same error of a request that may have had effects: see [`Error::is_repeatable`].
    #[must_use]
    pub fn with_effects(mut self) -> Self {
        self.0.had_effects = true;
        self
    }

    /// The same error of another kind; code and blame stay.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What happened, to match on.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        self.0.blame
    }

    /// The Connect code: the peer's where it stated one, else the closest.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The sentence without code and hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What a person can do: what its maker knew, else [`Kind::advice`].
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref().or_else(|| self.0.kind.advice())
    }

    /// The details of a Connect error; those that could not be read are left out (FAULTS M20).
    pub fn details(&self) -> &[Detail] {
        &self.0.details
    }

    /// Metadata that came with a Connect error: names in lower case, in the order they came.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.0.metadata
    }

    /// The HTTP status of the answer, where the error is about one.
    pub fn http_status(&self) -> Option<u16> {
        self.0.http_status
    }

    /// Whether the same request, sent again, may succeed without anybody doing anything.
    ///
    /// True for network faults (stalls included), overload and rate limits; false for a deadline
    /// that the caller set, and for what is not [repeatable](Error::is_repeatable).
    pub fn is_retryable(&self) -> bool {
        let passes = matches!(
            self.0.kind,
            Kind::Network(_) | Kind::Overloaded { .. } | Kind::RateLimited { .. }
        );
        passes && self.is_repeatable()
    }

    /// Whether the same request may be sent again without doing something twice.
    ///
    /// False for the error of a run in which a file was written or a command ran, say, and the
    /// service has not said that it knows of it: whatever the kind, somebody has to look first. It
    /// says nothing about whether sending it again would help.
    pub fn is_repeatable(&self) -> bool {
        !self.0.had_effects
    }
}

/// Culprit and code of a kind, unless the maker of the error knows better.
fn defaults(kind: &Kind) -> (Blame, Code) {
    use Blame::{Caller, Local, Remote};
    match kind {
        Kind::InvalidRequest => (Caller, Code::InvalidArgument),
        Kind::Unauthenticated => (Caller, Code::Unauthenticated),
        Kind::PermissionDenied => (Caller, Code::PermissionDenied),
        Kind::PlanLimit | Kind::RateLimited { .. } => (Caller, Code::ResourceExhausted),
        Kind::PayloadTooLarge => (Caller, Code::ResourceExhausted),
        Kind::ModelNotAvailable => (Caller, Code::NotFound),
        Kind::ClientOutdated => (Local, Code::FailedPrecondition),
        Kind::Overloaded { .. } => (Remote, Code::Unavailable),
        Kind::ConversationPoisoned => (Remote, Code::ResourceExhausted),
        Kind::BlobMissing => (Remote, Code::NotFound),
        Kind::Network(NetworkFault::Reset(_) | NetworkFault::GoAway(_) | NetworkFault::Refused) => {
            (Remote, Code::Unavailable)
        }
        Kind::Network(NetworkFault::Stalled) => (Remote, Code::DeadlineExceeded),
        Kind::Network(_) => (Local, Code::Unavailable),
        Kind::Protocol => (Remote, Code::Internal),
        Kind::LimitExceeded => (Remote, Code::ResourceExhausted),
        Kind::DeadlineExceeded => (Remote, Code::DeadlineExceeded),
        Kind::Cancelled => (Caller, Code::Canceled),
        Kind::Interrupted => (Remote, Code::Unavailable),
        Kind::Rejected => (Remote, Code::Unknown),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.message, self.0.code)?;
        if let Some(hint) = self.hint() {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    /// The same facts as `Display`, plus kind and blame; details by type and size only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("blame", &self.0.blame)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("hint", &self.hint())
            .field("http_status", &self.0.http_status)
            .field("repeatable", &self.is_repeatable())
            .field("details", &self.0.details)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_with_code_and_hint() {
        let error = Error::new(Kind::Unauthenticated, "the service refused the token")
            .with_hint("sign in again with `agentwire login`");
        assert_eq!(
            error.to_string(),
            "the service refused the token (unauthenticated); sign in again with `agentwire login`"
        );
        assert_eq!(error.blame(), Blame::Caller);
        assert!(!error.is_retryable());
    }

    #[test]
    fn every_kind_that_a_person_meets_says_what_to_do() {
        use NetworkFault::{Alpn, Connect, Cut, Dns, GoAway, Proxy, Refused, Reset, Stalled, Tls};
        let retry_after = None;
        let faults = [Dns, Connect, Proxy, Tls, Alpn, Refused, Reset(2), GoAway(2), Cut, Stalled];
        let kinds = faults.map(Kind::Network).into_iter().chain([
            Kind::Unauthenticated,
            Kind::PermissionDenied,
            Kind::PlanLimit,
            Kind::RateLimited { retry_after },
            Kind::Overloaded { retry_after },
            Kind::PayloadTooLarge,
            Kind::ModelNotAvailable,
            Kind::ClientOutdated,
            Kind::ConversationPoisoned,
            Kind::BlobMissing,
            Kind::Protocol,
            Kind::LimitExceeded,
            Kind::DeadlineExceeded,
            Kind::Interrupted,
        ]);
        for kind in kinds {
            let error = Error::new(kind.clone(), "x");
            let advice = kind.advice().expect("advice");
            assert!(error.to_string().ends_with(&format!("; {advice}")), "{error}");
            assert_eq!(error.with_hint("closer").hint(), Some("closer"));
        }
        assert_eq!(Error::invalid("x").to_string(), "x (invalid_argument)");
    }

    #[test]
    fn what_may_have_had_effects_is_not_sent_again() {
        let cut = Error::network(NetworkFault::Cut, "cut");
        assert_eq!((cut.is_retryable(), cut.is_repeatable()), (true, true));
        let cut = cut.with_effects();
        assert_eq!((cut.is_retryable(), cut.is_repeatable()), (false, false));
    }

    #[test]
    fn an_error_is_one_pointer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }
}
