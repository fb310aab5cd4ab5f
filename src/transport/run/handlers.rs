//! Tasks of those who serve execs and answer queries: started, reported and stopped as the session
//! says.
#![allow(clippy::disallowed_methods, reason = "a driver: it may look at the clock")]

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tracing::Instrument as _;

use crate::exec::{self, Ask, Dispatch, Effects, ExecCall, ExecHandler, Refusal, ShellSink};
use crate::proto::exec_server_message::Message as Case;
use crate::proto::interaction_query::Query;
use crate::proto::{ShellArgs, shell_stream};
use crate::run::{ServeKey, ServeResult, ServeTask, Serves, Work};

use super::mailbox::register;
use super::span;

/// Reports that may wait for the run's task: a shell that prints faster than they are taken waits. No option:
/// what they hold is bounded by the shell's own pieces, and a longer queue is no faster.
const REPORTS: usize = 16;

/// Who on this side serves the service.
#[derive(Clone, Default)]
pub(crate) struct Host {
    pub(crate) execs: Option<Arc<dyn ExecHandler>>,
    pub(crate) asker: Option<Arc<dyn Ask>>,
}

impl Host {
    pub(crate) fn is_empty(&self) -> bool {
        self.execs.is_none() && self.asker.is_none()
    }
}

impl Serves for Host {
    fn exec(&self, case: &Case) -> bool {
        self.execs.as_ref().is_some_and(|handler| unless_it_panics(false, || handler.serves(case)))
    }

    fn effects(&self, case: &Case) -> Effects {
        // Who cannot say may have changed something.
        self.execs.as_ref().map_or(Effects::Changes, |handler| {
            unless_it_panics(Effects::Changes, || handler.effects(case))
        })
    }

    fn query(&self, query: &Query) -> bool {
        self.asker.as_ref().is_some_and(|asker| unless_it_panics(false, || asker.answers(query)))
    }
}

/// Asked on the run's own task: a panic must cost the question and not the run.
fn unless_it_panics<T>(otherwise: T, decide: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(decide)).unwrap_or(otherwise)
}

/// What a handler's task has to say.
pub(crate) enum Report {
    /// A streaming shell printed.
    Shell(ServeKey, shell_stream::Event),
    /// The task is done.
    Done(ServeKey, ServeResult),
}

/// The tasks at work for one run. Dropping it stops them all.
pub(crate) struct Handlers {
    host: Host,
    /// `None` until there is work: most runs have none.
    at_work: Option<AtWork>,
    /// Who polled last.
    waker: Option<Waker>,
}

struct AtWork {
    tasks: JoinSet<()>,
    running: HashMap<ServeKey, AbortHandle>,
    report: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
}

impl AtWork {
    /// Nothing is at work yet. `waker` has polled already and is to hear of reports all the same.
    fn new(waker: Option<&Waker>) -> Self {
        let (report, reports) = mpsc::channel(REPORTS);
        let mut new = Self { tasks: JoinSet::new(), running: HashMap::new(), report, reports };
        if let Some(waker) = waker {
            // There is no report yet.
            let _ = new.reports.poll_recv(&mut Context::from_waker(waker));
        }
        new
    }
}

