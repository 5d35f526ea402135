//! A contact's state: who is writing to it, and how far its messages have come. Nothing here tells anybody of it.

use std::collections::VecDeque;
use std::time::Duration;

use roundhouse_sdk::{Failure, Member};
use serde::{Deserialize, Serialize};

/// People who write to one contact at a time: more than any team.
const MAX_TYPISTS: usize = 50;

/// Bytes of typists beyond which nobody else types.
const MAX_TYPISTS_BYTES: usize = 24 * 1024;

/// Messages of one contact whose status is remembered. What overtakes another is seconds apart.
const MAX_MESSAGES: usize = 200;

/// Bytes of remembered statuses. With the typists the state stays below the host's limit of 64 KiB.
const MAX_MESSAGES_BYTES: usize = 24 * 1024;

/// A contact.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Contact {
    typists: Vec<Typist>,
    /// The one that changed longest ago first.
    messages: VecDeque<(String, Status)>,
}

/// Somebody who is writing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Typist {
    pub(crate) user_id: String,
    pub(crate) user_name: String,
    /// Where: when this goes, the typing ends.
    connection: String,
    /// When it was last said, in epoch milliseconds.
    last: u64,
}

/// How far a message has come, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Status {
    Queued,
    Sent,
    Delivered,
    Read,
    Failed,
}

impl Status {
    const ALL: [Self; 5] = [Self::Queued, Self::Sent, Self::Delivered, Self::Read, Self::Failed];

    /// The status of this name, in capitals or not.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| format!("{status:?}").eq_ignore_ascii_case(name))
    }
}

/// Typing.
impl Contact {
    pub(crate) fn n_typing(&self) -> usize {
        self.typists.len()
    }

    /// Somebody types: the typist where it has just begun.
    pub(crate) fn type_on(&mut self, member: &Member, name: &str, now: u64) -> Result<Option<&Typist>, Failure> {
        if let Some(typist) = self.typists.iter_mut().find(|typist| typist.user_id == member.user_id()) {
            typist.connection.clone_from(&member.connection);
            typist.last = now;
            return Ok(None);
        }
        self.typists.push(Typist {
            user_id: member.user_id().to_owned(),
            user_name: name.to_owned(),
            connection: member.connection.clone(),
            last: now,
        });
        if self.typists.len() > MAX_TYPISTS || bytes(&self.typists) > MAX_TYPISTS_BYTES {
            return Err(Failure::conflict("too many people write to this contact already; go on without telling"));
        }
        Ok(self.typists.last())
    }

    /// Somebody types no longer: who, if it did.
    pub(crate) fn stop(&mut self, user_id: &str) -> Option<Typist> {
        self.take(|typist| typist.user_id == user_id)
    }

    /// A connection goes: who typed there, if anybody did.
    pub(crate) fn stop_at(&mut self, connection: &str) -> Option<Typist> {
        self.take(|typist| typist.connection == connection)
    }

    /// How long somebody's typing still lasts; `None` where it does not type.
    pub(crate) fn typing_left(&self, user_id: &str, now: u64, lasts: Duration) -> Option<Duration> {
        let typist = self.typists.iter().find(|typist| typist.user_id == user_id)?;
        Some(lasts.saturating_sub(Duration::from_millis(now.saturating_sub(typist.last))))
    }

    fn take(&mut self, which: impl Fn(&Typist) -> bool) -> Option<Typist> {
        let position = self.typists.iter().position(which)?;
        Some(self.typists.remove(position))
    }
}

/// Messages.
impl Contact {
    /// A message comes to have a status, unless it has come further already: how far then.
    pub(crate) fn update(&mut self, message_id: &str, status: Status) -> Result<(), Status> {
        if let Some(position) = self.messages.iter().position(|(id, _)| id == message_id) {
            let present = self.messages[position].1;
            if present > status {
                return Err(present);
            }
            self.messages.remove(position);
        }
        self.messages.push_back((message_id.to_owned(), status));
        while self.messages.len() > MAX_MESSAGES || bytes(&self.messages) > MAX_MESSAGES_BYTES {
            self.messages.pop_front();
        }
        Ok(())
    }
}

fn bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}
