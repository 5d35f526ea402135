//! The shard: one thread, and its work on the connections that it owns.
//!
//! - `parts`: the shard's fields, which no other file touches; `thread`: the thread and its loop
//! - `commands`: requests of other threads; `timers`: deadlines; `sockets`: readable sockets; `drain`: the end
//! - `open`, `close`: begin and end of transports; `flush`: writing of frames; `fanout`: delivery to the members of
//!   rooms
//! - `inbound`: messages on WebSockets; `limits`: their rate, length and memory
//! - `plain`; `eio`, `polling`, `socketio`, `namespaces`: the protocols; `events`: the part common to all;
//!   `sign_in`: checks of tokens
//! - `lifecycle`: begin and end of connections; `user_limit`: the limit per user
//! - `recovery`, `pending`, `handoff`: resumption after a transport was lost; `import`, `export`: at another node of a cluster

mod admission;
mod close;
mod commands;
mod drain;
mod eio;
mod events;
mod export;
mod fanout;
mod flush;
mod handoff;
mod import;
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
mod sign_in;
mod socketio;
mod sockets;
mod thread;
mod timers;
mod user_limit;

pub use limits::incomplete_budget;
pub(in crate::conn) use parts::Shard;
pub use thread::ShardThread;
