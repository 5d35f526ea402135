//! Documents, durable scopes and the databases that keep them.

mod blocked_journal;
mod database;
mod documents;
mod durable_scopes;
mod opening;
mod outages;
mod outcomes;
mod postgres_lease;
mod postgres_rights;
mod scopes;
mod shared;
