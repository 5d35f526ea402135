//! Presence in a scope: a scope that asks for presence gets `away` and `back` of the connections that take part in it.

use super::job::{Envelope, Job};
use super::scopes::Place;
use super::state::ThreadState;
use crate::model::ConnId;
use crate::plugin::event::{Event, Member};

impl ThreadState {
    /// Notes a change of presence. Returns whether the scope gets the event: not if the connection is no member, the
    /// scope knows a later change, or the event is a `back` without an `away` before.
    pub(super) fn note_presence(&mut self, place: Place, connection: ConnId, is_away: bool, n_changes: u32) -> bool {
        let scope = &mut self.scopes[place];
        if !scope.plugin.current().manifest.has_presence(&scope.address.key) {
            return false;
        }
        let Some(member) = scope.members.get_mut(&connection).filter(|member| n_changes > member.n_changes) else {
            return false;
        };
        member.n_changes = n_changes;
        let was_away = std::mem::replace(&mut member.is_away, is_away);
        is_away || was_away
    }

    /// Brings the presence of a new member up to date: if its connection is detached at that moment, the scope gets
    /// `away` next.
    pub(super) fn catch_up_presence(&mut self, place: Place, connection: ConnId) {
        let scope = &mut self.scopes[place];
        if !scope.plugin.current().manifest.has_presence(&scope.address.key) {
            return;
        }
        let hub = &self.shared.hub;
        let Some(((is_away, n_changes), identity)) = hub.presence(connection).zip(hub.identity(connection)) else {
            return;
        };
        let Some(member) = scope.members.get_mut(&connection) else { return };
        // Changes from before the connection became a member are not told.
        member.n_changes = member.n_changes.max(n_changes - u32::from(is_away));
        if is_away {
            let event = Event::Presence { member: Member { connection, identity }, is_away, n_changes };
            let (plugin, address) = (scope.plugin.clone(), scope.address.clone());
            self.inbox.push(Job::Event(Envelope::without_reply(plugin, address, event)));
        }
    }
}
