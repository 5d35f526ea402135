//! The state of a timeline: the ids of its connections. The host counts connections too, but the stats count a
//! connection with several timelines once, and need the ids for it.

use std::collections::BTreeSet;

use roundhouse_sdk::Member;
use serde::{Deserialize, Serialize};

/// The greatest size of the state, in bytes: some hundred connections, and little to decode at each event. A connection
/// beyond the limit gets all events, but the stats count it once for each of its timelines.
const MAX_STATE_BYTES: usize = 16 * 1024;

/// The connections that have a timeline open.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Subscribers(BTreeSet<String>);

impl Subscribers {
    /// The known connections.
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
