//! One rule a test, on the virtual clock.

use std::time::Duration;

use agentwire::context::{AssistantPart, Message};
use agentwire::error::{Error, Kind, NetworkFault};
use agentwire::run::{Event as Said, Finish, Usage};
use agentwire_agent::turn::{ContextBudget, ModelCall, Step, Turn};
use agentwire_agent::{Event, FailureClass, LimitKind, Notice, Stop, ToolStatus};

use crate::rig::{Rig, call, options};

fn ended() -> Said {
    Said::Ended(Ok(Finish::default()))
}

fn failed(kind: Kind) -> Said {
    Said::Ended(Err(Error::new(kind, "it broke")))
}

fn start(model: &str) -> Option<Step> {
    Some(Step::CallModel(ModelCall::Start { model: model.into(), fresh: false }))
}

fn cut() -> Kind {
    Kind::Network(NetworkFault::Cut)
}

#[test]
fn a_task_with_a_tool() {
    let mut rig = Rig::new(options(&["m"]));
    assert_eq!(rig.step(), start("m"));
    assert_eq!(rig.step(), None);
    rig.say(Said::Text("Let me ".into()));
    rig.say(Said::Text("look.".into()));
    rig.say(Said::ToolCalls(vec![call("1"), call("2")]));
    assert_eq!(rig.step(), Some(Step::CallTools(vec![call("1"), call("2")])));
    rig.now = Duration::from_millis(70);
    rig.result("2", "two");
    assert_eq!(rig.step(), None);
    rig.result("1", "one");
    // In the order of the calls.
    let Some(Step::CallModel(ModelCall::Answer { results, say })) = rig.step() else {
        panic!("no answer")
    };
    let ids: Vec<_> = results.iter().map(|result| result.tool_call_id.as_str()).collect();
    assert_eq!((ids, say), (vec!["1", "2"], vec![]));
    rig.say(Said::Text("Done.".into()));
    rig.say(ended());
    let Some(Step::Done(outcome)) = rig.step() else { panic!("not done") };
    assert_eq!(outcome.stop, Stop::Completed);
    assert_eq!((outcome.text.as_str(), outcome.turns, outcome.tool_calls), ("Done.", 2, 2));
    assert_eq!(outcome.elapsed_ms, 70);
    rig.check();
}

#[test]
fn deltas_and_a_whole_message_give_the_same_turn() {
    let mut deltas = Rig::new(options(&["m"]));
    let mut whole = Rig::new(options(&["m"]));
    deltas.step();
    whole.step();
    for piece in ["a", "b", "c"] {
        deltas.say(Said::Thinking(piece.into()));
    }
    for piece in ["x", "y"] {
        deltas.say(Said::Text(piece.into()));
    }
    deltas.say(Said::ToolCalls(vec![call("1")]));
    let content = vec![
        AssistantPart::Thinking { thinking: "abc".into() },
        AssistantPart::Text { text: "xy".into() },
        AssistantPart::ToolCall(call("1")),
    ];
    whole.turn.handle_message(content, Duration::ZERO);
    assert_eq!(deltas.step(), whole.step());
    assert_eq!(deltas.turn.messages(), whole.turn.messages());
    assert_eq!(deltas.records, whole.records);
}

#[test]
fn no_more_tools_run_at_a_time_than_allowed() {
    let mut settings = options(&["m"]);
    settings.limits.parallel = 2;
    let mut rig = Rig::new(settings);
    rig.step();
    rig.say(Said::ToolCalls(vec![call("1"), call("2"), call("3")]));
    assert_eq!(rig.step(), Some(Step::CallTools(vec![call("1"), call("2")])));
    assert_eq!(rig.step(), None);
    rig.result("2", "two");
    assert_eq!(rig.step(), Some(Step::CallTools(vec![call("3")])));
}

#[test]
fn the_next_model_is_asked_for_what_may_pass_and_stayed_with() {
    let mut rig = Rig::new(options(&["a", "b", "c"]));
    assert_eq!(rig.step(), start("a"));
    rig.say(Said::Text("half an ans".into()));
    rig.say(failed(cut()));
    assert_eq!(rig.step(), start("b"));
    let Some(Event::Notice { notice: Notice::Again { model, next, discarded, .. } }) =
        rig.events.last()
    else {
        panic!("no notice")
    };
    assert_eq!((model.as_str(), next.as_str(), *discarded), ("a", "b", 11));
    rig.say(Said::ToolCalls(vec![call("1")]));
    rig.step();
    rig.result("1", "one");
    // The run is gone in the meantime: the next one is of the model that worked.
    rig.say(failed(cut()));
    assert_eq!(rig.step(), start("b"));
    rig.say(Said::Text("Done.".into()));
    rig.say(ended());
    let Some(Step::Done(outcome)) = rig.step() else { panic!("not done") };
    assert_eq!((outcome.text.as_str(), outcome.model.as_str()), ("Done.", "b"));
    assert_eq!(outcome.attempts.len(), 1);
    rig.check();
}

