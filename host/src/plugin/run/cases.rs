//! Calls that are remembered: recent ones, those that are recorded or compared, and those on which a feature failed.

use std::sync::Arc;

use roundhouse_contract::case::CaseEnd;

use super::state::{ThreadState, Visit};
use crate::plugin::load::call::Call;
use crate::plugin::load::generation::Generation;

impl ThreadState {
    /// The last call, with all that the component got. `None` if the component was not called.
    pub(super) fn last_call(&self, visit: &Visit<'_>, generation: &Generation) -> Option<Call> {
        let Visit { address, event, place, .. } = *visit;
        let state = place.and_then(|place| self.scopes[place].state.as_ref());
        Call::new(generation, address, self.called?, event, state)
    }

    /// Remembers the last call, whose outcome is not committed yet.
    pub(super) fn remember(&mut self, visit: &Visit<'_>, generation: &Generation) -> Option<Arc<Call>> {
        let Visit { plugin, event, .. } = *visit;
        let most = self.shared.config.recent_bytes / self.shared.inboxes.len();
        let rollout = plugin.rollout();
        // A query to all scopes of a plugin would take the place of all events.
        let is_kept = most > 0 && !event.is_query();
        if !is_kept && rollout.is_none() && !plugin.recorder.is_on() {
            return None;
        }
        let call = Arc::new(self.last_call(visit, generation)?);
        plugin.recorder.record(&call);
        if let Some(rollout) = rollout {
            rollout.offer(&call);
        }
        if is_kept {
            let recent = self.recent.entry(plugin.number).or_default();
            recent.push(&visit.address.key, call.bytes, call.clone(), most);
        }
        Some(call)
    }

    /// Keeps a call on which the feature failed as a case file, unless it failed in the same way before.
    pub(super) fn keep_case(&self, visit: &Visit<'_>, call: &Call, fault: &str) {
        let (cases, event) = (&visit.plugin.cases, visit.event.name());
        if cases.note(&call.id.digest, event, fault, self.shared.clock.now_ms()) {
            let options = self.shared.config.case_options(&visit.plugin.name);
            cases.add(event, fault, call.case(CaseEnd::Failed(fault.to_owned()), &options));
        }
    }
}
