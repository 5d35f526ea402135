//! A group of clients, which share one scope of each feature.

use serde_json::{Value, json};

/// The number of clients of a group. Each group has both protocols, clients that are cut, typists and a visitor.
pub(super) const SIZE: usize = 6;

/// The features in the order in which they are swapped, with their libraries.
pub(super) const FEATURES: [(&str, &str); 6] = [
    ("ticket-collision", "ticket_collision"),
    ("timeline", "timeline"),
    ("ticket-events", "ticket_events"),
    ("campaign-progress", "campaign_progress"),
    ("chat-confirmation", "chat_confirmation"),
    ("crm-events", "crm_events"),
];

/// The scopes of a group's client events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Scope {
    /// Of ticket-collision.
    Ticket,
    /// Of timeline.
    Timeline,
    /// Of campaign-progress.
    Campaign,
    /// Of chat-confirmation: a room or a channel.
    Chat,
    /// The history of the room or the channel, which is answered when it is read, and not in the order of other events.
    History,
    /// Of crm-events.
    Contact,
    /// The account of crm-events.
    Account,
}

/// A group, by its number. Groups of even numbers chat in rooms, the others in channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group(pub(super) usize);

impl Group {
    /// The users of the group.
    pub(super) fn users(self) -> impl Iterator<Item = String> {
        (self.0 * SIZE..(self.0 + 1) * SIZE).map(user)
    }

    /// The payload that names the ticket.
    pub(super) fn ticket(self) -> Value {
        json!({ "ticketId": format!("t{}", self.0) })
    }

    /// The payload that names the ticket of ticket-events.
    pub(super) fn told_ticket(self) -> Value {
        json!({ "ticketId": format!("x{}", self.0) })
    }

    /// The payload that names the timeline.
    pub(super) fn timeline(self) -> Value {
        json!({ "entityType": "case", "entityId": format!("e{}", self.0) })
    }

    /// The payload that names the campaign.
    pub(super) fn campaign(self) -> Value {
        json!({ "campaignId": format!("c{}", self.0) })
    }

    /// The payload that names the contact and the account.
    pub(super) fn contact(self) -> Value {
        json!({ "contactId": format!("k{}", self.0), "accountId": format!("w{}", self.0) })
    }

    /// The payload that names the room or the channel.
    pub(super) fn chat(self) -> Value {
        json!({ format!("{}Id", self.family()): format!("h{}", self.0) })
    }

    /// The first part of the names of chat events.
    pub(super) fn family(self) -> &'static str {
        if self.0.is_multiple_of(2) { "room" } else { "channel" }
    }

    /// The event that joins the room or the channel.
    pub(super) fn join_chat(self) -> &'static str {
        if self.family() == "room" { "joinRoom" } else { "joinChannel" }
    }
}

/// The user of a client.
pub(super) fn user(client: usize) -> String {
    format!("u{client}")
}

/// The client of a user.
pub(super) fn client_of(user: &Value) -> Option<usize> {
    user.as_str()?.strip_prefix('u')?.parse().ok()
}

/// A payload with more fields.
pub(super) fn with(mut data: Value, more: &[(&str, Value)]) -> Value {
    for (field, value) in more {
        data[field] = value.clone();
    }
    data
}