#[test]
fn what_does_not_pass_ends_the_task() {
    for kind in [Kind::PlanLimit, Kind::Rejected, Kind::PayloadTooLarge] {
        let mut rig = Rig::new(options(&["a", "b"]));
        rig.step();
        rig.say(failed(kind));
        let Some(Step::Done(outcome)) = rig.step() else { panic!("not done") };
        assert!(matches!(outcome.stop, Stop::Failed { .. }));
        rig.check();
    }
}

#[test]
fn a_broken_stream_is_taken_up_twice_with_the_same_model() {
    let mut rig = Rig::new(options(&["a", "b"]));
    for model in ["a", "a", "a", "b"] {
        assert_eq!(rig.step(), start(model));
        rig.say(failed(Kind::Interrupted));
    }
    assert_eq!(rig.step(), start("b"));
}

#[test]
fn how_often_a_stream_is_taken_up_how_long_a_message_is_and_how_many_wait_can_be_set() {
    let mut few = options(&["a", "b"]);
    (few.limits.interruptions, few.limits.message, few.limits.waiting) = (0, 10, 1);
    let mut rig = Rig::new(few);
    assert_eq!(rig.step(), start("a"));
    rig.say(failed(Kind::Interrupted));
    assert_eq!(rig.step(), start("b"));

    assert!(rig.turn.steer("one") && !rig.turn.steer("two"));
    assert!(rig.turn.follow_up("one") && !rig.turn.follow_up("two"));

    rig.say(Said::Text("123456".into()));
    rig.say(Said::Thinking("7890".into()));
    assert!(rig.done.is_none(), "ten bytes are no more than ten");
    rig.say(Said::Text("!".into()));
    rig.step();
    let Some(Stop::Failed { failure }) = rig.done.map(|outcome| outcome.stop) else {
        panic!("a message of eleven bytes passed")
    };
    assert!(failure.message.contains("longer than 10 bytes"), "{failure:?}");
}

#[test]
fn what_could_be_done_twice_ends_the_task() {
    for kind in [Kind::Interrupted, Kind::Network(NetworkFault::Cut), Kind::PlanLimit] {
        let mut rig = Rig::new(options(&["a", "b"]));
        rig.step();
        rig.say(Said::Text("half".into()));
        rig.say(Said::Ended(Err(Error::new(kind, "look").with_effects())));
        let Some(Step::Done(outcome)) = rig.step() else { panic!("it is asked again") };
        let Stop::Failed { failure } = outcome.stop else { panic!("{:?}", outcome.stop) };
        assert_eq!(failure.class, FailureClass::Fatal);
        rig.check();
    }
}

#[test]
fn a_refused_answer_starts_a_run_with_the_results_in_it() {
    let mut rig = Rig::new(options(&["m"]));
    rig.step();
    rig.say(Said::ToolCalls(vec![call("1")]));
    rig.step();
    rig.result("1", "one");
    assert!(matches!(rig.step(), Some(Step::CallModel(ModelCall::Answer { .. }))));
    rig.turn.handle_refused();
    assert_eq!(rig.step(), start("m"));
    assert!(matches!(**rig.turn.messages().last().expect("some"), Message::ToolResult(_)));
}

