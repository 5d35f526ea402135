//! The code that `wit-bindgen` generates from `wit/1.0/`. Only `guest.rs` and `log.rs` may use these types: the rest of
//! the SDK has its own, so that a feature runs natively without WebAssembly.

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../wit/1.0",
    world: "feature",
    pub_export_macro: true,
});
