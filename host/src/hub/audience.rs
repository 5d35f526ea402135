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
    /// A connection that belongs to several of these gets the event once.
    pub to: Vec<Audience>,
    /// Connections that do not get it, though they belong to one of these.
    pub except: Vec<Audience>,
    /// The event.
    pub outgoing: Arc<Outgoing>,
    /// Whether it may be dropped for a connection that reads slowly.
    pub volatile: bool,
    /// Dropped when every shard has written the event to the sockets that take it.
    pub receipt: Option<DeliveryReceipt>,
}
