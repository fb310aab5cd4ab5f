//! Why a model call failed, in a form that can be kept: in an outcome, in a log, in a workflow.

use std::time::Duration;

use agentwire::error::{Error, Kind};
use serde::{Deserialize, Serialize};

/// What a failure means for whoever decides what happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The provider could not serve now (network, overload, rate limit): the same request may
    /// succeed later, or with another model now.
    Retryable,
    /// The stream broke off in the middle of a turn: what came before it stands, and the turn can
    /// be continued. Never of a run that may have changed something: that is fatal.
    Interrupted,
    /// A person has to do something first: sign in, change a plan, update the program.
    Blocked,
    /// The caller cancelled.
    Cancelled,
    /// The same request fails again, or [could do something
    /// twice](agentwire::Error::is_repeatable): the message says what to look at.
    Fatal,
}

/// A failed model call: the facts of an [`Error`], without what cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[non_exhaustive]
pub struct Failure {
    /// What to do about it.
    pub class: FailureClass,
    /// [`Kind::as_str`] of the error.
    pub kind: String,
    /// The error in one line, without prompts and secrets.
    pub message: String,
    /// How long the provider asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure of this library's own making.
    pub fn new(class: FailureClass, kind: &Kind, message: impl Into<String>) -> Self {
        Self { class, kind: kind.as_str().into(), message: message.into(), retry_after_ms: None }
    }

    /// Whether another attempt may succeed without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self.class, FailureClass::Retryable | FailureClass::Interrupted)
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let class = match error.kind() {
            Kind::Cancelled => FailureClass::Cancelled,
            _ if !error.is_repeatable() => FailureClass::Fatal,
            Kind::Interrupted => FailureClass::Interrupted,
            Kind::Unauthenticated
            | Kind::PermissionDenied
            | Kind::PlanLimit
            | Kind::ClientOutdated => FailureClass::Blocked,
            _ if error.is_retryable() => FailureClass::Retryable,
            _ => FailureClass::Fatal,
        };
        let retry_after = match error.kind() {
            Kind::RateLimited { retry_after } | Kind::Overloaded { retry_after } => *retry_after,
            _ => None,
        };
        Self {
            class,
            kind: error.kind().as_str().into(),
            message: error.to_string(),
            retry_after_ms: retry_after.map(millis),
        }
    }
}

/// Whole milliseconds; five hundred million years is enough.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_from_kinds() {
        let class = |kind| Failure::from(&Error::new(kind, "x")).class;
        assert_eq!(class(Kind::Overloaded { retry_after: None }), FailureClass::Retryable);
        assert_eq!(class(Kind::Interrupted), FailureClass::Interrupted);
        assert_eq!(class(Kind::PlanLimit), FailureClass::Blocked);
        assert_eq!(class(Kind::Cancelled), FailureClass::Cancelled);
        assert_eq!(class(Kind::PayloadTooLarge), FailureClass::Fatal);
        for kind in [Kind::Interrupted, Kind::Overloaded { retry_after: None }, Kind::PlanLimit] {
            let failure = Failure::from(&Error::new(kind, "x").with_effects());
            assert_eq!((failure.class, failure.is_retryable()), (FailureClass::Fatal, false));
        }
        let asked = Kind::RateLimited { retry_after: Some(Duration::from_secs(2)) };
        let failure = Failure::from(&Error::new(asked, "slow down"));
        assert_eq!((failure.retry_after_ms, failure.is_retryable()), (Some(2_000), true));
    }
}
