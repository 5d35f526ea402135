//! The transports of one shard, with an index of its polling sessions.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use slab::Slab;

use super::eio_session::Sid;
use super::ids::TransportId;
use super::prefetch::prefetch;
use super::transport::Transport;
use crate::model::ConnId;

#[derive(Debug)]
pub(crate) struct Transports {
    slots: RefCell<Slab<Rc<Transport>>>,
    next_stamp: Cell<u32>,
    /// The polling Engine.IO sessions.
    polling: RefCell<HashMap<Sid, Rc<Transport>>>,
}

impl Transports {
    /// An empty table. The stamps of ids begin with `first_stamp`.
    pub(crate) fn new(first_stamp: u32) -> Self {
        Self { slots: RefCell::default(), next_stamp: Cell::new(first_stamp), polling: RefCell::default() }
    }

    /// Inserts the transport that `make` builds for a new id. `None` where no slot is left.
    pub(crate) fn insert(&self, make: impl FnOnce(TransportId) -> Transport) -> Option<Rc<Transport>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.vacant_entry();
        if slot.key() >= ConnId::MAX_SLOTS {
            return None;
        }
        let stamp = self.next_stamp.get();
        self.next_stamp.set(stamp.wrapping_add(1));
        let transport = Rc::new(make(TransportId::new(slot.key(), stamp)));
        slot.insert(transport.clone());
        Some(transport)
    }

    pub(crate) fn find(&self, id: TransportId) -> Option<Rc<Transport>> {
        self.slots.borrow().get(id.slot()).filter(|transport| transport.id == id).cloned()
    }

    pub(crate) fn remove(&self, id: TransportId) {
        let mut slots = self.slots.borrow_mut();
        if slots.get(id.slot()).is_some_and(|transport| transport.id == id) {
            slots.remove(id.slot());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.borrow().is_empty()
    }

    /// All transports that satisfy a condition.
    pub(crate) fn filtered(&self, condition: impl Fn(&Transport) -> bool) -> Vec<Rc<Transport>> {
        let slots = self.slots.borrow();
        slots.iter().map(|(_, transport)| transport).filter(|transport| condition(transport)).cloned().collect()
    }

    /// Borrows the transports for a fan-out. `look` may neither insert nor remove transports.
    pub(super) fn view<T>(&self, look: impl FnOnce(&TransportView<'_>) -> T) -> T {
        look(&TransportView(&self.slots.borrow()))
    }

    /// The transport of a polling session.
    pub(crate) fn polling(&self, id: Sid) -> Option<Rc<Transport>> {
        self.polling.borrow().get(&id).cloned()
    }

    pub(crate) fn insert_polling(&self, id: Sid, transport: &Rc<Transport>) {
        self.polling.borrow_mut().insert(id, transport.clone());
    }

    /// Removes a polling session from the index. Returns whether it existed.
    pub(crate) fn remove_polling(&self, id: Sid) -> bool {
        self.polling.borrow_mut().remove(&id).is_some()
    }
}

/// See [`Transports::view`].
pub(super) struct TransportView<'a>(&'a Slab<Rc<Transport>>);

impl TransportView<'_> {
    pub(super) fn get(&self, id: TransportId) -> Option<&Rc<Transport>> {
        self.0.get(id.slot()).filter(|transport| transport.id == id)
    }

    /// Prefetches a transport that is read soon.
    pub(super) fn prefetch(&self, id: TransportId) {
        if let Some(transport) = self.0.get(id.slot()) {
            prefetch(&**transport);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::transport::{Io, Session};
    use super::*;

    #[test]
    fn ids_of_reused_slots_differ() {
        let transports = Transports::new(u32::MAX);
        let peer = ([127, 0, 0, 1], 1).into();
        let insert = || {
            transports
                .insert(|id| Transport::new(id, peer, Io::Polling(RefCell::default()), Session::Plain, None, 0))
                .unwrap()
        };
        let first = insert();
        transports.remove(first.id);
        let second = insert();
        assert_eq!((first.id.slot(), second.id.slot()), (0, 0));
        assert!(transports.find(first.id).is_none() && transports.find(second.id).is_some());
        transports.remove(first.id);
        assert!(!transports.is_empty(), "an id of the past removes nothing");
        assert_eq!(TransportId::from_token(second.id.token()), second.id);
    }
}
