//! Which of a shard's connections are in which room, as lists that a fan-out walks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::Connection;
use super::prefetch::prefetch;
use crate::hub::{RoomId, Target};

/// How many connections before its turn one is fetched from memory, and its transport a little later, for that is found by it.
const CONNECTIONS_AHEAD: usize = 3;
const TRANSPORTS_AHEAD: usize = 1;

/// The key of a list of members.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::conn) enum MemberList {
    Room(RoomId),
    Role(Arc<str>),
    All,
}

/// A connection's place in one list, so that leaving is not a search through the room.
#[derive(Debug)]
pub(in crate::conn) struct Place {
    key: MemberList,
    at: usize,
}

/// The lists of one shard.
#[derive(Debug, Default)]
pub(in crate::conn) struct Members {
    lists: RefCell<HashMap<MemberList, Vec<Rc<Connection>>>>,
    /// Number of the last delivery, which marks who has had it.
    delivery: Cell<u64>,
}

impl Members {
    pub(in crate::conn) fn join(&self, connection: &Rc<Connection>, key: MemberList) {
        let mut places = connection.places.borrow_mut();
        if places.iter().any(|place| place.key == key) {
            return;
        }
        let mut lists = self.lists.borrow_mut();
        let list = lists.entry(key.clone()).or_default();
        places.push(Place { key, at: list.len() });
        list.push(connection.clone());
    }

    pub(in crate::conn) fn leave(&self, connection: &Connection, key: &MemberList) {
        let place = {
            let mut places = connection.places.borrow_mut();
            let Some(index) = places.iter().position(|place| place.key == *key) else { return };
            places.swap_remove(index)
        };
        self.take_out(&place);
    }

    pub(in crate::conn) fn leave_all(&self, connection: &Connection) {
        for place in connection.places.take() {
            self.take_out(&place);
        }
    }

    pub(in crate::conn) fn leave_roles(&self, connection: &Connection) {
        let roles: Vec<MemberList> = connection
            .places
            .borrow()
            .iter()
            .map(|place| place.key.clone())
            .filter(|key| matches!(key, MemberList::Role(_)))
            .collect();
        for role in roles {
            self.leave(connection, &role);
        }
    }

    fn take_out(&self, place: &Place) {
        let mut lists = self.lists.borrow_mut();
        let Some(list) = lists.get_mut(&place.key) else { return };
        list.swap_remove(place.at);
        if let Some(moved) = list.get(place.at) {
            if let Some(moved) = moved.places.borrow_mut().iter_mut().find(|other| other.key == place.key) {
                moved.at = place.at;
            }
        } else if list.is_empty() {
            lists.remove(&place.key);
        }
    }

    /// Calls `each` once with every connection that belongs to a target of `to` and to none of `except`.
    /// `find` looks up single connections.
    pub(in crate::conn) fn each(
        &self,
        to: &[Target],
        except: &[Target],
        find: impl Fn(crate::model::ConnId) -> Option<Rc<Connection>>,
        mut each: impl FnMut(&Rc<Connection>),
    ) {
        let delivery = self.delivery.get() + 1;
        self.delivery.set(delivery);
        let lists = self.lists.borrow();
        let mut visit = |targets: &[Target], deliver: bool| {
            let mut one = |connection: &Rc<Connection>| {
                if connection.delivery.replace(delivery) != delivery && deliver {
                    each(connection);
                }
            };
            for target in targets {
                let mut list = |key: &MemberList| {
                    let members = lists.get(key).map(Vec::as_slice).unwrap_or_default();
                    for (at, connection) in members.iter().enumerate() {
                        fetch_ahead(&members[at + 1..]);
                        one(connection);
                    }
                };
                match target {
                    Target::Room(room) => list(&MemberList::Room(*room)),
                    Target::Roles(roles) => roles.iter().for_each(|role| list(&MemberList::Role(role.as_str().into()))),
                    Target::All => list(&MemberList::All),
                    Target::Connection(id) => find(*id).iter().for_each(&mut one),
                }
            }
        };
        // Whoever is excepted is marked as if it had been served.
        visit(except, false);
        visit(to, true);
    }
}

/// Has the connections come near that are next, and the transports of those that have.
fn fetch_ahead(next: &[Rc<Connection>]) {
    if let Some(connection) = next.get(CONNECTIONS_AHEAD) {
        prefetch(&**connection);
    }
    if let Some(connection) = next.get(TRANSPORTS_AHEAD)
        && let Some(transport) = &*connection.transport.borrow()
    {
        prefetch(&**transport);
    }
}
