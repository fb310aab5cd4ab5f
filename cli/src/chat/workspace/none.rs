//! Where there is no workspace: the options are not there either.

use agentwire::transport::RunBuilder;

use super::Args;
use crate::failure::Failure;
use crate::output::Look;

/// Nothing is served.
pub(super) enum Host {}

impl Host {
    pub(super) fn new(_: &Args, _: Look) -> Result<Option<Self>, Failure> {
        Ok(None)
    }

    pub(super) fn attach(&self, _: RunBuilder) -> RunBuilder {
        match *self {}
    }
}
