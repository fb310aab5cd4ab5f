//! Why a run did not go on, and what follows from that.

use std::time::Duration;

use agentwire::error::Kind;
use serde::{Deserialize, Serialize};

/// What happened to a stage or a run, in the reference's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// Nobody is signed in, or the sign-in has expired.
    LoginRequired,
    /// No key was given.
    MissingApiKey,
    /// Too many requests.
    RateLimited,
    /// The plan or its quota is used up.
    QuotaLimited,
    /// The provider cannot be reached or cannot serve.
    ProviderUnavailable,
    /// The key was refused.
    InvalidApiKey,
    /// The account may not do this.
    ForbiddenConfig,
    /// There is no such model for this account.
    UnknownModel,
    /// Another process has the conversation open (the reference has no word for it).
    SessionInUse,
    /// Somebody cancelled.
    Cancelled,
    /// Anything else.
    Unknown,
}

/// The family of a [`Code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Family {
    /// Credentials.
    Auth,
    /// Rates and quotas.
    RateLimit,
    /// The provider or its configuration.
    Provider,
    /// Cancelled.
    Cancelled,
    /// Anything else.
    Unknown,
}

/// What becomes of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Disposition {
    /// It waits and can go on under the same id.
    ActiveBlocked,
    /// It failed; it can be resumed.
    TerminalFailed,
    /// It is over and cannot be resumed.
    TerminalKilled,
}

impl Code {
    /// Its family.
    pub const fn family(self) -> Family {
        match self {
            Self::LoginRequired | Self::MissingApiKey | Self::InvalidApiKey => Family::Auth,
            Self::RateLimited | Self::QuotaLimited => Family::RateLimit,
            Self::ProviderUnavailable | Self::ForbiddenConfig | Self::UnknownModel => {
                Family::Provider
            }
            Self::Cancelled => Family::Cancelled,
            Self::SessionInUse | Self::Unknown => Family::Unknown,
        }
    }

    /// What becomes of a run that ends so.
    pub const fn disposition(self) -> Disposition {
        match self {
            Self::LoginRequired
            | Self::MissingApiKey
            | Self::RateLimited
            | Self::QuotaLimited
            | Self::ProviderUnavailable
            | Self::SessionInUse => Disposition::ActiveBlocked,
            Self::InvalidApiKey | Self::ForbiddenConfig | Self::UnknownModel | Self::Cancelled => {
                Disposition::TerminalKilled
            }
            Self::Unknown => Disposition::TerminalFailed,
        }
    }

    /// Whether the run can be resumed.
    pub const fn is_resumable(self) -> bool {
        !matches!(self.disposition(), Disposition::TerminalKilled)
    }
}

/// A failure as it is recorded: no prompt, no secret, one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub code: Code,
    /// One line for people.
    pub message: String,
    /// How long the provider asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure of this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// The same, with the wait that the provider asked for.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after_ms = wait.map(millis);
        self
    }

    /// What becomes of a run that ends with several failures at once: a kill beats a failure, a
    /// failure beats a block, and only when all can be waited for the run waits. The longest wait
    /// is the one that counts.
    pub fn worst(failures: &[Self]) -> Option<Self> {
        let worst =
            failures.iter().max_by_key(|one| (one.code.disposition(), one.retry_after_ms))?;
        Some(worst.clone())
    }
}

impl From<&agentwire::Error> for Failure {
    /// The transport knows best: its kinds are evidence, words in a message are not.
    fn from(error: &agentwire::Error) -> Self {
        let (code, wait) = match error.kind() {
            Kind::Unauthenticated => (Code::LoginRequired, None),
            Kind::PermissionDenied => (Code::ForbiddenConfig, None),
            Kind::PlanLimit => (Code::QuotaLimited, None),
            Kind::RateLimited { retry_after } => (Code::RateLimited, *retry_after),
            Kind::Overloaded { retry_after } => (Code::ProviderUnavailable, *retry_after),
            Kind::Network(_) => (Code::ProviderUnavailable, None),
            Kind::ModelNotAvailable => (Code::UnknownModel, None),
            Kind::Cancelled => (Code::Cancelled, None),
            _ => (Code::Unknown, None),
        };
        Self::new(code, error.message()).retry_after(wait)
    }
}

/// Whole milliseconds; what does not fit becomes the largest number.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_disposition() {
        use Disposition::{ActiveBlocked, TerminalFailed, TerminalKilled};
        for (code, family, disposition, resumable) in [
            (Code::LoginRequired, Family::Auth, ActiveBlocked, true),
            (Code::MissingApiKey, Family::Auth, ActiveBlocked, true),
            (Code::RateLimited, Family::RateLimit, ActiveBlocked, true),
            (Code::QuotaLimited, Family::RateLimit, ActiveBlocked, true),
            (Code::ProviderUnavailable, Family::Provider, ActiveBlocked, true),
            (Code::InvalidApiKey, Family::Auth, TerminalKilled, false),
            (Code::ForbiddenConfig, Family::Provider, TerminalKilled, false),
            (Code::UnknownModel, Family::Provider, TerminalKilled, false),
            (Code::SessionInUse, Family::Unknown, ActiveBlocked, true),
            (Code::Cancelled, Family::Cancelled, TerminalKilled, false),
            (Code::Unknown, Family::Unknown, TerminalFailed, true),
        ] {
            assert_eq!(code.family(), family, "{code:?}");
            assert_eq!(code.disposition(), disposition, "{code:?}");
            assert_eq!(code.is_resumable(), resumable, "{code:?}");
        }
    }

    #[test]
    fn the_transport_s_kinds_are_the_evidence() {
        let wait = Some(Duration::from_secs(30));
        for (kind, code, retry_after_ms) in [
            (Kind::RateLimited { retry_after: wait }, Code::RateLimited, Some(30_000)),
            (Kind::Overloaded { retry_after: None }, Code::ProviderUnavailable, None),
            (Kind::Unauthenticated, Code::LoginRequired, None),
            (Kind::PermissionDenied, Code::ForbiddenConfig, None),
            (Kind::PlanLimit, Code::QuotaLimited, None),
            (Kind::ModelNotAvailable, Code::UnknownModel, None),
            (Kind::Cancelled, Code::Cancelled, None),
            (Kind::Protocol, Code::Unknown, None),
        ] {
            // Words that name another class do not change it.
            let error = agentwire::Error::new(kind, "log information, OAuth metadata, 401");
            let failure = Failure::from(&error);
            assert_eq!((failure.code, failure.retry_after_ms), (code, retry_after_ms));
        }
    }

    #[test]
    fn the_worst_of_several_decides() {
        let limited =
            |ms| Failure::new(Code::RateLimited, "").retry_after(Some(Duration::from_millis(ms)));
        let (failed, killed) =
            (Failure::new(Code::Unknown, ""), Failure::new(Code::InvalidApiKey, ""));
        let code = |list: &[Failure]| Failure::worst(list).map(|worst| worst.code);
        assert_eq!(code(&[limited(1), failed.clone()]), Some(Code::Unknown));
        assert_eq!(code(&[limited(1), killed, failed]), Some(Code::InvalidApiKey));
        assert_eq!(Failure::worst(&[limited(5), limited(9)]), Some(limited(9)));
        assert_eq!(Failure::worst(&[]), None);
    }
}
