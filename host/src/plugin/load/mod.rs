//! Loading: the steps of a load, generations, and the catalogue of running plugins.

pub(crate) mod bundled;
pub(crate) mod cases;
pub(crate) mod catalogue;
pub(crate) mod generation;
pub(crate) mod grant_use;
pub(crate) mod grants;
pub(crate) mod health;
pub(crate) mod loader;
pub(crate) mod migrate;
pub(crate) mod options;
pub(crate) mod recorder;
