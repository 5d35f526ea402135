//! Ordinary traffic of each feature, as scripts. Each mutant in the list does something else on at least one step of its
//! feature's script, in the first two rounds already.
//!
//! # Layout
//! - this file: the steps, and who makes them
//! - `desk`: ticket-collision, timeline and ticket-events
//! - `messaging`: campaign-progress, chat-confirmation and crm-events

mod desk;
mod messaging;

pub use super::step::Step;
use desk::{handover, known_ticket, ticket, timeline, unknown_ticket};
use messaging::{channel, completed, contact, failed, pushes, room};

/// The user of a connection: `ana` and `ana/2` are two tabs of Ana.
#[must_use]
pub fn user(connection: &'static str) -> &'static str {
    connection.split_once('/').map_or(connection, |(user, _)| user)
}

/// The roles of a user.
#[must_use]
pub fn roles(user: &str) -> &'static [&'static str] {
    match user {
        "olga" => &["admin"],
        "ana" | "ben" => &["agent"],
        _ => &[],
    }
}

/// The script of a feature. Each round has at least 40 steps, and other ids of tickets, campaigns, contacts and so on, but the
/// same users. Rooms and channels of the chat are those of two rounds.
///
/// # Panics
/// If there is no script for the feature.
#[must_use]
pub fn script(feature: &str, round: usize) -> Vec<Step> {
    match feature {
        "ticket-collision" => [ticket(&format!("t{round}")), handover(&format!("h{round}"))].concat(),
        "timeline" => timeline(round),
        "ticket-events" => [known_ticket(&format!("t{round}")), unknown_ticket(&format!("u{round}"))].concat(),
        "campaign-progress" => [completed(&format!("c{round}")), failed(&format!("f{round}"))].concat(),
        "chat-confirmation" => [room(round), channel(round)].concat(),
        "crm-events" => [contact(&format!("k{round}")), pushes(round)].concat(),
        _ => panic!("there is no script for {feature}"),
    }
}
