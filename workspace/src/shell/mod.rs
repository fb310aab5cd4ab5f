//! Running commands: how they start, how their output is taken, and how they end for sure.

mod env;
#[cfg(unix)]
mod group;
#[cfg(unix)]
mod members;
#[cfg(unix)]
mod output;
#[cfg(unix)]
mod run;

pub(crate) use env::ShellOptions;
pub use env::{INHERITED, SET};
#[cfg(unix)]
pub(crate) use group::Running;
#[cfg(unix)]
pub(crate) use {
    output::{Collected, Collector, Output, Streamer},
    run::{End, Plan, run},
};
