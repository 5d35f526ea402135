//! A look at one scope, for operators.

use super::scope_view::{InMemory, ScopeView};
use super::state::ThreadState;
use crate::model::ConnId;

impl ThreadState {
    pub(super) fn view_scope(&mut self, plugin: u32, key: &str) -> ScopeView {
        let is_elsewhere = self.partitions.is_some() && self.batch_of(key).is_none();
        let scope = self.scopes.find(plugin, key).map(|place| &self.scopes[place]);
        let scope = scope.filter(|scope| scope.loading.is_none());
        let in_memory = scope.map(|scope| {
            let identity = |connection: ConnId| match &scope.roster {
                Some(roster) => roster.identity(connection).cloned(),
                None => self.shared.hub.identity(connection),
            };
            let members = scope.members.iter();
            InMemory {
                state: scope.state.clone(),
                sequence: scope.sequence,
                timers: scope
                    .timers
                    .iter()
                    .map(|(name, timer)| (name.clone(), timer.due_ms, timer.payload.clone()))
                    .collect(),
                members: members.map(|(id, member)| (*id, identity(*id), member.joined)).collect(),
                n_waiting: scope.n_deferred(),
            }
        });
        let calls = self.recent.get(&plugin).map(|recent| recent.calls(Some(key))).unwrap_or_default();
        ScopeView { is_elsewhere, scope: in_memory, calls }
    }
}
