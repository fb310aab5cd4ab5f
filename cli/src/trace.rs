//! `--trace`: what connections and calls do, as JSON lines in a file.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::Failure;

/// Begins to trace into `path`; what was in it is gone. Only what this project itself says is
/// written: ids, sizes, times and codes, never content or the token.
pub(crate) fn begin(path: &Path) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let shown = path.display().to_string().escape_debug().to_string();
    let file = options
        .open(path)
        .map_err(|error| Failure::usage(format!("--trace {shown} cannot be written: {error}")))?;
    let lines = tracing_subscriber::fmt::layer().json().with_writer(Mutex::new(file));
    let ours = Targets::new().with_target("agentwire", LevelFilter::DEBUG);
    let registry = tracing_subscriber::registry().with(lines).with(ours);
    // Refused only when something in this process traces already, which nothing does.
    let _ = registry.try_init();
    Ok(())
}
