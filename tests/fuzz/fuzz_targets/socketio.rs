//! See `checks::socketio`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundhouse_fuzz::checks::socketio(data));
