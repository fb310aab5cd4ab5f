#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| agentwire::codec::hot::fuzz::differential(payload));
