//! Calls that are kept as case files: those on which a feature failed, and those that are recorded.

use std::sync::Arc;

use roundhouse_contract::case::{CASE_FORMAT, Case, CaseBuild, CaseContext, CaseEnd, CaseState};

use super::invoke::context_of;
use super::state::{ThreadState, Visit};
use crate::plugin::guest::case;
use crate::plugin::load::generation::{Generation, GenerationId};
use crate::plugin::load::options::CaseOptions;

impl ThreadState {
    /// The last call as a case, which ended so. `None` if the component was not called.
    fn case_of(&self, visit: &Visit<'_>, generation: &Generation, end: CaseEnd) -> Option<Case> {
        let Visit { plugin, address, event, place, .. } = *visit;
        let (seed, now) = self.called?;
        let scope = place.map(|place| &self.scopes[place]);
        let params: Vec<&str> = address.params.iter().map(String::as_str).collect();
        let context = context_of(&self.shared, visit, scope, (generation, seed, &params));
        let GenerationId { name, version, generation: number, digest } = generation.id.clone();
        let state = scope.and_then(|scope| scope.state.as_ref());
        let mut case = Case {
            format: CASE_FORMAT,
            build: CaseBuild { name, version, generation: number, digest },
            at_ms: self.shared.clock.now_ms(),
            end,
            redacted: Vec::new(),
            context: CaseContext { now, ..case::context_of(&context) },
            event: case::event_of(event),
            state: state.map(|state| CaseState { version: state.version, bytes: (&*state.bytes).into() }),
        };
        let options = self.shared.config.plugins.get(&plugin.name).map(|options| options.cases.clone());
        let CaseOptions { keep_claims, redact } = options.unwrap_or_default();
        case.redact(!keep_claims, &redact);
        Some(case)
    }

    /// Keeps an event on which the feature failed as a case file, unless it failed in the same way before.
    pub(super) fn keep_case(&self, visit: &Visit<'_>, generation: &Generation, fault: &str) {
        let (cases, event) = (&visit.plugin.cases, visit.event.name());
        if self.called.is_some() && cases.note(&generation.id.digest, event, fault, self.shared.clock.now_ms()) {
            let case = self.case_of(visit, generation, CaseEnd::Failed(fault.to_owned()));
            case.into_iter().for_each(|case| cases.add(event, fault, case));
        }
    }

    /// Records the last call, which is not committed yet. What came of it is found out when the recording has ended.
    pub(super) fn record(&self, visit: &Visit<'_>, generation: &Arc<Generation>) {
        let unknown = CaseEnd::Handled { effects: Vec::new(), state: None };
        if let Some(case) = self.case_of(visit, generation, unknown) {
            visit.plugin.recorder.record(case, generation);
        }
    }
}
