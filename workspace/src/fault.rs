//! Why a request came to nothing, before it is put into the case's own words.

use std::fmt;
use std::io;

use crate::Access;

/// One failure. `Display` is what the model reads: it names no path above the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The path, or a link on it, leads out of the root.
    Outside,
    NotFound,
    /// A folder on the way is none.
    NotADirectory,
    /// The path names something of another kind than the request needs.
    Kind {
        is: &'static str,
        wanted: &'static str,
    },
    /// The system does not let this user do it.
    Denied,
    /// The file or its file system is marked read-only.
    ReadOnly,
    NoSpace,
    Busy,
    /// It was changed by somebody else meanwhile.
    Changed,
    TimedOut,
    /// The workspace lacks the permission.
    Missing(Access),
    /// A person, or a rule of the workspace, said no.
    Refused(String),
    /// The file is of a kind that this request cannot serve.
    Unfit(String),
    /// The request cannot be served as it is.
    Invalid(String),
    /// Anything else, in the system's words.
    Failed(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str(
                "this leads out of the workspace; only paths under its root can be used",
            ),
            Self::NotFound => f.write_str("no such file or folder"),
            Self::NotADirectory => f.write_str("a part of the path is not a folder"),
            Self::Kind { is, wanted } => write!(f, "this is {is}, not {wanted}"),
            Self::Denied => f.write_str("the system does not permit it"),
            Self::ReadOnly => f.write_str("it is marked read-only"),
            Self::NoSpace => f.write_str("there is no room left on the device"),
            Self::Busy => f.write_str("it is in use"),
            Self::Changed => {
                f.write_str("somebody else changed it meanwhile; look at it and try again")
            }
            Self::TimedOut => f.write_str("it took longer than the time limit"),
            Self::Missing(access) => f.write_str(&access.missing()),
            Self::Refused(text) | Self::Unfit(text) | Self::Invalid(text) | Self::Failed(text) => {
                f.write_str(text)
            }
        }
    }
}

impl From<io::Error> for Fault {
    /// By kind only: the text of an error could name a path.
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound => Self::NotFound,
            Kind::PermissionDenied => Self::Denied,
            Kind::ReadOnlyFilesystem => Self::ReadOnly,
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Self::NoSpace,
            Kind::ResourceBusy | Kind::ExecutableFileBusy => Self::Busy,
            Kind::NotADirectory => Self::NotADirectory,
            Kind::IsADirectory => Self::Kind { is: "a folder", wanted: "a file" },
            Kind::InvalidFilename => Self::Invalid("the name is too long or not valid".into()),
            _ if is_link(&error) => Self::Changed,
            kind => Self::Failed(kind.to_string()),
        }
    }
}

/// Whether a link is where none was when the path was looked up: links are not followed then.
fn is_link(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    #[cfg(not(unix))]
    return error.kind() == io::ErrorKind::Other;
}
