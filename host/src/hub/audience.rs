//! Whom an event is for.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::model::ConnId;
use crate::protocol::Outgoing;

/// A set of connections.
pub type Audience = roundhouse_contract::Audience<ConnId>;

/// An event and whom it is for.
#[derive(Debug)]
pub struct Publication {
    /// Whoever belongs to several of these gets the event once.
    pub to: Vec<Audience>,
    /// Who does not get it all the same.
    pub except: Vec<Audience>,
    /// The event.
    pub outgoing: Arc<Outgoing>,
    /// Whether it may be left out for a connection that is slow to read.
    pub volatile: bool,
    /// Let go of when every shard has written the event to the sockets that take it.
    pub guard: Option<Guard>,
}

/// Something that is dropped when the last of those who share it has let go of it.
#[derive(Clone)]
pub struct Guard(#[expect(dead_code, reason = "it is there to be dropped")] Arc<dyn Any + Send + Sync>);

impl Guard {
    /// Shares `guarded`.
    pub fn new(guarded: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(guarded))
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}
