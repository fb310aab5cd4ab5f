//! Refusals: for every exec and every query, the answer that says no in its own type.
//!
//! The tables are of numbers, from the field tables of the protocol; a test holds them against the
//! generated types. Where a result has no case that refuses: 30 and 31 say NOT_FOUND, 41 to 43 that
//! nothing is allowed, 27 and 44 are thrown.

use bytes::Bytes;

use super::{exec, response, stream_close, throw};
use crate::codec::Policy;
use crate::codec::back::Back;
use crate::codec::tools::ToolContext;
use crate::proto::{exec_server_message, interaction_query};
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
    let mut field = Vec::with_capacity(case.encoded_len());
    case.encode(&mut field);
    let (number, args) = match Reader::new(&field).field() {
        Ok(Some(field)) => (field.number, field.value.bytes().unwrap_or_default()),
        _ => (0, &[][..]),
    };
    let Some(row) = EXECS.iter().find(|row| row.args == number) else {
        return vec![throw(id, &format!("this client knows no exec {number}")), stream_close(id)];
    };
    let text = refuse.text(row.name);
    if refuse.policy == Policy::Reference {
        return vec![exec(id, exec_id, row.result, text.len(), |out| row.reference(out, &text))];
    }
    let answer = match row.how {
        Throw => throw(id, &text),
        _ => exec(id, exec_id, row.result, text.len() + args.len(), |out| {
            row.result(out, args, &text);
        }),
    };
    vec![answer, stream_close(id)]
}

