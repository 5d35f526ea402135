//! The rules of the contract in `wit/1.0`, without a host: for manifests, for payloads and for outcomes. The host and
//! the SDK's simulator check by these rules alone, so that a feature that passes its tests is not refused in
//! production.
//!
//! This crate does no I/O, knows no WebAssembly runtime, and keeps no state between two calls.
//!
//! # Layout, in reading order
//! - [`raw`]: manifests and outcomes as a component returns them, unchecked
//! - [`Manifest`]: a checked manifest, with its [`Template`]s, [`EventLimits`], [`Permission`]s and [`Grants`]
//! - [`Rules`]: the check of an outcome, against a [`World`], and its [`Uses`] of grants
//! - [`case`]: calls of a feature as a file, to be replayed, and the [`differences`] between two builds
//! - [`Arguments`], [`PayloadBounds`]: the form and the bounds of a payload
//! - [`without_credentials`]: the `auth` of a handshake as features see it
//! - [`is_valid_id`], [`is_valid_room`], [`is_invisible`]: names

mod bounds;
pub mod case;
mod connect_refusal;
mod credentials;
mod difference;
mod effect;
mod event;
mod event_limits;
mod extension;
mod grants;
mod id;
mod invisible;
mod manifest;
mod payload;
mod permissions;
mod placeholders;
pub mod raw;
mod rules;
mod surrogates;
mod tally;
mod template;
mod uses;

pub use bounds::PayloadBounds;
pub use connect_refusal::ConnectRefusal;
pub use credentials::without_credentials;
pub use difference::differences;
pub use effect::{Audience, Counted, Effect, MAX_SCOPE_TIMERS, MIN_CHAINED_MS, Payload};
pub use event::{CONNECT_EVENT, MAX_EVENT_BYTES, RESERVED_EVENTS};
pub use event_limits::EventLimits;
pub use extension::check_namespace;
pub use grants::{CONNECT_ACTION, Grant, GrantKind, Grants, matches_pattern};
pub use id::{ID_RULE, MAX_ID_CHARS, MAX_ROOM_CHARS, USER_ROOM_PREFIX, is_valid_id, is_valid_room};
pub use invisible::{INVISIBLE, harmless_name, is_harmless_name, is_invisible};
pub use manifest::{Manifest, Route, Scope};
pub use payload::{Arguments, BadPayload};
pub use permissions::Permission;
pub use placeholders::{BadPlaceholders, MAX_ATTACHMENTS, check_placeholders};
pub use rules::{Refusal, Rules, World};
pub use surrogates::without_lone_surrogates;
pub use tally::{Kind, Tally};
pub use template::{ScopeAddress, Template};
pub use uses::Uses;
