//! The runtime that a command's I/O runs on.

use std::future::Future;
use std::time::Duration;

use agentwire::Error;
use agentwire::error::{Blame, Kind};

use crate::failure::Failure;

/// How long tasks that are still at work have when a command is done: a host name that is being
/// looked up cannot be told to stop.
const LEFTOVERS: Duration = Duration::from_millis(200);

/// Runs `future` to its end.
///
/// Two threads: while one is held by a slow reader of stdout, the other goes on sending heartbeats.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| {
            let message = format!("cannot start the runtime: {error}");
            Failure::Failed(Error::new(Kind::Rejected, message).with_blame(Blame::Local))
        })?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(LEFTOVERS);
    result
}
