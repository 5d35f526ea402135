//! See `checks::engineio`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundhouse_fuzz::checks::engineio(data));
