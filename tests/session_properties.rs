//! Properties of the run machine over random input. The bodies are the fuzz bodies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on"
)]

use agentwire::run::fuzz::{session_operations, session_split, turn_operations};
use proptest::prelude::*;

/// Pieces of a plausible body: messages of the hot kinds, some cold ones, junk, an end-stream.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let text =
        (prop_oneof![Just(0x0a_u8), Just(0x22)], "[a-zé🦀]{0,24}").prop_map(|(tag, text)| {
            let delta = [&[0x0a, u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
            let update = [&[tag, u8::try_from(delta.len()).unwrap()][..], &delta].concat();
            let message = [&[0x0a, u8::try_from(update.len()).unwrap()][..], &update].concat();
            envelope(0, &message)
        });
    let fixed = prop::sample::select(vec![
        envelope(0, &[0x0a, 4, 0x42, 2, 0x08, 7]),    // token delta
        envelope(0, &[0x0a, 2, 0x6a, 0]),             // heartbeat
        envelope(0, &[0x0a, 2, 0x72, 0]),             // turn ended
        envelope(0, &[0x1a, 4, 0x2a, 2, 0x08, 0x78]), // checkpoint
        envelope(0, &[0x12, 4, 0x08, 9, 0x52, 0]),    // request context
        envelope(0, &[0x12, 7, 0x08, 3, 0x5a, 3, 0x1a, 1, b'c']), // tool call
        envelope(0, &[0x22, 4, 0x08, 1, 0x12, 0]),    // get blob
        envelope(2, b"{}"),
        envelope(2, br#"{"error":{"code":"internal"}}"#),
    ]);
    let junk = prop::collection::vec(any::<u8>(), 0..6);
    let piece = prop_oneof![6 => text, 4 => fixed, 1 => junk];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    agentwire::connect::put_envelope(&mut out, flags, payload);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_split_gives_the_same_events(body in body(), cuts in prop::collection::vec(any::<u8>(), 1..8)) {
        session_split(&body, &cuts);
    }

    #[test]
    fn wild_operations_break_no_promise(data in prop::collection::vec(any::<u8>(), 0..400)) {
        session_operations(&data);
    }

    #[test]
    fn wild_operations_on_a_turn_break_no_promise(data in prop::collection::vec(any::<u8>(), 0..600)) {
        turn_operations(&data);
    }
}

#[test]
fn one_byte_at_a_time_is_the_same_too() {
    let body = [envelope(0, &[0x0a, 5, 0x0a, 3, 0x0a, 1, b'x']), envelope(2, b"{}")].concat();
    session_split(&body, &[1]);
}

/// Found by fuzzing.
#[test]
fn a_turn_that_is_cancelled_ends_wherever_it_is() {
    turn_operations(&[
        0, 33, 0, 130, 133, 33, 133, 0, 0, 130, 133, 33, 133, 0, 33, 0, 130, 133, 33, 0, 33, 0, 24,
        0, 0, 235, 18, 0, 33, 0, 130, 133, 4, 146, 0, 235, 35,
    ]);
}
