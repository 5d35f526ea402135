//! The state of a room or a channel: the clients' ids of recent messages, and the outcomes of messages that were sent before
//! a restart of the host. The host keeps the members. This file emits nothing.

use roundhouse_sdk::IdempotencyKeys;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The greatest size of the kept outcomes in the state, in bytes: some hundred of usual messages. Mostly fewer messages are
/// being stored when a host goes down, and all outcomes are decoded at each message while they are kept. With the recent
/// ids, which take 6 KB, and the replays, which take 18 KB, the state stays below the host's limit of 64 KiB.
const MAX_OUTCOMES_BYTES: usize = 32 * 1024;

/// The greatest number of connections that wait for stored outcomes. Others find them in the history.
const MAX_REPLAYS: usize = 60;

/// A room or a channel.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Room {
    /// Whether `recent` has the ids of messages that were stored before this state existed.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) is_filled: bool,
    #[serde(skip_serializing_if = "IdempotencyKeys::is_empty")]
    pub(crate) recent: IdempotencyKeys,
    /// Oldest first.
    #[serde(rename = "ended", skip_serializing_if = "Vec::is_empty")]
    outcomes: Vec<Outcome>,
    /// Older outcomes, which only the store has.
    #[serde(rename = "older", skip_serializing_if = "Option::is_none")]
    stored: Option<StoredOutcomes>,
    #[serde(rename = "telling", skip_serializing_if = "Vec::is_empty")]
    replays: Vec<Replay>,
}

/// The outcome of a message that was sent before a restart of the host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    pub(crate) temp_id: String,
    /// The id of the stored message, if it was stored.
    pub(crate) id: Option<String>,
    /// The payload of the event that the room got.
    #[serde(rename = "told")]
    pub(crate) payload: Box<RawValue>,
    /// When the outcome expires, in epoch milliseconds.
    pub(crate) until: u64,
}

/// Outcomes that are too many for the state: a range of stored messages, of which those that were sent before the restart
/// count.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredOutcomes {
    /// The id of the first message.
    pub(crate) first: String,
    /// The id of the last message.
    pub(crate) last: String,
    /// When the first outcome was known, in the format of a message's `createdAt`.
    pub(crate) restarted_at: String,
    /// When the outcomes expire, in epoch milliseconds.
    until: u64,
}

/// A connection that has joined, and waits for the stored outcomes.
#[derive(Debug, Serialize, Deserialize)]
struct Replay {
    ticket: u64,
    connection: String,
    #[serde(rename = "older")]
    stored: StoredOutcomes,
}

impl Room {
    /// The last member has left. The recent ids stay valid. Where there are none, the room counts as unread, so that its empty
    /// state is deleted; the next member's join reads the store again.
    pub(crate) fn emptied(&mut self) {
        self.is_filled &= !self.recent.is_empty();
    }

    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter()
    }

    pub(crate) fn has_outcome(&self, temp_id: &str) -> bool {
        self.outcomes.iter().any(|outcome| outcome.temp_id == temp_id)
    }

    /// Keeps an outcome. Returns the number of outcomes that are lost: failures that are too many for the state, which the
    /// store does not have either.
    pub(crate) fn keep_outcome(&mut self, outcome: Outcome, now: &str) -> usize {
        if bytes(&outcome) > MAX_OUTCOMES_BYTES {
            return self.leave_to_the_store(outcome, now);
        }
        self.outcomes.push(outcome);
        let mut n_lost = 0;
        while bytes(&self.outcomes) > MAX_OUTCOMES_BYTES {
            let oldest = self.outcomes.remove(0);
            n_lost += self.leave_to_the_store(oldest, now);
        }
        n_lost
    }

    fn leave_to_the_store(&mut self, outcome: Outcome, now: &str) -> usize {
        let Some(id) = outcome.id else { return 1 };
        let until = outcome.until;
        let stored = self.stored.get_or_insert_with(|| StoredOutcomes {
            first: id.clone(),
            last: String::new(),
            restarted_at: now.to_owned(),
            until,
        });
        (stored.last, stored.until) = (id, until);
        0
    }

    /// Drops expired outcomes. Returns when the next one expires.
    pub(crate) fn drop_expired_outcomes(&mut self, now: u64) -> Option<u64> {
        self.outcomes.retain(|outcome| outcome.until > now);
        self.stored.take_if(|stored| stored.until <= now);
        self.outcomes.iter().map(|outcome| outcome.until).chain(self.stored.iter().map(|stored| stored.until)).min()
    }

    /// Notes that a connection waits for the stored outcomes. Returns the ticket, if there are stored outcomes.
    pub(crate) fn begin_replay(&mut self, connection: &str, ticket: u64) -> Option<u64> {
        let stored = self.stored.clone().filter(|_| self.replays.len() < MAX_REPLAYS)?;
        self.replays.push(Replay { ticket, connection: connection.to_owned(), stored });
        Some(ticket)
    }

    /// The connection of a replay and the outcomes that it waits for, unless it has left.
    pub(crate) fn replay(&self, ticket: u64) -> Option<(&str, &StoredOutcomes)> {
        let replay = self.replays.iter().find(|replay| replay.ticket == ticket)?;
        Some((&replay.connection, &replay.stored))
    }

    pub(crate) fn end_replay(&mut self, ticket: u64) {
        self.replays.retain(|replay| replay.ticket != ticket);
    }

    /// Ends the replays of a connection that leaves.
    pub(crate) fn left(&mut self, connection: &str) {
        self.replays.retain(|replay| replay.connection != connection);
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}
