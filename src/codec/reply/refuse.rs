//! Refusals: for every exec and every query, the answer that says no in its own type.
//!
//! The tables are of numbers, from the field tables of the protocol; a test holds them against the
//! generated types. Where a result has no case that refuses: 30 and 31 say NOT_FOUND, 41 to 43 that
//! nothing is allowed, 27 and 44 are thrown.

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;

use super::{exec, response, stream_close, throw};
use crate::codec::Policy;
use crate::codec::back::Back;
use crate::codec::tools::ToolContext;
use crate::proto::{exec_server_message, interaction_query, interaction_response};
use crate::wire::Reader;

/// How to refuse.
#[derive(Debug, Clone, Copy)]
pub struct Refuse<'a> {
    /// The handler's own words; without them the text names the tool and what to use instead.
    pub reason: Option<&'a str>,
    /// The tools of the run: what to use instead.
    pub tools: &'a ToolContext,
    /// Ours, or the reference's: empty results for 9, 17, 18, 21 and 22, and no closing.
    pub policy: Policy,
}

impl<'a> Refuse<'a> {
    /// Refuses with our own text.
    pub fn new(tools: &'a ToolContext) -> Self {
        Self { reason: None, tools, policy: Policy::Typed }
    }

    /// Refuses with these words instead, where there are any.
    #[must_use]
    pub fn because(self, reason: Option<&'a str>) -> Self {
        Self { reason, ..self }
    }

    fn text(&self, what: &str) -> String {
        match self.reason {
            Some(reason) => reason.to_owned(),
            None => {
                format!("This client does not serve \"{what}\". {}", self.tools.instead())
            }
        }
    }
}

/// How one exec case is refused.
struct Exec {
    /// Field of the arguments in `ExecServerMessage`.
    args: u32,
    /// What the model knows it by.
    name: &'static str,
    /// Field of the result in `ExecClientMessage`.
    result: u32,
    how: How,
    /// Arguments that the refusal repeats: field of the arguments, field of the refusal.
    echo: &'static [(u32, u32)],
}

/// What is in the result.
#[derive(Clone, Copy)]
enum How {
    /// A case with a text: its field, and the field of the text in it.
    Case(u32, u32),
    /// Field 1 with this value.
    Value(u64),
    /// Nothing fits: the exec is thrown.
    Throw,
}

use How::{Case, Throw, Value};

const NOTHING: &[(u32, u32)] = &[];
const FIRST: &[(u32, u32)] = &[(1, 1)];
/// Command and working directory.
const COMMAND: &[(u32, u32)] = &[(1, 1), (2, 2)];
const URI: &[(u32, u32)] = &[(2, 1)];
/// `FORCE_BACKGROUND_…_STATUS_NOT_FOUND`.
const NOT_FOUND: u64 = 2;
/// `allowlisted = false`, written although it is the default: an answer that says something.
const FALSE: u64 = 0;

const fn row(
    args: u32,
    name: &'static str,
    result: u32,
    how: How,
    echo: &'static [(u32, u32)],
) -> Exec {
    Exec { args, name, result, how, echo }
}

