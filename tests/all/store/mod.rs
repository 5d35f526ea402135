//! Documents, durable scopes and the databases that keep them.

mod documents;
mod durable_scopes;
mod postgres_lease;
mod postgres_rights;
