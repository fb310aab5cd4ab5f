//! The sixteen status codes of the Connect protocol.

use std::fmt;
use std::str::FromStr;

/// A Connect status code. `Display` gives the name on the wire (`resource_exhausted`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// `canceled`: the caller gave up. One l, as on the wire.
    Canceled,
    /// `unknown`: no closer code, or one that is not in this list.
    Unknown,
    /// `invalid_argument`: the request is wrong whatever the state of the service.
    InvalidArgument,
    /// `deadline_exceeded`: the time allowed ran out.
    DeadlineExceeded,
    /// `not_found`: the thing named does not exist.
    NotFound,
    /// `already_exists`: the thing to create is there already.
    AlreadyExists,
    /// `permission_denied`: signed in, and still not allowed.
    PermissionDenied,
    /// `resource_exhausted`: a quota, a rate or a size limit was crossed.
    ResourceExhausted,
    /// `failed_precondition`: the service is not in the state that the call needs.
    FailedPrecondition,
    /// `aborted`: given up because of a conflict.
    Aborted,
    /// `out_of_range`: past the valid range.
    OutOfRange,
    /// `unimplemented`: the service has no such call.
    Unimplemented,
    /// `internal`: an invariant broke; also every breach of the protocol.
    Internal,
    /// `unavailable`: cannot be reached now.
    Unavailable,
    /// `data_loss`: data is gone for good.
    DataLoss,
    /// `unauthenticated`: no valid credentials.
    Unauthenticated,
}

impl Code {
    /// All codes, in the order of their gRPC numbers (`canceled` is 1).
    pub const ALL: [Self; 16] = [
        Self::Canceled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Canceled => "canceled",
            Self::Unknown => "unknown",
            Self::InvalidArgument => "invalid_argument",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out_of_range",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
            Self::DataLoss => "data_loss",
            Self::Unauthenticated => "unauthenticated",
        }
    }

    /// The number of the code in gRPC, 1 to 16.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The HTTP status that the Connect protocol gives a unary error of this code.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Canceled => 499,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::DeadlineExceeded => 504,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::PermissionDenied => 403,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::Unauthenticated => 401,
            Self::Unknown | Self::Internal | Self::DataLoss => 500,
        }
    }

    /// The code for an HTTP answer whose body names none, as the Connect protocol maps it.
    pub const fn from_http_status(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not one of the sixteen names; what came is not repeated, since it is the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Connect code")]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::ALL.into_iter().find(|code| code.as_str() == text).ok_or(UnknownCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_the_protocol() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.as_str().parse(), Ok(code));
            assert_eq!(usize::from(code.number()), index + 1);
        }
        assert_eq!("cancelled".parse::<Code>(), Err(UnknownCode));
    }
}
