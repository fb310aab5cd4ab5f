#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agentwire::codec::fuzz::json_value(data));
