//! What is loaded: the steps of a load, what a manifest declares, and the catalogue of plugins and generations.

#[path = "../../../../sdk/src/simulator/bounds.rs"]
pub(crate) mod bounds;
pub(crate) mod bundled;
pub(crate) mod catalogue;
pub(crate) mod event_limits;
pub(crate) mod extension;
pub(crate) mod generation;
pub(crate) mod grants;
pub(crate) mod health;
pub(crate) mod loader;
pub(crate) mod manifest;
pub(crate) mod migrate;
pub(crate) mod options;
pub(crate) mod template;
