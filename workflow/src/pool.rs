//! Futures at the same time, without tasks: dropping the group drops all of them.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// A future with the number it goes by.
pub(crate) type Numbered<F> = (usize, Pin<Box<F>>);

/// The first of these that is done, taken out; `None` when there are none. Those that were added
/// last are polled last.
pub(crate) async fn first<T, F: Future<Output = T>>(
    at_work: &mut Vec<Numbered<F>>,
) -> Option<(usize, T)> {
    poll_fn(|cx| {
        let done = at_work.iter_mut().enumerate().find_map(|(index, (_, future))| {
            match future.as_mut().poll(cx) {
                Poll::Ready(result) => Some((index, result)),
                Poll::Pending => None,
            }
        });
        match done {
            Some((index, result)) => Poll::Ready(Some((at_work.remove(index).0, result))),
            None if at_work.is_empty() => Poll::Ready(None),
            None => Poll::Pending,
        }
    })
    .await
}

/// What came of a group.
pub(crate) struct Group<T> {
    /// The results in order; `None` for what was never begun.
    pub(crate) all: Vec<Option<T>>,
    /// The first result, in time, that stopped the group.
    pub(crate) stopped_by: Option<usize>,
}

/// Runs `futures`, at most `limit` at a time. The first result for which `stops` holds calls
/// `call_off` once; from then on none is begun, and those at work are waited for.
pub(crate) async fn run<T, F: Future<Output = T>>(
    futures: impl Iterator<Item = F>,
    limit: usize,
    stops: impl Fn(&T) -> bool,
    call_off: impl Fn(),
) -> Group<T> {
    let limit = limit.max(1);
    let mut waiting: Vec<Option<Pin<Box<F>>>> = futures.map(|one| Some(Box::pin(one))).collect();
    let mut group =
        Group { all: waiting.iter().map(|_| None).collect::<Vec<_>>(), stopped_by: None };
    let mut begun = 0;
    poll_fn(move |cx| {
        loop {
            let at_work = waiting.iter().take(begun).flatten().count();
            let room = if group.stopped_by.is_some() { 0 } else { limit - at_work.min(limit) };
            begun = begun.saturating_add(room).min(waiting.len());
            let mut finished = false;
            for (index, place) in waiting.iter_mut().enumerate().take(begun) {
                let Some(future) = place else { continue };
                let Poll::Ready(result) = future.as_mut().poll(cx) else { continue };
                finished = true;
                *place = None;
                if group.stopped_by.is_none() && stops(&result) {
                    group.stopped_by = Some(index);
                    call_off();
                }
                if let Some(slot) = group.all.get_mut(index) {
                    *slot = Some(result);
                }
            }
            let left = waiting.iter().take(begun).flatten().count();
            let more = begun < waiting.len() && group.stopped_by.is_none();
            if left == 0 && !more {
                return Poll::Ready(Group {
                    all: std::mem::take(&mut group.all),
                    stopped_by: group.stopped_by,
                });
            }
            // One that finished makes room, or has called off one that was polled before it.
            if !finished {
                return Poll::Pending;
            }
        }
    })
    .await
}
