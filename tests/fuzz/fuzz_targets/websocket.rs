//! See `checks::websocket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| roundhouse_fuzz::checks::websocket(data));
