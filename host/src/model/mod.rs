//! The words that all other modules share: ids, identities, payloads, errors, time. It imports nothing of the host.

mod allowance;
mod clock;
mod error;
mod id;
mod identity;
mod invisible;
mod log_limit;
mod mailbox;
mod network;
mod payload;
mod placeholders;
mod steady;
mod surrogates;

pub use allowance::{Allowance, Quota};
pub use clock::Clock;
pub use error::{CloseCode, ErrorCode, Failure};
pub use id::{ConnId, MAX_ID_CHARS, MAX_ROOM_CHARS, is_valid_id, is_valid_room};
pub use identity::Identity;
pub use invisible::{INVISIBLE, harmless_name, is_invisible};
pub use log_limit::LogLimit;
pub use mailbox::Mailbox;
pub use network::{TrustedProxies, network_of};
pub use payload::{BadPayload, Payload};
pub use placeholders::BadPlaceholders;
pub use surrogates::without_lone_surrogates;
