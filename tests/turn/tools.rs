//! Tools and pauses: what ran is not run again.

use agentwire::context::ToolResult;
use agentwire::conversation::Conversation;
use agentwire::error::Kind;
use agentwire::exec::{Effects, Refusal};
use agentwire::proto::agent_client_message::Message as Client;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::interaction_query::Query;
use agentwire::run::{Event, Notice, Options, ServeResult, Serves};

use super::rig::*;

const CALL: &str = r#"{"call": {"tool": "ls", "id": "c1"}}"#;

fn results_sent(rig: &Rig) -> usize {
    let is_result = |message: &&Client| matches!(message, Client::ExecClientMessage(_));
    rig.sent.iter().filter(is_result).count()
}

#[test]
fn an_answered_call_is_answered_from_memory_when_it_is_asked_again() {
    let rules = format!(
        r#"{{"rules": [
        {{"times": 1, "steps": [{{"text": "Look. "}}, {CALL}, {{"text": "It "}}, "cut"]}},
        {{"steps": [{CALL}, {{"text": "It has {{{{result}}}}."}}, {{"turn_end": {{}}}}]}}]}}"#
    );
    let mut rig = Rig::new(&rules);
    rig.play(secs(1));
    assert_eq!(rig.calls(), ["c1"]);
    rig.answer("c1", "a.rs");
    rig.play(secs(60));
    rig.assert_complete();
    assert_eq!(rig.calls(), ["c1"], "not handed out again");
    assert_eq!(rig.text(), "Look. It has a.rs.");
    assert_eq!(results_sent(&rig), 1, "on the second stream");
    assert_eq!(rig.actions(), ["user", "resume"]);
    // The history has the call and its result, so that a model need not ask again at all.
    let state = rig.requests[1].1.conversation_state.as_ref().unwrap();
    assert_eq!(state.root_prompt_messages_json.len(), 4, "system, user, assistant, tool");
}

#[test]
fn a_call_of_another_id_is_a_new_call() {
    let rules = format!(
        r#"{{"rules": [
        {{"times": 1, "steps": [{CALL}, "cut"]}},
        {{"steps": [{{"call": {{"tool": "ls", "id": "c2"}}}}, {{"turn_end": {{}}}}]}}]}}"#
    );
    let mut rig = Rig::new(&rules);
    rig.play(secs(1));
    rig.answer("c1", "a.rs");
    rig.play(secs(10));
    assert_eq!(rig.calls(), ["c1", "c2"]);
    let again = rig.turn.answer_some(&[ToolResult::text("c1", "ls", "x")], rig.now).unwrap_err();
    assert!(again.message().contains("answered already"), "{again}");
    rig.answer("c2", "b.rs");
    rig.play(secs(10));
    rig.assert_complete();
}

#[test]
fn a_cut_while_tools_run_waits_for_their_answers() {
    let rules = r#"{"rules": [
        {"times": 1, "steps": [{"calls": [{"tool": "ls", "id": "c1"}, {"tool": "ls", "id": "c2"}]}]},
        {"steps": [{"text": "Done."}, {"turn_end": {}}]}]}"#;
    let mut rig = Rig::new(rules);
    rig.play(secs(1));
    assert_eq!(rig.calls(), ["c1", "c2"]);
    rig.lose(agentwire::error::NetworkFault::Cut);
    rig.play(secs(900));
    assert_eq!(rig.notices(), [Notice::Parked]);
    assert_eq!(rig.requests.len(), 1, "nothing is asked while the tools run");
    let missing = rig.turn.answer(&[ToolResult::text("c1", "ls", "x")], rig.now).unwrap_err();
    assert!(missing.message().contains("c2"), "{missing}");
    rig.turn.answer_some(&[ToolResult::text("c1", "ls", "x")], rig.now).unwrap();
    rig.play(secs(10));
    assert_eq!(rig.requests.len(), 1);
    rig.answer("c2", "y");
    rig.play(secs(10));
    rig.assert_complete();
    assert_eq!(rig.notices(), [Notice::Parked, Notice::Resuming]);
    assert_eq!((rig.text().as_str(), rig.actions()), ("Done.", vec!["user", "resume"]));
}

