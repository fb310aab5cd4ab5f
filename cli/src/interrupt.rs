//! Ctrl-C: the first asks for a proper end, the second ends at once.

use std::sync::OnceLock;

use crate::failure::{Failure, exit};

/// What is done before the process ends without ceremony.
static LAST: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Has this done at the second Ctrl-C, which runs no destructor. The first to ask is heard.
#[cfg(unix)]
pub(crate) fn before_exit(last: impl Fn() + Send + Sync + 'static) {
    let _taken = LAST.set(Box::new(last));
}

/// Waits for Ctrl-C (or, on Unix, for the `TERM` signal, which asks for the same).
///
/// From the first signal on, the next one ends the process with exit code 130 wherever it is: a
/// proper end that hangs must not hold a person.
pub(crate) struct Interrupt(tokio::sync::oneshot::Receiver<()>);

impl Interrupt {
    /// Takes the signals over from the system; call it inside the runtime.
    pub(crate) fn install() -> Result<Self, Failure> {
        let mut signals = Signals::new().map_err(|error| {
            Failure::Failed(
                agentwire::Error::new(
                    agentwire::error::Kind::Rejected,
                    format!("cannot listen for Ctrl-C: {error}"),
                )
                .with_blame(agentwire::error::Blame::Local),
            )
        })?;
        let (first, receiver) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            signals.next().await;
            // The command may be past its last wait; then only the second signal matters.
            let _ended = first.send(());
            signals.next().await;
            if let Some(last) = LAST.get() {
                last();
            }
            std::process::exit(i32::from(exit::INTERRUPTED));
        });
        Ok(Self(receiver))
    }

    /// Ends at the first signal; never when there is none. Not to be called again after that.
    pub(crate) async fn wait(&mut self) {
        if (&mut self.0).await.is_err() {
            // The task that holds the other end lives as long as the runtime.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // Without a handler there is nothing to wait for: Ctrl-C then ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
