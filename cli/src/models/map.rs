//! `models map`: a list of ids as models. Pure: a file in, text out.

use std::ffi::OsString;

use agentwire::models::{Catalog, Policy, Roster, map_json};

use super::args::MapArgs;
use super::table::{print, table};
use crate::failure::Failure;
use crate::input::Source;

pub(super) fn run(args: &MapArgs) -> Result<(), Failure> {
    let text = Source::from(OsString::from(&args.catalog)).text()?;
    let policy = if args.reference { Policy::Reference } else { Policy::Current };
    if args.json {
        return print(&format!("{:#}\n", map_json(text.as_bytes(), policy)?));
    }
    let (catalog, _) = Catalog::from_json(text.as_bytes(), policy)?;
    print(&table(&Roster::new(catalog, policy), false))
}