/// A paused turn has an idle limit; when it has passed, the turn goes on from the history.
#[test]
fn a_pause_beyond_its_limit_is_a_notice_and_not_an_error() {
    let rules = format!(
        r#"{{"rules": [
        {{"times": 1, "steps": [{{"text": "Look. "}}, {CALL}, {{"turn_end": {{}}}}]}},
        {{"when": {{"action": "resume"}}, "steps": ["history", {{"text": "Then: {{{{history}}}}"}}, {{"turn_end": {{}}}}]}}]}}"#
    );
    for retries in [0, 10] {
        let mut options = Options::default();
        options.retry.retries = retries;
        let mut rig = Rig::with(request(), Conversation::with_id("c"), options, &rules);
        rig.play(secs(1));
        rig.play(secs(299));
        assert_eq!(rig.notices(), []);
        rig.play(secs(2));
        assert_eq!(rig.notices(), [Notice::Parked]);
        assert_eq!(rig.ended(), None);
        rig.play(secs(3_000));
        rig.answer("c1", "a.rs");
        let asked_at = rig.requests.len();
        rig.play(secs(1));
        assert_eq!((asked_at, rig.requests.len()), (1, 2), "at once");
        rig.assert_complete();
        assert!(rig.text().starts_with("Look. Then: "), "{}", rig.text());
        let state = rig.requests[1].1.conversation_state.as_ref().unwrap();
        assert_eq!(state.root_prompt_messages_json.len(), 4);
    }
}

struct Shells(Effects);

impl Serves for Shells {
    fn exec(&self, _: &Case) -> bool {
        true
    }
    fn query(&self, _: &Query) -> bool {
        false
    }
    fn effects(&self, _: &Case) -> Effects {
        self.0
    }
}

/// PROTOCOL 3, end of a turn: what may have changed something is not done twice.
#[test]
fn a_served_exec_with_effects_forbids_another_attempt_until_the_next_checkpoint() {
    let shell = r#"{"ask": {"exec": "shell_args", "args": {"command": "rm x"}, "wait": false}}"#;
    let play = |effects: Effects, result: ServeResult, after: &str| {
        let rules = format!(
            r#"{{"rules": [{{"times": 1, "steps": [{{"text": "a"}}, {shell}, {{"wait_ms": 10}}{after}, "cut"]}},
               {{"steps": [{{"text": "a"}}, {{"turn_end": {{}}}}]}}]}}"#
        );
        let mut options = Options::default();
        options.serves = Some(std::sync::Arc::new(Shells(effects)));
        let mut rig = Rig::with(request(), Conversation::with_id("c"), options, &rules);
        rig.play(std::time::Duration::from_millis(5));
        let task = rig.tasks.pop().expect("the shell is served");
        rig.turn.handle_served(task.key, result, rig.now);
        rig.play(secs(60));
        rig
    };
    let interrupted = play(Effects::Changes, ServeResult::Failed, "");
    assert_eq!(interrupted.error().kind(), &Kind::Interrupted);
    assert!(!interrupted.error().is_repeatable());
    assert!(interrupted.error().message().contains("shell_args"), "{}", interrupted.error());
    assert_eq!((interrupted.text().as_str(), interrupted.requests.len()), ("a", 1));
    play(Effects::ReadOnly, ServeResult::Failed, "").assert_complete();
    play(Effects::Changes, ServeResult::Failed, r#", {"checkpoint": {}}"#).assert_complete();
    let refused = ServeResult::Refused(Refusal::not_served());
    play(Effects::Changes, refused, "").assert_complete();
}

