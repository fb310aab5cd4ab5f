//! Rows of the fault matrix that are about one run and need no socket (FAULTS A, H, K).

use agentwire::connect::put_envelope;
use agentwire::context::ToolResult;
use agentwire::error::{Kind, NetworkFault};
use agentwire::proto::agent_server_message::Message as Server;
use agentwire::proto::{
    ExecServerMessage, GetBlobArgs, InteractionUpdate, SetBlobArgs, WriteArgs, exec_server_message,
    kv_server_message,
};
use agentwire::run::{Event, Polled};

use crate::rig::*;
use crate::{checkpoint, kv};

fn text(text: &str) -> Vec<u8> {
    let message = Some(text_update(text));
    envelope(Server::InteractionUpdate(InteractionUpdate { message }))
}

#[test]
fn m03_a_thousand_messages_in_one_chunk() {
    let mut rig = Rig::streaming();
    rig.body(text("ab").repeat(1_000));
    assert_eq!(rig.texts(), "ab".repeat(1_000));
}

#[test]
fn m07_m08_a_huge_claim_ends_the_run_at_once_and_nothing_more_is_kept() {
    let mut rig = Rig::streaming();
    rig.take_sent();
    rig.body([&text("before")[..], &[0, 0xff, 0xff, 0xff, 0xff]].concat());
    assert_eq!(rig.texts(), "before");
    assert_eq!(*rig.error().kind(), Kind::LimitExceeded);
    assert_eq!(rig.take_sent(), ["reset cancel"]);
    let events = rig.events.len();
    let mebibyte = bytes::Bytes::from(vec![0; 1 << 20]);
    for _ in 0..256 {
        assert_eq!(rig.body(mebibyte.clone()), Polled::Ended);
    }
    assert_eq!((rig.events.len(), rig.take_sent().len()), (events, 0));
}

#[test]
fn m09_the_limit_passes_and_one_byte_more_does_not() {
    let fits = text(&"x".repeat(1_000));
    for (limit, passes) in [(fits.len() - 5, true), (fits.len() - 6, false)] {
        let mut options = agentwire::run::Options::default();
        options.limits.message = limit;
        let mut rig = Rig::with(options);
        rig.body(fits.clone());
        assert_eq!(rig.ended().is_none(), passes, "{limit}");
        assert_eq!(rig.texts().len(), if passes { 1_000 } else { 0 });
    }
}

/// What a message may become in memory is a limit of the run, too.
#[test]
fn m37_a_message_that_would_take_too_much_memory_ends_the_run() {
    let args = WriteArgs { file_text: "x".repeat(100_000), ..WriteArgs::default() };
    let exec = ExecServerMessage {
        id: 1,
        message: Some(exec_server_message::Message::WriteArgs(Box::new(args))),
        ..ExecServerMessage::default()
    };
    let write = envelope(Server::ExecServerMessage(Box::new(exec)));
    for (decoded, passes) in [(64 << 20, true), (100_000, false)] {
        let mut options = agentwire::run::Options::default();
        options.limits.decoded = decoded;
        let mut rig = Rig::with(options);
        rig.body(write.clone());
        assert_eq!(rig.ended().is_none(), passes, "{decoded}");
        if !passes {
            let error = rig.error();
            assert_eq!(*error.kind(), Kind::LimitExceeded);
            assert!(error.message().contains("the limit is 100000"), "{error}");
        }
    }
}

/// After the head, in the middle of a header, in the middle of a body.
#[test]
fn m61_silence_anywhere_ends_the_run_and_keeps_what_came() {
    let whole = text("never whole");
    for cut in [0, 3, 9] {
        let mut rig = Rig::streaming();
        rig.text("before");
        rig.body(whole[..cut].to_vec());
        rig.wait(millis(119_999));
        assert_eq!(rig.ended(), None, "{cut}");
        rig.wait(millis(1));
        assert_eq!(*rig.error().kind(), Kind::Network(NetworkFault::Stalled), "{cut}");
        assert_eq!(rig.texts(), "before");
    }
}

#[test]
fn m76_what_is_over_stays_over_and_says_so() {
    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.wait(millis(100));
    rig.session.cancel(rig.now);
    rig.turn();
    rig.session.cancel(rig.now);
    rig.turn();
    let late = rig.session.answer(&[ToolResult::text("a", "ls", "x")], rig.now).unwrap_err();
    assert!(late.message().contains("over"), "{late}");
    assert!(rig.session.say("hello?", rig.now).is_err());
    let ends = rig.events.iter().filter(|event| matches!(event, Event::Ended(_))).count();
    assert_eq!(ends, 1);
}

/// The service has closed its side; what we still want to say is refused, the end stands.
#[test]
fn m77_writing_after_the_service_has_ended() {
    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.turn_ended();
    rig.end_stream("{}");
    rig.end();
    assert!(matches!(rig.ended(), Some(Ok(_))), "{:?}", rig.ended());
    let late = rig.session.answer(&[ToolResult::text("a", "ls", "x")], rig.now).unwrap_err();
    assert!(late.message().contains("over"), "{late}");
}

