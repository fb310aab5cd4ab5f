//! What the request holds that goes on with a turn of which the service has a checkpoint: no I/O.

use std::sync::Arc;

use agentwire::context::{AssistantPart, Message};

/// The turn that a conversation was left in the middle of
/// ([`OpenTurn`](agentwire::conversation::OpenTurn)).
#[derive(Clone, Copy)]
pub(crate) struct Open<'a> {
    /// Messages of the history that the turn began with.
    pub(crate) covers: usize,
    /// What the checkpoint has of the turn after those.
    pub(crate) messages: &'a [Arc<Message>],
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
    fn without_such_a_turn_the_whole_history_goes_out() {
        let messages = of([Message::user("go")]);
        let beyond = Open { covers: 2, messages: &[] };
        for open in [None, Some(beyond)] {
            assert_eq!(request(open, &messages), (messages.clone(), vec![]));
        }
    }
}
