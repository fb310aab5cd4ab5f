//! Files, search and shell under one root directory, as an exec handler for [`agentwire`].
//!
//! The service asks a client to read, list, search, write, edit and delete files and to run
//! commands. A [`Workspace`] answers: only what was allowed, only under its root, each answer
//! bounded in size and time.
//!
//! ```
//! use agentwire_workspace::{Access, Decision, Workspace};
//!
//! # fn main() -> agentwire::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let workspace = Workspace::builder(folder.path())
//!     .allow(Access::Write)
//!     .approve(|request| async move {
//!         match request.access {
//!             Access::Read => Decision::AllowForRun,
//!             // Here a program asks a person, with `request.description`.
//!             _ => Decision::Deny,
//!         }
//!     })
//!     .build()?;
//! let handler: std::sync::Arc<dyn agentwire::exec::ExecHandler> = std::sync::Arc::new(workspace);
//! # Ok(())
//! # }
//! ```
//!
//! # What is held, and what is not
//!
//! - **Files.** No path leads out of the root: not `..`, not an absolute path, not a link, and not
//!   a link that is put there while we work. Links inside the root are followed. Permissions of the
//!   system hold as ever. A hard link to a file outside cannot be told from a file; writing makes a
//!   new file, so what is outside keeps its content. What lies in a folder named `.git` is never
//!   written: hooks and settings there are commands ([`Builder::protect`]).
//! - **Shell.** A command is *not* held under the root. It starts there, and then can do what the
//!   user can do. Allow it where that is meant, or where the whole program is in a container. When
//!   it ends, is aborted or takes too long, all that it started ends with it: on Linux also what
//!   left its process group or cleared its environment, unless it did both and its parent had ended
//!   before; elsewhere the process group.
//! - **Approval.** With a callback, everything is asked, reading too; without one, everything that
//!   is allowed is done. What a person was shown is what is done: the path is the one behind all
//!   links, an edited file must still be as it was, and where a new file was announced there must
//!   still be none. What would tell the content of a file (why an edit does not fit it, the text of
//!   what was deleted) counts as reading. A flag of the service that says a command
//!   needs no approval (`skip_approval`) is not believed.
//!
//! # Privacy
//!
//! No path above the root is told to the service: it sees the root as `/workspace`. When
//! [`Access::Shell`] is allowed the root is shown as it is: a command can say `pwd` anyway, and the
//! model must write paths that the shell understands. [`Builder::show_root_as`] and
//! [`Builder::show_real_root`] decide otherwise. Paths that the service sends are understood under
//! the shown name, under the real one, and relative to the root. Commands get few variables of the
//! environment ([`INHERITED`], [`SET`]).
//!
//! # Answers
//!
//! | exec | served as |
//! |---|---|
//! | `read_args`, `pi_read_args` | text, or whole small binary files as `data`; offset counts from 1, or from the end if it is negative |
//! | `ls_args`, `pi_ls_args` | a tree without what is ignored; the first names in order, and counts of all |
//! | `grep_args`, `pi_grep_args` | lines, files or counts; with an empty pattern the files that the glob names |
//! | `pi_find_args` | paths by a glob |
//! | `write_args`, `pi_write_args` | whole files, by rename |
//! | `pi_edit_args` | replacements of text that is there exactly once |
//! | `delete_args` | one file or link |
//! | `shell_args`, `mini_swe_agent_bash_args`, `pi_bash_args`, `shell_stream_args` | a command, without input, ended with all it started |
//! | `background_shell_spawn_args`, `redacted_read_args` | refused: see [`Workspace`] |
//!
//! What is too long keeps its head and its tail, with a line that says how much is missing, and the
//! flags of the answer say so too. See [`Limits`].
//!
//! # Where it runs
//!
//! On Unix. The names that other systems understand as the same file, and how their processes end,
//! would need a review of their own.
#![forbid(unsafe_code)]

#[cfg(not(unix))]
compile_error!("agentwire-workspace runs on Unix only");

mod access;
mod approval;
mod builder;
mod clip;
mod command;
mod diff;
mod edit;
mod fault;
mod grep;
mod handler;
mod job;
mod limits;
mod ls;
mod pi;
mod read;
mod root;
mod serve;
mod shell;
mod tools;
mod walk;
mod write;

pub use access::{Access, UnknownAccess};
pub use approval::{ApprovalRequest, Decision};
pub use builder::Builder;
pub use limits::Limits;
pub use shell::{INHERITED, SET};

/// The commands of a workspace that have not ended yet. Keeps nothing of the workspace alive.
#[derive(Debug, Clone)]
pub struct Commands {
    #[cfg(unix)]
    running: shell::Running,
}

impl Commands {
    /// Ends all of them at once, without the time to end by themselves: for a program that is about
    /// to exit without dropping anything.
    pub fn kill(&self) {
        #[cfg(unix)]
        self.running.kill();
    }
}

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Semaphore;

use access::Allowed;
use approval::Desk;
use job::Jobs;
use root::Root;
use shell::ShellOptions;

/// An [`ExecHandler`](agentwire::exec::ExecHandler) for the files under one root directory.
///
/// It works on the tokio runtime that polls it, with time and I/O enabled. Its futures can be
/// dropped at any time: work on files stops, a command is ended with all it started, and a file is
/// either as it was or as it was to be.
///
/// Two cases are refused, with the reason. `background_shell_spawn_args`, and commands that ask to
/// be left in the background: nobody would end them, or read what they say. `redacted_read_args`:
/// nothing here can tell what is a secret in a file, and an answer would claim that none is left.
#[derive(Debug)]
pub struct Workspace {
    shared: Arc<Shared>,
    desk: Desk,
}

/// What all runs of a workspace have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    root: Root,
    allowed: Allowed,
    limits: Limits,
    /// Names of folders and files that are not written, nor anything in them.
    protected: Vec<String>,
    shell: ShellOptions,
    shells: Semaphore,
    jobs: Jobs,
    /// One change at a time, so that two edits of a file do not lose one.
    changing: std::sync::Mutex<()>,
}

impl Workspace {
    /// A workspace under `root`, which must be a folder. Read-only unless more is allowed.
    pub fn builder(root: impl AsRef<Path>) -> Builder {
        Builder::new(root.as_ref())
    }

    /// The same workspace for another run: what a person allowed "for this run" is asked again.
    #[must_use]
    pub fn new_run(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), desk: self.desk.fresh() }
    }

    /// The commands that run in this workspace, or are being ended: also after it is dropped.
    pub fn commands(&self) -> Commands {
        Commands {
            #[cfg(unix)]
            running: self.shared.shell.running.clone(),
        }
    }

    /// The root as the service sees it.
    pub fn shown_root(&self) -> &str {
        self.shared.root.shown()
    }

    /// Whether it has a permission.
    pub fn allows(&self, access: Access) -> bool {
        self.shared.allowed.has(access)
    }
}
