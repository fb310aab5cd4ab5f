//! `agent`: work on a task until it is done; `sessions`: what is kept of it.

mod args;
mod drive;
mod print;
mod sessions;
mod store;

pub(crate) use args::Args;
pub(crate) use sessions::Args as SessionsArgs;

use crate::chat;
use crate::failure::Failure;
use crate::output::Look;
use crate::runtime;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let look = Look::detect();
    if args.chat.has_context() {
        return Err(Failure::usage("`agent` takes no --context; name a --session instead"));
    }
    let prompt = if args.go_on { None } else { Some(chat::prompt(&args.chat)?) };
    runtime::block_on(drive::agent(args, prompt, look))
}

pub(crate) fn sessions(args: &SessionsArgs) -> Result<(), Failure> {
    sessions::run(args)
}