impl Exec {
    /// Writes the result with its tag.
    fn result(&self, out: &mut Back, args: &[u8], text: &str) {
        let mark = out.len();
        match self.how {
            Case(case, text_field) => {
                // Fields of a refusal: a text and what it repeats, in descending order.
                let mut fields: Vec<(u32, &[u8])> = vec![(text_field, text.as_bytes())];
                for (from, to) in self.echo {
                    fields.push((*to, field_of(args, *from)));
                }
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
    fn reference(&self, out: &mut Back, text: &str) {
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

fn query_row(case: &interaction_query::Query) -> Option<&'static Query> {
    let mut field = Vec::with_capacity(case.encoded_len());
    case.encode(&mut field);
    let (number, _) = Reader::new(&field).tag().ok()?;
    QUERIES.iter().find(|row| row.number == number)
}

/// The name of a query in the schema.
pub fn query_name(case: &interaction_query::Query) -> Option<&'static str> {
    query_row(case).map(|row| row.name)
}

/// The answer that refuses a query; `None` is one that we do not know.
pub fn refuse_query(
    id: u32,
    case: Option<&interaction_query::Query>,
    reason: Option<&str>,
) -> Bytes {
    let Some(row) = case.and_then(query_row).filter(|row| !row.path.is_empty()) else {
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

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::{
        AgentClientMessage, AgentServerMessage, ExecClientMessage, ExecServerMessage,
        InteractionQuery, InteractionResponse, agent_client_message as client,
    };

    /// Exec cases of the protocol (PROTOCOL 3; issue list): every field of the oneof.
    const CASES: [u32; 40] = [
        2, 3, 4, 5, 7, 8, 9, 10, 11, 14, 16, 17, 18, 20, 21, 22, 23, 27, 28, 29, 30, 31, 36, 37,
        38, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54,
    ];

    fn message(envelope: &[u8]) -> client::Message {
        AgentClientMessage::decode(&envelope[5..]).unwrap().message.unwrap()
    }

    /// An exec of this case whose arguments have `path` in field 1 and `dir` in field 2, if they
    /// are strings.
    fn exec_case(number: u32) -> exec_server_message::Message {
        for args in [&[0x0a, 4, b'p', b'a', b't', b'h', 0x12, 3, b'd', b'i', b'r'][..], &[]] {
            let mut bytes = Vec::new();
            crate::wire::put_bytes(&mut bytes, number, args);
            if let Ok(exec) = ExecServerMessage::decode(&bytes[..]) {
                return exec.message.unwrap();
            }
        }
        panic!("{number}")
    }

    fn refused(number: u32, refuse: &Refuse<'_>) -> Vec<client::Message> {
        let envelopes = refuse_exec(7, "exec-7", &exec_case(number), refuse);
        envelopes.iter().map(|envelope| message(envelope)).collect()
    }

    /// `shell_args` and `shell_result`, `git_diff_request` and `git_diff_response`: the same name.
    fn stem(debug: &str) -> String {
        let name = debug.split('(').next().unwrap();
        ["Args", "Request", "Result", "Response"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name)
            .to_owned()
    }

    #[test]
    fn every_case_has_exactly_one_row() {
        let numbers: Vec<u32> = EXECS.iter().map(|row| row.args).collect();
        assert_eq!(numbers, CASES);
        for number in 1..200 {
            let mut bytes = Vec::new();
            crate::wire::put_bytes(&mut bytes, number, &[]);
            let known = ExecServerMessage::decode(&bytes[..]).is_ok_and(|e| e.message.is_some());
            assert_eq!(known, CASES.contains(&number), "{number}");
        }
    }

    #[test]
    fn each_exec_is_refused_in_its_own_type_and_closed() {
        let tools = ToolContext::default();
        for number in CASES {
            let answers = refused(number, &Refuse::new(&tools));
            let [answer, close] = &answers[..] else { panic!("{number}") };
            let client::Message::ExecClientControlMessage(close) = close else { panic!() };
            let close = format!("{close:?}");
            assert!(close.contains("StreamClose") && close.contains("id: 7"), "{close}");
            let client::Message::ExecClientMessage(exec) = answer else {
                assert!([27, 44].contains(&number), "{number}");
                let text = format!("{answer:?}");
                assert!(text.contains("Throw") && text.contains("does not serve"), "{text}");
                continue;
            };
            assert_eq!((exec.id, &exec.exec_id[..]), (7, "exec-7"));
            let result = exec.message.as_ref().unwrap();
            let text = format!("{result:?}");
            assert_eq!(stem(&text), stem(&format!("{:?}", exec_case(number))), "{number}");
            let says = match number {
                30 | 31 => exec_bytes(result).ends_with(&[2, 0x08, 2]),
                41..=43 => {
                    // `false` is written, but reads back as the default.
                    let bytes = &refuse_exec(7, "", &exec_case(number), &Refuse::new(&tools))[0];
                    bytes.ends_with(&[2, 0x08, 0])
                }
                _ => text.contains("does not serve"),
            };
            assert!(says, "{number}: {text}");
            if text.contains("{ path:") && !matches!(number, 5 | 18) {
                assert!(text.contains("path: \"path\""), "{number}: {text}");
            }
            if text.contains("command:") {
                assert!(text.contains("command: \"path\"") && text.contains("\"dir\""), "{text}");
            }
        }
    }

    fn exec_bytes(result: &crate::proto::exec_client_message::Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        result.encode(&mut bytes);
        bytes
    }

    #[test]
    fn fields_of_every_answer_ascend() {
        let tools = ToolContext::default();
        for number in CASES {
            let bytes = &refuse_exec(7, "exec-7", &exec_case(number), &Refuse::new(&tools))[0];
            let mut open = vec![Bytes::copy_from_slice(&bytes[5..])];
            while let Some(bytes) = open.pop() {
                let mut reader = Reader::new(&bytes);
                let mut last = 0;
                while let Ok(Some(field)) = reader.field() {
                    assert!(field.number >= last, "{number}: {} after {last}", field.number);
                    last = field.number;
                    // Text may look like a message: only the outer levels are certain to be some.
                    if field.number != 15 && field.value.bytes().is_ok_and(|b| b.len() > 40) {
                        open.extend(field.value.bytes().ok().map(Bytes::copy_from_slice));
                    }
                    if open.len() > 3 {
                        open.clear();
                    }
                }
            }
        }
    }

    #[test]
    fn the_text_names_tool_and_way_out() {
        let tool = |name: &str| {
            crate::context::Tool {
                name: name.into(),
                description: String::new(),
                parameters: serde_json::json!({}),
            }
            .into()
        };
        let many: Vec<_> = (0..14).map(|i| tool(&format!("t{i}"))).collect();
        let tools = ToolContext::new(&many, None, &Default::default()).unwrap();
        let text = format!("{:?}", refused(7, &Refuse::new(&tools))[0]);
        assert!(text.contains("\\\"read\\\""), "{text}");
        assert!(text.contains("mcp_agentwire_t0, mcp_agentwire_t1"), "{text}");
        assert!(text.contains("and 2 more"), "{text}");
        let text = format!("{:?}", refused(7, &Refuse::new(&tools).because(Some("ask later")))[0]);
        assert!(text.contains("ask later") && !text.contains("does not serve"), "{text}");
    }

    #[test]
    fn the_reference_leaves_five_empty_and_closes_nothing() {
        let tools = ToolContext::default();
        let refuse = Refuse { policy: Policy::Reference, ..Refuse::new(&tools) };
        for number in [9, 17, 18, 21, 22] {
            let [bytes] = &refuse_exec(0, "", &exec_case(number), &refuse)[..] else { panic!() };
            let exec = ExecClientMessage::decode(&bytes[7..]).unwrap();
            assert_eq!(exec_bytes(&exec.message.unwrap()).last(), Some(&0));
        }
        let [bytes] = &refuse_exec(0, "", &exec_case(2), &refuse)[..] else { panic!() };
        assert!(!bytes.windows(4).any(|w| w == b"path"));
    }

    #[test]
    fn each_query_is_refused_in_its_own_type() {
        for number in 2..=8 {
            let mut bytes = vec![0x08, 9];
            crate::wire::put_bytes(&mut bytes, number, &[]);
            let query = InteractionQuery::decode(&bytes[..]).unwrap().query.unwrap();
            assert!(query_name(&query).is_some());
            for reason in [None, Some("no")] {
                let answer = refuse_query(9, Some(&query), reason);
                let client::Message::InteractionResponse(response) = message(&answer) else {
                    panic!()
                };
                let InteractionResponse { id, result } = *response;
                assert_eq!(id, 9);
                let text = format!("{result:?}");
                if number == 8 {
                    assert_eq!(result, None);
                } else {
                    let stem_of = |text: &str| stem(text).replace("Request", "");
                    let ours = stem_of(&format!("{:?}", result.unwrap()));
                    assert_eq!(ours, stem_of(&format!("{query:?}").replacen("Query", "Args", 1)));
                    assert!(text.contains("Rejected") || text.contains("Error"), "{text}");
                    assert!(text.contains(reason.unwrap_or("Nobody is here")), "{text}");
                }
            }
        }
        let unknown = refuse_query(9, None, None);
        assert_eq!(&unknown[5..], [0x32, 2, 0x08, 9]);
    }

    #[test]
    fn a_server_message_of_the_capture_is_refused() {
        let bytes = [0x12, 2, 0x12, 0];
        let message = AgentServerMessage::decode(&bytes[..]).unwrap().message.unwrap();
        let crate::proto::agent_server_message::Message::ExecServerMessage(exec) = message else {
            panic!()
        };
        let tools = ToolContext::default();
        let refused = refuse_exec(exec.id, "", &exec.message.unwrap(), &Refuse::new(&tools));
        assert_eq!(refused.len(), 2);
    }
}