#[test]
fn limits_end_the_task_and_close_its_calls() {
    let limit = |change: fn(&mut agentwire_agent::Limits)| {
        let mut settings = options(&["m"]);
        change(&mut settings.limits);
        let mut rig = Rig::new(settings);
        for n in 0..10 {
            rig.step();
            rig.say(Said::Usage(Usage { output: 10 * (n + 1), ..Usage::default() }));
            rig.say(Said::ToolCalls(vec![call(&n.to_string())]));
            rig.step();
            rig.now += Duration::from_secs(1);
            rig.turn.handle_timeout(rig.now);
            rig.result(&n.to_string(), "r");
            if rig.turn.is_over() {
                break;
            }
        }
        rig.step();
        rig.check();
        let outcome = rig.done.expect("over");
        (outcome.stop, outcome.turns, outcome.tool_calls)
    };
    let crossed = |limit| Stop::Limit { limit };
    assert_eq!(limit(|l| l.turns = Some(3)), (crossed(LimitKind::Turns), 3, 3));
    assert_eq!(limit(|l| l.tool_calls = Some(3)), (crossed(LimitKind::ToolCalls), 4, 3));
    assert_eq!(limit(|l| l.tokens = Some(25)), (crossed(LimitKind::Tokens), 3, 3));
    let wall = |l: &mut agentwire_agent::Limits| l.wall = Some(Duration::from_secs(2));
    assert_eq!(limit(wall), (crossed(LimitKind::Wall), 2, 2));
}

#[test]
fn the_deadline_is_exact() {
    let mut settings = options(&["m"]);
    settings.limits.wall = Some(Duration::from_secs(5));
    let mut rig = Rig::new(settings);
    rig.step();
    assert_eq!(rig.turn.deadline(), Some(Duration::from_secs(5)));
    rig.turn.handle_timeout(Duration::from_millis(4_999));
    assert!(!rig.turn.is_over());
    rig.turn.handle_timeout(Duration::from_secs(5));
    assert!(rig.turn.is_over());
    assert_eq!(rig.turn.deadline(), None);
}

#[test]
fn a_cancel_keeps_what_was_said_and_closes_calls() {
    let mut rig = Rig::new(options(&["m"]));
    rig.step();
    rig.say(Said::Text("half".into()));
    rig.turn.cancel();
    rig.step();
    rig.check();
    assert_eq!(rig.done.as_ref().map(|outcome| outcome.text.as_str()), Some("half"));

    let mut settings = options(&["m"]);
    settings.limits.parallel = 1;
    let mut rig = Rig::new(settings);
    rig.step();
    rig.say(Said::ToolCalls(vec![call("1"), call("2")]));
    rig.step();
    rig.turn.cancel();
    assert!(!rig.turn.awaits("1"));
    rig.step();
    rig.check();
    let status = |event: &Event| match event {
        Event::ToolFinished { status, .. } => Some(*status),
        _ => None,
    };
    let statuses: Vec<_> = rig.events.iter().filter_map(status).collect();
    assert_eq!(statuses, [ToolStatus::Interrupted, ToolStatus::NotRun]);
}

#[test]
fn what_is_said_in_between_reaches_the_model() {
    let mut rig = Rig::new(options(&["m"]));
    rig.step();
    rig.say(Said::ToolCalls(vec![call("1")]));
    rig.step();
    assert!(rig.turn.steer("hurry"));
    assert!(rig.turn.follow_up("and then?"));
    rig.result("1", "one");
    let Some(Step::CallModel(ModelCall::Answer { say, .. })) = rig.step() else {
        panic!("no answer")
    };
    assert_eq!(say, ["hurry"]);
    rig.say(Said::Text("first".into()));
    rig.say(ended());
    assert_eq!(rig.step(), start("m"));
    rig.say(Said::Text("second".into()));
    rig.say(ended());
    rig.step();
    rig.check();
    assert_eq!(rig.done.map(|outcome| outcome.text).as_deref(), Some("second"));
    let users = rig.turn.messages().iter().filter(|m| matches!(***m, Message::User { .. }));
    assert_eq!(users.count(), 3);
}

#[test]
fn what_comes_while_tools_work_is_not_lost() {
    let mut rig = Rig::new(options(&["m"]));
    rig.step();
    rig.say(Said::ToolCalls(vec![call("1")]));
    rig.step();
    rig.say(Said::ToolCalls(vec![call("2")]));
    assert_eq!(rig.step(), None);
    rig.result("1", "one");
    assert!(matches!(rig.step(), Some(Step::CallModel(ModelCall::Answer { .. }))));
    assert_eq!(rig.step(), Some(Step::CallTools(vec![call("2")])));
}

