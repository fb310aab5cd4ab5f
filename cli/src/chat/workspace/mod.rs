//! `--workspace`: files and commands for the model, with a person who is asked, and a line on
//! stderr (or a JSON line) for everything that is done.

mod observe;
mod person;
mod tell;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use agentwire::exec::ExecHandler;
use agentwire::transport::RunBuilder;
use agentwire_workspace::{Access, Decision, Workspace};

use self::observe::Observed;
pub(crate) use self::person::Person;
use self::tell::Tell;
use super::Args;
use crate::failure::{Failure, Report};
use crate::interrupt;
use crate::output::Look;

/// The root as the service sees it, unless commands are allowed from the start: where the folder
/// is on this machine is nobody's business.
const SHOWN: &str = "/workspace";

/// What serves the runs of one `chat`: what was allowed "always" holds for all its attempts.
pub(super) struct Host(Arc<Observed>);

impl Host {
    /// The workspace that the arguments name, if they do.
    pub(super) fn new(args: &Args, look: Look) -> Result<Option<Self>, Failure> {
        let Some(folder) = &args.workspace else { return Ok(None) };
        Self::over(folder, &args.allow, args.report(), look).map(Some)
    }

    fn over(folder: &Path, allow: &[Access], report: Report, look: Look) -> Result<Self, Failure> {
        let free = Free::new(allow);
        let mut builder = Workspace::builder(folder);
        if !free.has(Access::Shell) {
            builder = builder.show_root_as(SHOWN);
        }
        for access in [Access::Read, Access::Write, Access::Shell] {
            if free.has(access) {
                builder = builder.allow(access);
            }
        }
        // Whoever can be asked is asked for the rest; where nobody can be, it is not permitted.
        if Person::is_there(look) {
            builder = builder.allow(Access::Write).allow(Access::Shell).approve(
                move |request| async move {
                    match free.has(request.access) {
                        true => Decision::Allow,
                        false => Person::of_process().decide(&request).await,
                    }
                },
            );
        }
        let workspace = builder.build().map_err(Failure::Usage)?;
        let observed = Arc::new(Observed::new(workspace, Tell::new(report, look)));
        let commands = observed.commands();
        // Commands are in sessions of their own: a Ctrl-C at the terminal does not reach them.
        // They may outlive the workspace, for as long as they are given to end.
        interrupt::before_exit(move || commands.kill());
        Ok(Self(observed))
    }

    /// Serves what the service asks of this run, and tells the model where its folder is.
    pub(super) fn attach(&self, run: RunBuilder) -> RunBuilder {
        let root = self.0.shown_root().to_owned();
        let run = run.configure(|request| {
            let about = Arc::make_mut(&mut request.context.about);
            about.environment.workspace_paths.push(root);
        });
        run.execs(Arc::clone(&self.0) as Arc<dyn ExecHandler>)
    }
}

/// The workspace that the arguments name, as a handler.
pub(crate) fn serve(args: &Args, look: Look) -> Result<Option<Arc<dyn ExecHandler>>, Failure> {
    Ok(Host::new(args, look)?.map(|host| host.0 as Arc<dyn ExecHandler>))
}

/// The workspace over `folder`, as a handler.
pub(crate) fn serve_folder(
    folder: &Path,
    allow: &[Access],
    report: Report,
    look: Look,
) -> Result<Arc<dyn ExecHandler>, Failure> {
    Ok(Host::over(folder, allow, report, look)?.0)
}

/// How many steps were begun in the workspace of this process.
pub(crate) fn steps() -> usize {
    tell::BEGUN.load(Ordering::Relaxed)
}

/// What is done without asking: reading, and what `--allow` names.
#[derive(Debug, Clone, Copy)]
struct Free {
    write: bool,
    shell: bool,
}

impl Free {
    fn new(allowed: &[Access]) -> Self {
        Self { write: allowed.contains(&Access::Write), shell: allowed.contains(&Access::Shell) }
    }

    const fn has(self, access: Access) -> bool {
        match access {
            Access::Read => true,
            Access::Write => self.write,
            Access::Shell => self.shell,
        }
    }
}
