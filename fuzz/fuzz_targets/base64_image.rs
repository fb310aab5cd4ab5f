#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| agentwire::codec::fuzz::base64_image(text));
