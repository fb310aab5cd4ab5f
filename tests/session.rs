//! Transcripts of one run on a virtual clock: no socket, no sleep (PROTOCOL 3).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

#[path = "session/faults.rs"]
mod faults;
#[path = "session/heartbeats.rs"]
mod heartbeats;
#[path = "session/rig.rs"]
mod rig;

use agentwire::connect::Code;
use agentwire::context::{Image, Part, ToolResult};
use agentwire::conversation::Conversation;
use agentwire::error::{Error, Kind, NetworkFault};
use agentwire::proto::agent_server_message::Message as Server;
use agentwire::proto::interaction_update::Message as Update;
use agentwire::proto::{
    ConversationStateStructure, ConversationTokenDetails, ExecServerAbort,
    ExecServerControlMessage, GetBlobArgs, HeartbeatUpdate, InteractionQuery, KvServerMessage,
    RequestContextArgs, SetBlobArgs, ShellArgs, ThinkingDeltaUpdate, TokenDeltaUpdate,
    TurnEndedUpdate, WebSearchRequestQuery, exec_server_control_message, exec_server_message,
    interaction_query, kv_server_message,
};
use agentwire::run::{Event, Head, Notice, Options, Polled};
use prost::Message as _;

use std::time::SystemTime;

use rig::*;

fn kv(id: u32, message: kv_server_message::Message) -> Server {
    Server::KvServerMessage(Box::new(KvServerMessage {
        id,
        message: Some(message),
        ..KvServerMessage::default()
    }))
}

fn checkpoint(used: u32) -> Server {
    Server::ConversationCheckpointUpdate(Box::new(ConversationStateStructure {
        token_details: Some(ConversationTokenDetails { used_tokens: used, max_tokens: 2_000 }),
        ..ConversationStateStructure::default()
    }))
}

#[test]
fn a_turn_streams_and_ends() {
    let mut rig = Rig::streaming();
    assert_eq!(rig.take_sent(), ["run"]);
    rig.update(Update::ThinkingDelta(ThinkingDeltaUpdate { text: "hm".into() }));
    rig.text("Hel");
    rig.text("");
    rig.text("lo");
    rig.update(Update::TokenDelta(TokenDeltaUpdate { tokens: 7 }));
    rig.message(checkpoint(120));
    rig.update(Update::TurnEnded(
        TurnEndedUpdate { input_tokens: Some(110), output_tokens: Some(9), ..Default::default() }
            .into(),
    ));
    assert_eq!(rig.ended(), None, "the stream is still open");
    rig.end_stream("{}");
    let usage = match rig.ended() {
        Some(Ok(finish)) => finish.usage,
        other => panic!("{other:?}"),
    };
    assert_eq!((usage.input, usage.output, usage.billed), (Some(110), 9, true));
    assert_eq!(usage.context_used, Some(120));
    let shapes: Vec<String> = rig.events.iter().map(|event| format!("{event:?}")).collect();
    assert_eq!(
        shapes[..4],
        ["Thinking(2 bytes)", "Text(3 bytes)", "Text(2 bytes)", "OutputTokens(7)"]
    );
    assert_eq!(rig.take_sent(), ["half-close", "reset complete"]);
    assert_eq!(rig.deadline, None, "nothing is waited for after the end");
}

#[test]
fn no_reset_when_the_service_has_ended_its_side() {
    let mut rig = Rig::streaming();
    rig.turn_ended();
    rig.take_sent();
    rig.session.handle_body(end_stream("{}").into(), rig.now);
    rig.session.handle_end(rig.now);
    rig.turn();
    assert!(matches!(rig.ended(), Some(Ok(_))));
    assert_eq!(rig.take_sent(), ["half-close"]);
}

