//! Which failures are tried again, when, and with what request.

use agentwire::codec::History;
use agentwire::connect::Code;
use agentwire::conversation::Conversation;
use agentwire::error::{Kind, NetworkFault};
use agentwire::run::{Event, Notice, Options, Remedy, RetryBudget};

use super::rig::*;

/// The first attempt fails with `step`, the second answers.
fn fails_once(step: &str) -> String {
    format!(
        r#"{{"rules": [
            {{"times": 1, "steps": [{step}]}},
            {{"steps": [{{"text": "hello"}}, {{"turn_end": {{}}}}]}}]}}"#
    )
}

fn one_attempt() -> Options {
    let mut options = Options::default();
    options.retry.retries = 0;
    options
}

/// FAULTS M46, M47, M50-M52, M61 above a single attempt.
#[test]
fn failures_of_the_way_are_tried_again_and_stated_errors_are_not() {
    let again = [
        r#""cut""#,
        r#""close""#,
        r#""end""#,
        r#"{"reset": 0}"#,
        r#"{"reset": 2}"#,
        r#"{"reset": 7}"#,
        r#"{"reset": 8}"#,
        r#"{"reset": 11}"#,
        r#""silence""#,
        r#"{"bytes": {"hex": "00 00 00 00 09 01"}}, "close""#,
        r#"{"status": {"status": 429}}"#,
        r#"{"status": {"status": 502}}"#,
        r#"{"status": {"status": 503, "headers": {"retry-after": "2"}}}"#,
        r#"{"status": {"status": 504}}"#,
    ];
    for step in again {
        let mut rig = Rig::new(&fails_once(step));
        rig.play(secs(300));
        rig.assert_complete();
        assert_eq!(rig.text(), "hello", "{step}");
        assert_eq!(rig.requests.len(), 2, "{step}");
        let retries = |notice: &Notice| matches!(notice, Notice::Retrying { attempt: 1, .. });
        assert_eq!(rig.notices().iter().filter(|n| retries(n)).count(), 1, "{step}");

        let conversation = Conversation::with_id("conv");
        let mut single = Rig::with(request(), conversation, one_attempt(), &fails_once(step));
        single.play(secs(300));
        assert!(single.error().kind() != &Kind::Cancelled, "{step}");
        assert_eq!(single.requests.len(), 1, "{step}");
    }
    let stands = [
        r#"{"error": "unavailable"}"#,
        r#"{"error": "internal"}"#,
        r#"{"error": {"code": "resource_exhausted", "message": "usage limit"}}"#,
        r#"{"error": "canceled"}"#,
        r#"{"turn_end": {}}, {"error": "internal"}"#,
        r#"{"status": {"status": 401}}"#,
        r#"{"status": {"status": 500}}"#,
        r#"{"status": {"status": 503, "headers": {"retry-after": "61"}}}"#,
        r#"{"bytes": {"hex": "08 00 00 00 00"}}"#,
    ];
    for step in stands {
        let mut rig = Rig::new(&fails_once(step));
        rig.play(secs(300));
        rig.error();
        assert_eq!((rig.requests.len(), rig.notices().len()), (1, 0), "{step}");
    }
}

