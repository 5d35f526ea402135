//! The connections of one shard.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::connection::Connection;
use crate::model::{ConnId, NodeId};
use crate::protocol::socketio;

#[derive(Debug)]
pub(crate) struct Connections {
    shard: usize,
    slots: RefCell<Slab<Rc<Connection>>>,
    next_stamp: Cell<u32>,
    /// The names of all Socket.IO namespaces that connections were in, for sharing.
    namespaces: RefCell<Vec<Arc<str>>>,
}

impl Connections {
    /// An empty table for the shard of this index. The stamps of ids begin with `first_stamp`.
    pub(crate) fn new(shard: usize, first_stamp: u32) -> Self {
        let (slots, namespaces) = (RefCell::default(), RefCell::default());
        Self { shard, slots, next_stamp: Cell::new(first_stamp), namespaces }
    }

    /// The id of the connection that is inserted next, on a host of this number in its cluster.
    pub(crate) fn next_id(&self, node: NodeId) -> ConnId {
        ConnId::new(self.shard, self.slots.borrow().vacant_key(), self.next_stamp.get()).on(node)
    }

    /// Inserts a connection whose id is [`Connections::next_id`].
    pub(crate) fn insert(&self, connection: Rc<Connection>) {
        self.next_stamp.set(self.next_stamp.get().wrapping_add(1));
        self.slots.borrow_mut().insert(connection);
    }

    pub(crate) fn find(&self, id: ConnId) -> Option<Rc<Connection>> {
        self.slots.borrow().get(id.slot()).filter(|connection| connection.id == id).cloned()
    }

    /// The first of these connections that satisfies a condition.
    pub(crate) fn find_among(&self, ids: &[ConnId], condition: impl Fn(&Connection) -> bool) -> Option<Rc<Connection>> {
        let slots = self.slots.borrow();
        among(&slots, ids).find(|connection| condition(connection)).cloned()
    }

    /// Visits those of these connections that have not ended. `visit` must neither insert nor remove any.
    pub(crate) fn each(&self, ids: &[ConnId], visit: impl FnMut(&Rc<Connection>)) {
        among(&self.slots.borrow(), ids).for_each(visit);
    }

    /// When the first of these connections expires or is to be warned of it, in milliseconds since 1970; `u64::MAX` is
    /// never.
    pub(crate) fn first_expiry(&self, ids: &[ConnId]) -> u64 {
        let slots = self.slots.borrow();
        among(&slots, ids)
            .map(|connection| connection.expires.get().min(connection.warns.get()))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Removes a connection that was found by its id.
    pub(crate) fn remove(&self, id: ConnId) {
        self.slots.borrow_mut().try_remove(id.slot());
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.borrow().is_empty()
    }

    pub(crate) fn for_each(&self, each: impl FnMut(&Rc<Connection>)) {
        self.slots.borrow().iter().map(|(_, connection)| connection).for_each(each);
    }

    /// The name of a namespace, shared by all connections in it; `None` for the main namespace.
    pub(crate) fn shared_namespace(&self, name: &str) -> Option<Arc<str>> {
        if name == socketio::MAIN_NAMESPACE {
            return None;
        }
        let mut namespaces = self.namespaces.borrow_mut();
        if let Some(known) = namespaces.iter().find(|known| ***known == *name) {
            return Some(known.clone());
        }
        let name: Arc<str> = name.into();
        namespaces.push(name.clone());
        Some(name)
    }
}

/// Those of these connections that are in the slots of their ids.
fn among<'a>(slots: &'a Slab<Rc<Connection>>, ids: &'a [ConnId]) -> impl Iterator<Item = &'a Rc<Connection>> {
    ids.iter().filter_map(|id| slots.get(id.slot()).filter(|connection| connection.id == *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_names_are_shared_except_the_main_one() {
        let connections = Connections::new(0, 1);
        assert_eq!(connections.shared_namespace("/"), None);
        let (first, second) =
            (connections.shared_namespace("/a").unwrap(), connections.shared_namespace("/a").unwrap());
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn find_refuses_ids_of_removed_connections() {
        let connections = Connections::new(0, 1);
        let (id, connection) = (connections.next_id(NodeId(0)), Connection::of_slot(0));
        assert_eq!(id, connection.id);
        connections.insert(connection);
        connections.remove(id);
        assert_ne!(connections.next_id(NodeId(0)), id);
        assert!(connections.find(id).is_none() && connections.find_among(&[id], |_| true).is_none());
    }
}
