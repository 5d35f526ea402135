//! The plugin threads: an event from its inbox through the call to the commit of its effects.
//!
//! An event's way: `worker` gives it its turn, `admit` decides whether its feature gets it now, `invoke` calls the
//! feature, and `commit` makes the effects happen.

mod acks;
mod admit;
mod answers;
mod canary;
mod cases;
mod charges;
pub(crate) mod clustered;
mod commit;
mod deadlines;
mod deferred;
mod durable;
mod durable_change;
pub(crate) mod effect;
pub(crate) mod envelope;
mod gather;
pub(crate) mod inboxes;
mod inspect;
mod instances;
mod invoke;
pub(crate) mod job;
mod migration;
mod outcome;
mod owners;
mod presence;
pub(crate) mod query;
mod recent;
mod rooms;
mod scope;
pub(crate) mod scope_view;
mod scopes;
pub(crate) mod shared;
pub(crate) mod state;
mod timers;
mod turns;
pub(crate) mod worker;
