//! Work on files runs on threads of its own, and stops when nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::fault::Fault;

const GO: u8 = 0;
const TIME_UP: u8 = 1;
const DROPPED: u8 = 2;

/// How long work may take to notice that its time is up before it is left behind: longer than any
/// single read from a disk that answers at all. No option: it is on top of the time that is one.
const NOTICE: Duration = Duration::from_secs(2);

/// Tells work to stop. The work looks at it often enough to stop within milliseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop(Arc<AtomicU8>);

impl Stop {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != GO
    }

    /// For work that is worth nothing unless it is finished.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if self.is_set() { Err(Fault::TimedOut) } else { Ok(()) }
    }

    #[cfg(test)]
    pub(crate) fn set_for_test(&self) {
        self.set(DROPPED);
    }

    fn set(&self, to: u8) {
        self.0.store(to, Ordering::Relaxed);
    }
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.set(DROPPED);
    }
}

/// The threads of one workspace.
#[derive(Debug)]
pub(crate) struct Jobs {
    places: Arc<Semaphore>,
    time: Duration,
}

impl Jobs {
    pub(crate) fn new(at_once: usize, time: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(at_once.max(1))), time }
    }

    /// Runs `work`, within the time limit of the workspace.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Stop) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.run_for(self.time, work).await
    }

    /// Runs `work`. After `time` it is told to stop and may answer with what it has. When this
    /// future is dropped, the work is told too; it keeps its place until it has stopped.
    pub(crate) async fn run_for<T: Send + 'static>(
        &self,
        time: Duration,
        work: impl FnOnce(&Stop) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let lost = || Fault::Failed("the work on it broke off; this is a bug".into());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| lost())?;
        let guard = StopOnDrop(Stop::default());
        let stop = guard.0.clone();
        let mut task = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&stop)
        });
        tokio::select! {
            done = &mut task => return done.unwrap_or_else(|_| Err(lost())),
            () = tokio::time::sleep(time.min(self.time)) => guard.0.set(TIME_UP),
        }
        match tokio::time::timeout(NOTICE, task).await {
            Ok(done) => done.unwrap_or_else(|_| Err(lost())),
            Err(_) => Err(Fault::TimedOut),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_the_future_stops_the_work() {
        let jobs = Jobs::new(1, Duration::from_secs(60));
        let (started, running) = tokio::sync::oneshot::channel();
        let (stopped, seen) = tokio::sync::oneshot::channel();
        let work = jobs.run(move |stop| {
            started.send(()).ok();
            while !stop.is_set() {
                std::thread::yield_now();
            }
            stopped.send(()).ok();
            Ok(())
        });
        tokio::select! {
            _ = work => unreachable!("it only ends when it is told to"),
            _ = running => {}
        }
        seen.await.unwrap();
        // The place is free again.
        assert_eq!(jobs.run(|_| Ok(7)).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn time_up_lets_the_work_answer_with_what_it_has() {
        let jobs = Jobs::new(1, Duration::from_secs(20));
        let answer = jobs.run_for(Duration::ZERO, |stop| {
            while !stop.is_set() {
                std::thread::yield_now();
            }
            Ok("half")
        });
        assert_eq!(answer.await, Ok("half"));
    }

    #[tokio::test]
    async fn a_panic_is_a_fault() {
        let jobs = Jobs::new(1, Duration::from_secs(20));
        let answer = jobs.run(|_| -> Result<(), Fault> { panic!("inside") }).await;
        assert!(matches!(answer, Err(Fault::Failed(_))));
    }
}
