//! The plugin threads: an event from its inbox through the call to the commit of its effects.

pub(crate) mod budget;
pub(crate) mod commit;
pub(crate) mod deferred;
pub(crate) mod durable;
pub(crate) mod effect;
pub(crate) mod gather;
pub(crate) mod inboxes;
pub(crate) mod inherit;
pub(crate) mod invoke;
pub(crate) mod owners;
pub(crate) mod presence;
pub(crate) mod query;
pub(crate) mod scope;
pub(crate) mod serve;
pub(crate) mod shared;
pub(crate) mod timers;
pub(crate) mod turns;
pub(crate) mod worker;
