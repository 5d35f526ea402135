//! See `contract::outcome`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    roundhouse_fuzz::contract::outcome(data);
});
