//! Any text as a script of the server.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| agentwire::server::fuzz::script(text));
