//! Every exec and every query the protocol knows, and some it does not: one answer, one close, in
//! order, with the ids that were sent, in time (PROTOCOL 3, issue "everything that asks").

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[path = "session/rig.rs"]
#[allow(dead_code, reason = "shared with tests/session.rs")]
mod rig;

use std::sync::Arc;

use agentwire::exec::Refusal;
use agentwire::proto::agent_client_message::Message as Client;
use agentwire::proto::agent_server_message::Message as Server;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::interaction_query::Query;
use agentwire::proto::reflect::MessageInfo;
use agentwire::proto::{
    ExecClientMessage, ExecServerAbort, ExecServerControlMessage, ExecServerMessage,
    InteractionQuery, ReadResult, ShellStreamExit, ShellStreamStdout, exec_client_control_message,
    exec_client_message, exec_server_control_message, interaction_response, shell_stream,
};
use agentwire::run::{Event, Notice, Options, ServeResult, Serves, Work};
use prost::Message as _;

use rig::{Rig, millis, secs};

/// The numbers of all cases in the tables, from the schema itself.
fn cases(message: &str, plain: &[&str]) -> Vec<(u32, &'static str)> {
    let info = MessageInfo::named(message).expect("in the schema");
    let fields = (1..=64).filter_map(|number| info.field(number).map(|field| (number, field.name)));
    fields.filter(|(_, name)| !plain.contains(name)).collect()
}

fn execs() -> Vec<(u32, &'static str)> {
    let plain = ["id", "exec_id", "span_context", "accept_hook_additional_contexts"];
    cases("ExecServerMessage", &plain)
}

/// An exec with an empty message in the case of this number.
fn exec(id: u32, number: u32) -> Vec<u8> {
    let mut bytes = ExecServerMessage { id, exec_id: format!("exec-{id}"), ..Default::default() }
        .encode_to_vec();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    bytes.push(0);
    bytes
}

fn send(rig: &mut Rig, field: u32, inner: &[u8]) {
    let mut message = Vec::new();
    prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut message);
    prost::encoding::encode_varint(inner.len() as u64, &mut message);
    message.extend_from_slice(inner);
    let mut bytes = Vec::new();
    agentwire::connect::put_envelope(&mut bytes, 0, &message);
    rig.body(bytes);
}

struct All;

impl Serves for All {
    fn exec(&self, _: &Case) -> bool {
        true
    }
    fn query(&self, _: &Query) -> bool {
        true
    }
}

fn serving() -> Options {
    let mut options = Options::default();
    options.serves = Some(Arc::new(All));
    options
}

/// The answer and the close of one exec: `result N` or `throw`, then `close`.
fn exchange(rig: &Rig, id: u32) -> Vec<String> {
    let mut seen = Vec::new();
    for message in &rig.sent_messages {
        match message.message.as_ref().expect("a case") {
            Client::ExecClientMessage(exec) if exec.id == id => {
                assert_eq!(exec.exec_id, format!("exec-{id}"));
                seen.push(format!("result {}", result_name(exec)));
            }
            Client::ExecClientControlMessage(control) => match &control.message {
                Some(exec_client_control_message::Message::StreamClose(c)) if c.id == id => {
                    seen.push("close".into());
                }
                Some(exec_client_control_message::Message::Throw(t)) if t.id == id => {
                    assert!(!t.error.is_empty());
                    seen.push("throw".into());
                }
                _ => {}
            },
            _ => {}
        }
    }
    seen
}

/// The field name of the result, which must say something: an empty message is no refusal.
fn result_name(exec: &ExecClientMessage) -> &'static str {
    let bytes = ExecClientMessage { id: 0, exec_id: String::new(), ..exec.clone() }.encode_to_vec();
    let mut rest = &bytes[..];
    let (number, _) = prost::encoding::decode_key(&mut rest).expect("a result");
    let name = MessageInfo::named("ExecClientMessage")
        .and_then(|info| info.field(number))
        .map_or("unknown", |field| field.name);
    let empty = rest == [0];
    assert!(!empty || name.ends_with("precheck_result"), "{name} is an empty message");
    name
}

/// The result has the name of the question: `shell_args` is answered by `shell_result`.
fn expected(question: &str) -> Vec<String> {
    if matches!(question, "execute_hook_args" | "git_diff_request") {
        return vec!["throw".into(), "close".into()];
    }
    let stem = question.trim_end_matches("_args");
    let result = if stem == "shell_stream" { stem.to_owned() } else { format!("{stem}_result") };
    vec![format!("result {result}"), "close".into()]
}

