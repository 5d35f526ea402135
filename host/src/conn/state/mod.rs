//! State: each type owns its fields, and no type here depends on the shard.
//!
//! - `transport`, `transports`, `ids`: transports; `handshake`: their first requests; `eio_session`: one Engine.IO
//!   session; `eio_sessions`: the polling sessions of all shards; `rate`: rates of messages; `read_pace`: rates of
//!   reading; `sign_ins`: turns of sign-ins
//! - `connection`, `connections`, `members`: logical connections, and the lists that a fan-out walks; `prefetch`
//! - `frame_queue`, `outbox`, `writes`: frames to be written; `poller`: readiness of sockets
//! - `replay`, `detached`, `pending_resumes`, `handoff`: recovery after a transport is lost
//! - `timers`, `wall_clock`: deadlines; `shutdown`: the end of the shard; `client_log`: log lines, bounded in rate

mod admissions;
mod client_log;
mod connection;
mod connections;
mod detached;
mod eio_session;
mod eio_sessions;
mod exports;
mod frame_queue;
mod handoff;
mod handshake;
mod held_text;
mod ids;
mod imports;
mod members;
mod outbox;
mod pending_resumes;
mod poller;
mod prefetch;
mod rate;
mod read_pace;
mod replay;
mod session_key;
mod shutdown;
mod sign_ins;
mod timers;
mod trail;
mod transport;
mod transports;
mod wall_clock;
mod writes;

pub(crate) use admissions::{Admission, Admissions, Welcome};
pub(crate) use client_log::ClientLog;
pub(crate) use connection::{Connection, MemberList};
pub(crate) use connections::Connections;
pub(crate) use detached::Detached;
pub(crate) use eio_session::{EioSession, Poll, PollError, Polled, Sid};
pub use eio_sessions::EioSessions;
pub(crate) use eio_sessions::{EioCommand, Posting};
pub(crate) use exports::Exports;
pub(crate) use frame_queue::FrameRef;
pub(crate) use handoff::{Handoff, HandoffIo, HandoffSession, Inbound, PendingHandoff, PlainHandoff};
pub(crate) use handshake::{Credentials, Handshake};
pub(crate) use ids::TransportId;
pub(crate) use imports::Imports;
pub(crate) use members::Members;
pub(crate) use outbox::Outbox;
pub(crate) use pending_resumes::{PendingResume, PendingResumes};
pub(crate) use poller::{Poller, READ_BUFFER_BYTES, ReadySockets};
pub(crate) use rate::{Rate, Verdict};
pub(crate) use read_pace::{CHARGED_AT, ReadPace};
pub(crate) use replay::{Entry, ReplayBuffer};
pub(crate) use session_key::SessionKey;
pub(crate) use shutdown::Shutdown;
pub(crate) use sign_ins::SignIns;
pub(crate) use timers::{Timer, Timers};
pub(crate) use transport::{Io, Phase, Session, Socket, Transport};
pub(crate) use transports::Transports;
pub(crate) use wall_clock::WallClock;
pub(crate) use writes::Writes;
