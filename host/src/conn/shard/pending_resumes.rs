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

use super::parts::Shard;
use super::user_limit::{PROBE_TIMEOUT, UserOverflow};
use crate::conn::state::connection::Connection;
use crate::conn::state::transport::{Transport, TransportId};
use crate::model::{CloseCode, ConnId};
use crate::protocol::Protocol;

/// Time for a client's first frame. It is sent at once by those that come back; others may have nothing to say, and are
/// not to wait for long.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(2);

/// The connections of a shard whose clients have not said yet what they want.
#[derive(Debug, Default)]
pub(in crate::conn) struct PendingResumes(RefCell<HashMap<ConnId, PendingResume>>);

#[derive(Debug, Clone, Copy)]
struct PendingResume {
    transport: TransportId,
    /// Whether its user had as many connections as it may.
    on_trial: bool,
}

impl PendingResumes {
    pub(in crate::conn) fn contains(&self, id: ConnId) -> bool {
        self.0.borrow().contains_key(&id)
    }

    pub(in crate::conn) fn forget(&self, id: ConnId) {
        self.0.borrow_mut().remove(&id);
    }
}

impl Shard {
    /// Holds what a connection would be sent until its client has said what it wants. Says whether it can be held.
    pub(in crate::conn) fn await_first_frame(
        &self,
        transport: &Transport,
        connection: &Connection,
        on_trial: bool,
    ) -> bool {
        if self.make_recoverable(connection).is_none() {
            return false;
        }
        connection.transport.replace(None);
        self.pending_resumes.0.borrow_mut().insert(connection.id, PendingResume { transport: transport.id, on_trial });
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
        transport.times.limit.set(limit);
        self.arm(transport, limit);
        true
    }

    /// A client does not come back to a session, so that its new connection is one like any other: it gets what was held.
    /// Says whether it may stay. Of a connection that was settled already it may.
    pub(in crate::conn) fn confirm(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Rc<Connection>) -> bool {
        if connection.transport.borrow().is_some() {
            return true;
        }
        let Some(newcomer) = self.pending_resumes.0.borrow_mut().remove(&connection.id) else { return true };
        *connection.transport.borrow_mut() = Some(transport.clone());
        transport.times.limit.set(u64::MAX);
        if newcomer.on_trial {
            let identity = connection.identity.borrow().clone();
            if let Err(reason) = self.ensure_user_capacity(&identity.user) {
                self.close(transport, CloseCode::TooManyConnections, &reason);
                return false;
            }
            self.shared.hub.set_counted(connection.id, true);
        }
        self.send_replay(transport, connection, 0);
        self.drop_replay(connection);
        self.notify_connect(connection, None);
        true
    }

    /// As [`Shard::confirm`], of a connection that is known by itself alone.
    pub(in crate::conn) fn confirm_by_id(self: &Rc<Self>, connection: &Rc<Connection>) {
        let newcomer = self.pending_resumes.0.borrow().get(&connection.id).copied();
        if let Some(transport) = newcomer.and_then(|newcomer| self.find_transport(newcomer.transport)) {
            self.confirm(&transport, connection);
        }
    }

    /// Takes what was held for a connection whose client wants to go on with another.
    pub(in crate::conn) fn take_held_frames(&self, connection: &Connection) -> Vec<Bytes> {
        self.pending_resumes.forget(connection.id);
        self.with_replay(connection, |log| log.rest(0, &Protocol::Plain)).unwrap_or_default()
    }
}
