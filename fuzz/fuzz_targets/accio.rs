//! Whatever a client sends to the accio server, in whatever pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| simulate::oracles::accio(data));
