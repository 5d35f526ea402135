//! New plain connections that may be about to resume another (see [`PendingResumes`]).
//!
//! [`PendingResumes`]: crate::conn::state::PendingResumes

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_local;

use super::parts::Shard;
use super::user_limit::PROBE_TIMEOUT;
use crate::conn::config::UserOverflow;
use crate::conn::state::{Connection, PendingResume, Transport};
use crate::model::CloseCode;
use crate::protocol::Protocol;

/// Time for a client's first frame. A client that resumes sends `resume` at once; other clients may have nothing to
/// send, and their held frames must not wait for long.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(2);

impl Shard {
    /// Holds the frames for a connection until its client's first frame. Returns whether they can be held.
    pub(super) fn await_first_frame(
        &self,
        transport: &Transport,
        connection: &Connection,
        is_over_limit: bool,
    ) -> bool {
        if self.make_recoverable(connection).is_none() {
            return false;
        }
        connection.transport.set(None);
        self.pending_resumes().insert(connection.id, PendingResume { transport: transport.id, is_over_limit });
        let mut timeout = FIRST_FRAME_TIMEOUT;
        if is_over_limit {
            self.shared().hub.set_counted(connection.id, false);
            if self.config().user_overflow == UserOverflow::Reject {
                let identity = connection.identity.borrow().clone();
                self.probe_connections_of(&identity.user);
                // After that time connections that do not answer the probe have ended.
                timeout += PROBE_TIMEOUT;
            }
        }
        self.set_limit(transport, timeout);
        true
    }

    /// Confirms a connection that awaits its first frame, if the user has none that its client could resume, on no node of
    /// the cluster.
    pub(super) fn ask_abroad(self: &Rc<Self>, connection: &Rc<Connection>) {
        let (shard, connection) = (self.clone(), connection.clone());
        spawn_local(async move {
            let (shared, user) = (shard.shared(), connection.identity.borrow().user.clone());
            let is_abroad = shared.plugins.has_session_abroad(&user).await;
            if is_abroad == Some(false) && !shared.hub.has_session(&user) {
                shard.confirm_by_id(&connection);
                shard.flush_dirty();
            }
        });
    }

    /// Confirms that a connection is new and resumes no other: its held frames are sent. Returns whether it stays open;
    /// always true for a connection confirmed before.
    pub(super) fn confirm(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Rc<Connection>) -> bool {
        if connection.transport.get().is_some() || self.imports().is_waiting(transport.id) {
            return true;
        }
        let Some(pending) = self.pending_resumes().remove(connection.id) else { return true };
        connection.transport.set(Some(transport.id));
        transport.times.limit.set(u64::MAX);
        if pending.is_over_limit {
            let identity = connection.identity.borrow().clone();
            if let Err(reason) = self.ensure_user_capacity(&identity.user) {
                self.close(transport, CloseCode::TooManyConnections, &reason);
                return false;
            }
            self.shared().hub.set_counted(connection.id, true);
        }
        self.send_replay(transport, connection, 0);
        self.detached().drop_replay(connection);
        self.notify_connect(connection, None);
        true
    }

    /// As [`Shard::confirm`], where the caller has no transport.
    pub(super) fn confirm_by_id(self: &Rc<Self>, connection: &Rc<Connection>) {
        let pending = self.pending_resumes().get(connection.id);
        if let Some(transport) = pending.and_then(|pending| self.transport(pending.transport)) {
            self.confirm(&transport, connection);
        }
    }

    /// Takes the held frames of a connection whose client resumes another.
    pub(super) fn take_held_frames(&self, connection: &Connection) -> Vec<Bytes> {
        self.pending_resumes().remove(connection.id);
        let frames = self.detached().with_replay(connection, |buffer| buffer.frames_from(0, &Protocol::Plain));
        frames.unwrap_or_default()
    }
}
