//! A room's state: which messages were sent lately, and which ended over a restart of the host. Who is there, the host
//! knows. Nothing here tells anybody of anything.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::recent::Recent;

/// Bytes of ends that are kept for those who come back after a restart, some hundred of usual messages. What was being
/// stored when a host went down is mostly less, and all of it is read at each message for as long as it is kept. With the
/// recent messages, which take 6 KB, and who is being told, 18 KB, the state stays below the host's limit of 64 KiB.
const MAX_ENDED_BYTES: usize = 32 * 1024;

/// A room or a channel.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Room {
    /// Whether `recent` has what was stored before this state began.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) is_filled: bool,
    #[serde(skip_serializing_if = "Recent::is_empty")]
    pub(crate) recent: Recent,
    /// In the order in which they ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ended: Vec<Ended>,
    /// Those before them that are only in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    older: Option<Older>,
    /// Who is to be told of these, when they have been read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    telling: Vec<Telling>,
}

/// The end of a message that was sent before the host was started anew.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ended {
    pub(crate) temp_id: String,
    /// The id under which it was stored, if it was.
    pub(crate) id: Option<String>,
    /// What the room was told.
    pub(crate) told: Box<RawValue>,
    /// When nobody waits for it any more, in epoch milliseconds.
    pub(crate) until: u64,
}

/// Messages that were stored over the restart, and are too many to be kept here: all between two of them that were sent
/// before it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Older {
    /// The ids of the first and the last of them.
    pub(crate) first: String,
    pub(crate) last: String,
    /// When the first was known to be stored, as a message has it.
    pub(crate) restarted_at: String,
    /// When nobody waits for them any more, in epoch milliseconds.
    until: u64,
}

/// Somebody who has joined and is to be told of older ones.
#[derive(Debug, Serialize, Deserialize)]
struct Telling {
    ticket: u64,
    connection: String,
    older: Older,
}

/// Connections that are told of older ones at a time, at most: others find them in the history.
const MAX_TELLING: usize = 60;

impl Room {
    /// Nobody is here any more. What is remembered is as true as before, but that there is nothing to remember is not
    /// worth a state: who comes next asks the store again.
    pub(crate) fn emptied(&mut self) {
        self.is_filled &= !self.recent.is_empty();
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

    /// Keeps an end for those who come back: how many had to be dropped for it, or with it, which nothing tells any more.
    pub(crate) fn end(&mut self, ended: Ended, now: &str) -> usize {
        if bytes(&ended) > MAX_ENDED_BYTES {
            return self.leave_to_the_store(ended, now);
        }
        self.ended.push(ended);
        let mut n_lost = 0;
        while bytes(&self.ended) > MAX_ENDED_BYTES {
            let oldest = self.ended.remove(0);
            n_lost += self.leave_to_the_store(oldest, now);
        }
        n_lost
    }

    fn leave_to_the_store(&mut self, ended: Ended, now: &str) -> usize {
        let Some(id) = ended.id else { return 1 };
        let until = ended.until;
        let older = self.older.get_or_insert_with(|| Older {
            first: id.clone(),
            last: String::new(),
            restarted_at: now.to_owned(),
            until,
        });
        (older.last, older.until) = (id, until);
        0
    }

    /// Drops what nobody waits for any more: when that is the case for the next one, if there is any.
    pub(crate) fn drop_ended(&mut self, now: u64) -> Option<u64> {
        self.ended.retain(|ended| ended.until > now);
        self.older.take_if(|older| older.until <= now);
        self.ended.iter().map(|ended| ended.until).chain(self.older.iter().map(|older| older.until)).min()
    }

    /// Somebody joins. Gives what is to be asked for, if there are older ends to tell of.
    pub(crate) fn begin_to_tell(&mut self, connection: &str, ticket: u64) -> Option<u64> {
        let older = self.older.clone().filter(|_| self.telling.len() < MAX_TELLING)?;
        self.telling.push(Telling { ticket, connection: connection.to_owned(), older });
        Some(ticket)
    }

    /// Whom older ends are to be told to, and which, unless it has left.
    pub(crate) fn telling(&self, ticket: u64) -> Option<(&str, &Older)> {
        let telling = self.telling.iter().find(|telling| telling.ticket == ticket)?;
        Some((&telling.connection, &telling.older))
    }

    pub(crate) fn told(&mut self, ticket: u64) {
        self.telling.retain(|telling| telling.ticket != ticket);
    }

    /// A connection leaves: it is told nothing more.
    pub(crate) fn left(&mut self, connection: &str) {
        self.telling.retain(|telling| telling.connection != connection);
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}
