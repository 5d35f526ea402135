//! The room policy: which users may join, publish to and subscribe to which rooms (`[[rooms]]`).
//!
//! - `rooms`: the rules, of which the first that matches a room decides
//! - `pattern`: the rooms that a rule is for
//! - `expression`: conditions in the Common Expression Language (<https://github.com/google/cel-spec>)

mod expression;
mod pattern;
mod rooms;

pub use expression::Expression;
pub use rooms::{Action, Decision, RoomPolicy, RoomRule};
