//! Setting a workspace up.

use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentwire::Error;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tokio::sync::Semaphore;

use crate::access::Allowed;
use crate::approval::{Approver, Desk};
use crate::job::Jobs;
use crate::root::Root;
use crate::shell::ShellOptions;
use crate::{Access, ApprovalRequest, Decision, Limits, Shared, Workspace};

/// The root as the service sees it, where nothing else was asked for.
const SHOWN: &str = "/workspace";
/// Settings and hooks of git are commands.
const PROTECTED: &str = ".git";

/// Settings of a [`Workspace`]. Made by [`Workspace::builder`].
#[must_use]
pub struct Builder {
    root: PathBuf,
    allowed: Allowed,
    approver: Option<Approver>,
    limits: Limits,
    shown: Shown,
    protected: Vec<String>,
    shell: ShellOptions,
}

enum Shown {
    /// Virtual, unless commands are allowed.
    Default,
    Real,
    As(String),
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("allowed", &self.allowed)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Builder {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            allowed: Allowed::default(),
            approver: None,
            limits: Limits::default(),
            shown: Shown::Default,
            protected: vec![PROTECTED.to_owned()],
            shell: ShellOptions::default(),
        }
    }

    /// Gives a permission. [`Access::Read`] is given from the start.
    pub fn allow(mut self, access: Access) -> Self {
        self.allowed.set(access, true);
        self
    }

    /// Takes a permission away. Without [`Access::Read`] files can be written but not edited.
    pub fn forbid(mut self, access: Access) -> Self {
        self.allowed.set(access, false);
        self
    }

    /// Asks before everything that is allowed: reads too. One question at a time; the exec waits
    /// for the answer, with heartbeats, as long as the run gives it.
    ///
    /// Without this, what is allowed is done without asking.
    pub fn approve<F, A>(mut self, ask: F) -> Self
    where
        F: Fn(ApprovalRequest) -> A + Send + Sync + 'static,
        A: Future<Output = Decision> + Send + 'static,
    {
        self.approver = Some(Arc::new(move |request| Box::pin(ask(request))));
        self
    }

    /// Other limits than the defaults.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What the service sees as the root: an absolute path that need not exist. With
    /// [`Access::Shell`] it should, or the commands that a model writes will not find it.
    pub fn show_root_as(mut self, path: impl Into<String>) -> Self {
        self.shown = Shown::As(path.into());
        self
    }

    /// The service sees the root where it is on this machine: that can tell the name of a user.
    pub fn show_real_root(mut self) -> Self {
        self.shown = Shown::Real;
        self
    }

    /// Names of files and folders that are never written, edited or deleted, nor anything in them,
    /// wherever they are and in whatever case; instead of `.git`.
    pub fn protect<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.protected = names.into_iter().map(Into::into).collect();
        self
    }

    /// The shell, started with `-c` and the command. Else the first there is of `bash` and `sh`.
    pub fn shell(mut self, program: impl Into<PathBuf>) -> Self {
        self.shell.program = Some(program.into());
        self
    }

    /// Hands a variable of our environment on to commands, besides [`INHERITED`](crate::INHERITED).
    pub fn inherit_env(mut self, name: impl Into<OsString>) -> Self {
        if let Some(names) = &mut self.shell.inherit {
            names.push(name.into());
        }
        self
    }

    /// Hands our whole environment on to commands, with every token in it.
    pub fn inherit_all_env(mut self) -> Self {
        self.shell.inherit = None;
        self
    }

    /// Sets a variable for commands; stronger than [`SET`](crate::SET) and what is inherited.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.shell.set.insert(name.into(), value.into());
        self
    }

    /// Opens the root.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` when the root is not a folder that can be opened, or its shown name is not
    /// an absolute path.
    pub fn build(self) -> agentwire::Result<Workspace> {
        let open = || {
            let given = std::path::absolute(&self.root)?;
            let real = given.canonicalize()?;
            let dir = Dir::open_ambient_dir(&real, ambient_authority())?;
            Ok((dir, real, given))
        };
        let (dir, real, given) = open().map_err(|error: std::io::Error| {
            Error::invalid(format!("the root of the workspace cannot be opened: {error}"))
                .with_hint("name a folder that exists and that you may read")
        })?;
        let shown = match self.shown {
            Shown::As(shown) => shown,
            Shown::Default if !self.allowed.has(Access::Shell) => SHOWN.to_owned(),
            Shown::Default | Shown::Real => given.to_string_lossy().into_owned(),
        };
        if !shown.starts_with('/') && !Path::new(&shown).is_absolute() {
            return Err(Error::invalid("the shown root of a workspace is not an absolute path"));
        }
        let shown = match shown.trim_end_matches('/') {
            "" => "/".to_owned(),
            shown => shown.to_owned(),
        };
        let shared = Shared {
            root: Root::new(dir, real, given, shown),
            allowed: self.allowed,
            protected: self.protected,
            shell: self.shell,
            shells: Semaphore::new(self.limits.shells.max(1)),
            jobs: Jobs::new(self.limits.file_jobs, self.limits.file_time),
            limits: self.limits,
            changing: std::sync::Mutex::default(),
        };
        Ok(Workspace { shared: Arc::new(shared), desk: Desk::new(self.approver) })
    }
}