#[rustfmt::skip]
const EXECS: &[Exec] = &[
    row(2, "shell", 2, Case(4, 3), COMMAND),
    row(3, "write", 3, Case(6, 2), FIRST),
    row(4, "delete", 4, Case(6, 2), FIRST),
    row(5, "grep", 5, Case(2, 1), NOTHING),
    row(7, "read", 7, Case(3, 2), FIRST),
    row(8, "ls", 8, Case(3, 2), FIRST),
    row(9, "diagnostics", 9, Case(3, 2), FIRST),
    row(10, "request_context", 10, Case(3, 1), NOTHING),
    row(11, "mcp", 11, Case(3, 1), NOTHING),
    row(14, "shell", 14, Case(5, 3), COMMAND),
    row(16, "background_shell", 16, Case(3, 3), COMMAND),
    row(17, "list_mcp_resources", 17, Case(3, 1), NOTHING),
    row(18, "read_mcp_resource", 18, Case(3, 2), URI),
    row(20, "fetch", 20, Case(2, 2), FIRST),
    row(21, "record_screen", 21, Case(4, 1), NOTHING),
    row(22, "computer_use", 22, Case(2, 1), NOTHING),
    row(23, "write_shell_stdin", 23, Case(2, 1), NOTHING),
    row(27, "execute_hook", 27, Throw, NOTHING),
    row(28, "subagent", 28, Case(2, 2), NOTHING),
    row(29, "redacted_read", 29, Case(3, 2), FIRST),
    row(30, "force_background_shell", 30, Value(NOT_FOUND), NOTHING),
    row(31, "force_background_subagent", 31, Value(NOT_FOUND), NOTHING),
    row(36, "mcp_state", 36, Case(3, 1), NOTHING),
    row(37, "subagent_await", 37, Case(4, 2), FIRST),
    row(38, "smart_mode_classifier", 38, Case(2, 1), NOTHING),
    row(40, "canvas_diagnostics", 40, Case(2, 2), FIRST),
    row(41, "shell_allowlist_precheck", 41, Value(FALSE), NOTHING),
    row(42, "mcp_allowlist_precheck", 42, Value(FALSE), NOTHING),
    row(43, "web_fetch_allowlist_precheck", 43, Value(FALSE), NOTHING),
    row(44, "git_diff", 44, Throw, NOTHING),
    row(45, "pi_read", 46, Case(2, 1), NOTHING),
    row(46, "pi_bash", 47, Case(2, 1), NOTHING),
    row(47, "pi_edit", 48, Case(3, 1), NOTHING),
    row(48, "pi_write", 49, Case(3, 1), NOTHING),
    row(49, "pi_grep", 50, Case(2, 1), NOTHING),
    row(50, "pi_find", 51, Case(2, 1), NOTHING),
    row(51, "pi_ls", 52, Case(2, 1), NOTHING),
    row(52, "bash", 55, Case(4, 3), COMMAND),
    row(53, "conversation_search", 53, Case(2, 1), NOTHING),
    row(54, "agent_store_conflict", 54, Case(2, 1), NOTHING),
];

/// The envelopes that refuse an exec, to be sent in order: its typed result or a `throw`, then
/// `stream_close` (PROTOCOL 3, exec life cycle).
pub fn refuse_exec(
    id: u32,
    exec_id: &str,
    case: &exec_server_message::Message,
    refuse: &Refuse<'_>,
) -> Vec<Bytes> {
    Refusable::of(case).refuse(id, exec_id, refuse)
}

/// What a refusal needs of an exec: which it is, and the few arguments that are repeated. Kept
/// while a handler has the arguments themselves.
#[derive(Clone)]
pub struct Refusable {
    /// Field of the arguments in `ExecServerMessage`.
    number: u32,
    /// Fields of the refusal.
    echo: Vec<(u32, Box<[u8]>)>,
}

impl fmt::Debug for Refusable {
    /// The number: commands and paths are a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refusable({})", self.number)
    }
}

impl Refusable {
    /// Keeps what it takes to refuse this exec.
    pub fn of(case: &exec_server_message::Message) -> Self {
        let mut field = Vec::with_capacity(case.encoded_len());
        case.encode(&mut field);
        let (number, args) = match Reader::new(&field).field() {
            Ok(Some(field)) => (field.number, field.value.bytes().unwrap_or_default()),
            _ => (0, &[][..]),
        };
        let row = EXECS.iter().find(|row| row.args == number);
        let echo = row.map_or(NOTHING, |row| row.echo);
        let echo = echo.iter().map(|(from, to)| (*to, field_of(args, *from).into())).collect();
        Self { number, echo }
    }

    /// As [`refuse_exec`].
    pub fn refuse(&self, id: u32, exec_id: &str, refuse: &Refuse<'_>) -> Vec<Bytes> {
        let Some(row) = EXECS.iter().find(|row| row.args == self.number) else {
            let unknown = format!("this client knows no exec {}", self.number);
            return vec![throw(id, &unknown), stream_close(id)];
        };
        let text = refuse.text(row.name);
        if refuse.policy == Policy::Reference {
            return vec![exec(id, exec_id, row.result, text.len(), |out| {
                row.reference(out, &text);
            })];
        }
        let size = self.echo.iter().map(|(_, content)| content.len() + 10).sum::<usize>();
        let answer = match row.how {
            Throw => throw(id, &text),
            _ => exec(id, exec_id, row.result, text.len() + size, |out| {
                row.result(out, &self.echo, &text);
            }),
        };
        vec![answer, stream_close(id)]
    }
}

