//! The contract's view of events: their subjects, and whether they were sent.

use roundhouse_contract::CONNECT_EVENT;
use serde_json::Value;
use serde_json::value::RawValue;

use super::state::one_or_many;
use crate::{Event, Member, Payload};

impl Event {
    /// Whether the outcome of the event may only reply.
    pub(super) fn is_query(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Gathered(..))
    }

    /// Whether the event asks whether a connection may open.
    pub(super) fn is_admission(&self) -> bool {
        matches!(self, Self::Message(message) if message.wants_reply && message.event == CONNECT_EVENT)
    }

    /// Whether a client or service sent the event, and not the host.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self, Self::Message(message) if message.event != CONNECT_EVENT)
    }

    /// The connection that came to the feature of its own accord, as this event proves: it sent a message, joined or left.
    pub(super) fn comes_from(&self) -> Option<&str> {
        match self {
            Self::Message(message) if self.is_sent() => message.sender.client().ok().map(|member| &*member.connection),
            Self::Joined(member) | Self::Left(member, _) => Some(&member.connection),
            _ => None,
        }
    }
}

/// The sender or subject of an event.
pub(super) fn member(event: &Event) -> Option<&Member> {
    match event {
        Event::Message(message) => message.sender.client().ok(),
        Event::Joined(member) | Event::Left(member, _) | Event::Away(member) | Event::Back(member) => Some(member),
        _ => None,
    }
}

/// The connection of the sender or subject of an event.
pub(super) fn connection(event: &Event) -> Option<&str> {
    match event {
        Event::Acknowledgement(acknowledgement) => Some(&acknowledgement.connection),
        event => member(event).map(|member| member.connection.as_str()),
    }
}

/// A payload's arguments, in the form that tests get.
pub(super) fn values(payload: &Payload) -> Value {
    one_or_many(serde_json::from_str(&payload.args).unwrap_or_default())
}

/// The JSON text of a payload's first argument; `null` if there is none.
pub(super) fn first_argument(payload: &Payload) -> Box<RawValue> {
    let args: Vec<Box<RawValue>> = serde_json::from_str(&payload.args).unwrap_or_default();
    args.into_iter().next().unwrap_or_default()
}
