//! Connections whose clients have lost the transport and may come back: the scopes that want to know are told `away`, then
//! `back`, or `left` where the client did not come back in time.

use std::sync::Arc;

use roundhouse_contract::ScopeAddress;

use super::worker::{Job, Worker};
use crate::model::ConnId;
use crate::plugin::event::{Event, Member, ReplyTo};
use crate::plugin::load::catalogue::Plugin;

impl Worker {
    /// Takes note of a change of presence. Says whether the scope is to be told: one that has seen the connection off, knows
    /// of a later change, or was never told that it is away, is not.
    pub(crate) fn note_presence(
        &mut self,
        plugin: &Plugin,
        address: &ScopeAddress,
        connection: ConnId,
        (is_away, n_changes): (bool, u32),
    ) -> bool {
        if !plugin.current().manifest.has_presence(&address.key) {
            return false;
        }
        let scope = self.scopes.get_mut(plugin.number, &address.key);
        let Some(part) = scope.and_then(|scope| scope.members.get_mut(&connection)) else { return false };
        if n_changes <= part.n_changes {
            return false;
        }
        part.n_changes = n_changes;
        let was_away = std::mem::replace(&mut part.is_away, is_away);
        is_away || was_away
    }

    /// A connection has come to take part in a scope: where its client is away at that moment, the scope is told that next.
    pub(crate) fn look_at_presence(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, connection: ConnId) {
        if !plugin.current().manifest.has_presence(&address.key) {
            return;
        }
        let hub = &self.shared.hub;
        let Some(((is_away, n_changes), identity)) = hub.presence(connection).zip(hub.identity(connection)) else {
            return;
        };
        let scope = self.scopes.get_mut(plugin.number, &address.key);
        let Some(part) = scope.and_then(|scope| scope.members.get_mut(&connection)) else { return };
        // What changed before it took part is none of the scope's business.
        part.n_changes = part.n_changes.max(n_changes - u32::from(is_away));
        if is_away {
            let event = Event::Presence { member: Member { connection, identity }, is_away, n_changes };
            let (plugin, address) = (plugin.clone(), address.clone());
            self.inbox.push(Job::Event { plugin, address, event, reply: ReplyTo::Nobody });
        }
    }
}
