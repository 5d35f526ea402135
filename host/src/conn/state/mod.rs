//! The state of a shard, a transport and a connection, each type with its own fields. Nothing here knows the shard.

pub(in crate::conn) mod connection;
pub(in crate::conn) mod members;
pub(in crate::conn) mod outbox;
pub(in crate::conn) mod prefetch;
pub(in crate::conn) mod replay;
pub(in crate::conn) mod transport;
