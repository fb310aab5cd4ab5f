#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| agentwire::inspect::fuzz::inspect_round_trip(data));
