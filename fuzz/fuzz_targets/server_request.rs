//! Any bytes as a Run request to a player, cut anywhere; the first byte says how many cuts follow.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&count, rest)) = data.split_first() else { return };
    let (cuts, body) = rest.split_at(usize::from(count % 8).min(rest.len()));
    agentwire::server::fuzz::request(body, cuts);
});
