//! The members of rooms and roles on one shard, as lists that a fan-out walks.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::connection::{Connection, MemberList, Membership};
use super::connections::Connections;
use super::prefetch::prefetch;
use super::trail::Trail;
use super::transport::Transport;
use super::transports::{TransportView, Transports};
use crate::hub::{Delivery, Target, Traced};
use crate::model::ConnId;
use crate::protocol::Outgoing;

/// How many connections ahead of its turn a connection is prefetched, and its transport, whose id the connection holds,
/// a little later.
const CONNECTIONS_AHEAD: usize = 3;
const TRANSPORTS_AHEAD: usize = 1;

#[derive(Debug, Default)]
pub(crate) struct Members {
    lists: RefCell<HashMap<MemberList, Vec<Rc<Connection>>>>,
    /// The number of the last delivery, which marks the connections that it visited.
    delivery: Cell<u64>,
    /// What was delivered lately.
    trail: RefCell<Trail>,
}

impl Members {
    pub(crate) fn join(&self, connection: &Rc<Connection>, list: MemberList) {
        let mut memberships = connection.memberships.borrow_mut();
        if memberships.iter().any(|membership| membership.list == list) {
            return;
        }
        let mut lists = self.lists.borrow_mut();
        self.trail.borrow_mut().joined(connection.id, list.clone());
        let members = lists.entry(list.clone()).or_default();
        memberships.push(Membership { list, at: members.len() });
        members.push(connection.clone());
    }

    pub(crate) fn leave(&self, connection: &Connection, list: &MemberList) {
        let membership = {
            let mut memberships = connection.memberships.borrow_mut();
            let Some(index) = memberships.iter().position(|membership| membership.list == *list) else { return };
            memberships.swap_remove(index)
        };
        self.trail.borrow_mut().left(connection.id, list.clone());
        self.remove(&membership);
    }

    /// Notes a delivery.
    pub(crate) fn note_delivery(&self, delivery: Delivery) {
        self.trail.borrow_mut().delivered(delivery);
    }

    /// Notes an event for one connection, which is to acknowledge it.
    pub(crate) fn note_ask(&self, connection: ConnId, outgoing: &Outgoing) {
        self.trail.borrow_mut().asked(connection, outgoing);
    }

    /// The last events that a connection got, the newest first.
    pub(crate) fn trace(&self, connection: &Connection, most: usize) -> Vec<Traced> {
        let lists = connection.memberships.borrow().iter().map(|membership| membership.list.clone()).collect();
        self.trail.borrow().of(connection.id, lists, most)
    }

    pub(crate) fn leave_all(&self, connection: &Connection) {
        for membership in connection.memberships.take() {
            self.remove(&membership);
        }
    }

    pub(crate) fn leave_roles(&self, connection: &Connection) {
        let roles: Vec<MemberList> = connection
            .memberships
            .borrow()
            .iter()
            .map(|membership| membership.list.clone())
            .filter(|list| matches!(list, MemberList::Role(_)))
            .collect();
        for role in roles {
            self.leave(connection, &role);
        }
    }

    fn remove(&self, membership: &Membership) {
        let mut lists = self.lists.borrow_mut();
        let Some(members) = lists.get_mut(&membership.list) else { return };
        members.swap_remove(membership.at);
        if let Some(moved) = members.get(membership.at) {
            if let Some(other) = moved.memberships.borrow_mut().iter_mut().find(|other| other.list == membership.list) {
                other.at = membership.at;
            }
        } else if members.is_empty() {
            lists.remove(&membership.list);
        }
    }

    /// Calls `visit` once for every connection in a target of `to` and in none of `except`, with the connection and its
    /// transport. `visit` may neither insert nor remove transports.
    pub(crate) fn each(
        &self,
        (to, except): (&[Target], &[Target]),
        connections: &Connections,
        transports: &Transports,
        mut visit: impl FnMut(&Rc<Connection>, Option<&Rc<Transport>>),
    ) {
        let delivery = self.delivery.get() + 1;
        self.delivery.set(delivery);
        let lists = self.lists.borrow();
        transports.view(|transports| {
            let mut walk = |targets: &[Target], deliver: bool| {
                let mut one = |connection: &Rc<Connection>| {
                    if connection.delivery.replace(delivery) != delivery && deliver {
                        visit(connection, connection.transport.get().and_then(|id| transports.get(id)));
                    }
                };
                for target in targets {
                    let mut all = |list: &MemberList| {
                        let members = lists.get(list).map(Vec::as_slice).unwrap_or_default();
                        for (at, connection) in members.iter().enumerate() {
                            prefetch_next(&members[at + 1..], transports);
                            one(connection);
                        }
                    };
                    match target {
                        Target::Room(room) => all(&MemberList::Room(*room)),
                        Target::Roles(roles) => {
                            roles.iter().for_each(|role| all(&MemberList::Role(role.as_str().into())));
                        }
                        Target::All => all(&MemberList::All),
                        Target::Connection(id) => connections.find(*id).iter().for_each(&mut one),
                    }
                }
            };
            // Excepted connections are marked as visited.
            walk(except, false);
            walk(to, true);
        });
    }
}

/// Prefetches a connection further ahead, and the transport of one that was prefetched before.
fn prefetch_next(next: &[Rc<Connection>], transports: &TransportView<'_>) {
    if let Some(connection) = next.get(CONNECTIONS_AHEAD) {
        prefetch(&**connection);
    }
    if let Some(id) = next.get(TRANSPORTS_AHEAD).and_then(|connection| connection.transport.get()) {
        transports.prefetch(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::RoomId;

    fn visited(members: &Members, connections: &Connections, to: &[Target], except: &[Target]) -> Vec<usize> {
        let mut slots = Vec::new();
        members.each((to, except), connections, &Transports::new(1), |connection, _| slots.push(connection.id.slot()));
        slots
    }

    #[test]
    fn each_visits_members_once_and_skips_exceptions() {
        let (members, connections) = (Members::default(), Connections::new(0, 1));
        let [a, b, c] = [0, 1, 2].map(Connection::of_slot);
        for connection in [&a, &b, &c] {
            members.join(connection, MemberList::All);
            members.join(connection, MemberList::Room(RoomId(7)));
        }
        let room = Target::Room(RoomId(7));
        assert_eq!(visited(&members, &connections, &[Target::All, room.clone()], &[]), [0, 1, 2]);
        members.leave(&a, &MemberList::Room(RoomId(7)));
        assert_eq!(visited(&members, &connections, &[Target::All], std::slice::from_ref(&room)), [0]);
        members.leave_all(&c);
        members.leave_all(&b);
        assert_eq!(visited(&members, &connections, &[Target::All, room], &[]), [0]);
        assert!(!members.lists.borrow().contains_key(&MemberList::Room(RoomId(7))), "empty lists are removed");
    }
}
