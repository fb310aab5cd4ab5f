//! Heartbeats: when they are due, and that none is queued behind one that was not written.

use std::sync::Arc;

use agentwire::context::ToolResult;
use agentwire::proto::exec_server_message::Message as Case;
use agentwire::proto::interaction_query::Query;
use agentwire::proto::{GetBlobArgs, kv_server_message};
use agentwire::run::{Event, Options, Serves};

use crate::kv;
use crate::rig::{Rig, exec_message, millis, secs};

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

#[test]
fn heartbeats_go_out_every_five_seconds_after_the_last_write_and_never_pile_up() {
    let mut rig = Rig::streaming();
    rig.take_sent();
    rig.wait(millis(4_999));
    assert_eq!(rig.take_sent(), [""; 0]);
    rig.wait(millis(1));
    rig.wait(secs(5));
    assert_eq!(rig.take_sent(), ["heartbeat", "heartbeat"]);
    rig.writes_through = false;
    rig.wait(secs(60));
    assert_eq!(rig.take_sent(), ["heartbeat"], "one waits to be written: no second is queued");
    rig.writes_done();
    rig.wait(secs(5));
    assert_eq!(rig.take_sent(), ["heartbeat"]);
}

#[test]
fn a_tool_at_work_beats_every_three_seconds() {
    let mut rig = Rig::streaming();
    rig.call(1, "a");
    rig.wait(secs(10));
    let beats = rig.take_sent().iter().filter(|word| *word == "beat 1").count();
    assert_eq!(beats, 3);
    rig.session.answer(&[ToolResult::text("a", "ls", "x")], rig.now).unwrap();
    rig.turn();
    rig.take_sent();
    rig.wait(secs(10));
    assert!(!rig.take_sent().contains(&"beat 1".to_owned()));
}

/// The heartbeats of an exec among what was sent.
fn beats(rig: &Rig) -> usize {
    rig.sent.iter().filter(|word| *word == "beat 7").count()
}

#[test]
fn an_exec_at_work_has_no_second_heartbeat_while_the_first_is_not_written() {
    let handler: fn(&mut Rig) = |rig| {
        let read = Case::ReadArgs(Box::default());
        rig.message(exec_message(7, read));
        assert_eq!(rig.tasks.len(), 1, "a handler is at work");
    };
    let tool: fn(&mut Rig) = |rig| {
        rig.call(7, "c1");
        rig.wait(millis(100));
        assert!(matches!(rig.events.last(), Some(Event::ToolCalls(_))), "a tool is at work");
    };
    for asked in [handler, tool] {
        let mut rig = Rig::with(serving());
        asked(&mut rig);
        rig.take_sent();
        rig.writes_through = false;
        rig.wait(secs(60));
        // One was due 3 s after the last write; nothing since then has left.
        assert_eq!(beats(&rig), 1, "{:?}", rig.sent);
        // A part of what waits is not all of it.
        rig.session.handle_sent(1, rig.now);
        rig.unreported -= 1;
        rig.turn();
        rig.wait(secs(60));
        assert_eq!(beats(&rig), 1, "{:?}", rig.sent);
        rig.writes_done();
        rig.wait(secs(3) - millis(1));
        assert_eq!(beats(&rig), 1, "counted from the write, not from when it was queued");
        rig.wait(millis(1));
        assert_eq!(beats(&rig), 2, "3 s after the write");
        rig.wait(secs(60));
        assert_eq!(beats(&rig), 2, "and that one waits in its turn");
        assert_eq!(rig.ended(), None);
    }
}

#[test]
fn an_exec_that_is_asked_while_writes_wait_beats_three_seconds_after_they_have_left() {
    let mut rig = Rig::with(serving());
    rig.take_sent();
    rig.writes_through = false;
    // An answer that does not leave, then the exec.
    rig.message(kv(
        1,
        kv_server_message::Message::GetBlobArgs(GetBlobArgs {
            blob_id: b"missing".to_vec().into(),
        }),
    ));
    rig.message(exec_message(7, Case::ReadArgs(Box::default())));
    rig.wait(secs(60));
    assert_eq!(beats(&rig), 0, "{:?}", rig.sent);
    rig.writes_done();
    rig.wait(secs(3) - millis(1));
    assert_eq!(beats(&rig), 0);
    rig.wait(millis(1));
    assert_eq!(beats(&rig), 1);
}
