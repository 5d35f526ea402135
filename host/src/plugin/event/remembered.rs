//! Copies of events that are remembered after they were handled.

use std::sync::Arc;

use super::{Asker, Event, Member, Origin};
use crate::ledger::Charge;
use crate::model::{Identity, Payload};
use crate::store::{Outcome, Promise};

impl Event {
    /// A copy for another call of a component. It holds no place in a backlog and is charged to nobody. `None` of an event that
    /// components do not get.
    pub(crate) fn remembered(&self) -> Option<Self> {
        Some(match self {
            Self::Message { event, origin, payload, wants_reply, .. } => Self::Message {
                event: event.clone(),
                origin: origin.clone(),
                payload: payload.clone(),
                wants_reply: *wants_reply,
                place: None,
            },
            Self::Joined(member) => Self::Joined(member.clone()),
            Self::Left { member, reason, is_gone } => {
                Self::Left { member: member.clone(), reason: *reason, is_gone: *is_gone }
            }
            Self::Presence { member, is_away, n_changes } => {
                Self::Presence { member: member.clone(), is_away: *is_away, n_changes: *n_changes }
            }
            Self::Timer { name, payload, due_ms } => {
                Self::Timer { name: name.clone(), payload: payload.clone(), due_ms: *due_ms }
            }
            Self::Acknowledged { ask, tag, connection, answer, .. } => Self::Acknowledged {
                ask: *ask,
                tag: tag.clone(),
                connection: *connection,
                answer: answer.clone(),
                place: None,
            },
            Self::Query { name, data, .. } => Self::Query { name: name.clone(), data: data.clone(), place: None },
            Self::Gathered { name, data, answers, omitted } => {
                Self::Gathered { name: name.clone(), data: data.clone(), answers: answers.clone(), omitted: *omitted }
            }
            Self::Saved { promise, outcome } => {
                // The charge ends with the delivery of the outcome.
                let promise = Promise { charge: None, ..Promise::clone(promise) };
                Self::Saved { promise: Arc::new(promise), outcome: outcome.clone() }
            }
            Self::Fetched { tag, outcome, asked_by: Asker { event, flow }, .. } => Self::Fetched {
                tag: tag.clone(),
                outcome: outcome.clone(),
                asked_by: Asker { event: event.clone(), flow: flow.clone() },
                charge: Charge::default(),
            },
            Self::Placed { .. } | Self::Answered { .. } | Self::Configured | Self::MigrateDown { .. } => return None,
        })
    }

    /// The bytes that an event keeps in memory, roughly.
    pub(crate) fn kept_bytes(&self) -> usize {
        let of_member = |member: &Member| {
            let Identity { claims, name, roles, .. } = &*member.identity;
            claims.len() + name.as_ref().map_or(0, String::len) + roles.iter().map(String::len).sum::<usize>()
        };
        match self {
            Self::Message { event, origin, payload, .. } => {
                let member =
                    if let Origin::Client(member) | Origin::Host(member) = origin { of_member(member) } else { 0 };
                event.len() + payload.bytes() + member
            }
            Self::Joined(member) | Self::Left { member, .. } | Self::Presence { member, .. } => of_member(member),
            Self::Timer { name, payload, .. } => name.len() + payload.len(),
            Self::Acknowledged { tag, answer, .. } => tag.len() + answer.as_ref().map_or(0, Payload::bytes),
            Self::Query { name, data, .. } => name.len() + data.len(),
            Self::Gathered { name, data, answers, .. } => {
                name.len() + data.len() + answers.iter().map(|answer| answer.len()).sum::<usize>()
            }
            Self::Saved { promise, outcome } => {
                let id = if let Outcome::Stored(id) = outcome { id.len() } else { 0 };
                promise.document.len() + promise.tag.len() + promise.collection.len() + id
            }
            Self::Fetched { tag, outcome, .. } => {
                let documents = outcome.iter().flat_map(|page| &page.documents);
                tag.len() + documents.map(|document| document.id.len() + document.body.len()).sum::<usize>()
            }
            Self::Placed { .. } | Self::Answered { .. } | Self::Configured | Self::MigrateDown { .. } => 0,
        }
    }
}
