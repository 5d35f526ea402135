//! Which users may join, publish to and subscribe to which rooms (`[[rooms]]`), and send which events.
//!
//! - `rooms`: the rules, of which the first that matches a room decides
//! - `authorize`: rooms about which the operator's backend decides
//! - `events`: who may send an event
//! - `pattern`: the rooms that a rule is for
//! - `expression`: conditions in the Common Expression Language (<https://github.com/google/cel-spec>)

mod authorize;
mod events;
mod expression;
mod pattern;
mod rooms;

pub use authorize::{AuthorizeConfig, Then};
pub use events::EventPermission;
pub use expression::Expression;
pub use rooms::{Action, Decision, RoomPolicy, RoomRule, Verdict};
