//! A timeline's state: which connections have it open. The host counts them; what it does not tell is which of them have
//! other timelines open too, and the stats count each once.

use std::collections::BTreeSet;

use roundhouse_sdk::Member;
use serde::{Deserialize, Serialize};

/// Bytes of state beyond which nobody more is remembered: some hundred connections, and little to read at each event. One
/// that is not remembered hears all that the others hear, and only counts once for each timeline in the stats.
const MAX_STATE_BYTES: usize = 16 * 1024;

/// The connections that have a timeline open.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Subscribers(BTreeSet<String>);

impl Subscribers {
    /// The connections that are remembered.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub(crate) fn remember(&mut self, member: &Member) {
        if self.0.insert(member.connection.clone()) && self.n_bytes() > MAX_STATE_BYTES {
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
