//! The cases of the protocol tables, as they stand in `tests/data/protocol/`.

use std::collections::BTreeSet;

const FIELDS: &str = include_str!("../data/protocol/agent_v1_fields.tsv");

/// One case of a oneof.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) number: u32,
    pub(crate) name: String,
}

/// Message, number, name, oneof of every row.
fn rows() -> impl Iterator<Item = (&'static str, u32, &'static str, &'static str)> {
    FIELDS.lines().skip(1).filter_map(|line| {
        let mut cells = line.split('\t');
        let (message, number, name) = (cells.next()?, cells.next()?, cells.next()?);
        let oneof = cells.nth(1)?;
        Some((message, number.parse().ok()?, name, oneof))
    })
}

/// The numbers of all fields of a message.
pub(crate) fn fields(message: &str) -> BTreeSet<u32> {
    rows().filter(|row| row.0 == message).map(|row| row.1).collect()
}

/// The cases of a oneof.
pub(crate) fn cases(message: &str, oneof: &str) -> Vec<Case> {
    let rows = rows().filter(|row| row.0 == message && row.3 == oneof);
    let cases: Vec<_> =
        rows.map(|(_, number, name, _)| Case { number, name: name.into() }).collect();
    assert!(!cases.is_empty(), "{message}.{oneof} is in the tables");
    cases
}

/// Every exec. Those of the tables have no oneof in common with anything else.
pub(crate) fn execs() -> Vec<Case> {
    cases("ExecServerMessage", "message")
}

/// Every query.
pub(crate) fn queries() -> Vec<Case> {
    cases("InteractionQuery", "query")
}

impl Case {
    /// The result with the name of the question: `shell_args` is answered by `shell_result`.
    pub(crate) fn result(&self) -> String {
        let result = match self.name.as_str() {
            "shell_stream_args" => "shell_stream".to_owned(),
            name => match name.strip_suffix("_request") {
                Some(stem) => format!("{stem}_response"),
                None => format!("{}_result", name.trim_end_matches("_args")),
            },
        };
        let known = cases("ExecClientMessage", "message");
        assert!(known.iter().any(|case| case.name == result), "{result} is in the tables");
        result
    }

    /// What the service gets when nobody serves it. Where no result can say so, it is thrown.
    pub(crate) fn refused(&self) -> Vec<String> {
        match self.name.as_str() {
            "execute_hook_args" | "git_diff_request" => vec!["throw".into(), "close".into()],
            _ => vec![format!("result {}", self.result()), "close".into()],
        }
    }

    /// What the service gets from a handler: start, output and exit of a streaming shell.
    pub(crate) fn served(&self) -> Vec<String> {
        let events = if self.name == "shell_stream_args" { 3 } else { 1 };
        let mut words = vec![format!("result {}", self.result()); events];
        words.push("close".into());
        words
    }
}
