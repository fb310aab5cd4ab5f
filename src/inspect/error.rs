//! Why bytes could not be shown, or JSON not be turned back.

use std::borrow::Cow;
use std::fmt;

use crate::error::Error;

/// What is wrong, and where: a byte offset in what was read, or a path in JSON.
///
/// The text names fields and rules, never a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectError {
    place: Place,
    reason: Cow<'static, str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Offset(u64),
    Path(String),
}

impl InspectError {
    /// Something is wrong with the byte at `offset`, or with what starts there.
    pub(super) fn bytes(offset: u64, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { place: Place::Offset(offset), reason: reason.into() }
    }

    /// Something is wrong with the JSON value at `path`.
    pub(super) fn json(path: impl Into<String>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { place: Place::Path(path.into()), reason: reason.into() }
    }

    /// The same, for bytes that start `base` bytes further back.
    pub(super) fn moved(mut self, base: u64) -> Self {
        if let Place::Offset(offset) = &mut self.place {
            *offset = offset.saturating_add(base);
        }
        self
    }

    /// Where the damage is in the bytes that were given: from the start of the message for a
    /// message, from the start of the stream for a stream. `None` for an error in JSON.
    pub fn offset(&self) -> Option<u64> {
        match self.place {
            Place::Offset(offset) => Some(offset),
            Place::Path(_) => None,
        }
    }

    /// Where the fault is in JSON, such as `message.run_request.action`; `None` for bytes. Keys
    /// of maps, which are content, are left out as `{}`.
    pub fn path(&self) -> Option<&str> {
        match &self.place {
            Place::Offset(_) => None,
            Place::Path(path) => Some(path),
        }
    }

    /// What is wrong, without the place.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for InspectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Offset(offset) => write!(f, "at byte {offset}: {}", self.reason),
            Place::Path(path) if path.is_empty() => write!(f, "in the JSON: {}", self.reason),
            Place::Path(path) => write!(f, "in the JSON at {path}: {}", self.reason),
        }
    }
}

impl std::error::Error for InspectError {}

impl From<InspectError> for Error {
    fn from(error: InspectError) -> Self {
        match error.place {
            Place::Offset(_) => Self::protocol(error.to_string()),
            Place::Path(_) => Self::invalid(error.to_string()),
        }
    }
}

/// Why a message has no JSON.
#[derive(Debug)]
pub(super) enum Fault {
    /// Its bytes are no protobuf; around it all may be well.
    Malformed(InspectError),
    /// A limit is crossed; that ends it all.
    Limit(InspectError),
}

impl Fault {
    /// The same, for bytes that start `base` bytes further back.
    pub(super) fn moved(self, base: u64) -> Self {
        match self {
            Self::Malformed(error) => Self::Malformed(error.moved(base)),
            Self::Limit(error) => Self::Limit(error.moved(base)),
        }
    }
}

impl From<Fault> for InspectError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(error) | Fault::Limit(error) => error,
        }
    }
}
