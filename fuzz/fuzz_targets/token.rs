#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| agentwire::auth::fuzz::token(text));
