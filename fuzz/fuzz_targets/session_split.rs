#![no_main]

use libfuzzer_sys::fuzz_target;

// The last four bytes say how the rest is cut.
fuzz_target!(|data: &[u8]| {
    let (body, cuts) = data.split_at(data.len().saturating_sub(4));
    agentwire::run::fuzz::session_split(body, cuts);
});
