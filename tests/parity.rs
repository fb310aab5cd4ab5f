//! `tests/PARITY.md` says the truth: each case of the reference is there once, and each test it
//! names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const LIST: &str = include_str!("PARITY.md");

/// The rows of the table: case, verdict.
fn rows() -> Vec<(&'static str, &'static str)> {
    LIST.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim);
            let (case, _what, verdict) = (cells.next()?, cells.next()?, cells.next()?);
            let is_case = case.len() > 2
                && case.starts_with(['C', 'L'])
                && case.bytes().skip(1).all(|byte| byte.is_ascii_digit());
            is_case.then_some((case, verdict))
        })
        .collect()
}

#[test]
fn every_case_of_the_reference_is_listed_once() {
    let rows = rows();
    let listed: BTreeSet<String> = rows.iter().map(|(case, _)| (*case).to_owned()).collect();
    let expected: BTreeSet<String> =
        (1..=106).map(|n| format!("C{n:03}")).chain((1..=10).map(|n| format!("L{n:02}"))).collect();
    assert_eq!(listed, expected);
    assert_eq!(rows.len(), expected.len(), "a case is listed twice");
}

#[test]
fn every_verdict_is_a_test_a_reason_or_an_open_issue() {
    for (case, verdict) in rows() {
        let reason = verdict.starts_with("does not apply: ") || verdict.starts_with("open (issue ");
        assert!(
            reason || tests_named_in(verdict).next().is_some(),
            "{case} names no test, no reason and no issue: {verdict}"
        );
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (case, verdict) in rows() {
        for (file, function) in tests_named_in(verdict) {
            let Ok(source) = fs::read_to_string(root.join(file)) else {
                panic!("{case}: there is no file {file}");
            };
            assert!(is_test(&source, function), "{case}: {file} has no test {function}");
        }
    }
}

/// The `` `file.rs::function` `` in a verdict.
fn tests_named_in(verdict: &str) -> impl Iterator<Item = (&str, &str)> {
    verdict.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::"))
}

/// Whether `source` has a function of this name that the test harness runs.
fn is_test(source: &str, function: &str) -> bool {
    let declaration = format!("fn {function}(");
    let mut attributes = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes |= line.contains("test]") || line.contains("test(");
        } else if line.contains(&declaration) && attributes {
            return true;
        } else if !line.is_empty() && !line.starts_with("//") {
            attributes = false;
        }
    }
    // Inside `proptest! { … }` the attribute stands as everywhere else.
    false
}
