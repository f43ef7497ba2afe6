#![no_main]

#[path = "../../tests/common/promise.rs"]
mod promise;
#[path = "../../tests/common/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| promise::run_bytes(bytes));
