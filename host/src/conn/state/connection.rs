//! One connection: somebody who takes part, over whichever transport the client has at the moment.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::members::Place;
use super::replay::ReplayBuffer;
use super::transport::Transport;
use crate::model::{ConnId, Identity};
use crate::protocol::Protocol;

/// Somebody who takes part.
#[derive(Debug)]
pub(in crate::conn) struct Connection {
    pub(in crate::conn) id: ConnId,
    pub(in crate::conn) protocol: Protocol,
    pub(in crate::conn) identity: RefCell<Arc<Identity>>,
    /// None while the client is away and may come back.
    pub(in crate::conn) transport: RefCell<Option<Rc<Transport>>>,
    pub(in crate::conn) places: RefCell<Vec<Place>>,
    /// The last delivery that it was considered for.
    pub(in crate::conn) delivery: Cell<u64>,
    /// When its token expires, by the system's clock, in milliseconds since 1970; `u64::MAX` is never.
    pub(in crate::conn) expires: Cell<u64>,
    /// Whether a feature has heard of it.
    pub(in crate::conn) has_sent: Cell<bool>,
    /// What the client gave when it connected, until features have been told.
    pub(in crate::conn) connect_notice: RefCell<Option<Option<Box<RawValue>>>>,
    /// What is kept for a client that may come back.
    pub(in crate::conn) replay: RefCell<Option<Box<ReplayBuffer>>>,
}

impl Connection {
    pub(in crate::conn) fn new(
        id: ConnId,
        protocol: Protocol,
        identity: Arc<Identity>,
        transport: Rc<Transport>,
    ) -> Self {
        Self {
            id,
            protocol,
            identity: RefCell::new(identity),
            transport: RefCell::new(Some(transport)),
            places: RefCell::default(),
            delivery: Cell::new(0),
            expires: Cell::new(u64::MAX),
            has_sent: Cell::new(false),
            connect_notice: RefCell::default(),
            replay: RefCell::default(),
        }
    }

    /// The Socket.IO namespace; the plain protocol has the main one alone.
    pub(in crate::conn) fn namespace(&self) -> &str {
        self.protocol.namespace()
    }
}