#[test]
fn a_large_conversation_is_summarised_and_no_pair_is_split() {
    let mut settings = options(&["m"]);
    settings.budget = Some(ContextBudget { tokens: 400, keep: 150 });
    let mut rig = Rig::new(settings);
    rig.step();
    for n in 0..3 {
        rig.say(Said::ToolCalls(vec![call(&n.to_string())]));
        rig.step();
        rig.result(&n.to_string(), &"x".repeat(500));
        if n < 2 {
            assert!(matches!(rig.step(), Some(Step::CallModel(ModelCall::Answer { .. }))));
        }
    }
    let Some(Step::CallModel(ModelCall::Summarise { messages, .. })) = rig.step() else {
        panic!("no summary")
    };
    crate::rig::check_pairs(&messages);
    rig.say(Said::Text("so far so good".into()));
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Text { .. })));
    rig.say(ended());
    // The service's state is of messages that are gone.
    let fresh = ModelCall::Start { model: "m".into(), fresh: true };
    assert_eq!(rig.step(), Some(Step::CallModel(fresh)));
    let first = format!("{:?}", rig.turn.messages()[0]);
    assert!(first.starts_with("User"), "{first}");
    // The task itself stays.
    assert_eq!(*rig.turn.messages()[1], Message::user("do it"));
    rig.say(Said::Text("Done.".into()));
    rig.say(ended());
    rig.step();
    rig.check();
}

#[test]
fn a_task_that_goes_on_stays_with_the_model_that_answered() {
    let messages = || vec![Message::user("do it").into()];
    let mut turn = Turn::resume(options(&["a", "b", "c"]), messages());
    turn.begin_with("b");
    let mut rig = Rig::of(turn);
    for model in ["b", "a", "b", "c"] {
        assert_eq!(rig.step(), start(model));
        rig.say(failed(cut()));
    }
    assert_eq!(rig.events[0], Event::Started { model: "b".into() });
    let Some(Step::Done(outcome)) = rig.step() else { panic!("not done") };
    assert_eq!(outcome.attempts.len(), 4);
    // The first, and one that is not there any more: as in a new task.
    for model in ["a", "x"] {
        let mut turn = Turn::resume(options(&["a", "b"]), messages());
        turn.begin_with(model);
        let mut rig = Rig::of(turn);
        for model in ["a", "b"] {
            assert_eq!(rig.step(), start(model));
            rig.say(failed(cut()));
        }
        assert!(matches!(rig.step(), Some(Step::Done(_))));
    }
}

#[test]
fn without_a_budget_the_model_s_window_is_one_where_it_is_named() {
    for (by_window, used, limit, summarised) in [
        (true, 751, Some(1_000), true),
        (true, 750, Some(1_000), false),
        (true, 751, None, false),
        (true, 751, Some(0), false),
        (false, 751, Some(1_000), false),
    ] {
        let mut settings = options(&["m"]);
        settings.by_window = by_window;
        let usage = Usage { context_used: Some(used), context_limit: limit, ..Usage::default() };
        let mut rig = Rig::new(settings.clone());
        rig.step();
        rig.say(Said::Text("x".repeat(2_000)));
        rig.say(Said::Usage(usage));
        rig.say(Said::ToolCalls(vec![call("1")]));
        rig.step();
        rig.result("1", "one");
        let step = rig.step();
        let is = matches!(step, Some(Step::CallModel(ModelCall::Summarise { .. })));
        assert_eq!(is, summarised, "{by_window} {used} {limit:?}: {step:?}");
        // The next task of the session knows it from the last one, before the model is asked.
        let mut turn = Turn::new(settings, rig.turn.messages().to_vec(), Message::user("more"));
        turn.recall_context(&usage);
        let step = Rig::of(turn).step();
        let is = matches!(step, Some(Step::CallModel(ModelCall::Summarise { .. })));
        assert_eq!(is, summarised, "{by_window} {used} {limit:?}: {step:?}");
    }
}

#[test]
fn a_turn_goes_on_in_another_process() {
    let mut settings = options(&["m"]);
    settings.limits.parallel = 1;
    let mut rig = Rig::new(settings);
    rig.step();
    rig.say(Said::ToolCalls(vec![call("1"), call("2"), call("3")]));
    rig.step();
    rig.result("1", "one");
    assert_eq!(rig.step(), Some(Step::CallTools(vec![call("2")])));
    let kept = serde_json::to_string(&rig.turn).expect("serialisable");
    let mut turn: Turn = serde_json::from_str(&kept).expect("it comes back");
    turn.reopen();
    let mut rig = Rig { turn, ..rig };
    // The one that ran is not run again; the one that did not, is.
    assert_eq!(rig.step(), Some(Step::CallTools(vec![call("3")])));
    rig.result("3", "three");
    assert_eq!(rig.step(), start("m"));
    rig.say(Said::Text("Done.".into()));
    rig.say(ended());
    rig.step();
    rig.check();
}
