//! The places of a user, where `limits.connections_per_user` bounds them: who gets one, and who has to give one up.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;

use super::parts::Shard;
use super::timers::Timer;
use crate::conn::state::transport::{Phase, Transport, TransportId};
use crate::hub::ShardCommand;
use crate::model::{CloseCode, ConnId, network_of};

/// Time to answer a probe. A client on a slow network answers in two or three seconds; one that was lost never does.
pub(in crate::conn) const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that one refusal has probed, at most.
const MAX_PROBED: usize = 64;

/// What a client is told that gives its place to a newer connection of its user. It must not come back by itself, or the
/// two would take turns for ever.
const REPLACED: &str = "replaced: this user opened more connections than it may have, and this was the oldest";

/// What happens when a user opens one connection more than `limits.connections_per_user`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserOverflow {
    /// It is refused for now, and the others are probed: one that was lost gives its place free within seconds.
    #[default]
    Reject,
    /// The user's oldest connection is closed (4009).
    ReplaceOldest,
}

impl Shard {
    /// Whether a user may have one more connection as things stand.
    pub(in crate::conn) fn has_user_capacity(&self, user: &str) -> bool {
        let limit = self.shared.config.connections_per_user;
        limit == 0 || self.shared.hub.counted_connections_of(user).len() < limit
    }

    /// Sees to it that a user may have one more connection: by the policy that is configured, if it has as many as it may.
    ///
    /// # Errors
    /// Where it may not, with what to tell the client.
    pub(in crate::conn) fn ensure_user_capacity(&self, user: &str) -> Result<(), String> {
        if self.has_user_capacity(user) {
            return Ok(());
        }
        let limit = self.shared.config.connections_per_user;
        if self.shared.config.user_overflow == UserOverflow::Reject {
            self.probe_connections_of(user);
            return Err(format!(
                "this user has too many connections ({limit}): try again in some seconds, when one of them has ended"
            ));
        }
        let counted = self.shared.hub.counted_connections_of(user);
        for id in &counted[..(counted.len() + 1).saturating_sub(limit)] {
            // At once, so that no other newcomer counts on the same place.
            self.shared.hub.set_counted(*id, false);
            self.shared.hub.close(*id, CloseCode::TooManyConnections, REPLACED);
        }
        Ok(())
    }

    /// Has the connections of a user probed, the oldest first.
    pub(in crate::conn) fn probe_connections_of(&self, user: &str) {
        for id in self.shared.hub.counted_connections_of(user).into_iter().take(MAX_PROBED) {
            self.shared.hub.probe(id);
        }
    }

    /// Asks a connection for a sign of life, unless it owes one already.
    pub(in crate::conn) fn probe_connection(self: &Rc<Self>, id: ConnId) {
        let transport = self.find(id).and_then(|connection| connection.transport.borrow().clone());
        if let Some(transport) = transport {
            self.probe_transport(&transport);
        }
    }

    /// Has the connections from an address probed, on all shards.
    pub(in crate::conn) fn probe_all_from(&self, address: IpAddr) {
        if self.shared.admission.may_probe(self.shared.clock.uptime_ms()) {
            // Those that are counted together.
            let address = network_of(address);
            let probe = || ShardCommand::ProbeAddress { address };
            self.shared.hub.shards().iter().for_each(|shard| shard.push(probe()));
        }
    }

    /// Asks the connections from an address, or an IPv6 network, for a sign of life.
    pub(in crate::conn) fn probe_address(self: &Rc<Self>, address: IpAddr) {
        let is_from = |transport: &Transport| network_of(transport.peer.ip()) == address && transport.counted.get();
        let transports: Vec<_> = self
            .transports
            .borrow()
            .iter()
            .filter(|(_, transport)| is_from(transport))
            .map(|(_, transport)| transport.clone())
            .collect();
        transports.iter().for_each(|transport| self.probe_transport(transport));
    }

    fn probe_transport(self: &Rc<Self>, transport: &Rc<Transport>) {
        // Before it is signed in there is another limit to its time.
        if transport.phase.get() != Phase::Open {
            return;
        }
        let now = self.shared.clock.uptime_ms();
        if transport.times.pinged.get() <= transport.times.heard.get() {
            self.ping(transport, now);
        }
        self.schedule(now + PROBE_TIMEOUT.as_millis() as u64, Timer::Probe(transport.id));
    }

    /// The time to answer a probe is over.
    pub(in crate::conn) fn finish_probe(self: &Rc<Self>, id: TransportId, deadline: u64) {
        let Some(transport) = self.find_transport(id) else { return };
        // What came in the very millisecond of the probe may be the answer.
        if transport.times.heard.get() + (PROBE_TIMEOUT.as_millis() as u64) < deadline {
            tracing::debug!(peer = %transport.peer, "a client did not answer a probe");
            self.close(&transport, CloseCode::GoingAway, "the client did not answer when its place was needed");
        }
    }
}