#[test]
fn every_question_is_answered_at_once_and_every_exec_closed() {
    let mut rig = Rig::streaming();
    rig.take_sent();
    rig.message(kv(
        4,
        kv_server_message::Message::GetBlobArgs(GetBlobArgs {
            blob_id: b"nobody has this".to_vec().into(),
        }),
    ));
    rig.message(exec_message(
        5,
        exec_server_message::Message::RequestContextArgs(RequestContextArgs::default().into()),
    ));
    rig.message(exec_message(
        6,
        exec_server_message::Message::ShellArgs(ShellArgs::default().into()),
    ));
    rig.message(Server::InteractionQuery(Box::new(InteractionQuery {
        id: 7,
        query: Some(interaction_query::Query::WebSearchRequestQuery(
            WebSearchRequestQuery::default().into(),
        )),
    })));
    assert_eq!(
        rig.take_sent(),
        ["blob 4 0", "context 5", "close 5", "refusal 6", "close 6", "query 7 refused"]
    );
    let refused: Vec<_> = rig
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Notice(Notice::Refused { what }) => Some(what.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(refused, ["shell_args", "web_search_request_query"]);
}

#[test]
fn what_this_version_does_not_know_is_answered_too() {
    let mut rig = Rig::streaming();
    rig.take_sent();
    // exec_server_message{id: 9, field 99: ""}, then interaction_query{id: 3, field 77: ""}
    let mut bytes = Vec::new();
    agentwire::connect::put_envelope(&mut bytes, 0, &[0x12, 5, 0x08, 9, 0x9a, 0x06, 0]);
    agentwire::connect::put_envelope(&mut bytes, 0, &[0x3a, 5, 0x08, 3, 0xea, 0x04, 0]);
    rig.body(bytes);
    assert_eq!(rig.take_sent(), ["throw 9", "close 9", "query 3 empty"]);
}

#[test]
fn blobs_are_stored_served_and_never_overwritten() {
    let mut rig = Rig::streaming();
    rig.take_sent();
    let id = b"an id of the service".to_vec();
    let set = |n: u32, data: &[u8]| {
        kv(
            n,
            kv_server_message::Message::SetBlobArgs(SetBlobArgs {
                blob_id: id.clone().into(),
                blob_data: data.to_vec().into(),
            }),
        )
    };
    rig.message(set(1, b"good"));
    rig.message(set(2, b"evil!!"));
    rig.message(kv(
        3,
        kv_server_message::Message::GetBlobArgs(GetBlobArgs { blob_id: id.clone().into() }),
    ));
    assert_eq!(rig.take_sent(), ["stored 1", "refused 2", "blob 3 4"]);
    assert!(rig.events.contains(&Event::Notice(Notice::BlobIdMismatch)));
}

#[test]
fn tool_calls_that_come_together_are_handed_out_together_and_answered_on_the_same_stream() {
    let mut rig = Rig::streaming();
    rig.take_sent();
    rig.call(1, "a");
    rig.wait(millis(60));
    rig.call(2, "b");
    rig.wait(millis(99));
    assert_eq!(rig.take_events(), []);
    rig.wait(millis(1));
    let [Event::ToolCalls(calls)] = &rig.take_events()[..] else { panic!() };
    let ids: Vec<_> = calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    rig.session
        .answer(&[ToolResult::text("b", "ls", "two"), ToolResult::error("a", "ls", "no")], rig.now)
        .unwrap();
    rig.turn();
    assert_eq!(rig.take_sent(), ["result 2", "close 2", "result 1", "close 1"]);
    rig.text("done");
    rig.turn_ended();
    rig.end_stream("{}");
    assert!(matches!(rig.ended(), Some(Ok(_))));
}

#[test]
fn text_after_a_tool_call_hands_the_batch_out_first() {
    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.text("meanwhile");
    assert!(matches!(&rig.events[..], [Event::ToolCalls(_), Event::Text(_)]), "{:?}", rig.events);
}

#[test]
fn an_answer_that_does_not_fit_is_refused_before_anything_is_written() {
    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.call(2, "b");
    rig.wait(millis(100));
    rig.take_sent();
    let (a, b) = (ToolResult::text("a", "ls", "x"), ToolResult::text("b", "ls", "y"));
    let mut bad_image = a.clone();
    bad_image.content =
        vec![Part::Image(Image { data: "%".into(), mime_type: "image/png".into() })];
    let cases = [
        (vec![a.clone()], "\"b\""),
        (vec![a.clone(), b.clone(), ToolResult::text("z", "", "")], "never asked"),
        (vec![a.clone(), b.clone(), a.clone()], "twice"),
        (vec![bad_image, b.clone()], "image"),
    ];
    for (results, expected) in cases {
        let error = rig.session.answer(&results, rig.now).unwrap_err();
        assert_eq!(*error.kind(), Kind::InvalidRequest);
        assert!(error.to_string().contains(expected), "{error}");
        rig.turn();
        assert_eq!(rig.take_sent(), [""; 0]);
    }
    rig.session.answer_some(std::slice::from_ref(&a), rig.now).unwrap();
    let error = rig.session.answer(&[a, b.clone()], rig.now).unwrap_err();
    assert!(error.to_string().contains("already"), "{error}");
    rig.session.answer(&[b], rig.now).unwrap();
    rig.turn();
    assert_eq!(rig.take_sent(), ["result 1", "close 1", "result 2", "close 2"]);
}

#[test]
fn an_aborted_tool_is_reported_closed_once_and_its_late_answer_dropped() {
    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.wait(millis(100));
    rig.take_sent();
    rig.take_events();
    rig.message(Server::ExecServerControlMessage(ExecServerControlMessage {
        message: Some(exec_server_control_message::Message::Abort(ExecServerAbort { id: 1 })),
    }));
    assert_eq!(rig.take_events(), [Event::ToolsAborted(vec!["a".into()])]);
    rig.session.answer(&[ToolResult::text("a", "ls", "late")], rig.now).unwrap();
    rig.turn();
    assert_eq!(rig.take_sent(), ["close 1"]);
}

#[test]
fn two_calls_under_one_id_can_be_told_apart() {
    let mut rig = Rig::streaming();
    rig.call(1, "same");
    rig.call(2, "same");
    rig.wait(millis(100));
    let [Event::ToolCalls(calls)] = &rig.take_events()[..] else { panic!() };
    assert_eq!(calls[0].id, "same");
    assert_ne!(calls[1].id, "same");
}

#[test]
fn calls_beyond_the_limit_are_refused_one_by_one() {
    let mut options = Options::default();
    options.pending_calls = 1;
    let mut rig = Rig::with(options);
    rig.take_sent();
    rig.call(1, "a");
    rig.call(2, "b");
    assert_eq!(rig.take_sent(), ["result 2", "close 2"]);
}

#[test]
fn silence_ends_a_run_and_heartbeats_of_the_service_hold_it_off_until_progress_is_due() {
    let mut rig = Rig::streaming();
    rig.wait(secs(119));
    assert_eq!(rig.ended(), None);
    rig.wait(secs(1));
    assert_eq!(*rig.error().kind(), Kind::Network(NetworkFault::Stalled));
    assert_eq!(rig.error().code(), Code::DeadlineExceeded);

    let mut rig = Rig::streaming();
    for _ in 0..19 {
        rig.update(Update::Heartbeat(HeartbeatUpdate::default()));
        rig.wait(secs(30));
        assert_eq!(rig.ended(), None);
    }
    rig.update(Update::Heartbeat(HeartbeatUpdate::default()));
    rig.wait(secs(30));
    assert!(rig.error().message().contains("nothing but heartbeats"), "{}", rig.error());
}

#[test]
fn a_slow_model_with_heartbeats_survives() {
    let mut rig = Rig::streaming();
    for _ in 0..40 {
        rig.text("x");
        rig.wait(secs(15));
        rig.update(Update::Heartbeat(HeartbeatUpdate::default()));
        rig.wait(secs(15));
    }
    assert_eq!(rig.ended(), None);
    assert_eq!(rig.texts().len(), 40);
}

#[test]
fn a_stalled_run_is_cancelled_before_it_is_reset() {
    let mut rig = Rig::streaming();
    rig.wait(secs(120));
    let sent = rig.take_sent();
    assert_eq!(sent[sent.len() - 2..], ["cancel", "reset cancel"]);
}

#[test]
fn no_answer_at_all_ends_after_the_first_byte_deadline() {
    let mut rig = Rig::opening(Options::default(), Conversation::with_id("c"));
    rig.wait(millis(59_999));
    assert_eq!(rig.ended(), None);
    rig.wait(millis(1));
    assert!(rig.error().message().contains("no answer within 60s"), "{}", rig.error());
}

#[test]
fn a_byte_a_second_inside_one_message_is_no_life() {
    let mut rig = Rig::streaming();
    let bytes = envelope(Server::InteractionUpdate(agentwire::proto::InteractionUpdate {
        message: Some(text_update(&"x".repeat(1_000))),
    }));
    for byte in &bytes[..310] {
        if rig.ended().is_some() {
            break;
        }
        rig.body(vec![*byte]);
        rig.wait(secs(1));
    }
    assert!(rig.error().message().contains("not complete"), "{}", rig.error());
}

#[test]
fn tools_at_work_and_a_stalled_consumer_do_not_count_as_silence_of_the_service() {
    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.wait(secs(290));
    assert_eq!(rig.ended(), None, "the service waits for us");
    rig.session.answer(&[ToolResult::text("a", "ls", "x")], rig.now).unwrap();
    rig.turn();
    rig.wait(secs(119));
    assert_eq!(rig.ended(), None);
    rig.room = 1;
    assert_eq!(rig.text("full"), Polled::Stopped);
    rig.text("behind it");
    rig.wait(secs(500));
    assert_eq!(rig.ended(), None, "the consumer is asleep, not the service");
    rig.room = usize::MAX;
    assert_eq!(rig.turn(), Polled::Drained);
    rig.wait(secs(120));
    assert!(rig.ended().is_some());
}

#[test]
fn a_paused_turn_has_a_limit() {
    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.wait(millis(100));
    rig.wait(secs(300));
    assert_eq!(*rig.error().kind(), Kind::Interrupted);
    let error = rig.session.answer(&[ToolResult::text("a", "ls", "x")], rig.now).unwrap_err();
    assert!(error.to_string().contains("too late"), "{error}");
}

#[test]
fn the_stream_is_closed_when_the_service_leaves_it_open_after_the_turn() {
    let mut rig = Rig::streaming();
    rig.turn_ended();
    rig.take_sent();
    rig.wait(millis(499));
    assert_eq!(rig.ended(), None);
    rig.wait(millis(1));
    assert!(matches!(rig.ended(), Some(Ok(_))));
    assert_eq!(rig.take_sent(), ["half-close", "reset complete"]);

    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.turn_ended();
    rig.wait(secs(4));
    assert_eq!(rig.ended(), None, "a tool is still at work");
    rig.session.answer(&[ToolResult::text("a", "ls", "x")], rig.now).unwrap();
    rig.turn();
    rig.wait(millis(500));
    assert!(matches!(rig.ended(), Some(Ok(_))));
}

#[test]
fn a_stated_error_wins_even_after_the_turn() {
    let mut rig = Rig::streaming();
    rig.turn_ended();
    rig.end_stream(r#"{"error":{"code":"internal","message":"disk on fire"}}"#);
    assert_eq!(rig.error().code(), Code::Internal);
    assert!(rig.error().message().contains("disk on fire"));
}

#[test]
fn an_end_before_the_turn_is_over_is_an_interruption() {
    let mut rig = Rig::streaming();
    rig.text("half an ans");
    rig.end_stream("{}");
    assert_eq!(*rig.error().kind(), Kind::Interrupted);

    let mut rig = Rig::streaming();
    rig.text("half");
    rig.end();
    assert_eq!((rig.error().kind(), rig.error().code()), (&Kind::Interrupted, Code::Internal));
    assert_eq!(rig.texts(), "half");

    let mut rig = Rig::streaming();
    rig.body(vec![0, 0, 0]);
    rig.end();
    assert_eq!((rig.error().kind(), rig.error().code()), (&Kind::Interrupted, Code::Internal));
}

#[test]
fn a_loss_delivers_what_came_before_it_and_is_success_after_the_turn() {
    let lost = || Error::network(NetworkFault::Cut, "the connection was cut");
    let mut rig = Rig::streaming();
    rig.session.handle_body(
        envelope(Server::InteractionUpdate(agentwire::proto::InteractionUpdate {
            message: Some(text_update("early")),
        }))
        .into(),
        rig.now,
    );
    rig.session.handle_lost(lost(), rig.now);
    rig.turn();
    assert_eq!(rig.texts(), "early");
    assert_eq!(*rig.error().kind(), Kind::Network(NetworkFault::Cut));

    let mut rig = Rig::streaming();
    rig.turn_ended();
    rig.session.handle_lost(lost(), rig.now);
    rig.turn();
    assert!(matches!(rig.ended(), Some(Ok(_))));
    assert!(rig.events.contains(&Event::Notice(Notice::LostAfterEnd)));
}

#[test]
fn nothing_is_delivered_after_the_end_stream() {
    let mut rig = Rig::streaming();
    rig.turn_ended();
    let mut bytes = end_stream("{}");
    bytes.extend(envelope(Server::InteractionUpdate(agentwire::proto::InteractionUpdate {
        message: Some(text_update("late")),
    })));
    rig.body(bytes);
    assert_eq!((rig.error().kind(), rig.error().code()), (&Kind::Protocol, Code::Internal));
    assert_eq!(rig.texts(), "");
}

#[test]
fn cancel_tells_the_service_and_is_the_last_event() {
    let mut rig = Rig::streaming();
    rig.text("a");
    rig.take_sent();
    rig.session.cancel(rig.now);
    rig.session.cancel(rig.now);
    rig.turn();
    rig.text("b");
    rig.end();
    assert_eq!(*rig.error().kind(), Kind::Cancelled);
    assert_eq!(rig.texts(), "a");
    assert_eq!(rig.take_sent(), ["cancel", "reset cancel"]);
    assert_eq!(rig.turn(), Polled::Ended);
}

#[test]
fn an_http_error_is_read_to_its_end_and_classified() {
    let mut rig = Rig::opening(Options::default(), Conversation::with_id("c"));
    let headers = vec![("content-type".into(), "application/json".into())];
    rig.session
        .handle_head(Head { status: 401, headers, received_at: SystemTime::UNIX_EPOCH }, rig.now);
    rig.body(&br#"{"code":"unauthenticated","#[..]);
    assert_eq!(rig.ended(), None);
    rig.body(&br#""message":"who are you"}"#[..]);
    rig.end();
    assert_eq!(*rig.error().kind(), Kind::Unauthenticated);
    assert_eq!(rig.error().http_status(), Some(401));
    assert!(rig.error().message().contains("who are you"), "{}", rig.error());
}

#[test]
fn an_endless_error_body_is_cut() {
    let mut rig = Rig::opening(Options::default(), Conversation::with_id("c"));
    rig.session.handle_head(
        Head { status: 500, headers: Vec::new(), received_at: SystemTime::UNIX_EPOCH },
        rig.now,
    );
    for _ in 0..5 {
        rig.body(vec![b'x'; 16 << 10]);
    }
    assert_eq!(rig.error().http_status(), Some(500));
    assert_eq!(rig.take_sent(), ["run", "reset cancel"]);
}

#[test]
fn a_checkpoint_is_kept_through_every_end_but_not_found() {
    type End = fn(&mut Rig);
    let ends: [(&str, End); 4] = [
        ("cut", |rig| rig.session.handle_lost(Error::network(NetworkFault::Cut, "cut"), rig.now)),
        ("cancel", |rig| rig.session.cancel(rig.now)),
        ("stated", |rig| {
            let json = r#"{"error":{"code":"resource_exhausted","message":"slow down"}}"#;
            rig.session.handle_body(end_stream(json).into(), rig.now);
        }),
        ("breach", |rig| rig.session.handle_body(vec![0xff; 5].into(), rig.now)),
    ];
    for (name, end) in ends {
        let mut rig = Rig::streaming();
        rig.message(checkpoint(5));
        end(&mut rig);
        rig.turn();
        assert!(matches!(rig.ended(), Some(Err(_))), "{name}");
        assert!(rig.session.into_conversation().checkpoint().is_some(), "{name}");
    }
    for json in [
        r#"{"error":{"code":"not_found","message":"gone"}}"#,
        r#"{"error":{"code":"internal","message":"Blob not found: 1234"}}"#,
    ] {
        let mut rig = Rig::streaming();
        rig.message(checkpoint(5));
        rig.end_stream(json);
        assert!(rig.session.into_conversation().checkpoint().is_none(), "{json}");
    }
}

#[test]
fn the_deadline_of_the_caller_ends_everything() {
    let mut options = Options::default();
    options.deadline = Some(secs(20));
    let mut rig = Rig::with(options);
    rig.call(1, "a");
    rig.wait(secs(20));
    assert_eq!(*rig.error().kind(), Kind::DeadlineExceeded);
    assert!(!rig.error().is_retryable());
}

#[test]
fn a_peer_that_asks_without_reading_is_not_taken_further() {
    let mut options = Options::default();
    options.queued_writes = 100;
    let mut rig = Rig::with(options);
    rig.writes_through = false;
    let ask = |n| kv(n, kv_server_message::Message::GetBlobArgs(GetBlobArgs::default()));
    let mut polled = Polled::Drained;
    for n in 0..1_000 {
        polled = rig.message(ask(n));
    }
    assert_eq!(polled, Polled::Writing);
    assert!(rig.take_sent().len() < 100);
    rig.wait(secs(500));
    assert_eq!(rig.ended(), None, "the writer's own deadline ends such a run");
    while rig.unreported > 0 {
        rig.writes_done();
    }
    assert_eq!(rig.turn(), Polled::Drained);
}

#[test]
fn the_request_is_refused_before_anything_happens_and_the_conversation_comes_back() {
    let mut request = request("hi");
    request.model.id = "evil\r\nmodel".into();
    let result = agentwire::run::Session::new(
        &request,
        Conversation::with_id("conv"),
        Options::default(),
        agentwire::redact::Redactor::default(),
        Box::new(agentwire::ids::CountingIds::hex()),
        Rig::streaming().now,
    );
    let (error, conversation) = *result.expect_err("refused");
    assert_eq!(*error.kind(), Kind::InvalidRequest);
    assert!(!error.to_string().contains("evil"));
    assert_eq!(conversation.id(), Some("conv"));
}

#[test]
fn bytes_that_are_no_message_end_the_run() {
    let mut rig = Rig::streaming();
    let mut bytes = Vec::new();
    agentwire::connect::put_envelope(&mut bytes, 0, &[0x0a, 0x05, 0x01]);
    rig.body(bytes);
    assert_eq!(*rig.error().kind(), Kind::Protocol);
}

#[test]
fn a_checkpoint_is_committed_bit_for_bit() {
    let state = ConversationStateStructure { client_name: "x".into(), ..Default::default() };
    let mut raw = state.encode_to_vec();
    raw.extend_from_slice(&[0xf8, 0x3f, 0x2a]); // field 1023, which nobody knows
    let mut message = vec![0x1a, u8::try_from(raw.len()).unwrap()];
    message.extend_from_slice(&raw);
    let mut bytes = Vec::new();
    agentwire::connect::put_envelope(&mut bytes, 0, &message);
    let mut rig = Rig::streaming();
    rig.body(bytes);
    let conversation = rig.session.into_conversation();
    assert_eq!(conversation.checkpoint().map(|c| c.raw().to_vec()), Some(raw));
}
