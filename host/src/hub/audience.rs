//! The recipients of an event.

use std::sync::Arc;

use crate::model::ConnId;
use crate::protocol::Outgoing;
use crate::store::DeliveryReceipt;

/// A set of connections.
pub type Audience = roundhouse_contract::Audience<ConnId>;

/// An event and its recipients.
#[derive(Debug)]
pub struct Publication {
    /// The recipients: a connection in several audiences gets the event once.
    pub to: Vec<Audience>,
    /// Exceptions: connections in these audiences do not get the event.
    pub except: Vec<Audience>,
    /// The event.
    pub outgoing: Arc<Outgoing>,
    /// Whether the event may be dropped for a connection that reads slowly.
    pub volatile: bool,
    /// Dropped when every shard has written the event to all sockets that accept it.
    pub receipt: Option<DeliveryReceipt>,
}
