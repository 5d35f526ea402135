//! The connections of one shard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::connection::Connection;
use crate::model::{ConnId, NodeId};
use crate::protocol::socketio;

#[derive(Debug)]
pub(crate) struct Connections {
    shard: usize,
    table: RefCell<Table>,
    next_stamp: Cell<u32>,
    /// The names of all Socket.IO namespaces that connections were in, for sharing.
    namespaces: RefCell<Vec<Arc<str>>>,
}

#[derive(Debug, Default)]
struct Table {
    slots: Slab<Rc<Connection>>,
    /// Connections that were on other nodes. Their ids name no slot of this shard.
    adopted: HashMap<ConnId, Rc<Connection>>,
}

impl Table {
    fn get(&self, id: ConnId) -> Option<&Rc<Connection>> {
        let in_slot = self.slots.get(id.slot()).filter(|connection| connection.id == id);
        in_slot.or_else(|| if self.adopted.is_empty() { None } else { self.adopted.get(&id) })
    }

    fn among(&self, ids: &[ConnId]) -> impl Iterator<Item = &Rc<Connection>> {
        ids.iter().filter_map(|id| self.get(*id))
    }
}

impl Connections {
    /// An empty table for the shard of this index. The stamps of ids begin with `first_stamp`.
    pub(crate) fn new(shard: usize, first_stamp: u32) -> Self {
        let (table, namespaces) = (RefCell::default(), RefCell::default());
        Self { shard, table, next_stamp: Cell::new(first_stamp), namespaces }
    }

    /// The id of the connection that is inserted next, on a host of this number in its cluster.
    pub(crate) fn next_id(&self, node: NodeId) -> ConnId {
        ConnId::new(self.shard, self.table.borrow().slots.vacant_key(), self.next_stamp.get()).on(node)
    }

    /// Inserts a connection whose id is [`Connections::next_id`].
    pub(crate) fn insert(&self, connection: Rc<Connection>) {
        self.next_stamp.set(self.next_stamp.get().wrapping_add(1));
        self.table.borrow_mut().slots.insert(connection);
    }

    /// Inserts a connection that was on another node.
    pub(crate) fn adopt(&self, connection: Rc<Connection>) {
        self.table.borrow_mut().adopted.insert(connection.id, connection);
    }

    pub(crate) fn find(&self, id: ConnId) -> Option<Rc<Connection>> {
        self.table.borrow().get(id).cloned()
    }

    /// The first of these connections that satisfies a condition.
    pub(crate) fn find_among(&self, ids: &[ConnId], condition: impl Fn(&Connection) -> bool) -> Option<Rc<Connection>> {
        self.table.borrow().among(ids).find(|connection| condition(connection)).cloned()
    }

    /// Visits those of these connections that have not ended. `visit` must neither insert nor remove any.
    pub(crate) fn each(&self, ids: &[ConnId], visit: impl FnMut(&Rc<Connection>)) {
        self.table.borrow().among(ids).for_each(visit);
    }

    /// When the first of these connections expires or is to be warned of it, in milliseconds since 1970; `u64::MAX` is
    /// never.
    pub(crate) fn first_expiry(&self, ids: &[ConnId]) -> u64 {
        let table = self.table.borrow();
        let expiries = table.among(ids).map(|connection| connection.expires.get().min(connection.warns.get()));
        expiries.min().unwrap_or(u64::MAX)
    }

    /// Removes a connection that was found by its id.
    pub(crate) fn remove(&self, id: ConnId) {
        let mut table = self.table.borrow_mut();
        if table.adopted.remove(&id).is_none() {
            table.slots.try_remove(id.slot());
        }
    }

    pub(crate) fn len(&self) -> usize {
        let table = self.table.borrow();
        table.slots.len() + table.adopted.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn for_each(&self, each: impl FnMut(&Rc<Connection>)) {
        let table = self.table.borrow();
        table.slots.iter().map(|(_, connection)| connection).chain(table.adopted.values()).for_each(each);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::state::TransportId;

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

    #[test]
    fn adopted_connection_takes_no_slot() {
        let connections = Connections::new(0, 1);
        let own = Connection::of_slot(0);
        connections.insert(own.clone());
        let identity = own.identity.borrow().clone();
        let id = own.id.on(NodeId(3));
        let adopted = Connection::new(id, own.protocol.clone(), identity, TransportId::new(0, 1));
        connections.adopt(Rc::new(adopted));
        assert_eq!((connections.find(id).unwrap().id, connections.find(own.id).unwrap().id), (id, own.id));
        assert_eq!((connections.len(), connections.next_id(NodeId(0)).slot()), (2, 1));
        connections.remove(id);
        assert!(connections.find(id).is_none() && connections.find(own.id).is_some());
    }
}
