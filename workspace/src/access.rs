//! What a workspace may do: three permissions, and nothing but reading by default.

use std::fmt;
use std::str::FromStr;

/// A permission of a workspace. Reading is given from the start, the others are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read, list and search files under the root.
    Read,
    /// Write, edit and delete files under the root.
    Write,
    /// Run shell commands. They start inside the root but are **not** held there: a command can do
    /// what the user who runs this program can do.
    Shell,
}

impl Access {
    /// The name in lower case, as `--allow` takes it and [`FromStr`] reads it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Shell => "shell",
        }
    }

    /// What the model is told when the permission is missing: which one, and who can give it.
    pub(crate) fn missing(self) -> String {
        let (what, instead) = match self {
            Self::Read => ("reading", "work with what is in the conversation"),
            Self::Write => ("writing", "show the change as text instead"),
            Self::Shell => ("running commands", "use the read, list and search tools instead"),
        };
        format!(
            "{what} is not permitted in this workspace: the permission `{self}` is missing. \
             The person can grant it by starting with `--allow {self}` (in code: \
             `allow(Access::{self:?})`); without it, {instead}"
        )
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text was none of `read`, `write`, `shell`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownAccess;

impl fmt::Display for UnknownAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a permission: expected `read`, `write` or `shell`")
    }
}

impl std::error::Error for UnknownAccess {}

impl FromStr for Access {
    type Err = UnknownAccess;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Read, Self::Write, Self::Shell]
            .into_iter()
            .find(|access| access.as_str() == text)
            .ok_or(UnknownAccess)
    }
}

/// The permissions of one workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    read: bool,
    write: bool,
    shell: bool,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { read: true, write: false, shell: false }
    }
}

impl Allowed {
    pub(crate) fn set(&mut self, access: Access, on: bool) {
        match access {
            Access::Read => self.read = on,
            Access::Write => self.write = on,
            Access::Shell => self.shell = on,
        }
    }

    pub(crate) fn has(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
            Access::Shell => self.shell,
        }
    }
}
