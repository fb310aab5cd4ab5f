//! Text that a resumed turn says again is handed out once.

use agentwire::run::{Event, Notice};
use proptest::prelude::*;

use super::rig::*;

fn restarts(rig: &Rig) -> Vec<(usize, usize)> {
    let restarts = rig.notices().into_iter().filter_map(|notice| match notice {
        Notice::Restarted { text, thinking } => Some((text, thinking)),
        _ => None,
    });
    restarts.collect()
}

fn pieces(rig: &Rig) -> String {
    let pieces = rig.events.iter().filter_map(|event| match event {
        Event::Text(text) => Some(text.as_str()),
        _ => None,
    });
    pieces.collect()
}

#[test]
fn the_same_words_are_cut() {
    let rules = r#"{"delta": 3, "rules": [
        {"times": 1, "steps": [{"thinking": "Hm, hm."}, {"text": "One, two"}, "cut"]},
        {"delta": 5, "steps": [{"thinking": "Hm, hm."}, {"text": "One, two, three."}, {"turn_end": {}}]}]}"#
        .replace(r#"{"delta": 5, "#, "{");
    let mut rig = Rig::new(&rules);
    rig.play(secs(60));
    rig.assert_complete();
    assert_eq!((pieces(&rig).as_str(), rig.thinking().as_str()), ("One, two, three.", "Hm, hm."));
    assert_eq!(restarts(&rig), []);
}

#[test]
fn other_words_are_marked_and_say_what_they_replace() {
    let rules = r#"{"delta": 3, "rules": [
        {"times": 1, "steps": [{"text": "kept "}, {"checkpoint": {}}, {"text": "One, two"}, "cut"]},
        {"steps": [{"text": "One, four."}, {"turn_end": {}}]}]}"#;
    let mut rig = Rig::new(rules);
    rig.play(secs(60));
    rig.assert_complete();
    assert_eq!(pieces(&rig), "kept One, twoOne, four.");
    assert_eq!(restarts(&rig), [(8, 0)]);
    assert_eq!(rig.text(), "kept One, four.");
}

#[test]
fn fewer_words_are_marked_when_the_turn_moves_on() {
    let rules = r#"{"rules": [
        {"times": 1, "steps": [{"text": "One, two"}, "cut"]},
        {"steps": [{"text": "One"}, {"turn_end": {}}]}]}"#;
    let mut rig = Rig::new(rules);
    rig.play(secs(60));
    rig.assert_complete();
    assert_eq!((rig.text().as_str(), restarts(&rig)), ("One", vec![(8, 0)]));
    assert!(matches!(rig.events.last(), Some(Event::Ended(_))));
}

#[test]
fn other_thoughts_do_not_restart_the_answer() {
    let rules = r#"{"rules": [
        {"times": 1, "steps": [{"thinking": "This way"}, {"text": "One, two"}, "cut"]},
        {"steps": [{"thinking": "That way"}, {"text": "One, two, three"}, {"turn_end": {}}]}]}"#;
    let mut rig = Rig::new(rules);
    rig.play(secs(60));
    rig.assert_complete();
    assert_eq!((pieces(&rig).as_str(), restarts(&rig)), ("One, two, three", vec![(0, 8)]));
}

#[test]
fn output_tokens_of_all_attempts_are_counted() {
    let rules = r#"{"rules": [
        {"times": 1, "steps": [{"tokens": 5}, "cut"]},
        {"steps": [{"tokens": 7}, {"turn_end": {}}]}]}"#;
    let mut rig = Rig::new(rules);
    rig.play(secs(60));
    match rig.ended() {
        Some(Ok(finish)) => assert_eq!((finish.usage.output, finish.usage.billed), (12, false)),
        other => panic!("{other:?}"),
    }
}

const PARTS: [&str; 3] = ["Förste Satz. ", "Zweiter Satz. ", "Der dritte."];

/// A service that goes on from the last checkpoint: its tokens say how far it came.
fn resuming() -> String {
    let mut rules = Vec::new();
    for from in (0..=PARTS.len()).rev() {
        let mut steps = Vec::new();
        for (n, part) in PARTS.iter().enumerate().skip(from) {
            let checkpoint = format!(r#"{{"checkpoint": {{"used_tokens": {}}}}}"#, n + 1);
            steps.push(format!(r#"{{"text": "{part}"}}, {checkpoint}"#));
        }
        steps.push(r#"{"turn_end": {}}"#.to_owned());
        let when = format!(r#"{{"used_tokens": {from}}}"#);
        rules.push(format!(r#"{{"when": {when}, "steps": [{}]}}"#, steps.join(", ")));
    }
    format!(r#"{{"delta": 4, "rules": [{}]}}"#, rules.join(", "))
}

#[test]
fn a_cut_at_every_byte_gives_the_whole_text_once() {
    let whole = PARTS.concat();
    for at in 0..100_000 {
        let mut rig = Rig::new(&resuming());
        rig.cuts = vec![at];
        rig.play(secs(60));
        rig.assert_complete();
        assert_eq!(pieces(&rig), whole, "cut at byte {at}");
        assert_eq!(restarts(&rig), [], "cut at byte {at}");
        if !rig.cuts.is_empty() {
            assert!(at > 500, "the whole answer is longer than {at} bytes");
            return;
        }
    }
    panic!("the answer has no end");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn many_cuts_give_the_whole_text_once(cuts in prop::collection::vec(0..900_usize, 1..8)) {
        let mut rig = Rig::new(&resuming());
        rig.cuts = cuts;
        rig.play(secs(3_600));
        rig.assert_complete();
        prop_assert_eq!(pieces(&rig), PARTS.concat());
        prop_assert_eq!(restarts(&rig), vec![]);
    }

    /// A model that never says the same twice: what is shown in the end is what it said last.
    #[test]
    fn a_model_that_changes_its_mind_is_marked(cuts in prop::collection::vec(0..300_usize, 1..5)) {
        let attempts = ["Es war so.", "Es war anders.", "Es", "Nein.", "Es war einmal."];
        let rules: Vec<_> = attempts
            .iter()
            .map(|text| format!(r#"{{"times": 1, "steps": [{{"text": "{text}"}}, {{"turn_end": {{}}}}]}}"#))
            .collect();
        let mut rig = Rig::new(&format!(r#"{{"delta": 2, "rules": [{}]}}"#, rules.join(", ")));
        rig.cuts = cuts;
        rig.play(secs(3_600));
        rig.assert_complete();
        prop_assert_eq!(rig.text(), attempts[rig.requests.len() - 1]);
    }
}