#[test]
fn what_comes_after_the_end_of_the_turn_is_not_tried_again() {
    for step in [r#""cut""#, r#"{"reset": 2}"#, r#""close""#, r#""silence""#] {
        let mut rig =
            Rig::new(&fails_once(&format!(r#"{{"text": "a"}}, {{"turn_end": {{}}}}, {step}"#)));
        rig.play(secs(300));
        rig.assert_complete();
        assert_eq!(rig.requests.len(), 1, "{step}");
    }
}

#[test]
fn ten_retries_with_growing_delays_and_then_the_error_stands() {
    let mut rig = Rig::new(r#"{"rules": [{"steps": ["cut"]}]}"#);
    rig.play(secs(3_600));
    let at: Vec<u128> = rig.requests.iter().map(|(at, _)| at / 1_000).collect();
    assert_eq!(at.len(), 11);
    let mut earliest = 0;
    for (n, pair) in at.windows(2).enumerate() {
        let least = 1_000_u128.saturating_mul(1 << n).min(60_000);
        let waited = rig.requests[n + 1].0 - rig.requests[n].0;
        assert!(waited >= least && waited <= least + least / 5, "retry {n}: {waited} ms");
        earliest += least;
        assert!(pair[1] >= earliest / 1_000);
    }
    assert_eq!(rig.error().kind(), &Kind::Network(NetworkFault::Cut));
    assert!(rig.error().hint().unwrap().contains("10 more attempts"), "{}", rig.error());
}

#[test]
fn the_runs_of_a_client_share_a_budget_of_retries() {
    let budget = RetryBudget::new(3);
    let play = |rules: &str| {
        let conversation = Conversation::with_id("c");
        let mut rig = Rig::within(&budget, request(), conversation, Options::default(), rules);
        rig.play(secs(3_600));
        rig
    };
    let cut = r#"{"rules": [{"steps": ["cut"]}]}"#;
    let first = play(cut);
    assert_eq!((first.requests.len(), budget.left()), (4, 0));
    assert!(first.error().hint().unwrap().contains("together"), "{}", first.error());
    assert_eq!(play(cut).requests.len(), 1, "nothing is left for another run");
    play(r#"{"rules": [{"steps": [{"turn_end": {}}]}]}"#).assert_complete();
    assert_eq!(play(cut).requests.len(), 2, "a turn that completes gives one back");
}

#[test]
fn a_wish_for_a_later_time_is_kept() {
    let step = r#"{"status": {"status": 503, "headers": {"retry-after": "7"}}}"#;
    let mut rig = Rig::new(&fails_once(step));
    rig.play(secs(60));
    assert_eq!(rig.requests[1].0, 7_000);
}

/// PROTOCOL 3: one 30 s silence deadline while there are retries; FAULTS: 120 s for one attempt.
#[test]
fn silence_is_noticed_sooner_where_it_can_be_helped() {
    let silent = fails_once(r#"{"text": "a"}, "silence""#);
    let mut rig = Rig::new(&silent);
    rig.play(secs(29));
    assert_eq!(rig.notices(), []);
    rig.play(secs(2));
    assert!(matches!(rig.notices()[..], [Notice::Retrying { attempt: 1, .. }]));
    let mut single = Rig::with(request(), Conversation::with_id("c"), one_attempt(), &silent);
    single.play(secs(119));
    assert_eq!(single.ended(), None);
    single.play(secs(2));
    assert_eq!(single.error().kind(), &Kind::Network(NetworkFault::Stalled));
}

#[test]
fn the_request_is_the_same_until_the_service_has_said_something() {
    let mut rig = Rig::new(&fails_once(r#""cut""#));
    rig.play(secs(60));
    assert_eq!(rig.actions(), ["user", "user"]);
    assert_eq!(rig.requests[0].1, rig.requests[1].1);

    let mut rig = Rig::new(&fails_once(r#"{"thinking": "hm"}, "cut""#));
    rig.play(secs(60));
    assert_eq!(rig.actions(), ["user", "resume"]);
    // The message is in the history now, and only there (FAULTS M86).
    let roots = |n: usize| {
        let state = rig.requests[n].1.conversation_state.as_ref().unwrap();
        state.root_prompt_messages_json.len()
    };
    assert_eq!((roots(0), roots(1)), (1, 2));
    rig.assert_complete();
}

/// FAULTS M85, M86: the last checkpoint survives the cut and is what the next attempt starts from.
#[test]
fn a_resumed_turn_sends_the_last_checkpoint_as_it_came_and_pins_the_model() {
    let rules = r#"{"rules": [
        {"times": 1, "steps": [{"text": "one "}, {"checkpoint": {"used_tokens": 77}},
            {"text": "two "}, "cut"]},
        {"when": {"action": "resume"}, "steps": [{"text": "two three"}, {"turn_end": {}}]}]}"#;
    let mut rig = Rig::new(rules);
    rig.play(secs(60));
    rig.assert_complete();
    assert_eq!(rig.text(), "one two three");
    assert_eq!(rig.actions(), ["user", "resume"]);
    let (first, second) = (&rig.requests[0].1, &rig.requests[1].1);
    assert_eq!(first.conversation_id, second.conversation_id);
    assert_eq!(first.model_details, second.model_details);
    let state = second.conversation_state.as_ref().unwrap();
    assert_eq!(state.token_details.as_ref().unwrap().used_tokens, 77);
    assert_eq!(state.turns.len(), 1, "the turn as the service had it");
    assert!(!rig.notices().iter().any(|n| matches!(n, Notice::Restarted { .. })));
}

#[test]
fn in_the_older_form_a_turn_without_a_checkpoint_is_asked_again_whole() {
    let mut asked = request();
    asked.history = History::Legacy;
    let rules = fails_once(r#"{"text": "hel"}, "cut""#);
    let mut rig = Rig::with(asked, Conversation::with_id("c"), Options::default(), &rules);
    rig.play(secs(60));
    rig.assert_complete();
    assert_eq!((rig.text().as_str(), rig.actions()), ("hello", vec!["user", "user"]));
}

#[test]
fn a_refused_token_is_renewed_once_at_once_and_without_retries() {
    let refused = r#"{"status": {"status": 401}}"#;
    let conversation = || Conversation::with_id("conv");
    let single = |rules: &str| Rig::with(request(), conversation(), one_attempt(), rules);

    let mut rig = single(&fails_once(refused)).renewable(true);
    rig.play(secs(1));
    rig.assert_complete();
    assert_eq!((rig.text().as_str(), rig.renewals, rig.requests.len()), ("hello", 1, 2));
    assert_eq!(rig.requests[1].0, 0, "at once");

    let mut without = single(&fails_once(refused)).renewable(false);
    without.play(secs(1));
    assert_eq!(without.error().http_status(), Some(401), "what the service said");
    assert_eq!((without.renewals, without.requests.len()), (1, 1), "nothing more was sent");

    let always = format!(r#"{{"rules": [{{"steps": [{refused}]}}]}}"#);
    let mut twice = single(&always).renewable(true);
    twice.play(secs(1));
    assert_eq!(twice.error().http_status(), Some(401));
    assert_eq!((twice.renewals, twice.requests.len()), (1, 2));

    let mut fixed = single(&fails_once(refused));
    fixed.play(secs(1));
    assert_eq!((fixed.error().http_status(), fixed.renewals), (Some(401), 0));
}

#[test]
fn remedies_are_tried_at_once_and_only_before_content() {
    let poisoned = r#"{"error": {"code": "resource_exhausted", "message": "Error"}}"#;
    let lost = r#"{"error": {"code": "internal", "message": "Blob not found"}}"#;
    let table = [
        (r#"{"error": "not_found"}"#, Remedy::OtherModelForm),
        (lost, Remedy::Rebuild),
        (poisoned, Remedy::FreshConversation),
    ];
    for (step, remedy) in table {
        let mut rig = Rig::new(&fails_once(step));
        rig.play(secs(1));
        rig.assert_complete();
        assert_eq!(rig.notices(), [Notice::Repairing { remedy }]);
        assert_eq!(rig.requests[1].0, 0, "at once");
        assert_eq!(rig.actions(), ["user", "user"]);
        let ids = [0, 1].map(|n| rig.requests[n].1.conversation_id.clone());
        assert_eq!(ids[0] == ids[1], remedy == Remedy::OtherModelForm);
        assert_eq!(rig.requests[1].1.requested_model.is_some(), remedy == Remedy::OtherModelForm);

        let mut late = Rig::new(&fails_once(&format!(r#"{{"text": "a"}}, {step}"#)));
        late.play(secs(60));
        late.error();
        assert_eq!(late.requests.len(), 1, "{step}");
    }
}

#[test]
fn each_remedy_is_used_up() {
    for (message, code, requests) in [
        ("no such thing", "not_found", 2),
        ("Blob not found", "not_found", 2),
        ("Error", "resource_exhausted", 4),
    ] {
        let error = format!(r#"{{"error": {{"code": "{code}", "message": "{message}"}}}}"#);
        let mut rig = Rig::new(&format!(r#"{{"rules": [{{"steps": [{error}]}}]}}"#));
        rig.play(secs(60));
        rig.error();
        assert_eq!(rig.requests.len(), requests, "{message}");
    }
}

#[test]
fn a_model_that_is_named_by_parameters_falls_back_to_its_id() {
    let mut asked = request();
    asked.model = asked.model.parameter("effort", "high");
    let rules = fails_once(r#"{"error": "not_found"}"#);
    let mut rig = Rig::with(asked, Conversation::with_id("c"), Options::default(), &rules);
    rig.play(secs(1));
    rig.assert_complete();
    let forms = [0, 1].map(|n| rig.requests[n].1.model_details.is_some());
    assert_eq!(forms, [false, true]);
}

#[test]
fn a_cancel_is_heard_while_nothing_is_under_way() {
    let mut rig = Rig::new(r#"{"rules": [{"steps": ["cut"]}]}"#);
    rig.play(secs(0));
    rig.turn.cancel(rig.now);
    rig.play(secs(0));
    assert_eq!(rig.error().kind(), &Kind::Cancelled);
    rig.play(secs(100));
    assert_eq!(rig.requests.len(), 1);
}

/// The stream has failed, but no event has said so yet.
#[test]
fn a_cancel_behind_a_failure_makes_no_other_attempt() {
    let mut rig = Rig::new(r#"{"rules": [{"steps": [{"text": "a"}, {"wait_ms": 900000}]}]}"#);
    rig.play(secs(1));
    rig.now += Options::default().silence;
    rig.turn.handle_timeout(rig.now);
    rig.turn.cancel(rig.now);
    rig.play(secs(0));
    assert_eq!(rig.error().kind(), &Kind::Cancelled);
    assert_eq!((rig.requests.len(), rig.notices()), (1, vec![]));
}

#[test]
fn no_attempt_begins_after_the_deadline() {
    let mut options = Options::default();
    options.deadline = Some(secs(10));
    let rules = r#"{"rules": [{"steps": ["cut"]}]}"#;
    let mut rig = Rig::with(request(), Conversation::with_id("c"), options.clone(), rules);
    rig.play(secs(100));
    assert_eq!(rig.error().kind(), &Kind::Network(NetworkFault::Cut));
    assert!(rig.error().hint().unwrap().contains("deadline"));
    assert_eq!(rig.requests.len(), 4, "at 0, 1, 3 and 7 seconds");

    // The deadline counts over all attempts.
    let rules = fails_once(r#"{"text": "a"}, {"wait_ms": 6000}, "cut""#)
        .replace(r#"{"text": "hello"}"#, r#"{"text": "hello"}, {"wait_ms": 6000}"#);
    let mut rig = Rig::with(request(), Conversation::with_id("c"), options, &rules);
    rig.play(secs(100));
    assert_eq!(rig.error().kind(), &Kind::DeadlineExceeded);
    assert!(rig.error().message().contains("10s"), "{}", rig.error());
    assert_eq!(rig.error().code(), Code::DeadlineExceeded);
}

#[test]
fn what_is_said_into_a_turn_that_breaks_off_is_said_again() {
    let rules = r#"{"rules": [
        {"times": 1, "steps": [{"text": "a"}, {"wait_ms": 1000}, "cut"]},
        {"steps": [{"wait_ms": 10}, {"text": "a"}, {"turn_end": {}}]}]}"#;
    let mut rig = Rig::new(rules);
    rig.play(std::time::Duration::from_millis(10));
    let first = rig.turn.say("wait", rig.now).unwrap();
    rig.play(secs(1));
    let second = rig.turn.say("and this", rig.now).unwrap();
    assert_ne!(first, second);
    rig.play(secs(60));
    rig.assert_complete();
    let appended: Vec<_> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Progress(agentwire::run::Progress::UserMessageAppended { message_id }) => {
                Some(message_id.clone())
            }
            _ => None,
        })
        .collect();
    assert_eq!(appended, [first.clone(), first, second]);
}
