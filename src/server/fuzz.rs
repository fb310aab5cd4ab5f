//! Fuzz bodies of the server: sessions, players, scripts. They live here so that they compile with
//! it; `fuzz/` and the property tests call them.

use std::time::{Duration, Instant};

use super::script::{Repeat, Script, Step};
use super::session::{self, Output, RUN_PATH, RequestHead, STREAM_TYPE};
use super::{Exchange, Options, Playbook};

/// Outputs after which a run that goes on is left alone.
const ENOUGH: usize = 2_000;

/// Waits after which a run that goes on is left alone.
const PATIENCE: usize = 500;

/// Any bytes as the body of a Run request, cut anywhere: no panic; one head, before all else;
/// nothing after the end; every cut gives the outputs that the whole gives.
///
/// # Panics
/// When a promise is broken. `cuts` are sizes of the pieces, used in turn; zeros are skipped.
pub fn request(body: &[u8], cuts: &[u8]) {
    let script = Script::of([
        Step::Context,
        Step::History,
        Step::text("hello"),
        Step::Checkpoint(Default::default()),
    ]);
    let whole = play(&script, std::iter::once(body));
    assert_eq!(whole, play(&script, body.chunks(1)), "byte by byte");
    let mut sizes = cuts.iter().copied().filter(|&size| size > 0).map(usize::from).cycle();
    let mut rest = body;
    let pieces = std::iter::from_fn(|| {
        let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
        let (piece, after) = rest.split_at_checked(size)?;
        rest = after;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(whole, play(&script, pieces));
}

/// Any text as a script: read or refused without a panic; what was read is written and read again
/// as the same; and it can be played to a client that asks one thing and answers nothing.
///
/// # Panics
/// When a promise is broken.
pub fn script(text: &str) {
    #[cfg(feature = "server")]
    if let Ok(script) = Script::from_toml(text) {
        try_out(&script);
    }
    if let Ok(script) = Script::from_json(text) {
        try_out(&script);
    }
}

fn try_out(script: &Script) {
    let json = serde_json::to_string(script).unwrap_or_default();
    let again = Script::from_json(&json);
    assert!(again.is_ok_and(|again| again == *script), "what is written is read as the same");
    if script.rules.iter().flat_map(|rule| &rule.steps).all(is_small) {
        // A run request that asks nothing of a conversation without a state.
        play(script, std::iter::once([0, 0, 0, 0, 2, 0x0a, 0].as_slice()));
    }
}

/// Whether a step says little enough to be played thousands of times.
fn is_small(step: &Step) -> bool {
    let small = |zeros: Option<usize>| zeros.is_none_or(|zeros| zeros < 4_096);
    match step {
        Step::Bytes(bytes) => small(bytes.zeros),
        Step::SetBlob(blob) => small(blob.zeros),
        Step::Repeat(Repeat { steps, .. }) => steps.iter().all(is_small),
        Step::If(condition) => condition.then.iter().chain(&condition.otherwise).all(is_small),
        _ => true,
    }
}

/// Plays a script to a client that says this and nothing else; gives what was sent.
fn play<'a>(script: &Script, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Output> {
    #[allow(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
    let start = Instant::now();
    let Ok(playbook) = Playbook::new(script.clone()) else { return Vec::new() };
    let session = session::Options { questions: 1_000, ..Default::default() };
    let mut exchange = Exchange::new(playbook, Options { session, ..Options::default() });
    let head = RequestHead::post(RUN_PATH, [("content-type", STREAM_TYPE)]);
    exchange.handle_head(&head, start);
    for piece in pieces {
        exchange.handle_body(piece, start);
    }
    let mut now = start;
    let (mut outputs, mut waits) = (Vec::new(), 0);
    while outputs.len() < ENOUGH && waits < PATIENCE {
        match exchange.poll_output(now) {
            Output::Wait(None) => break,
            Output::Wait(Some(wake)) => {
                waits += 1;
                now = wake.max(now + Duration::from_millis(1));
                exchange.handle_timeout(now);
            }
            output => outputs.push(output),
        }
    }
    check(&outputs);
    exchange.handle_reset(None, now);
    assert_eq!(exchange.poll_output(now), Output::Wait(None), "nothing after the client is gone");
    outputs
}

/// One head before all else, and nothing after the end.
fn check(outputs: &[Output]) {
    let head = |output: &Output| matches!(output, Output::Head { .. });
    let last =
        |output: &Output| matches!(output, Output::End { .. } | Output::Reset(_) | Output::Cut);
    assert!(outputs.iter().filter(|output| head(output)).count() <= 1, "one head");
    let begun = outputs.iter().position(head).unwrap_or(outputs.len());
    let early = outputs.iter().take(begun);
    assert!(!early.clone().any(|output| matches!(output, Output::Send(_) | Output::End { .. })));
    let ended = outputs.iter().position(last).map_or(outputs.len(), |end| end + 1);
    assert_eq!(ended, outputs.len(), "nothing after the end");
}
