use prost::Message;

use super::*;
use crate::proto::{
    AgentClientMessage, AgentServerMessage, ExecClientMessage, ExecServerMessage, InteractionQuery,
    InteractionResponse, agent_client_message as client,
};

/// Exec cases of the protocol (PROTOCOL 3; issue list): every field of the oneof.
const CASES: [u32; 40] = [
    2, 3, 4, 5, 7, 8, 9, 10, 11, 14, 16, 17, 18, 20, 21, 22, 23, 27, 28, 29, 30, 31, 36, 37, 38,
    40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54,
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
        assert_ne!(QueryKind::of(&query).name(), "query");
        for reason in [None, Some("no")] {
            let answer = refuse_query(9, Some(&query), reason);
            let client::Message::InteractionResponse(response) = message(&answer) else { panic!() };
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
