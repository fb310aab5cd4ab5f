//! A turn that another process goes on with.

use agentwire::codec::RunRequest;
use agentwire::context::{Message, ToolResult};
use agentwire::conversation::{BlobLimits, Conversation};
use agentwire::run::{Notice, Options};

use super::rig::*;

const RULES: &str = r#"{"rules": [
    {"when": {"action": "user"}, "steps": [{"text": "Look. "}, {"checkpoint": {}}, {"text": "Now. "},
        {"calls": [{"tool": "ls", "id": "c1"}, {"tool": "ls", "id": "c2"}]}, {"turn_end": {}}]},
    {"when": {"action": "resume"}, "steps": [{"text": "Done."}, {"turn_end": {}}]}]}"#;

/// What is left of a process that was killed: bytes on a disk.
fn killed(rig: &Rig) -> Conversation {
    let bytes = rig.turn.snapshot().to_bytes();
    Conversation::from_bytes(&bytes, BlobLimits::default()).unwrap()
}

fn started(conversation: Conversation, asked: RunRequest) -> Rig {
    Rig::with(asked, conversation, Options::default(), RULES)
}

#[test]
fn calls_that_wait_are_handed_out_again_and_answers_at_hand_are_not_lost() {
    let mut first = Rig::new(RULES);
    first.play(secs(1));
    first.turn.answer_some(&[ToolResult::text("c1", "ls", "a.rs")], first.now).unwrap();

    let mut second = started(killed(&first), request());
    second.play(secs(1_000));
    assert_eq!(second.notices(), [Notice::Resuming]);
    assert_eq!((second.calls(), second.requests.len()), (vec!["c2".to_owned()], 0));
    second.answer("c2", "b.rs");
    second.play(secs(1));
    second.assert_complete();
    assert_eq!((second.text().as_str(), second.actions()), ("Done.", vec!["resume"]));
    let request = &second.requests[0].1;
    assert_eq!(request.conversation_id.as_deref(), Some("conv"));
    let state = request.conversation_state.as_ref().unwrap();
    assert_eq!(state.root_prompt_messages_json.len(), 5, "system, user, assistant, two results");
    assert!(state.token_details.is_some(), "the rest of the checkpoint is there");
}

#[test]
fn a_turn_with_all_answers_at_hand_goes_on_by_itself() {
    let mut first = Rig::new(RULES);
    first.play(secs(1));
    let results = ["c1", "c2"].map(|id| ToolResult::text(id, "ls", "x"));
    first.turn.answer(&results, first.now).unwrap();
    let mut second = started(killed(&first), request());
    second.play(secs(1));
    second.assert_complete();
    assert!(second.calls().is_empty());
}

#[test]
fn a_turn_that_was_cut_by_the_end_of_the_process_goes_on_from_its_checkpoint() {
    let rules = r#"{"rules": [
        {"when": {"action": "user"}, "steps": [{"text": "One. "}, {"checkpoint": {}}, {"text": "Two"}, "silence"]},
        {"when": {"action": "resume"}, "steps": [{"text": "Two. Three."}, {"turn_end": {}}]}]}"#;
    let mut first = Rig::new(rules);
    first.play(secs(1));
    assert_eq!(first.text(), "One. Two");
    let conversation = killed(&first);
    let open = conversation.open_turn().unwrap();
    assert_eq!(open.covers(), 1);
    let said = Message::assistant("One. ");
    assert_eq!(open.messages().iter().map(|m| (**m).clone()).collect::<Vec<_>>(), [said]);
    let mut second = Rig::with(request(), conversation, Options::default(), rules);
    second.play(secs(1));
    second.assert_complete();
    assert_eq!((second.text().as_str(), second.actions()), ("Two. Three.", vec!["resume"]));
}

#[test]
fn another_question_starts_another_turn() {
    let mut first = Rig::new(RULES);
    first.play(secs(1));
    let mut asked = request();
    asked.context.push(Message::assistant("Never mind."));
    asked.context.push(Message::user("something else"));
    let mut second = started(killed(&first), asked);
    second.play(secs(1));
    assert_eq!((second.actions(), second.notices()), (vec!["user"], vec![]));
}