#[test]
fn every_exec_that_nobody_serves_is_refused_typed_and_closed_at_once() {
    let execs = execs();
    assert_eq!(execs.len(), 40, "{execs:?}");
    let mut rig = Rig::streaming();
    for (index, (number, name)) in execs.iter().enumerate() {
        let id = u32::try_from(index).unwrap() + 1;
        send(&mut rig, 2, &exec(id, *number));
        if *name == "mcp_args" {
            continue;
        }
        assert_eq!(exchange(&rig, id), expected(name), "{name}");
    }
    assert_eq!(rig.ended(), None);
    let refused = rig.events.iter().filter(|e| matches!(e, Event::Notice(Notice::Refused { .. })));
    assert_eq!(refused.count(), 38, "all but the tool call and the request context");
}

#[test]
fn execs_that_no_table_knows_are_thrown_back() {
    let known: Vec<u32> = execs().into_iter().map(|(number, _)| number).collect();
    let mut rig = Rig::streaming();
    let plain = [1, 15, 19, 55];
    let unknown =
        (1..200).filter(|n| !known.contains(n) && !plain.contains(n)).chain([536_870_911]);
    for (index, number) in unknown.enumerate() {
        let id = u32::try_from(index).unwrap() + 1;
        send(&mut rig, 2, &exec(id, number));
        assert_eq!(exchange(&rig, id), ["throw", "close"], "field {number}");
    }
}

#[test]
fn every_query_gets_its_id_back_and_a_typed_refusal_where_there_is_one() {
    let queries = cases("InteractionQuery", &["id"]);
    assert_eq!(queries.len(), 7);
    let mut rig = Rig::streaming();
    for number in queries.iter().map(|(number, _)| *number).chain([9, 77, 1_000]) {
        let mut bytes = InteractionQuery { id: 40 + number, query: None }.encode_to_vec();
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
        bytes.push(0);
        send(&mut rig, 7, &bytes);
        let Some(Client::InteractionResponse(response)) =
            rig.sent_messages.last().and_then(|message| message.message.clone())
        else {
            panic!("query {number} was not answered");
        };
        assert_eq!(response.id, 40 + number);
        assert_eq!(response.result.is_some(), (2..=7).contains(&number), "query {number}");
    }
}

#[test]
fn every_exec_can_be_served_and_is_closed_once() {
    let mut rig = Rig::with(serving());
    for (index, (number, name)) in execs().into_iter().enumerate() {
        if matches!(name, "mcp_args" | "request_context_args" | "shell_stream_args") {
            continue;
        }
        let id = u32::try_from(index).unwrap() + 1;
        send(&mut rig, 2, &exec(id, number));
        assert_eq!(exchange(&rig, id), [""; 0], "{name} waits for its handler");
        let task = rig.tasks.pop().expect("given to the handler");
        assert!(matches!(&task.work, Work::Exec { call, .. } if call.id == id));
        let reply = exec_client_message::Message::ReadResult(Box::new(ReadResult {
            result: Some(agentwire::proto::read_result::Result::InvalidFile(Default::default())),
        }));
        rig.session.handle_served(task.key, ServeResult::Reply(Box::new(reply.clone())), rig.now);
        rig.session.handle_served(task.key, ServeResult::Reply(Box::new(reply)), rig.now);
        rig.turn();
        assert_eq!(exchange(&rig, id), ["result read_result", "close"], "{name}");
    }
}

#[test]
fn handlers_that_refuse_fail_or_take_too_long_leave_no_exec_open() {
    type Act = fn(&mut Rig);
    let results: [(&str, Act); 4] = [
        ("refused", |rig| {
            let refusal = Refusal::because("ask for read access");
            let key = rig.tasks[0].key;
            rig.session.handle_served(key, ServeResult::Refused(refusal), rig.now);
        }),
        ("failed", |rig| {
            rig.session.handle_served(rig.tasks[0].key, ServeResult::Failed, rig.now);
        }),
        ("hangs", |rig| rig.wait(secs(600))),
        ("aborted", |rig| {
            rig.message(Server::ExecServerControlMessage(ExecServerControlMessage {
                message: Some(exec_server_control_message::Message::Abort(ExecServerAbort {
                    id: 1,
                })),
            }));
        }),
    ];
    for (name, act) in results {
        let mut rig = Rig::with(serving());
        send(&mut rig, 2, &exec(1, 7));
        act(&mut rig);
        rig.turn();
        let expected: &[&str] =
            if name == "aborted" { &["close"] } else { &["result read_result", "close"] };
        assert_eq!(exchange(&rig, 1), expected, "{name}");
        let stopped = matches!(name, "hangs" | "aborted");
        assert_eq!(rig.stopped.len(), usize::from(stopped), "{name}");
        let late = ServeResult::Refused(Refusal::not_served());
        rig.session.handle_served(rig.tasks[0].key, late, rig.now);
        rig.turn();
        assert_eq!(exchange(&rig, 1), expected, "{name}: a late result is dropped");
        assert_eq!(rig.ended(), None, "{name}");
    }
}

