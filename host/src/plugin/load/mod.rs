//! Loading: the steps of a load, generations, and the catalogue of running plugins.

pub(crate) mod bundled;
pub(crate) mod call;
pub(crate) mod cases;
pub(crate) mod catalogue;
pub(crate) mod comparison;
pub(crate) mod generation;
pub(crate) mod grant_use;
pub(crate) mod grants;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod loader;
pub(crate) mod migrate;
pub(crate) mod options;
pub(crate) mod pins;
pub(crate) mod recorder;
pub(crate) mod rollout;
pub(crate) mod state;
