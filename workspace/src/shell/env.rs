//! What a command is started with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Variables that are handed on when they are set. They say who the user is, where programs are,
/// and how text is written; no tokens, keys or agents' sockets.
pub const INHERITED: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LANGUAGE",
];

/// Variables that are set, because nobody is there to answer or to turn pages.
pub const SET: [(&str, &str); 4] =
    [("TERM", "dumb"), ("PAGER", "cat"), ("GIT_PAGER", "cat"), ("GIT_TERMINAL_PROMPT", "0")];

/// Shells that are tried, in this order.
const SHELLS: [&str; 4] = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh"];

/// How commands are started.
#[derive(Clone)]
pub(crate) struct ShellOptions {
    pub(crate) program: Option<PathBuf>,
    /// Names of further variables that are handed on; `None`: all of them.
    pub(crate) inherit: Option<Vec<OsString>>,
    pub(crate) set: BTreeMap<OsString, OsString>,
    #[cfg(unix)]
    pub(crate) running: super::group::Running,
}

impl fmt::Debug for ShellOptions {
    /// Names of variables; a value can be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShellOptions")
            .field("inherit", &self.inherit)
            .field("set", &self.set.keys())
            .finish_non_exhaustive()
    }
}

impl Default for ShellOptions {
    fn default() -> Self {
        Self {
            program: None,
            inherit: Some(Vec::new()),
            set: BTreeMap::new(),
            #[cfg(unix)]
            running: super::group::Running::default(),
        }
    }
}

impl ShellOptions {
    pub(crate) fn program(&self) -> &Path {
        let found = || SHELLS.iter().map(Path::new).find(|shell| shell.exists());
        self.program.as_deref().or_else(found).unwrap_or_else(|| Path::new("/bin/sh"))
    }

    /// All variables of a command.
    pub(crate) fn variables(&self) -> BTreeMap<OsString, OsString> {
        let mut variables: BTreeMap<_, _> = match &self.inherit {
            None => std::env::vars_os().collect(),
            Some(more) => INHERITED
                .iter()
                .map(OsString::from)
                .chain(more.iter().cloned())
                .filter_map(|name| std::env::var_os(&name).map(|value| (name, value)))
                .collect(),
        };
        variables.extend(SET.iter().map(|(name, value)| (name.into(), value.into())));
        variables.extend(self.set.clone());
        variables
    }
}
