//! Where sessions are kept, and what a failure of one means.

use std::path::PathBuf;

use agentwire::Error;
use agentwire::error::{Blame, Kind};
use agentwire_agent::session::{SessionError, Store};

use crate::failure::Failure;

/// The variable that names the folder of sessions.
const FOLDER: &str = "AGENTWIRE_SESSIONS";

/// The sessions of this user: the folder of the variable, else one where the system keeps state.
pub(super) fn store() -> Result<Store, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set(FOLDER) {
        return Ok(Store::new(PathBuf::from(folder)));
    }
    let state = set("XDG_STATE_HOME")
        .or_else(|| set("LOCALAPPDATA"))
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local").join("state")));
    match state {
        Some(state) => Ok(Store::new(state.join("agentwire").join("sessions"))),
        None => Err(Failure::usage(format!(
            "there is no folder to keep sessions in; name one in the variable {FOLDER}"
        ))),
    }
}

/// What is wrong with a name is the caller's; the rest is this machine's.
pub(super) fn failure(error: &SessionError) -> Failure {
    let text = error.to_string();
    match error {
        SessionError::Missing(_)
        | SessionError::Exists(_)
        | SessionError::Name(_)
        | SessionError::NoRecord(_) => Failure::usage(text),
        _ => Failure::Failed(Error::new(Kind::Rejected, text).with_blame(Blame::Local)),
    }
}