impl Handlers {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, at_work: None, waker: None }
    }

    /// Stops every task, and forgets what they had to say: the next attempt starts anew.
    pub(crate) fn renew(&mut self) {
        self.at_work = None;
    }

    /// What an exec does to the world, in the handler's words.
    pub(crate) fn effects(&self, case: &Case) -> Effects {
        self.host.effects(case)
    }

    /// Gives `task` to the handler.
    pub(crate) fn start(&mut self, task: ServeTask) {
        let ServeTask { key, work } = task;
        let span = span::of_work(&work);
        let at_work = self.at_work.get_or_insert_with(|| AtWork::new(self.waker.as_ref()));
        let (host, report) = (self.host.clone(), at_work.report.clone());
        let serving = async move {
            let begun = Instant::now();
            // Reported like any other result: the end of a task alone would be seen at the next
            // occasion only.
            let mut serving = pin!(serve(host, work, key, &report));
            let result = poll_fn(|cx| {
                catch_unwind(AssertUnwindSafe(|| serving.as_mut().poll(cx)))
                    .unwrap_or(Poll::Ready(ServeResult::Failed))
            })
            .await;
            span::served(&result, begun);
            // Refused only when the run is over.
            let _ = report.send(Report::Done(key, result)).await;
        };
        let task = at_work.tasks.spawn(serving.instrument(span));
        at_work.running.insert(key, task);
    }

    /// Drops the task of `key`.
    pub(crate) fn stop(&mut self, key: ServeKey) {
        if let Some(task) = self.at_work.as_mut().and_then(|it| it.running.remove(&key)) {
            task.abort();
            tracing::debug!("a question is called off");
        }
    }

    /// The next report. Not asked while replies wait to be written: then the tasks wait too.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Report> {
        register(&mut self.waker, cx);
        let Some(AtWork { tasks, running, reports, .. }) = &mut self.at_work else {
            return Poll::Pending;
        };
        if let Poll::Ready(Some(report)) = reports.poll_recv(cx) {
            if let Report::Done(key, _) = report {
                running.remove(&key);
            }
            return Poll::Ready(report);
        }
        // A task that came to its end has reported.
        while let Poll::Ready(Some(_)) = tasks.poll_join_next(cx) {}
        Poll::Pending
    }
}

async fn serve(
    host: Host,
    work: Work,
    key: ServeKey,
    report: &mpsc::Sender<Report>,
) -> ServeResult {
    match (work, host) {
        (Work::Exec { call, case }, Host { execs: Some(handler), .. }) => match case {
            Case::ShellStreamArgs(args) => {
                serve_shell(handler.as_ref(), &call, *args, Sink { key, report }).await
            }
            case => match exec::dispatch(handler.as_ref(), &call, case) {
                Dispatch::One(served) => match served.await {
                    Ok(reply) => ServeResult::Reply(Box::new(reply)),
                    Err(refusal) => ServeResult::Refused(refusal),
                },
                Dispatch::Internal => ServeResult::Refused(Refusal::not_served()),
            },
        },
        (Work::Query { query, .. }, Host { asker: Some(asker), .. }) => {
            match exec::put(asker.as_ref(), query).await {
                Ok(response) => ServeResult::Response(Box::new(response)),
                Err(refusal) => ServeResult::Refused(refusal),
            }
        }
        _ => ServeResult::Refused(Refusal::not_served()),
    }
}

async fn serve_shell(
    handler: &dyn ExecHandler,
    call: &ExecCall,
    args: ShellArgs,
    mut sink: Sink<'_>,
) -> ServeResult {
    match handler.shell_stream(call, args, &mut sink).await {
        Ok(()) => ServeResult::ShellDone,
        Err(refusal) => ServeResult::Refused(refusal),
    }
}

/// Where a streaming shell prints: waits while the service is slow to read.
struct Sink<'a> {
    key: ServeKey,
    report: &'a mpsc::Sender<Report>,
}

impl ShellSink for Sink<'_> {
    fn send(
        &mut self,
        event: shell_stream::Event,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let _ = self.report.send(Report::Shell(self.key, event)).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Of work that begins after the poll, and after a renewal.
    #[tokio::test]
    async fn who_polled_hears_of_work_that_began_later() {
        let mut handlers = Handlers::new(Host::default());
        for _ in 0..2 {
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            let cx = &mut Context::from_waker(&waker);
            assert!(handlers.poll(cx).is_pending());
            let query = Query::AskQuestionInteractionQuery(Box::default());
            let work = Work::Query { id: 1, query };
            handlers.start(ServeTask { key: ServeKey::ANY, work });
            while !woken.0.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            let reported = handlers.poll(cx);
            assert!(matches!(reported, Poll::Ready(Report::Done(ServeKey::ANY, _))));
            assert!(handlers.poll(cx).is_pending());
            handlers.renew();
        }
    }
}
