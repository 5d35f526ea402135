//! The WIT contract as Rust types, for the calls alone: the rest of the host uses its own types.
#![allow(missing_docs, unreachable_pub, missing_debug_implementations, clippy::all, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../wit/1.0",
    world: "feature",
    ownership: Borrowing { duplicate_if_necessary: true },
});
