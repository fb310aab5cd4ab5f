//! `tests/PARITY.md` says the truth: the cases of the reference are there once and in order, and
//! each test it names exists.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so")]

use std::fs;
use std::path::Path;

const LIST: &str = include_str!("PARITY.md");

/// The rows of the table: first and last case, verdict.
fn rows() -> Vec<(u32, u32, &'static str)> {
    LIST.lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| W")?.strip_suffix('|')?.split('|').map(str::trim);
            let (cases, _what, verdict) = (cells.next()?, cells.next()?, cells.next()?);
            let (first, last) = cases.split_once("-W").unwrap_or((cases, cases));
            Some((first.parse().unwrap(), last.parse().unwrap(), verdict))
        })
        .collect()
}

#[test]
fn every_case_is_listed_once() {
    let mut next = 1;
    for (first, last, _) in rows() {
        assert_eq!(first, next);
        assert!(last >= first, "W{first:03}");
        next = last + 1;
    }
    assert_eq!(next, 349);
}

#[test]
fn every_verdict_is_a_reason_or_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (first, _, verdict) in rows() {
        if verdict.starts_with("does not apply: ") {
            continue;
        }
        let mut tests = 0;
        for (file, function) in
            verdict.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::"))
        {
            // Tests of the agent and of the command line stand beside this member.
            let beside = file.starts_with("agent/") || file.starts_with("cli/");
            let folder = if beside { root.join("..") } else { root.to_owned() };
            let Ok(source) = fs::read_to_string(folder.join(file)) else {
                panic!("W{first:03}: there is no file {file}");
            };
            if function.contains(' ') || file == "Store" {
                continue;
            }
            let declared = source.contains(&format!("fn {function}("));
            assert!(declared, "W{first:03}: {file} has no test {function}");
            tests += 1;
        }
        assert!(tests > 0, "W{first:03} names neither a test nor a reason: {verdict}");
    }
}
