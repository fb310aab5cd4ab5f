//! Tables that map cases to tests, and whether they say the truth: `PARITY.md`, `FAULTS.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The rows `| case | what | verdict |` of a table whose case `is_case` knows: case, verdict.
pub(crate) fn rows(
    table: &str,
    is_case: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (&str, &str)> {
    table.lines().filter_map(move |line| {
        let mut cells = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim);
        let (case, _what, verdict) = (cells.next()?, cells.next()?, cells.next()?);
        is_case(case).then_some((case, verdict))
    })
}

/// Each expected case is there, once.
pub(crate) fn assert_complete<'t>(
    rows: impl Iterator<Item = (&'t str, &'t str)>,
    expected: impl Iterator<Item = String>,
) {
    let mut listed = BTreeSet::new();
    for (case, _) in rows {
        assert!(listed.insert(case.to_owned()), "{case} is listed twice");
    }
    assert_eq!(listed, expected.collect());
}

/// Each test that a verdict names exists.
pub(crate) fn assert_tests_exist<'t>(rows: impl Iterator<Item = (&'t str, &'t str)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (case, verdict) in rows {
        for (file, function) in tests_named_in(verdict) {
            let Ok(source) = fs::read_to_string(root.join(file)) else {
                panic!("{case}: there is no file {file}");
            };
            assert!(is_test(&source, function), "{case}: {file} has no test {function}");
        }
    }
}

/// The `` `file.rs::function` `` in a verdict.
pub(crate) fn tests_named_in(verdict: &str) -> impl Iterator<Item = (&str, &str)> {
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
