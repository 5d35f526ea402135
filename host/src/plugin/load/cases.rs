//! The case files of a plugin: the events on which it failed, for its authors.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use roundhouse_contract::case::Case;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

/// The most cases of a plugin, and the most bytes of all of them. The oldest goes first.
const MAX_CASES: usize = 32;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The cases of a plugin: one for each way in which a build fails on events of one name.
#[derive(Default)]
pub(crate) struct Cases(Mutex<Kept>);

impl fmt::Debug for Cases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cases").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Kept {
    last_id: u64,
    bytes: usize,
    cases: VecDeque<KeptCase>,
}

struct KeptCase {
    id: u64,
    event: String,
    fault: String,
    count: u64,
    last_ms: u64,
    bytes: usize,
    case: Case,
}

/// A case as the API shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "Case")]
pub struct CaseReport {
    /// Its number, by which it is told from other cases of the plugin.
    pub id: u64,
    /// Its name among the cases of all plugins.
    pub name: String,
    /// The plugin.
    pub plugin: String,
    /// How often the build failed in this way on events of this name.
    pub count: u64,
    /// When it did so last, in milliseconds since 1970.
    pub last_ms: u64,
    /// The event's name.
    pub event: String,
    /// The scope.
    pub scope: String,
    /// How the build failed.
    pub fault: String,
    /// The build.
    pub generation: u64,
    /// The case file of the first time.
    pub case: Value,
}

impl Cases {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No code that holds the lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a build failed. Returns whether it never failed in this way on such an event before: then its case is to be
    /// added.
    pub(crate) fn note(&self, digest: &str, event: &str, fault: &str, now_ms: u64) -> bool {
        let mut kept = self.lock();
        let is_it = |kept: &&mut KeptCase| {
            let case = &kept.case;
            kept.event == event && case.build.digest == digest && kept.fault == fault
        };
        let Some(known) = kept.cases.iter_mut().find(is_it) else { return true };
        (known.count, known.last_ms) = (known.count + 1, now_ms);
        false
    }

    /// Adds a case, and drops the oldest ones beyond the bounds.
    pub(crate) fn add(&self, event: &str, fault: &str, case: Case) {
        let bytes = serde_json::to_vec(&case).map_or(usize::MAX, |text| text.len());
        if bytes > MAX_BYTES {
            return;
        }
        let mut kept = self.lock();
        kept.last_id += 1;
        kept.bytes += bytes;
        let kept_case = KeptCase {
            id: kept.last_id,
            event: event.to_owned(),
            fault: fault.to_owned(),
            count: 1,
            last_ms: case.at_ms,
            bytes,
            case,
        };
        kept.cases.push_back(kept_case);
        while (kept.cases.len() > MAX_CASES || kept.bytes > MAX_BYTES)
            && let Some(oldest) = kept.cases.pop_front()
        {
            kept.bytes -= oldest.bytes;
        }
    }

    /// The cases, the newest first.
    pub(crate) fn reports(&self) -> Vec<CaseReport> {
        let report = |kept: &KeptCase| CaseReport {
            id: kept.id,
            name: format!("{}-{}", kept.case.build.name, kept.id),
            plugin: kept.case.build.name.clone(),
            count: kept.count,
            last_ms: kept.last_ms,
            event: kept.event.clone(),
            scope: kept.case.context.scope.clone(),
            fault: kept.fault.clone(),
            generation: kept.case.build.generation,
            case: serde_json::to_value(&kept.case).unwrap_or_default(),
        };
        self.lock().cases.iter().rev().map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use roundhouse_contract::case::{CASE_FORMAT, CaseBuild, CaseContext, CaseEnd, CaseEvent};
    use serde_json::value::to_raw_value;

    use super::*;

    fn case(event: &str, fault: &str, size: usize) -> Case {
        let (name, version, digest) = ("n".to_owned(), "1.0.0".to_owned(), "d".to_owned());
        let data = to_raw_value(&"x".repeat(size)).unwrap();
        Case {
            format: CASE_FORMAT,
            build: CaseBuild { name, version, generation: 1, digest },
            at_ms: 5,
            end: CaseEnd::Failed(fault.to_owned()),
            redacted: Vec::new(),
            context: CaseContext {
                now: 5,
                seed: 0,
                sequence: 1,
                scope: "s:1".to_owned(),
                params: Vec::new(),
                room_connections: 0,
                room_users: 0,
                connection_in_room: false,
                user_connections: 0,
                settings: to_raw_value(&()).unwrap(),
            },
            event: CaseEvent::Other { name: event.to_owned(), data },
            state: None,
        }
    }

    #[test]
    fn repeated_fault_is_counted_once() {
        let cases = Cases::default();
        assert!(cases.note("d", "a", "it trapped", 5));
        cases.add("a", "it trapped", case("a", "it trapped", 1));
        assert!(!cases.note("d", "a", "it trapped", 9));
        assert!(cases.note("d", "b", "it trapped", 9) && cases.note("other", "a", "it trapped", 9));
        let report = &cases.reports()[0];
        assert_eq!((report.count, report.last_ms, &*report.scope), (2, 9, "s:1"));
        assert_eq!(report.case["event"]["other"]["name"], "a");
    }

    #[test]
    fn cases_are_bounded_in_number_and_bytes() {
        let cases = Cases::default();
        (0..MAX_CASES + 3).for_each(|n| cases.add(&n.to_string(), "f", case("x", "f", 1)));
        let ids: Vec<_> = cases.reports().iter().map(|report| report.id).collect();
        assert_eq!((ids.len(), ids[0], ids[MAX_CASES - 1]), (MAX_CASES, MAX_CASES as u64 + 3, 4));
        cases.add("big", "f", case("big", "f", MAX_BYTES - 1000));
        assert!(cases.lock().bytes <= MAX_BYTES && cases.reports().len() < MAX_CASES);
        cases.add("too big", "f", case("too big", "f", MAX_BYTES));
        assert_eq!(cases.reports()[0].event, "big");
    }
}
