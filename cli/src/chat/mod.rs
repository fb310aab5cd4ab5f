//! `chat`: stream an answer to stdout.

mod args;
mod drive;
mod line;
mod print;
mod request;
mod words;
#[cfg(unix)]
mod workspace;
#[cfg(not(unix))]
#[path = "workspace/none.rs"]
mod workspace;

pub(crate) use args::Args;
#[cfg(unix)]
pub(crate) use args::access;
pub(crate) use line::put_error;
pub(crate) use print::Printer;
pub(crate) use request::{prompt, read_context, system};
pub(crate) use words::notice as notice_words;
#[cfg(unix)]
pub(crate) use workspace::serve_folder as workspace_over;
pub(crate) use workspace::{Person, serve as workspace, steps as workspace_steps};

use crate::failure::Failure;
use crate::output::Look;
use crate::runtime;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let look = Look::detect();
    let context = request::build(args)?;
    runtime::block_on(drive::chat(args, context, look))
}
