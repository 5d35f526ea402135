//! Transfer: a connection goes on at another node of a cluster, where its client has come back.
//!
//! The node that has the connection is asked for it by a [`Claim`], keeps it until the owners of its scopes know of the other
//! node, and then gives it up with a [`Released`]. It keeps its id, which features know it by.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::Identity;

/// How far a client received, by its own report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// The number of frames of its session that it received, which the plain protocol counts.
    Frames(u64),
    /// The number of the last event that it received, which Socket.IO counts; `None` for no event at all.
    Event(Option<u64>),
}

/// A client's request to go on with a connection, at another node than the one that has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claim {
    /// The key of the session, as the client gave it.
    pub key: String,
    /// How far the client received.
    pub progress: Progress,
    /// The namespace of the connection.
    pub namespace: String,
    /// The user as whom the client has signed in.
    pub user: String,
    /// Whether it has signed in without a token.
    pub is_anonymous: bool,
}

/// What a connection is given up with.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Released {
    /// The number of entries of the replay buffer that the client has received.
    pub n_received: u64,
    /// The number of the last event among those.
    pub last_received: Option<u64>,
    /// The entries that it has not received.
    pub entries: Vec<ReleasedEntry>,
}

/// An entry of a replay buffer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedEntry {
    /// The number of the event; `None` for frames of this connection alone.
    pub number: Option<u64>,
    /// The frames on the connection's protocol.
    pub frames: Vec<u8>,
}

/// A connection of another node that goes on here, detached.
#[derive(Debug)]
pub struct Arrival {
    /// Its identity.
    pub identity: Arc<Identity>,
    /// When it was authenticated, in milliseconds since the epoch.
    pub since_ms: u64,
    /// The number of changes of its presence so far.
    pub n_changes: u32,
}
