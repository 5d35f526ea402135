//! The end of a connection, as the hub knows it.

use std::sync::Arc;

use crate::model::Identity;

/// A scope to notify of a connection's end: the number of its plugin, and its key.
pub type Watcher = (u32, Arc<str>);

/// The state of a connection that has ended.
#[derive(Debug)]
pub struct Departure {
    /// Its identity.
    pub identity: Arc<Identity>,
    /// Its rooms.
    pub rooms: Vec<Arc<str>>,
    /// The scopes that watched it.
    pub watchers: Vec<Watcher>,
    /// Ids of acknowledgements that the client still owed, in the order of the requests.
    pub pending_acks: Vec<u64>,
}
