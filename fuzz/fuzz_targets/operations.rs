#![no_main]

#[path = "../../tests/common/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| script::run_bytes(bytes));
