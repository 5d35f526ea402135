//! Whom an event is for.

use std::sync::Arc;

use crate::model::ConnId;
use crate::protocol::Outgoing;
use crate::store::DeliveryReceipt;

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
    /// Dropped when every shard has written the event to the sockets that take it.
    pub receipt: Option<DeliveryReceipt>,
}