#[test]
fn an_exec_at_work_beats_every_three_seconds_also_while_it_waits_for_a_place() {
    let mut options = serving();
    options.serve_at_once = 1;
    let mut rig = Rig::with(options);
    send(&mut rig, 2, &exec(1, 7));
    send(&mut rig, 2, &exec(2, 7));
    assert_eq!(rig.tasks.len(), 1);
    rig.take_sent();
    rig.wait(millis(9_500));
    let beats =
        |sent: &[String], id: u32| sent.iter().filter(|w| **w == format!("beat {id}")).count();
    let sent = rig.take_sent();
    assert_eq!((beats(&sent, 1), beats(&sent, 2)), (3, 3));
    rig.session.handle_served(rig.tasks[0].key, ServeResult::Failed, rig.now);
    rig.turn();
    assert_eq!(rig.tasks.len(), 2, "the second has found its place");
}

#[test]
fn a_shell_streams_start_output_and_exit_in_order_and_is_closed() {
    let mut rig = Rig::with(serving());
    send(&mut rig, 2, &exec(1, 14));
    let key = rig.tasks[0].key;
    let out = |data: &str| shell_stream::Event::Stdout(ShellStreamStdout { data: data.into() });
    rig.session.handle_shell_event(key, out("one"));
    rig.session.handle_shell_event(key, shell_stream::Event::Exit(ShellStreamExit::default()));
    rig.session.handle_shell_event(key, out("too late"));
    rig.session.handle_served(key, ServeResult::ShellDone, rig.now);
    rig.turn();
    let events: Vec<String> = rig
        .sent_messages
        .iter()
        .filter_map(|message| match message.message.as_ref()? {
            Client::ExecClientMessage(exec) => match exec.message.as_ref()? {
                exec_client_message::Message::ShellStream(stream) => {
                    let event = format!("{:?}", stream.event.as_ref()?);
                    event.split('(').next().map(str::to_owned)
                }
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(events, ["Start", "Stdout", "Exit"]);
    assert_eq!(exchange(&rig, 1).iter().filter(|word| *word == "close").count(), 1);
}

#[test]
fn a_query_is_answered_by_its_handler_or_refused_when_nobody_answers() {
    let query = |id| {
        Server::InteractionQuery(Box::new(InteractionQuery {
            id,
            query: Some(Query::SwitchModeRequestQuery(Default::default())),
        }))
    };
    let mut rig = Rig::with(serving());
    rig.message(query(1));
    rig.message(query(2));
    let approved = interaction_response::Result::SwitchModeRequestResponse(Box::new(
        agentwire::proto::SwitchModeRequestResponse {
            result: Some(agentwire::proto::switch_mode_request_response::Result::Approved(
                Default::default(),
            )),
        },
    ));
    let response = ServeResult::Response(Box::new(approved));
    rig.session.handle_served(rig.tasks[0].key, response, rig.now);
    rig.turn();
    rig.wait(secs(600));
    let words: Vec<_> = rig.sent.iter().filter(|word| word.starts_with("query")).collect();
    assert_eq!(words, ["query 1 refused", "query 2 refused"], "both carry a result");
    assert_eq!(rig.stopped.len(), 1);
}

#[test]
fn a_run_that_ends_stops_its_handlers() {
    let mut rig = Rig::with(serving());
    send(&mut rig, 2, &exec(1, 7));
    rig.session.cancel(rig.now);
    rig.turn();
    assert_eq!(rig.stopped, [rig.tasks[0].key]);
    rig.session.handle_served(rig.tasks[0].key, ServeResult::Failed, rig.now);
    rig.turn();
    assert_eq!(rig.take_sent().last().map(String::as_str), Some("reset cancel"));
}

#[test]
fn what_is_asked_beyond_the_limit_is_refused() {
    let mut options = serving();
    options.serve_waiting = 2;
    let mut rig = Rig::with(options);
    for id in 1..=3 {
        send(&mut rig, 2, &exec(id, 7));
    }
    assert_eq!(rig.tasks.len(), 2);
    assert_eq!(exchange(&rig, 3), ["result read_result", "close"]);
}

#[test]
fn a_message_can_be_sent_into_the_running_turn() {
    let mut rig = Rig::streaming();
    let id = rig.session.say("also look at b.rs", rig.now).expect("the turn goes on");
    rig.turn();
    let Some(Client::ConversationAction(action)) =
        rig.sent_messages.last().and_then(|message| message.message.clone())
    else {
        panic!()
    };
    let Some(agentwire::proto::conversation_action::Action::UserMessageAction(said)) =
        action.action
    else {
        panic!()
    };
    let message = said.user_message.expect("a message");
    assert_eq!((message.text.as_str(), message.message_id), ("also look at b.rs", id));
    rig.turn_ended();
    assert!(rig.session.say("too late", rig.now).is_err());
}
