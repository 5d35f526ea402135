//! Operators' requests: install, roll back, unload, report; and the records from which a start restores plugins.

pub(crate) mod cluster;
mod compare;
pub(crate) mod component_store;
pub(crate) mod folder;
pub(crate) mod follow;
pub(crate) mod grants;
pub(crate) mod install;
pub(crate) mod record;
pub(crate) mod recording;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod requests;
pub(crate) mod restore;
pub(crate) mod rollback;
pub(crate) mod rollout;
pub(crate) mod scopes;
pub(crate) mod start;
pub(crate) mod suggestion;
pub(crate) mod threads;
pub(crate) mod trial;
pub(crate) mod uninstall;
