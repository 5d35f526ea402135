//! The limit on connections of one user, and the probes that find lost connections of a user or address.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::parts::Shard;
use crate::conn::config::UserOverflow;
use crate::conn::state::{Phase, Timer, Transport, TransportId};
use crate::hub::ShardCommand;
use crate::metrics::Limit;
use crate::model::{CloseCode, ConnId, network_of};

/// Time to answer a probe. A client on a slow network answers in two or three seconds.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most connections that are probed for one refusal.
const MAX_PROBED: usize = 64;

/// The reason of a close that makes room for a newer connection of the user. A client must not reconnect automatically,
/// or two clients would replace each other for ever.
const REPLACED: &str = "replaced: this user opened more connections than it may have, and this was the oldest";

impl Shard {
    /// Whether a user is below the limit on connections.
    pub(super) fn has_user_capacity(&self, user: &str) -> bool {
        let limit = self.config().connections_per_user;
        limit == 0 || self.shared().hub.counted_connections_of(user).len() < limit
    }

    /// Ensures that a user may open another connection: at the limit, by the policy that is configured.
    ///
    /// # Errors
    /// The reason for the client, where the user may not.
    pub(super) fn ensure_user_capacity(&self, user: &str) -> Result<(), String> {
        if self.has_user_capacity(user) {
            return Ok(());
        }
        self.metrics().limited(Limit::ConnectionsPerUser);
        let limit = self.config().connections_per_user;
        if self.config().user_overflow == UserOverflow::Reject {
            self.probe_connections_of(user);
            return Err(format!(
                "this user has too many connections ({limit}): try again in some seconds, when one of them has ended"
            ));
        }
        let counted = self.shared().hub.counted_connections_of(user);
        for id in &counted[..(counted.len() + 1).saturating_sub(limit)] {
            // At once, so that the closed connection makes room for one new connection only.
            self.shared().hub.set_counted(*id, false);
            self.shared().hub.close(*id, CloseCode::TooManyConnections, REPLACED);
        }
        Ok(())
    }

    /// Probes the connections of a user, the oldest first.
    pub(super) fn probe_connections_of(&self, user: &str) {
        for id in self.shared().hub.counted_connections_of(user).into_iter().take(MAX_PROBED) {
            self.shared().hub.probe(id);
        }
    }

    /// Probes a connection: its client must answer within [`PROBE_TIMEOUT`].
    pub(super) fn probe_connection(self: &Rc<Self>, id: ConnId) {
        let transport = self.connection(id).and_then(|connection| self.transport_of(&connection));
        if let Some(transport) = transport {
            self.probe_transport(&transport);
        }
    }

    /// Probes the connections from an address on all shards.
    pub(super) fn probe_all_from(&self, address: IpAddr) {
        if self.shared().admission.may_probe(self.now()) {
            // An IPv6 network counts as one address.
            let address = network_of(address);
            let probe = || ShardCommand::ProbeAddress { address };
            self.shared().hub.shards().iter().for_each(|shard| shard.push(probe()));
        }
    }

    /// Probes the connections of this shard from an address, or an IPv6 network.
    pub(super) fn probe_address(self: &Rc<Self>, address: IpAddr) {
        let is_from = |transport: &Transport| network_of(transport.peer.ip()) == address && transport.counted.get();
        self.transports().filtered(is_from).iter().for_each(|transport| self.probe_transport(transport));
    }

    fn probe_transport(self: &Rc<Self>, transport: &Rc<Transport>) {
        // Before sign-in the authentication timeout ends the transport.
        if transport.phase.get() != Phase::Open {
            return;
        }
        let now = self.now();
        // An unanswered ping is a probe already.
        if transport.times.pinged.get() <= transport.times.heard.get() {
            self.ping(transport, now);
        }
        self.timers().schedule(now + PROBE_TIMEOUT.as_millis() as u64, Timer::Probe(transport.id));
    }

    /// Closes a transport whose client has not answered a probe in time.
    pub(super) fn finish_probe(self: &Rc<Self>, id: TransportId, deadline: u64) {
        let Some(transport) = self.transport(id) else { return };
        // A frame that arrived in the millisecond of the probe may be the answer.
        if transport.times.heard.get() + (PROBE_TIMEOUT.as_millis() as u64) < deadline {
            tracing::debug!(peer = %transport.peer, "a client did not answer a probe");
            self.close(&transport, CloseCode::GoingAway, "the client did not answer when its place was needed");
        }
    }
}
