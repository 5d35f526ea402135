//! A room's state: who has joined, which messages were sent lately, and which ended over a restart of the host. Nothing
//! here tells anybody of it.

use std::collections::{BTreeMap, VecDeque};

use roundhouse_sdk::{Failure, Member, StoreFailure};
use serde::{Deserialize, Serialize};

/// Connections that one person is in a room from: more than anybody has tabs.
const MAX_CONNECTIONS: usize = 16;

/// Bytes of members beyond which nobody is let in: some 900 people with usual ids.
const MAX_MEMBERS_BYTES: usize = 44 * 1024;

/// Messages that a repetition is known of: what a page may send again after it was away for a moment, of everybody in
/// the room.
const MAX_RECENT: usize = 300;

/// Ends of messages that are kept for those who come back after a restart, and their bytes. What was being stored when
/// a host went down is a few documents.
const MAX_ENDED: usize = 100;
const MAX_ENDED_BYTES: usize = 8 * 1024;

/// Characters of a store's complaint that are kept.
const MAX_COMPLAINT_CHARS: usize = 200;

/// Bytes of state, below the host's limit of 64 KiB. Recent messages give way to members.
const MAX_BYTES: usize = 60 * 1024;

/// A room or a channel.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Room {
    /// Each person and the connections that have joined.
    members: BTreeMap<String, Vec<String>>,
    /// Whether `recent` has what was stored before this state began.
    pub(crate) is_filled: bool,
    /// The oldest first.
    recent: VecDeque<Recent>,
    /// In the order in which they ended.
    ended: VecDeque<Ended>,
}

/// Sender, the client's own id of a message, and its temporary id. An array, for there are many.
#[derive(Debug, Serialize, Deserialize)]
struct Recent(String, String, String);

/// The end of a message that was sent before the host was started anew.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ended {
    pub(crate) temp_id: String,
    pub(crate) became: Became,
    /// Number of the event in which it ended.
    pub(crate) sequence: u64,
    /// When nobody waits for it any more, in epoch milliseconds.
    pub(crate) until: u64,
}

/// What became of a message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Became {
    /// Stored under this id. The store has the rest.
    Stored(String),
    /// Not stored.
    #[serde(rename_all = "camelCase")]
    Failed { client_id: Option<String>, code: String, message: String, retryable: bool },
}

impl Became {
    pub(crate) fn failed(client_id: Option<&str>, why: &StoreFailure) -> Self {
        Self::Failed {
            client_id: client_id.map(str::to_owned),
            code: why.failure.code.clone(),
            message: why.failure.message.chars().take(MAX_COMPLAINT_CHARS).collect(),
            retryable: why.retryable,
        }
    }
}

/// Members.
impl Room {
    pub(crate) fn n_users(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn n_connections(&self) -> usize {
        self.members.values().map(Vec::len).sum()
    }

    pub(crate) fn has(&self, member: &Member) -> bool {
        self.members.get(member.user_id()).is_some_and(|own| own.contains(&member.connection))
    }

    pub(crate) fn has_connection(&self, connection: &str) -> bool {
        self.members.values().flatten().any(|own| own == connection)
    }

    /// A connection comes in: whether it was not there before.
    pub(crate) fn join(&mut self, member: &Member) -> Result<bool, Failure> {
        if self.has(member) {
            return Ok(false);
        }
        let own = self.members.entry(member.user_id().to_owned()).or_default();
        if own.len() == MAX_CONNECTIONS {
            return Err(Failure::conflict(format!(
                "you are here from {MAX_CONNECTIONS} connections already; close one"
            )));
        }
        own.push(member.connection.clone());
        if bytes(&self.members) > MAX_MEMBERS_BYTES {
            return Err(Failure::conflict("too many people are here already; come back later"));
        }
        self.make_room();
        Ok(true)
    }

    /// A connection goes.
    pub(crate) fn leave(&mut self, member: &Member) {
        if let Some(own) = self.members.get_mut(member.user_id()) {
            own.retain(|connection| *connection != member.connection);
            if own.is_empty() {
                self.members.remove(member.user_id());
            }
        }
    }
}

/// Recent messages.
impl Room {
    /// The temporary id of the message that this one repeats.
    pub(crate) fn repeated(&self, sender: &str, client_id: &str) -> Option<&str> {
        self.recent.iter().find(|recent| recent.is(sender, client_id)).map(|recent| recent.2.as_str())
    }

    /// A message that was just sent.
    pub(crate) fn remember(&mut self, sender: &str, client_id: &str, temp_id: &str) {
        self.recent.push_back(Recent(sender.to_owned(), client_id.to_owned(), temp_id.to_owned()));
        self.recent.drain(..self.recent.len().saturating_sub(MAX_RECENT));
        self.make_room();
    }

    /// A message that is older than all that are known: whether there is room for still older ones.
    pub(crate) fn remember_older(&mut self, sender: &str, client_id: &str, temp_id: &str) -> bool {
        if self.repeated(sender, client_id).is_none() && self.recent.len() < MAX_RECENT {
            self.recent.push_front(Recent(sender.to_owned(), client_id.to_owned(), temp_id.to_owned()));
        }
        self.recent.len() < MAX_RECENT
    }

    /// A message that was sent before the host was started anew. It is the first of its client's id.
    pub(crate) fn remember_first(&mut self, sender: &str, client_id: &str, temp_id: &str) {
        self.recent.retain(|recent| !recent.is(sender, client_id));
        self.remember(sender, client_id, temp_id);
    }

    /// A message that was not stored may be sent again.
    pub(crate) fn forget(&mut self, temp_id: &str) {
        self.recent.retain(|recent| recent.2 != temp_id);
    }

    /// Forgets the oldest messages until the state is small enough.
    pub(crate) fn make_room(&mut self) {
        let mut too_many = bytes(self).saturating_sub(MAX_BYTES);
        while too_many > 0
            && let Some(oldest) = self.recent.pop_front()
        {
            too_many = too_many.saturating_sub(bytes(&oldest));
        }
    }
}

impl Recent {
    fn is(&self, sender: &str, client_id: &str) -> bool {
        self.0 == sender && self.1 == client_id
    }
}

/// What ended over a restart.
impl Room {
    pub(crate) fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.ended.iter()
    }

    pub(crate) fn has_ended(&self, temp_id: &str) -> bool {
        self.ended.iter().any(|ended| ended.temp_id == temp_id)
    }

    /// Keeps an end for those who come back: how many others had to be dropped for it.
    pub(crate) fn end(&mut self, ended: Ended) -> usize {
        self.ended.push_back(ended);
        let n_before = self.ended.len();
        while self.ended.len() > MAX_ENDED || bytes(&self.ended) > MAX_ENDED_BYTES {
            self.ended.pop_front();
        }
        self.make_room();
        n_before - self.ended.len()
    }

    /// Drops what nobody waits for any more: when that is the case for the next one, if there is any.
    pub(crate) fn drop_ended(&mut self, now: u64) -> Option<u64> {
        self.ended.retain(|ended| ended.until > now);
        self.ended.iter().map(|ended| ended.until).min()
    }
}

fn bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}
