//! The vocabulary that all other modules share: ids, identities, payloads, errors, time. It imports nothing of the host.

mod allowance;
mod cause;
mod clock;
mod cpu_time;
mod error;
mod essential;
mod exposure;
mod id;
mod identity;
mod log_limit;
mod mailbox;
mod network;
mod payload;
mod steady;
#[cfg(test)]
mod xorshift;

pub use allowance::{Allowance, Quota};
pub use cause::{Cause, GenerationId};
pub use clock::Clock;
pub(crate) use cpu_time::thread_cpu_time;
pub use error::{CloseCode, ErrorCode, Failure};
pub use essential::{is_essential, spawn_essential};
pub use exposure::is_open_to_all;
pub use id::{ConnId, NodeId};
pub use identity::Identity;
pub use log_limit::LogLimit;
pub use mailbox::Mailbox;
pub use network::{TrustedProxies, network_of};
pub use payload::Payload;
pub use roundhouse_contract::{
    BadPayload, BadPlaceholders, INVISIBLE, MAX_ID_CHARS, MAX_ROOM_CHARS, check_placeholders, harmless_name,
    is_invisible, is_valid_id, is_valid_room, without_lone_surrogates,
};
#[cfg(test)]
pub(crate) use xorshift::Xorshift;
