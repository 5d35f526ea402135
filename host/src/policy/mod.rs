//! Which users may join, publish to and subscribe to which rooms (`[[rooms]]`), and send which events.
//!
//! - `rooms`: the rules, of which the first that matches a room decides
//! - `action`: what a user may do in a room
//! - `authorize`: rooms about which the operator's backend decides
//! - `events`: who may send an event
//! - `pattern`: the rooms that a rule is for
//! - `expression`: conditions in the Common Expression Language (<https://github.com/google/cel-spec>)

mod action;
mod authorize;
mod events;
mod expression;
mod pattern;
mod rooms;

pub use action::Action;
pub use authorize::{AuthorizeConfig, Then};
pub use events::EventPermission;
pub use expression::Expression;
pub use rooms::{Decision, RoomPolicy, RoomRule, Verdict};
