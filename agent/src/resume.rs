//! What is kept of a turn that broke off, and what the request holds that goes on with it: no I/O.

use std::sync::Arc;

use agentwire::context::{AssistantPart, Message};
use agentwire::conversation::Conversation;

/// The turn that a conversation was left in the middle of
/// ([`OpenTurn`](agentwire::conversation::OpenTurn)).
#[derive(Clone, Copy)]
pub(crate) struct Open<'a> {
    /// Messages of the history that the turn began with.
    pub(crate) covers: usize,
    /// What the checkpoint has of the turn after those.
    pub(crate) messages: &'a [Arc<Message>],
}

/// How a model's run comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The service said that the turn is complete.
    Complete,
    /// It broke off by itself.
    Failed,
    /// It is stopped from this side.
    Stopped,
}

/// Whether a run's conversation, as it is at a checkpoint, is worth keeping apart. Without an open turn
/// the run is over, and its conversation is kept when the end is heard, or it cannot be gone on with.
pub(crate) fn is_worth_keeping(state: &Conversation) -> bool {
    state.open_turn().is_some()
}

/// The conversation to go on with after a run: `given_back` is what the run left, `kept` how it was
/// at the last checkpoint, open turn and all.
///
/// Of a complete turn the checkpoint has everything. What is open in a turn that is not complete only
/// the kept state tells, which holds as long as the conversation stands on the checkpoint that was kept:
/// the service may have had it dropped.
pub(crate) fn left_of_run(
    kept: Option<Conversation>,
    given_back: Conversation,
    ending: Ending,
) -> Conversation {
    let stands_on = |kept: &Conversation| {
        let raw = |of: &Conversation| of.checkpoint().map(|checkpoint| checkpoint.raw().clone());
        raw(kept) == raw(&given_back)
    };
    match kept {
        Some(kept) if ending != Ending::Complete && stands_on(&kept) => kept,
        _ => given_back,
    }
}

/// The messages for the next request, and what the model had said after those on record, where the
/// conversation holds the turn that they end in: then the request is what that turn began with.
pub(crate) fn request(
    open: Option<Open<'_>>,
    messages: &[Arc<Message>],
) -> (Vec<Arc<Message>>, Vec<AssistantPart>) {
    let whole = || (messages.to_vec(), Vec::new());
    let Some(open) = open else { return whole() };
    let Some((given, recorded)) = messages.split_at_checked(open.covers) else { return whole() };
    // What is on record and not in the turn (a tool that ran after the checkpoint, an answer that
    // was cut short) only the messages tell.
    let Some(new) = open.messages.strip_prefix(recorded) else { return whole() };
    match new {
        [] => (given.to_vec(), Vec::new()),
        [last] => match &**last {
            Message::Assistant { content } => (given.to_vec(), content.clone()),
            _ => whole(),
        },
        _ => whole(),
    }
}

#[cfg(test)]
mod tests {
    use agentwire::context::ToolResult;

    use super::*;

    fn of(messages: impl IntoIterator<Item = Message>) -> Vec<Arc<Message>> {
        messages.into_iter().map(Arc::new).collect()
    }

    #[test]
    fn a_turn_is_gone_on_with_where_the_checkpoint_has_all_that_is_on_record() {
        let asked = || Message::user("go");
        let says = |text: &str| Message::assistant(text);
        let result = || Message::ToolResult(ToolResult::text("c1", "note", "noted"));
        let text = |text: &str| vec![AssistantPart::Text { text: text.into() }];
        // What the checkpoint has, what is on record after the question, and what goes on: what the
        // model had said, or nothing where the whole history goes out.
        let cases = [
            (of([]), of([]), Some(vec![])),
            (of([says("one")]), of([]), Some(text("one"))),
            (of([says("one"), result()]), of([says("one"), result()]), Some(vec![])),
            (
                of([says("one"), result(), says("two")]),
                of([says("one"), result()]),
                Some(text("two")),
            ),
            // A tool that ran after the checkpoint; an answer that was cut short.
            (of([says("one")]), of([says("one"), result()]), None),
            (of([says("one and more")]), of([says("one")]), None),
            // More than one message, or another than the model's, that no record has.
            (of([says("one"), result()]), of([]), None),
            (of([says("one"), result()]), of([says("one")]), None),
        ];
        for (n, (has, recorded, goes_on)) in cases.iter().enumerate() {
            let mut messages = of([asked()]);
            messages.extend(recorded.iter().cloned());
            let (sent, said) = request(Some(Open { covers: 1, messages: has }), &messages);
            match goes_on {
                Some(expected) => assert_eq!((sent, &said), (of([asked()]), expected), "{n}"),
                None => assert_eq!((sent, said), (messages, vec![]), "{n}"),
            }
        }
    }

    #[test]
    fn a_kept_state_counts_while_its_turn_is_open_and_its_checkpoint_stands() {
        use Ending::{Complete, Failed, Stopped};
        // A checkpoint by the tokens that are said to be used; none by `None`.
        let at = |name: &str, checkpoint: Option<u8>| {
            let mut conversation = Conversation::with_id(name);
            let state = checkpoint.map(|tokens| vec![0x2a, 2, 0x08, tokens]);
            conversation.commit(state.unwrap_or_default().into()).unwrap();
            conversation
        };
        // The checkpoint that was kept, where one was; that of what the run gave back; how the run
        // ended; what is gone on with.
        let cases = [
            (Some(Some(1)), Some(1), Failed, "kept"),
            (Some(Some(1)), Some(1), Stopped, "kept"),
            // The turn is complete: nothing of it is open.
            (Some(Some(1)), Some(1), Complete, "given back"),
            // The service had it dropped.
            (Some(Some(1)), None, Failed, "given back"),
            // A newer one that was not kept, because nothing is open in it.
            (Some(Some(1)), Some(2), Failed, "given back"),
            (Some(Some(1)), Some(2), Stopped, "given back"),
            // Nothing was kept, with a checkpoint and without.
            (None, Some(1), Failed, "given back"),
            (None, None, Stopped, "given back"),
            (None, Some(1), Complete, "given back"),
            // Both without.
            (Some(None), None, Failed, "kept"),
        ];
        for (kept, given_back, ending, expected) in cases {
            let (kept_at, given_back_at) = (kept, given_back);
            let kept = kept.map(|checkpoint| at("kept", checkpoint));
            let left = left_of_run(kept, at("given back", given_back), ending);
            assert_eq!(left.id(), Some(expected), "{kept_at:?} {given_back_at:?} {ending:?}");
        }
    }

    #[test]
    fn without_such_a_turn_the_whole_history_goes_out() {
        let messages = of([Message::user("go")]);
        let beyond = Open { covers: 2, messages: &[] };
        for open in [None, Some(beyond)] {
            assert_eq!(request(open, &messages), (messages.clone(), vec![]));
        }
    }
}
