//! The component and its sandbox. No other room of `plugin` names wasmtime or the types of the WIT contract.

pub(crate) mod bindings;
pub(crate) mod cache;
pub(crate) mod case;
pub(crate) mod compile;
pub(crate) mod convert;
pub(crate) mod engine;
pub(crate) mod lift;
pub(crate) mod link;
pub(crate) mod log;
pub(crate) mod sandbox;
