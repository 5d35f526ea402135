//! What is loaded: the steps of a load, what a manifest declares, and the catalogue of plugins and generations.

pub(crate) mod bundled;
pub(crate) mod catalogue;
pub(crate) mod generation;
pub(crate) mod health;
pub(crate) mod loader;
pub(crate) mod migrate;
pub(crate) mod options;
