//! Every exec and every query the protocol knows, and some it does not: one answer, one close, in
//! order, with the ids that were sent, in time (PROTOCOL 3). The cases are those of the protocol
//! tables, so that a new row fails here until it is handled.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[path = "exec/everything.rs"]
mod everything;
#[path = "exec/life.rs"]
mod life;
#[path = "exec/progress.rs"]
mod progress;
#[path = "session/rig.rs"]
#[allow(dead_code, reason = "shared with tests/session.rs")]
mod rig;
#[path = "exec/tables.rs"]
mod tables;

use std::sync::Arc;

use agentwire::context::{RequestContext, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::exec::Refusal;
use agentwire::proto::agent_client_message::Message as Client;
use agentwire::proto::agent_server_message::Message as Server;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::interaction_query::Query;
use agentwire::proto::reflect::MessageInfo;
use agentwire::proto::{
    ExecClientMessage, ExecServerAbort, ExecServerControlMessage, ExecServerMessage,
    InteractionQuery, exec_client_control_message, exec_server_control_message,
};
use agentwire::run::{Event, Notice, Options, ServeResult, Serves, Work};
use prost::Message as _;

use rig::{Rig, millis, secs};

/// An exec with an empty message in the case of this number.
fn exec(id: u32, number: u32) -> Vec<u8> {
    exec_named(id, &format!("exec-{id}"), number)
}

fn exec_named(id: u32, exec_id: &str, number: u32) -> Vec<u8> {
    let mut bytes =
        ExecServerMessage { id, exec_id: exec_id.into(), ..Default::default() }.encode_to_vec();
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut bytes);
    bytes.push(0);
    bytes
}

