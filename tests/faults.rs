//! `tests/FAULTS.md` says the truth: each row of the fault matrix is there once, and each test it
//! names exists.

#![allow(clippy::panic, reason = "helpers of tests")]

mod ledger;

const LIST: &str = include_str!("FAULTS.md");

/// What a row says of something that has no test yet.
const OPEN: &str = "open: ";

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    ledger::rows(LIST, |case| {
        case.strip_prefix('M').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[test]
fn every_row_of_the_matrix_is_listed_once() {
    let numbered = (1..=101).map(|n| format!("M{n}"));
    ledger::assert_complete(rows(), numbered.chain(["M59b".to_owned(), "M77b".to_owned()]));
}

#[test]
fn every_row_names_a_test_or_says_what_is_open() {
    let mut open = 0;
    for (row, verdict) in rows() {
        let tests = ledger::tests_named_in(verdict).count();
        assert!(tests > 0 || verdict.contains(OPEN), "{row} names no test: {verdict}");
        if let Some((_, what)) = verdict.split_once(OPEN) {
            println!("{row} is open: {what}");
            open += 1;
        }
    }
    println!("{} rows, {open} of them open in part or whole", rows().count());
}

#[test]
fn every_test_that_is_named_exists() {
    ledger::assert_tests_exist(rows());
}
