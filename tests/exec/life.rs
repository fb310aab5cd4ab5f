//! What happens to a question over time: limits, aborts, hanging handlers, shells that stream.

use agentwire::context::ToolResult;
use agentwire::exec::Refusal;
use agentwire::proto::agent_client_message::Message as Client;
use agentwire::proto::agent_server_message::Message as Server;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::interaction_query::Query;
use agentwire::proto::{
    ExecServerAbort, ExecServerControlMessage, InteractionQuery, ShellStreamExit,
    ShellStreamStdout, exec_client_message, exec_server_control_message, interaction_response,
    shell_stream,
};
use agentwire::run::{Event, ServeResult};

use crate::rig::{self, Rig, millis, secs};
use crate::{exchange, exec, send, serving};

#[test]
fn an_exec_that_finds_no_place_is_answered_within_its_limit() {
    let mut options = serving();
    options.serve_at_once = 1;
    options.exec_limit = secs(10);
    let mut rig = Rig::with(options);
    send(&mut rig, 2, &exec(1, 7));
    rig.wait(secs(4));
    send(&mut rig, 2, &exec(2, 7));
    rig.wait(secs(6));
    assert_eq!(exchange(&rig, 1), ["result read_result", "close"], "its time is over");
    assert_eq!(rig.tasks.len(), 2, "the second has its place");
    rig.wait(secs(4));
    assert_eq!(exchange(&rig, 2), ["result read_result", "close"], "10 s after it was asked");
    assert_eq!(rig.stopped.len(), 2);
}

#[test]
fn what_waits_is_bounded_in_bytes() {
    let mut options = serving();
    options.pending_bytes = 10_000;
    let mut rig = Rig::with(options);
    let ask = |rig: &mut Rig, id: u32, size: usize| {
        let args = agentwire::proto::WriteArgs { path: "p".repeat(size), ..Default::default() };
        let case = Case::WriteArgs(Box::new(args));
        rig.message(rig::exec_message(id, case));
    };
    ask(&mut rig, 1, 20_000);
    assert_eq!(rig.tasks.len(), 1, "one always may");
    ask(&mut rig, 2, 10);
    assert_eq!(exchange(&rig, 2), ["result write_result", "close"]);
    rig.call(3, "call");
    assert_eq!(exchange(&rig, 3), ["result mcp_result", "close"], "calls count as well");
    rig.session.handle_served(rig.tasks[0].key, ServeResult::Failed, rig.now);
    rig.turn();
    ask(&mut rig, 4, 4_000);
    ask(&mut rig, 5, 4_000);
    assert_eq!(rig.tasks.len(), 3);
}

#[test]
fn a_call_whose_arguments_nest_too_deep_costs_the_call_and_not_the_run() {
    let mut deep = Vec::new();
    for _ in 0..300 {
        let mut list = vec![0x0a];
        prost::encoding::encode_varint(deep.len() as u64, &mut list);
        list.append(&mut deep);
        deep = vec![0x32];
        prost::encoding::encode_varint(list.len() as u64, &mut deep);
        deep.append(&mut list);
    }
    let args = agentwire::proto::McpArgs {
        name: "ls".into(),
        tool_call_id: "c".into(),
        args: [("k".to_owned(), deep.into())].into(),
        ..Default::default()
    };
    let mut rig = Rig::streaming();
    rig.message(rig::exec_message(1, Case::McpArgs(Box::new(args))));
    assert_eq!(exchange(&rig, 1), ["result mcp_result", "close"]);
    rig.call(2, "fine");
    rig.wait(millis(100));
    assert!(matches!(rig.events.last(), Some(Event::ToolCalls(calls)) if calls[0].id == "fine"));
}

#[test]
fn an_id_that_is_used_again_after_an_abort_is_answered_once() {
    let mut rig = Rig::streaming();
    let result = || ToolResult::text("c", "ls", "done");
    rig.call(1, "c");
    rig.wait(millis(100));
    let abort = exec_server_control_message::Message::Abort(ExecServerAbort { id: 1 });
    rig.message(Server::ExecServerControlMessage(ExecServerControlMessage {
        message: Some(abort),
    }));
    rig.session.answer_some(&[result()], rig.now).expect("a late answer is dropped");
    rig.call(2, "c");
    rig.wait(millis(100));
    rig.session.answer(&[result()], rig.now).unwrap();
    rig.turn();
    assert_eq!(exchange(&rig, 2), ["result mcp_result", "close"]);
    let error = rig.session.answer(&[result()], rig.now).unwrap_err();
    assert!(error.message().contains("answered already"), "{error}");
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
    assert_eq!(shell_events(&rig), ["Start", "Stdout", "Exit", "close"]);
}

/// Name of the event of each shell message, and whether the exec was closed.
fn shell_events(rig: &Rig) -> Vec<String> {
    let events = rig.sent_messages.iter().filter_map(|message| match message.message.as_ref()? {
        Client::ExecClientMessage(exec) => match exec.message.as_ref()? {
            exec_client_message::Message::ShellStream(stream) => {
                let event = format!("{:?}", stream.event.as_ref()?);
                event.split('(').next().map(str::to_owned)
            }
            _ => None,
        },
        Client::ExecClientControlMessage(_) => Some("close".to_owned()),
        _ => None,
    });
    events.collect()
}

#[test]
fn a_shell_has_one_beginning_and_one_end_whatever_its_handler_says() {
    use shell_stream::Event as E;
    let out = || E::Stdout(ShellStreamStdout { data: "x".into() });
    let exit = || E::Exit(ShellStreamExit::default());
    let cases: [(Vec<E>, ServeResult, &[&str]); 7] = [
        (vec![exit()], ServeResult::ShellDone, &["Start", "Exit", "close"]),
        (vec![out()], ServeResult::ShellDone, &["Start", "Stdout", "Exit", "close"]),
        (vec![out()], ServeResult::Failed, &["Start", "Stdout", "Exit", "close"]),
        (vec![exit(), exit(), out()], ServeResult::Failed, &["Start", "Exit", "close"]),
        (
            vec![out(), E::Backgrounded(Default::default()), exit()],
            ServeResult::ShellDone,
            &["Start", "Stdout", "Backgrounded", "close"],
        ),
        (
            vec![E::HookContext(Default::default()), out(), exit()],
            ServeResult::ShellDone,
            &["HookContext", "Start", "Stdout", "Exit", "close"],
        ),
        (vec![E::Rejected(Default::default())], ServeResult::ShellDone, &["Rejected", "close"]),
    ];
    for (events, result, expected) in cases {
        let mut rig = Rig::with(serving());
        send(&mut rig, 2, &exec(1, 14));
        let key = rig.tasks[0].key;
        for event in events {
            rig.session.handle_shell_event(key, event);
        }
        rig.session.handle_served(key, result, rig.now);
        rig.turn();
        assert_eq!(shell_events(&rig), expected);
    }
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
