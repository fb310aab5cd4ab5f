//! `workflow import`: runs of the reference, to look at.

use std::io::Write as _;
use std::path::PathBuf;

use agentwire_workflow::clock::{Entropy as _, System};
use agentwire_workflow::import;
use agentwire_workflow::store::{Store as _, current_owner};

use super::kept::Runs;
use super::{failed, now};
use crate::failure::Failure;
use crate::input::Source;
use crate::output::{self, printable};

#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// The state file (version 1); it is read and left as it is
    file: PathBuf,
}

pub(super) fn import(args: &Import, runs: &Runs) -> Result<(), Failure> {
    let text = Source::File(args.file.clone()).text()?;
    let found = import::read(&text)
        .map_err(|error| Failure::usage(format!("{}: {error}", args.file.display())))?;
    let store = runs.open()?;
    let mut out = std::io::stdout().lock();
    for mut run in found {
        let id = run.root.id.clone();
        let shown = printable(&id).into_owned();
        let line = if store.root(&id).map_err(failed)?.is_some() {
            format!("run {shown} is here already; it was left as it is")
        } else {
            // The days for which it is kept are counted from now.
            run.updated = now();
            let count = run.records.len();
            run.copy_into(&*store, &current_owner(System.uuid())).map_err(failed)?;
            format!("run {shown}: {count} records; `agentwire workflow show {shown}` shows them")
        };
        writeln!(out, "{line}").map_err(output::failed)?;
    }
    Ok(())
}