impl Exec {
    /// Writes the result with its tag.
    fn result(&self, out: &mut Back<'_>, echo: &[(u32, Box<[u8]>)], text: &str) {
        let mark = out.len();
        match self.how {
            Case(case, text_field) => {
                // Fields of a refusal: a text and what it repeats, in descending order.
                let mut fields: Vec<(u32, &[u8])> = vec![(text_field, text.as_bytes())];
                fields.extend(echo.iter().map(|(field, content)| (*field, &content[..])));
                fields.sort_by_key(|(field, _)| std::cmp::Reverse(*field));
                for (field, content) in fields {
                    if !content.is_empty() {
                        out.bytes(field, content);
                    }
                }
                out.wrap(case, mark);
            }
            Value(value) => out.uint(1, value),
            Throw => {}
        }
        out.wrap(self.result, mark);
    }

    /// Writes the result as the reference has it: five of them empty, nothing repeated.
    fn reference(&self, out: &mut Back<'_>, text: &str) {
        if matches!(self.args, 9 | 17 | 18 | 21 | 22) {
            out.bytes(self.result, &[]);
        } else {
            self.result(out, &[], text);
        }
    }
}

/// The content of the last field of this number, where it is a string.
fn field_of(args: &[u8], number: u32) -> &[u8] {
    let mut found = &[][..];
    let mut reader = Reader::new(args);
    while let Ok(Some(field)) = reader.field() {
        if field.number == number {
            found = field.value.bytes().unwrap_or_default();
        }
    }
    found
}

/// How one query is refused: the fields that lead to the text, from the response inwards. The
/// number of a query and of its response are the same.
#[derive(Debug)]
struct Query {
    number: u32,
    name: &'static str,
    what: &'static str,
    path: &'static [u32],
}

const fn query(number: u32, name: &'static str, what: &'static str, path: &'static [u32]) -> Query {
    Query { number, name, what, path }
}

#[rustfmt::skip]
const QUERIES: &[Query] = &[
    query(2, "web_search_request_query", "web search", &[2, 1]),
    query(3, "ask_question_interaction_query", "ask question", &[1, 3, 1]),
    query(4, "switch_mode_request_query", "switch mode", &[2, 1]),
    query(5, "exa_search_request_query", "web search", &[2, 1]),
    query(6, "exa_fetch_request_query", "web fetch", &[2, 1]),
    query(7, "create_plan_request_query", "create plan", &[1, 2, 1]),
    // Its result has nothing but success: the id alone says no.
    query(8, "setup_vm_environment_args", "set up environment", &[]),
];

/// Which query it is: all it takes to answer or refuse it.
#[derive(Debug, Clone, Copy)]
pub struct QueryKind(Option<&'static Query>);

impl QueryKind {
    /// The kind of this query.
    pub fn of(case: &interaction_query::Query) -> Self {
        let mut field = Vec::with_capacity(case.encoded_len());
        case.encode(&mut field);
        let number = Reader::new(&field).tag().map_or(0, |(number, _)| number);
        Self(QUERIES.iter().find(|row| row.number == number))
    }

    /// Its name in the schema.
    pub fn name(self) -> &'static str {
        self.0.map_or("query", |row| row.name)
    }

    /// Whether `response` is of the kind that answers it, and says something.
    pub fn is_answered_by(self, response: &interaction_response::Result) -> bool {
        let mut field = Vec::with_capacity(response.encoded_len());
        response.encode(&mut field);
        let mut reader = Reader::new(&field);
        let Ok(Some(field)) = reader.field() else { return false };
        let says = field.value.bytes().is_ok_and(|content| !content.is_empty());
        says && self.0.is_some_and(|row| row.number == field.number)
    }

    /// The answer that refuses it.
    pub fn refuse(self, id: u32, reason: Option<&str>) -> Bytes {
        let Some(row) = self.0.filter(|row| !row.path.is_empty()) else {
            return super::query_unknown(id);
        };
        let own = format!("Nobody is here to answer \"{}\": go on without it.", row.what);
        let text = reason.unwrap_or(&own);
        response(id, text.len(), |out| {
            out.raw(text.as_bytes());
            for field in row.path.iter().rev() {
                out.wrap(*field, 0);
            }
            out.wrap(row.number, 0);
        })
    }
}

/// The answer that refuses a query; `None` is one that we do not know.
pub fn refuse_query(
    id: u32,
    case: Option<&interaction_query::Query>,
    reason: Option<&str>,
) -> Bytes {
    case.map_or(QueryKind(None), QueryKind::of).refuse(id, reason)
}