fn set(n: u32, id: Vec<u8>, data: Vec<u8>) -> Server {
    let set = SetBlobArgs { blob_id: id.into(), blob_data: data.into() };
    kv(n, kv_server_message::Message::SetBlobArgs(set))
}

fn get(n: u32, id: Vec<u8>) -> Server {
    kv(n, kv_server_message::Message::GetBlobArgs(GetBlobArgs { blob_id: id.into() }))
}

#[test]
fn m78_a_flood_of_blobs_is_refused_at_its_limits_and_the_turn_goes_on() {
    for (count, size, kept) in [(20_000_u32, 4, 4_096), (300, 1 << 20, 63)] {
        let mut rig = Rig::streaming();
        rig.take_sent();
        for n in 0..count {
            let mut id = vec![0xff; 28];
            id.extend(n.to_be_bytes());
            rig.message(set(n, id, vec![7; size]));
            rig.sent_messages.clear();
        }
        let sent = rig.take_sent();
        let stored = sent.iter().filter(|word| word.starts_with("stored")).count();
        let refused = sent.iter().filter(|word| word.starts_with("refused")).count();
        assert_eq!((stored, stored + refused), (kept, usize::try_from(count).unwrap()), "{size}");
        rig.text("on it goes");
        rig.turn_ended();
        rig.end_stream("{}");
        assert!(matches!(rig.ended(), Some(Ok(_))));
    }
}

#[test]
fn m81_any_blob_id_is_answered_and_ids_come_back_as_they_were() {
    let mut rig = Rig::streaming();
    rig.take_sent();
    rig.message(set(7, b"known".to_vec(), b"data".to_vec()));
    for (n, id) in [(9, Vec::new()), (3, vec![1; 1 << 20]), (u32::MAX, b"known".to_vec())] {
        rig.message(get(n, id));
    }
    // One number for two questions: two answers.
    rig.message(get(3, b"known".to_vec()));
    assert_eq!(
        rig.take_sent(),
        ["stored 7", "blob 9 0", "blob 3 0", "blob 4294967295 4", "blob 3 4"]
    );
}

#[test]
fn m82_a_hundred_calls_at_once_are_answered_in_any_order() {
    let mut rig = Rig::streaming();
    rig.take_sent();
    for n in 1..=100 {
        rig.call(n, &format!("call_{n}"));
    }
    rig.wait(millis(100));
    let answers: Vec<_> =
        (1..=100).rev().map(|n| ToolResult::text(format!("call_{n}"), "ls", "x")).collect();
    rig.session.answer(&answers, rig.now).unwrap();
    rig.turn();
    let expected: Vec<_> =
        (1..=100).rev().flat_map(|n| [format!("result {n}"), format!("close {n}")]).collect();
    assert_eq!(rig.take_sent(), expected);
    let twice = rig.session.answer(&answers[..1], rig.now).unwrap_err();
    assert_eq!(*twice.kind(), Kind::InvalidRequest);
    assert_eq!(rig.ended(), None, "a duplicate harms nobody");
}

#[test]
fn m85_a_malformed_checkpoint_ends_the_run_and_the_last_good_one_stays() {
    let mut rig = Rig::streaming();
    rig.message(checkpoint(7));
    let good = |rig: Rig| rig.session.into_conversation().checkpoint().map(|c| c.raw().to_vec());
    let expected = {
        let mut other = Rig::streaming();
        other.message(checkpoint(7));
        good(other)
    };
    assert!(expected.is_some());
    let mut bytes = Vec::new();
    // conversation_checkpoint_update with a length that reaches beyond it.
    put_envelope(&mut bytes, 0, &[0x1a, 3, 0x0a, 9, 1]);
    rig.body(bytes);
    assert_eq!(*rig.error().kind(), Kind::Protocol);
    assert_eq!(good(rig), expected);
}

#[test]
fn m85_a_checkpoint_of_sixteen_mebibytes_is_kept() {
    // A field nobody knows, so large that the message is just within its limit.
    let filler = (16 << 20) - 64;
    let mut state = vec![0xfa, 0x3f];
    put_varint(&mut state, filler);
    state.resize(state.len() + filler, b'x');
    let mut message = vec![0x1a];
    put_varint(&mut message, state.len());
    message.extend(&state);
    let mut bytes = Vec::new();
    put_envelope(&mut bytes, 0, &message);
    let mut rig = Rig::streaming();
    rig.body(bytes);
    assert_eq!(rig.ended(), None);
    let conversation = rig.session.into_conversation();
    assert_eq!(conversation.checkpoint().map(|c| c.raw().len()), Some(state.len()));
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 128 {
        out.push(u8::try_from(value % 128).unwrap() | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).unwrap());
}
