//! The comparison of what a candidate and the running build make of the same calls.

use std::time::Duration;

use roundhouse_contract::Tally;
use roundhouse_contract::case::CaseEnd;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::Call;

/// A comparison so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Comparison {
    pub(crate) tally: Tally,
    /// The calls on which the candidate failed, and the running build did not.
    pub(crate) failed: u64,
    /// The first of them, in words.
    pub(crate) first_failure: Option<String>,
    /// The CPU time of the running build and of the candidate.
    pub(crate) times: [Duration; 2],
}

impl Comparison {
    /// Adds what the running build and the candidate made of a call, and the CPU time that it took them. Returns
    /// whether it differs.
    pub(crate) fn add(&mut self, call: &Call, (ends, times): ([CaseEnd; 2], [Duration; 2])) -> bool {
        let (event, scope) = (call.event.name(), &call.address.key);
        let is_different = self.tally.add(event, scope, &ends[0], &ends[1]);
        if let (CaseEnd::Failed(why), false) = (&ends[1], ends[0].is_fault()) {
            self.failed += 1;
            self.first_failure.get_or_insert_with(|| format!("{event} in {scope}: {why}"));
        }
        self.times.iter_mut().zip(times).for_each(|(sum, time)| *sum += time);
        is_different
    }

    /// Why the candidate is refused; `None` if it has not failed.
    pub(crate) fn refusal(&self) -> Option<String> {
        let first = self.first_failure.as_ref()?;
        let (failed, events) = (self.failed, self.tally.calls);
        Some(format!("it failed on {failed} of {events} events that the running build handled, first on {first}"))
    }

    pub(crate) fn report(&self, skipped: u64) -> ComparisonReport {
        let mean = |time: Duration| time.as_secs_f64() * 1e6 / self.tally.calls.max(1) as f64;
        let differences = self.tally.kinds().into_iter().map(|kind| DifferenceReport {
            event: kind.event.to_owned(),
            difference: kind.difference.to_owned(),
            events: kind.calls,
            first_scope: kind.first.to_owned(),
        });
        ComparisonReport {
            events: self.tally.calls,
            different: self.tally.different,
            failed: self.failed,
            skipped,
            running_mean_us: mean(self.times[0]),
            candidate_mean_us: mean(self.times[1]),
            differences: differences.collect(),
        }
    }
}

/// What a candidate makes of events, compared with the running build.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Comparison")]
pub struct ComparisonReport {
    /// The events that both builds got.
    pub events: u64,
    /// The events of which they make something different.
    pub different: u64,
    /// The events on which the candidate failed, and the running build did not.
    pub failed: u64,
    /// The events that were left out, because the host was busy.
    pub skipped: u64,
    /// The running build's mean CPU time for an event, in microseconds.
    pub running_mean_us: f64,
    /// The candidate's.
    pub candidate_mean_us: f64,
    /// The differences, the most frequent first.
    pub differences: Vec<DifferenceReport>,
}

/// A difference that some events have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Difference")]
pub struct DifferenceReport {
    /// The event's name.
    pub event: String,
    /// The difference, in words and without values.
    pub difference: String,
    /// How many events have it.
    pub events: u64,
    /// The scope of the first of them.
    pub first_scope: String,
}
