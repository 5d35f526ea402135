//! The shard: one thread, and the work that it does on the connections that live on it.
//!
//! - `parts`: the shard's fields, which no other file touches; `thread`: the thread and its loop
//! - `commands`: what other threads ask for; `timers`: what is due; `sockets`: what is ready to be read; `drain`: the end
//! - `open`, `close`: how transports begin and end; `flush`: how frames are written; `fanout`: how events reach members
//! - `inbound`: messages on WebSockets; `limits`: how many and how long they may be
//! - `plain`; `eio`, `polling`, `socketio`, `namespaces`: what messages mean on each protocol; `events`: on all of them
//! - `lifecycle`: how connections begin and end; `user_limit`: how many of a user
//! - `recovery`, `pending`, `handoff`: how clients resume after their transport was lost

mod close;
mod commands;
mod drain;
mod eio;
mod events;
mod fanout;
mod flush;
mod handoff;
mod inbound;
mod lifecycle;
mod limits;
mod namespaces;
mod open;
mod parts;
mod pending;
mod plain;
mod polling;
mod recovery;
mod socketio;
mod sockets;
mod thread;
mod timers;
mod user_limit;

pub use limits::incomplete_budget;
pub(in crate::conn) use parts::Shard;
pub use thread::ShardThread;
