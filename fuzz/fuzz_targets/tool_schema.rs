#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| agentwire::codec::fuzz::tool_schema(data));
