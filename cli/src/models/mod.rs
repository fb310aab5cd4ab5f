//! `models`: which models there are, and which id goes out for one.

mod args;
mod known;
mod map;
mod resolve;
mod table;

pub(crate) use args::{Args, Named};
pub(crate) use known::{Known, cache_dir};

use crate::failure::Failure;

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        None => table::run(args),
        Some(args::Command::Resolve(args)) => resolve::run(args),
        Some(args::Command::Map(args)) => map::run(args),
    }
}
