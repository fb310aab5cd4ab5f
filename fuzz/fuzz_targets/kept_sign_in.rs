#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| agentwire::auth::fuzz::kept(text));
