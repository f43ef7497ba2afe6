#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rocstate::fuzzing::following(bytes));
