//! A rollout: a candidate build beside the running one, in the shadow or on a share of the scopes, until it is promoted or gone.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::call::Call;
use super::comparison::{Comparison, ComparisonReport};
use super::generation::Generation;
use super::options::CanaryBounds;
use super::pins::{Pin, PinnedScopes};
use crate::model::GenerationId;

/// The most calls that wait to be compared, and their bytes. Further ones are left out.
const MAX_WAITING: usize = 1024;
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// The most scopes that go back, of those that end a canary, which events of one client count for.
const PINS_OF_A_CLIENT: usize = 2;

/// The calls that have to be compared before their times mean something.
const TIMED_CALLS: u64 = 200;

/// A canary ends only if its calls take so much longer than those of the running build, whatever their ratio.
const SLOWER_BY: Duration = Duration::from_micros(200);

/// What a candidate is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutKind {
    /// It gets copies of the events, and nothing that it makes of them counts.
    Shadow {
        /// Whether it takes the place of the running build in the end, if it makes the same of all events.
        promotes: bool,
    },
    /// It handles this share of the scopes, in thousandths.
    Canary(u32),
}

/// A candidate build on its way.
#[derive(Debug)]
pub(crate) struct Rollout {
    pub(crate) candidate: Arc<Generation>,
    /// The candidate's component.
    pub(crate) component: Vec<u8>,
    pub(crate) kind: RolloutKind,
    /// In milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// When it ends by itself, in milliseconds of uptime.
    pub(crate) until: Option<u64>,
    bounds: CanaryBounds,
    pins: RwLock<Pins>,
    /// The calls that wait to be compared, and their bytes.
    waiting: Mutex<(VecDeque<Arc<Call>>, usize)>,
    skipped: AtomicU64,
    comparison: Mutex<Comparison>,
}

/// The scopes that went back to the running build.
#[derive(Debug, Default)]
struct Pins {
    scopes: PinnedScopes,
    /// When, in milliseconds of uptime, within the window, and the client whose event it was, if one's.
    recent: VecDeque<(u64, Option<Arc<str>>)>,
}

impl Rollout {
    pub(crate) fn new(
        (candidate, component): (Arc<Generation>, Vec<u8>),
        kind: RolloutKind,
        started_ms: u64,
        until: Option<u64>,
        bounds: CanaryBounds,
    ) -> Self {
        let (pins, waiting, comparison) = (RwLock::default(), Mutex::default(), Mutex::default());
        let skipped = AtomicU64::new(0);
        Self { candidate, component, kind, started_ms, until, bounds, pins, waiting, skipped, comparison }
    }

    /// Whether the candidate handles a scope.
    pub(crate) fn handles(&self, scope: &str) -> bool {
        let RolloutKind::Canary(per_mille) = self.kind else { return false };
        // What belongs to no scope is the running build's.
        !scope.is_empty()
            && share_of(scope) < per_mille
            && !self
                .pins
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .scopes
                .contains(scope, self.candidate.id.generation)
    }

    /// Gives a scope back to the running build for the rest of the rollout. Returns why the rollout is to end, if it is.
    pub(crate) fn pin(&self, scope: &Arc<str>, reason: &str, now: u64, culprit: Option<Arc<str>>) -> Option<String> {
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        pins.scopes.insert(scope.clone(), self.candidate.id.generation, reason.to_owned());
        let CanaryBounds { scopes, window, .. } = self.bounds;
        let window_ms = window.as_millis() as u64;
        while pins.recent.front().is_some_and(|(at, _)| at.saturating_add(window_ms) < now) {
            pins.recent.pop_front();
        }
        let n_of_client = pins.recent.iter().filter(|(_, other)| culprit.is_some() && *other == culprit).count();
        if n_of_client < PINS_OF_A_CLIENT {
            pins.recent.push_back((now, culprit));
        }
        let n = pins.recent.len();
        (n >= scopes).then(|| {
            let window = humantime::format_duration(window);
            let scopes = if n == 1 { "scope" } else { "scopes" };
            format!("it failed on {n} {scopes} within {window}, last on {scope}: {reason}")
        })
    }

    /// Gives a scope back to the running build for the rest of the rollout, and does not count it: the candidate migrates
    /// partially, and cannot take over the scope's state.
    pub(crate) fn set_aside(&self, scope: &Arc<str>, reason: &str) {
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        pins.scopes.insert(scope.clone(), self.candidate.id.generation, reason.to_owned());
    }

    /// Takes a call to be compared: in the shadow any, of a canary those that the candidate has handled.
    pub(crate) fn offer(&self, call: &Arc<Call>) {
        if matches!(self.kind, RolloutKind::Canary(_)) && !Arc::ptr_eq(&call.id, &self.candidate.id) {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (calls, bytes) = &mut *waiting;
        if calls.len() < MAX_WAITING && *bytes + call.bytes <= MAX_WAITING_BYTES {
            *bytes += call.bytes;
            calls.push_back(call.clone());
        } else {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The calls that wait to be compared.
    pub(crate) fn take_waiting(&self) -> VecDeque<Arc<Call>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner)).0
    }

    pub(crate) fn comparison(&self) -> MutexGuard<'_, Comparison> {
        self.comparison.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the candidate takes much longer than the running build, and in which words.
    pub(crate) fn is_slower(&self) -> Option<String> {
        let comparison = self.comparison();
        let calls = u32::try_from(comparison.tally.calls).unwrap_or(u32::MAX);
        let [running, candidate] = comparison.times;
        let is_slower =
            u64::from(calls) >= TIMED_CALLS && candidate > running.mul_f64(self.bounds.slowdown) + SLOWER_BY * calls;
        is_slower.then(|| {
            let mean = |time: Duration| time.as_micros() / u128::from(calls);
            format!("its calls take {} µs, and those of the running build {} µs", mean(candidate), mean(running))
        })
    }

    /// The report on the rollout; `ended` says how it ended, if it has.
    pub(crate) fn report(&self, ended: Option<String>) -> RolloutReport {
        let pins = self.pins.read().unwrap_or_else(PoisonError::into_inner);
        let (pinned_scopes, pinned) = pins.scopes.report(self.candidate.id.generation);
        let (kind, percent) = match self.kind {
            RolloutKind::Shadow { .. } => ("shadow", None),
            RolloutKind::Canary(per_mille) => ("canary", Some(f64::from(per_mille) / 10.0)),
        };
        RolloutReport {
            candidate: GenerationId::clone(&self.candidate.id),
            kind,
            percent,
            started_ms: self.started_ms,
            ended,
            pinned_scopes,
            pinned,
            comparison: self.comparison().report(self.skipped.load(Ordering::Relaxed)),
        }
    }
}

/// The place of a scope among all, by which a canary takes its share: 0 to 999, the same in each process.
fn share_of(scope: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    scope.hash(&mut hasher);
    (hasher.finish() % 1000) as u32
}

/// A rollout as the API shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Rollout")]
pub struct RolloutReport {
    /// The build that is tried.
    pub candidate: GenerationId,
    /// `shadow` or `canary`.
    pub kind: &'static str,
    /// The share of the scopes that the candidate handles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// When it began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// How many scopes went back to the running build, because the candidate failed on them.
    pub pinned_scopes: usize,
    /// Some of these scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<Pin>,
    /// What the candidate makes of events, compared with the running build.
    pub comparison: ComparisonReport,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_spread_evenly() {
        let n = (0..10_000).filter(|n| share_of(&format!("ticket:{n}")) < 50).count();
        assert!((400..600).contains(&n), "{n} of 10,000 scopes at 5 %");
    }
}
