//! `tests/PARITY.md` says the truth: each case of the reference is there once, and each test it
//! names exists.

#![allow(clippy::panic, reason = "helpers of tests")]

mod ledger;

const LIST: &str = include_str!("PARITY.md");

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    ledger::rows(LIST, |case| {
        case.len() > 2
            && case.starts_with(['C', 'L'])
            && case.bytes().skip(1).all(|byte| byte.is_ascii_digit())
    })
}

#[test]
fn every_case_of_the_reference_is_listed_once() {
    let cases = (1..=106).map(|n| format!("C{n:03}"));
    ledger::assert_complete(rows(), cases.chain((1..=10).map(|n| format!("L{n:02}"))));
}

#[test]
fn every_verdict_is_a_test_a_reason_or_an_open_issue() {
    for (case, verdict) in rows() {
        let reason = verdict.starts_with("does not apply: ") || verdict.starts_with("open (issue ");
        assert!(
            reason || ledger::tests_named_in(verdict).next().is_some(),
            "{case} names no test, no reason and no issue: {verdict}"
        );
    }
}

#[test]
fn every_test_that_is_named_exists() {
    ledger::assert_tests_exist(rows());
}
