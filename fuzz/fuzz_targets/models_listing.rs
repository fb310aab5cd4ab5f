#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agentwire::models::fuzz::listing(data));
