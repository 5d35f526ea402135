//! A room's state: which messages were sent lately, and which ended over a restart of the host. Who is there, the host
//! knows. Nothing here tells anybody of anything.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::recent::Recent;

/// Bytes of ends that are kept for those who come back after a restart, some hundred of usual messages. What was being
/// stored when a host went down is less, and all of it is read at each message for as long as it is kept. With the recent
/// messages, which take 6 KB, the state stays below the host's limit of 64 KiB.
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
}

/// The end of a message that was sent before the host was started anew.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ended {
    pub(crate) temp_id: String,
    /// Whether it was stored.
    pub(crate) is_stored: bool,
    /// What the room was told.
    pub(crate) told: Box<RawValue>,
    /// When nobody waits for it any more, in epoch milliseconds.
    pub(crate) until: u64,
}

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

    /// Keeps an end for those who come back: how many had to be dropped for it, or with it.
    pub(crate) fn end(&mut self, ended: Ended) -> usize {
        if bytes(&ended) > MAX_ENDED_BYTES {
            return 1;
        }
        self.ended.push(ended);
        let n_before = self.ended.len();
        while bytes(&self.ended) > MAX_ENDED_BYTES {
            self.ended.remove(0);
        }
        n_before - self.ended.len()
    }

    /// Drops what nobody waits for any more: when that is the case for the next one, if there is any.
    pub(crate) fn drop_ended(&mut self, now: u64) -> Option<u64> {
        self.ended.retain(|ended| ended.until > now);
        self.ended.iter().map(|ended| ended.until).min()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}
