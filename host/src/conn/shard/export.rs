//! Connections that go on at other nodes of the cluster, where their clients have come back.

use std::rc::Rc;

use super::parts::Shard;
use crate::hub::{Claim, Departure, Released};
use crate::model::ConnId;

impl Shard {
    /// Keeps a connection for another node, which has yet to make itself known to the connection's scopes. Returns whether
    /// its client may go on with it.
    pub(super) fn claim(self: &Rc<Self>, id: ConnId, claim: &Claim) -> bool {
        if self.exports().is_claimed(id, self.now()) || self.imports().is_arriving(id) {
            return false;
        }
        let Ok(key) = claim.key.parse() else { return false };
        let Some((connection, at)) =
            self.free(&key, claim.progress, (&claim.user, claim.is_anonymous), &claim.namespace)
        else {
            return false;
        };
        // Before what its client sends elsewhere.
        self.send_connect_notice(&connection);
        let position = connection.with_replay(|buffer| buffer.position(at));
        if let Some(position) = position {
            self.exports().claim(id, position, self.now());
        }
        position.is_some()
    }

    /// Gives up a connection that was claimed, with what it took part in. No feature is told: it goes on.
    pub(super) fn release(&self, id: ConnId) -> Option<(Released, Departure)> {
        let position = self.exports().take(id, self.now())?;
        let connection = self.connection(id).filter(|connection| connection.transport.get().is_none())?;
        let released = connection
            .with_replay(|buffer| Some(buffer.release(buffer.index(position)?, &connection.protocol)))
            .flatten()?;
        self.count_out_detached();
        self.remove_connection(&connection);
        Some((released, self.shared().hub.disconnect(id)?))
    }
}
