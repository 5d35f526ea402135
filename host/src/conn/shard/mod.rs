//! What a shard does.

pub(in crate::conn) mod drain;
pub(in crate::conn) mod eio;
pub(in crate::conn) mod fanout;
pub(in crate::conn) mod flush;
pub(in crate::conn) mod handoff;
pub(in crate::conn) mod incomplete;
pub(in crate::conn) mod oversize;
pub(in crate::conn) mod parts;
pub(in crate::conn) mod pending_resumes;
pub(in crate::conn) mod plain;
pub(in crate::conn) mod polling;
pub(in crate::conn) mod rate;
pub(in crate::conn) mod read_pace;
pub(in crate::conn) mod recovery;
pub(in crate::conn) mod session;
pub(in crate::conn) mod socketio;
pub(in crate::conn) mod sockets;
pub(in crate::conn) mod timers;
pub(in crate::conn) mod user_limit;
pub(in crate::conn) mod violation;
pub(in crate::conn) mod wall;
