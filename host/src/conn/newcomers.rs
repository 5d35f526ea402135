//! New connections of the plain protocol that may be but the way back to another: their users have sessions, and a client
//! says only after `connected` that it wants to go on with one.
//!
//! What such a connection would be sent is held until its client has said what it wants. One that goes on with its session
//! gets all of that in the replay, in order and once; any other gets it now. Where its user has as many connections as it may,
//! it is on trial: it counts only if it stays.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::connection::Connection;
use super::link::{Link, LinkId};
use super::places::{PROBE_TIMEOUT, UserOverflow};
use super::shard::Shard;
use crate::model::{CloseCode, ConnId};
use crate::protocol::Protocol;

/// Time for a client's first frame. It is sent at once by those that come back; others may have nothing to say, and are
/// not to wait for long.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(2);

/// The connections of a shard whose clients have not said yet what they want.
#[derive(Debug, Default)]
pub(super) struct Newcomers(RefCell<HashMap<ConnId, Newcomer>>);

#[derive(Debug, Clone, Copy)]
struct Newcomer {
    link: LinkId,
    /// Whether its user had as many connections as it may.
    on_trial: bool,
}

impl Newcomers {
    pub(super) fn contains(&self, id: ConnId) -> bool {
        self.0.borrow().contains_key(&id)
    }

    pub(super) fn forget(&self, id: ConnId) {
        self.0.borrow_mut().remove(&id);
    }
}

impl Shard {
    /// Holds what a connection would be sent until its client has said what it wants. Says whether it can be held.
    pub(super) fn hold(&self, link: &Link, connection: &Connection, on_trial: bool) -> bool {
        if self.make_recoverable(connection).is_none() {
            return false;
        }
        connection.link.replace(None);
        self.newcomers.0.borrow_mut().insert(connection.id, Newcomer { link: link.id, on_trial });
        let mut patience = FIRST_FRAME_TIMEOUT;
        if on_trial {
            self.shared.hub.set_counted(connection.id, false);
            if self.shared.config.user_overflow == UserOverflow::Reject {
                let identity = connection.identity.borrow().clone();
                self.probe_connections_of(&identity.user);
                // One that does not answer has given its place free by then.
                patience += PROBE_TIMEOUT;
            }
        }
        let limit = self.shared.clock.uptime_ms() + patience.as_millis() as u64;
        link.times.limit.set(limit);
        self.arm(link, limit);
        true
    }

    /// A client does not come back to a session, so that its new connection is one like any other: it gets what was held.
    /// Says whether it may stay. Of a connection that was settled already it may.
    pub(super) fn settle(self: &Rc<Self>, link: &Rc<Link>, connection: &Rc<Connection>) -> bool {
        if connection.link.borrow().is_some() {
            return true;
        }
        let Some(newcomer) = self.newcomers.0.borrow_mut().remove(&connection.id) else { return true };
        *connection.link.borrow_mut() = Some(link.clone());
        link.times.limit.set(u64::MAX);
        if newcomer.on_trial {
            let identity = connection.identity.borrow().clone();
            if let Err(reason) = self.make_place(&identity.user) {
                self.close(link, CloseCode::TooManyConnections, &reason);
                return false;
            }
            self.shared.hub.set_counted(connection.id, true);
        }
        self.send_rest(link, connection, 0);
        self.forget(connection);
        self.greet(connection, None);
        true
    }

    /// As [`Shard::settle`], of a connection that is known by itself alone.
    pub(super) fn settle_by_id(self: &Rc<Self>, connection: &Rc<Connection>) {
        let newcomer = self.newcomers.0.borrow().get(&connection.id).copied();
        if let Some(link) = newcomer.and_then(|newcomer| self.find_link(newcomer.link)) {
            self.settle(&link, connection);
        }
    }

    /// Takes what was held for a connection whose client wants to go on with another.
    pub(super) fn take_held(&self, connection: &Connection) -> Vec<Bytes> {
        self.newcomers.forget(connection.id);
        self.change_log(connection, |log| log.rest(0, &Protocol::Plain)).unwrap_or_default()
    }
}