/// Whoever is above may try again by rules of its own: every error tells it not to, also one that
/// this turn would not have tried again after.
#[test]
fn an_error_after_an_exec_with_effects_says_that_it_cannot_be_repeated() {
    let shell = r#"{"ask": {"exec": "shell_args", "args": {"command": "rm x"}, "wait": false}}"#;
    let stated = r#"{"error": {"code": "unavailable", "message": "busy"}}"#;
    for (effects, retries, end) in [
        (Effects::Changes, 0, "\"cut\""),
        (Effects::Changes, 10, stated),
        (Effects::ReadOnly, 0, "\"cut\""),
        (Effects::ReadOnly, 10, stated),
    ] {
        let rules = format!(r#"{{"rules": [{{"steps": [{shell}, {{"wait_ms": 10}}, {end}]}}]}}"#);
        let mut options = Options::default();
        options.retry.retries = retries;
        options.serves = Some(std::sync::Arc::new(Shells(effects)));
        let mut rig = Rig::with(request(), Conversation::with_id("c"), options, &rules);
        rig.play(std::time::Duration::from_millis(5));
        let task = rig.tasks.pop().expect("the shell is served");
        rig.turn.handle_served(task.key, ServeResult::Failed, rig.now);
        rig.play(secs(60));
        assert_ne!(rig.error().kind(), &Kind::Interrupted, "{end}");
        let repeatable = effects == Effects::ReadOnly;
        assert_eq!(rig.error().is_repeatable(), repeatable, "{end}");
        assert_eq!(rig.error().is_retryable(), repeatable, "{end}");
        let said = rig.error().to_string().contains("what shell_args did");
        assert_eq!(said, !repeatable, "{}", rig.error());
    }
}

#[test]
fn an_exec_that_is_at_work_at_the_checkpoint_is_not_covered_by_it() {
    let rules = r#"{"rules": [{"steps": [
        {"ask": {"exec": "write_args", "args": {"path": "x"}, "wait": false}},
        {"checkpoint": {}}, "cut"]}]}"#;
    let mut options = Options::default();
    options.serves = Some(std::sync::Arc::new(Shells(Effects::Changes)));
    let mut rig = Rig::with(request(), Conversation::with_id("c"), options, rules);
    rig.play(secs(60));
    assert_eq!(rig.error().kind(), &Kind::Interrupted);
}

/// A call that the service called off may have run: unless it only looks, that is the end.
#[test]
fn an_aborted_call_forbids_another_attempt_unless_the_tool_only_looks() {
    let rules = r#"{"rules": [{"times": 1, "steps": [
        {"send": {"exec_server_message": {"id": 900, "exec_id": "e", "mcp_args":
            {"name": "ls", "tool_name": "ls", "tool_call_id": "c1"}}}},
        {"wait_ms": 1000},
        {"send": {"exec_server_control_message": {"abort": {"id": 900}}}},
        {"wait_ms": 10}, "cut"]},
        {"steps": [{"text": "b"}, {"turn_end": {}}]}]}"#;
    for read_only in [false, true] {
        let mut options = Options::default();
        if read_only {
            options.retry.read_only_tools.insert("ls".to_owned());
        }
        let mut rig = Rig::with(request(), Conversation::with_id("c"), options, rules);
        rig.play(secs(60));
        assert_eq!(rig.calls(), ["c1"]);
        assert!(rig.events.iter().any(|event| matches!(event, Event::ToolsAborted(_))));
        match read_only {
            true => rig.assert_complete(),
            false => assert_eq!(rig.error().kind(), &Kind::Interrupted),
        }
    }
}

#[test]
fn what_a_restarted_process_needs_is_worth_keeping() {
    let rules = format!(
        r#"{{"rules": [{{"steps": [{{"text": "a"}}, {{"checkpoint": {{}}}}, {CALL}, {{"turn_end": {{}}}}]}}]}}"#
    );
    let mut rig = Rig::new(&rules);
    rig.play(secs(1));
    assert_eq!(rig.keeps, 2, "the checkpoint, the call");
    let pending = rig.turn.snapshot().open_turn().unwrap().pending();
    assert_eq!(pending.len(), 1);
    rig.answer("c1", "x");
    assert_eq!(rig.keeps, 3, "the answer");
    rig.play(secs(1));
    rig.assert_complete();
    assert!(rig.turn.snapshot().open_turn().is_none(), "a complete turn is closed");
}
