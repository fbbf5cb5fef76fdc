//! Whatever a client sends to an HTTP server, in whatever pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| simulate::oracles::http(data));
