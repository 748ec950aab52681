//! Fuzzes `fuzzed::delta`.
#![no_main]
#![allow(dead_code)] // the other targets' functions

#[path = "../../tests/integration/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::delta(data));
