//! See `checks::plain`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundhouse_fuzz::checks::plain(data));