fn query(id: u32, number: u32) -> Vec<u8> {
    let mut bytes = InteractionQuery { id, query: None }.encode_to_vec();
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

#[test]
fn every_exec_that_nobody_serves_is_refused_typed_and_closed_at_once() {
    let mut rig = Rig::streaming();
    let cases = tables::execs();
    for (index, case) in cases.iter().enumerate() {
        let id = u32::try_from(index).unwrap() + 1;
        send(&mut rig, 2, &exec(id, case.number));
        match case.name.as_str() {
            // A call is the caller's to answer.
            "mcp_args" => {
                rig.wait(millis(100));
                let call = rig.take_events().into_iter().find_map(|event| match event {
                    Event::ToolCalls(calls) => calls.into_iter().next(),
                    _ => None,
                });
                let call = call.expect("handed out");
                let result = ToolResult::text(call.id, call.name, "done");
                rig.session.answer(&[result], rig.now).unwrap();
                rig.turn();
            }
            "request_context_args" => {}
            name => {
                let refused = Event::Notice(Notice::Refused { what: name.into() });
                assert_eq!(rig.take_events(), [refused]);
            }
        }
        assert_eq!(exchange(&rig, id), case.refused(), "{}", case.name);
    }
    assert_eq!(rig.ended(), None);
}

#[test]
fn execs_that_no_table_knows_are_thrown_back() {
    let known = tables::fields("ExecServerMessage");
    let mut rig = Rig::streaming();
    let unknown = (1..400).filter(|n| !known.contains(n)).chain([536_870_911]);
    for (index, number) in unknown.enumerate() {
        let id = u32::try_from(index).unwrap() + 1;
        send(&mut rig, 2, &exec(id, number));
        assert_eq!(exchange(&rig, id), ["throw", "close"], "field {number}");
    }
    let none = ExecServerMessage { id: 9_999, ..Default::default() }.encode_to_vec();
    send(&mut rig, 2, &none);
    assert_eq!(exchange(&rig, 9_999), ["throw", "close"], "no case at all");
}

#[test]
fn every_query_gets_its_id_back_and_a_typed_refusal_where_there_is_one() {
    let known = tables::fields("InteractionQuery");
    let mut rig = Rig::streaming();
    let mut asked = 0;
    for case in tables::queries() {
        send(&mut rig, 7, &query(case.number, case.number));
        asked += 1;
        let (id, result) = last_response(&rig);
        assert_eq!(id, case.number);
        let expected = (case.number != 8).then_some(case.number);
        assert_eq!(result, expected, "{}: its result knows success only", case.name);
    }
    for number in (1..400).filter(|n| !known.contains(n)).chain([536_870_911]) {
        send(&mut rig, 7, &query(1_000 + number % 1_000, number));
        asked += 1;
        assert_eq!(last_response(&rig), (1_000 + number % 1_000, None), "query {number}");
    }
    let responses = rig.sent.iter().filter(|word| word.starts_with("query")).count();
    assert_eq!(responses, asked, "one answer each");
    assert_eq!(rig.ended(), None);
}

/// Id and field number of the last answer to a query.
fn last_response(rig: &Rig) -> (u32, Option<u32>) {
    let last = rig.sent_messages.last().and_then(|message| message.message.clone());
    let Some(Client::InteractionResponse(response)) = last else { panic!("no answer") };
    let bytes = response.result.as_ref().map(|result| {
        let mut bytes = Vec::new();
        result.encode(&mut bytes);
        bytes
    });
    let number = bytes.map(|bytes| {
        assert!(bytes.len() > 3, "an empty message is no answer");
        prost::encoding::decode_key(&mut &bytes[..]).unwrap().0
    });
    (response.id, number)
}

/// All cases that go to a handler.
fn served() -> Vec<tables::Case> {
    let own = ["mcp_args", "request_context_args"];
    tables::execs().into_iter().filter(|case| !own.contains(&case.name.as_str())).collect()
}

#[test]
fn every_exec_can_be_served_and_is_answered_and_closed_once() {
    let mut rig = Rig::with(serving());
    for (index, case) in served().into_iter().enumerate() {
        let id = u32::try_from(index).unwrap() + 1;
        send(&mut rig, 2, &exec(id, case.number));
        assert_eq!(exchange(&rig, id), [""; 0], "{} waits for its handler", case.name);
        let task = rig.tasks.pop().expect("given to the handler");
        let Work::Exec { call, case: asked } = task.work else { panic!("{}", case.name) };
        assert_eq!((call.id, &call.exec_id[..]), (id, &format!("exec-{id}")[..]));
        assert_eq!(agentwire::exec::name(&asked), case.name);
        let (events, result) = everything::serve(&call, asked);
        for event in events {
            rig.session.handle_shell_event(task.key, event);
        }
        rig.session.handle_served(task.key, result.clone(), rig.now);
        rig.turn();
        let expected = case.served();
        assert_eq!(exchange(&rig, id), expected, "{}", case.name);
        rig.session.handle_served(task.key, result, rig.now);
        rig.turn();
        assert_eq!(exchange(&rig, id), expected, "{}: once", case.name);
    }
    let notices = rig.events.iter().filter(|event| matches!(event, Event::Notice(_)));
    assert_eq!(notices.count(), 0, "nothing was refused");
}

#[test]
fn every_query_can_be_answered() {
    let mut rig = Rig::with(serving());
    for case in tables::queries() {
        send(&mut rig, 7, &query(case.number, case.number));
        let task = rig.tasks.pop().expect("given to whoever answers");
        let Work::Query { query: asked, .. } = task.work else { panic!("{}", case.name) };
        rig.session.handle_served(task.key, everything::answer(asked), rig.now);
        rig.turn();
        assert_eq!(last_response(&rig), (case.number, Some(case.number)), "{}", case.name);
    }
}

/// What can go wrong with a handler, whatever it was asked.
#[test]
fn no_exec_stays_open_whatever_its_handler_does() {
    for case in served() {
        for fate in ["panics", "hangs", "is empty", "is of another kind", "is aborted"] {
            let mut rig = Rig::with(serving());
            send(&mut rig, 2, &exec(1, case.number));
            let task = rig.tasks.pop().expect("given to the handler");
            let mut expected = case.refused();
            match fate {
                "panics" => rig.session.handle_served(task.key, ServeResult::Failed, rig.now),
                "hangs" => {
                    rig.wait(secs(600) - millis(1));
                    assert_eq!(exchange(&rig, 1), [""; 0], "{}: not yet", case.name);
                    let beats = rig.sent.iter().filter(|word| *word == "beat 1").count();
                    assert_eq!(beats, 199, "one every 3 s");
                    rig.wait(millis(1));
                    assert_eq!(rig.stopped, [task.key]);
                }
                "is empty" => {
                    let Some(empty) = everything::empty(&case) else { continue };
                    rig.session.handle_served(task.key, empty, rig.now);
                }
                "is of another kind" => {
                    let other = match case.number {
                        5 => everything::result("ls_result"),
                        _ => everything::result("grep_result"),
                    };
                    rig.session.handle_served(task.key, other, rig.now);
                }
                _ => {
                    let abort =
                        exec_server_control_message::Message::Abort(ExecServerAbort { id: 1 });
                    let abort = ExecServerControlMessage { message: Some(abort) };
                    rig.message(Server::ExecServerControlMessage(abort));
                    assert_eq!(rig.stopped, [task.key]);
                    expected = vec!["close".into()];
                }
            }
            rig.turn();
            assert_eq!(exchange(&rig, 1), expected, "{} {fate}", case.name);
            rig.session.handle_served(task.key, ServeResult::Failed, rig.now);
            rig.wait(secs(60));
            assert_eq!(exchange(&rig, 1), expected, "{} {fate}: a late result", case.name);
            assert_eq!(rig.ended(), None, "{} {fate}", case.name);
        }
    }
}

/// How many answers a query had; no other was asked.
fn responses(rig: &Rig, id: u32) -> usize {
    let responses = rig.sent_messages.iter().filter_map(|message| match &message.message {
        Some(Client::InteractionResponse(response)) => Some(response.id),
        _ => None,
    });
    responses.inspect(|of| assert_eq!(*of, id, "the id that was sent")).count()
}

#[test]
fn no_query_stays_open_whatever_its_handler_does() {
    const ID: u32 = 4_711;
    for case in tables::queries() {
        for fate in ["panics", "hangs", "is empty", "is of another kind", "is no answer at all"] {
            let mut rig = Rig::with(serving());
            send(&mut rig, 7, &query(ID, case.number));
            let task = rig.tasks.pop().expect("given to whoever answers");
            assert_eq!(responses(&rig, ID), 0, "{}: not yet", case.name);
            match fate {
                "panics" => rig.session.handle_served(task.key, ServeResult::Failed, rig.now),
                "hangs" => {
                    rig.wait(secs(600) - millis(1));
                    assert_eq!(responses(&rig, ID), 0, "{}: not yet", case.name);
                    rig.wait(millis(1));
                    assert_eq!(rig.stopped, [task.key]);
                }
                "is empty" => {
                    rig.session.handle_served(task.key, everything::no_answer(&case), rig.now);
                }
                "is of another kind" => {
                    let other = tables::queries().into_iter().find(|c| c.number != case.number);
                    let other = everything::answer_named(&other.expect("more than one"));
                    rig.session.handle_served(task.key, other, rig.now);
                }
                _ => {
                    let of_an_exec = everything::result("grep_result");
                    rig.session.handle_served(task.key, of_an_exec, rig.now);
                }
            }
            rig.turn();
            // The typed refusal of the query's own case, where its result can say no.
            let refused = (case.number != 8).then_some(case.number);
            assert_eq!(last_response(&rig), (ID, refused), "{} {fate}", case.name);
            assert_eq!(responses(&rig, ID), 1, "{} {fate}", case.name);
            rig.session.handle_served(task.key, everything::answer_named(&case), rig.now);
            rig.wait(secs(60));
            assert_eq!(responses(&rig, ID), 1, "{} {fate}: a late answer", case.name);
            assert_eq!(rig.ended(), None, "{} {fate}", case.name);
        }
    }
}

#[test]
fn an_abort_of_an_exec_leaves_a_query_with_its_number_alone() {
    let mut rig = Rig::with(serving());
    send(&mut rig, 7, &query(1, 2));
    let abort = exec_server_control_message::Message::Abort(ExecServerAbort { id: 1 });
    let abort = ExecServerControlMessage { message: Some(abort) };
    rig.message(Server::ExecServerControlMessage(abort));
    assert_eq!((rig.stopped.len(), responses(&rig, 1)), (0, 0));
    let web_search = tables::queries().into_iter().find(|case| case.number == 2).unwrap();
    rig.session.handle_served(rig.tasks[0].key, everything::answer_named(&web_search), rig.now);
    rig.turn();
    assert_eq!(last_response(&rig), (1, Some(2)));
}

#[test]
fn ids_go_back_exactly_as_they_came() {
    for (id, exec_id) in [(0, ""), (u32::MAX, "a|b\n\u{e9} \0"), (7, &"x".repeat(5_000)[..])] {
        for options in [Options::default(), serving()] {
            let mut rig = Rig::with(options);
            send(&mut rig, 2, &exec_named(id, exec_id, 20));
            if let Some(task) = rig.tasks.pop() {
                let refusal = Refusal::because("no");
                rig.session.handle_served(task.key, ServeResult::Refused(refusal), rig.now);
                rig.turn();
            }
            let [answer, close] = &rig.sent_messages[rig.sent_messages.len() - 2..] else {
                panic!()
            };
            let Some(Client::ExecClientMessage(answer)) = &answer.message else { panic!() };
            assert_eq!((answer.id, &answer.exec_id[..]), (id, exec_id));
            let Some(Client::ExecClientControlMessage(close)) = &close.message else { panic!() };
            let Some(exec_client_control_message::Message::StreamClose(close)) = &close.message
            else {
                panic!()
            };
            assert_eq!(close.id, id);
        }
    }
}

#[test]
fn a_large_request_context_is_one_envelope_and_not_copied() {
    let mut request = rig::request("hello");
    request.context.about = Arc::new(RequestContext {
        user_intent: Some("x".repeat(100_000)),
        ..RequestContext::default()
    });
    let mut rig = Rig::of(&request, Options::default(), Conversation::with_id("conv"));
    rig.session.handle_head(rig::ok_head(), rig.now);
    rig.turn();
    send(&mut rig, 2, &exec(1, 10));
    assert_eq!(exchange(&rig, 1), ["result request_context_result", "close"]);
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

#[test]
fn every_action_of_the_tables_can_be_sent_into_the_turn() {
    use agentwire::proto::ConversationAction;
    for case in tables::cases("ConversationAction", "action") {
        let mut bytes = Vec::new();
        let key = prost::encoding::WireType::LengthDelimited;
        prost::encoding::encode_key(case.number, key, &mut bytes);
        bytes.push(0);
        let action = ConversationAction::decode(&bytes[..]).unwrap().action.expect("a case");
        let mut rig = Rig::streaming();
        rig.take_sent();
        rig.session.act(&action, rig.now).unwrap();
        rig.turn();
        let Some(Client::ConversationAction(sent)) =
            rig.sent_messages.last().and_then(|message| message.message.clone())
        else {
            panic!("{}", case.name)
        };
        assert_eq!(sent.action, Some(action), "{}", case.name);
        assert_eq!(rig.ended().is_some(), case.name == "cancel_action");
    }
}

#[test]
fn every_update_of_the_tables_is_known() {
    let known = tables::cases("InteractionUpdate", "message");
    let mut seen = Vec::new();
    for number in 1..100 {
        let mut rig = Rig::streaming();
        let mut update = Vec::new();
        prost::encoding::encode_key(
            number,
            prost::encoding::WireType::LengthDelimited,
            &mut update,
        );
        update.push(0);
        send(&mut rig, 1, &update);
        if !rig.events.contains(&Event::Notice(Notice::Unrecognised)) {
            seen.push(number);
        }
        assert!(rig.sent_messages.len() == 1, "nothing of it is answered");
    }
    assert_eq!(seen, known.iter().map(|case| case.number).collect::<Vec<_>>());
}
