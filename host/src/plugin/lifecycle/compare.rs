//! Comparing a candidate with the running build: both get the same calls, and nothing of it counts.

use std::sync::Arc;
use std::time::Duration;

use roundhouse_contract::case::CaseEnd;

use super::replay::Replayer;
use crate::model::thread_cpu_time;
use crate::plugin::guest::engine::Ticker;
use crate::plugin::load::call::Call;
use crate::plugin::load::generation::Generation;

/// Has two builds handle the same calls.
#[derive(Debug)]
pub(super) struct Comparer {
    candidate: Arc<Generation>,
    replayers: [Replayer; 2],
}

impl Comparer {
    pub(super) fn new(candidate: Arc<Generation>) -> Self {
        Self { candidate, replayers: <[Replayer; 2]>::default() }
    }

    /// What the running build and the candidate make of a call, and the CPU time that it took them.
    pub(super) fn call_both(
        &mut self,
        ticker: &Ticker,
        running: &Arc<Generation>,
        call: &Call,
    ) -> ([CaseEnd; 2], [Duration; 2]) {
        let has_same_schema = running.manifest.state_version == self.candidate.manifest.state_version;
        let [first, second] = &mut self.replayers;
        // Either may have written the state, which only the newer of them may know how to migrate to the older's schema.
        let builds = [running.clone(), self.candidate.clone()];
        let mut times = [Duration::ZERO; 2];
        let mut made = |replayer: &mut Replayer, n: usize| {
            let began = thread_cpu_time();
            let (build, other) = (&builds[n], &builds[1 - n]);
            let wanted = build.manifest.state_version;
            let helps = call.state.as_ref().is_some_and(|state| other.is_newer(state.version, wanted));
            let newer = if helps { std::slice::from_ref(other) } else { &[] };
            let mut end = replayer.call_again(ticker, (build, newer), call);
            times[n] = thread_cpu_time().saturating_sub(began);
            if let CaseEnd::Handled { state, .. } = &mut end
                && !has_same_schema
            {
                // States of different schemas differ by themselves.
                *state = None;
            }
            end
        };
        let mut ends = [made(first, 0), made(second, 1)];
        if second.cannot_migrate && self.candidate.manifest.migrates_partially {
            // The scope would stay on the running build.
            ends[1] = ends[0].clone();
        }
        // The time of a migration, which only one of them has to make, says nothing about their calls.
        let times = if has_same_schema { times } else { [Duration::ZERO; 2] };
        (ends, times)
    }
}
