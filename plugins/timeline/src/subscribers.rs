//! A timeline's state: which people have it open, and where. The host counts them; what it does not tell is whether
//! somebody who comes is there already in another tab.

use std::collections::BTreeMap;

use roundhouse_sdk::Member;
use serde::{Deserialize, Serialize};

/// Bytes of state beyond which nobody more is remembered: some hundred people, and little to read at each event. Who is
/// not remembered hears all that the others hear, and only counts as new when coming by a second tab.
const MAX_STATE_BYTES: usize = 16 * 1024;

/// Who has a timeline open: connections and whose they are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Subscribers(BTreeMap<String, String>);

impl Subscribers {
    /// Whether this person has it open, as far as is remembered.
    pub(crate) fn has(&self, user_id: &str) -> bool {
        self.0.values().any(|known| known == user_id)
    }

    /// The connections that are remembered.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn remember(&mut self, member: &Member) {
        if self.0.insert(member.connection.clone(), member.user_id().to_owned()).is_none()
            && self.n_bytes() > MAX_STATE_BYTES
        {
            self.forget(member);
        }
    }

    pub(crate) fn forget(&mut self, member: &Member) {
        self.0.remove(&member.connection);
    }

    fn n_bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |bytes| bytes.len())
    }
}
