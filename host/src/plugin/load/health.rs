//! The health of a plugin: its recent faults, and whether they lead to a rollback or to quarantine.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The calls within which faults are counted: enough that one unlucky payload changes nothing, few enough to act soon.
const WINDOW: u64 = 20;

/// Faults in the window after which a generation on trial is rolled back.
const FAULTS_TO_ROLL_BACK: usize = 5;

/// Faults in the window after which a plugin is quarantined.
const FAULTS_TO_QUARANTINE: usize = 10;

/// The same for a plugin that was in quarantine and has not recovered: enough that neither one sender nor the attempts at one
/// guaranteed event suffice.
const FAULTS_TO_QUARANTINE_AGAIN: usize = 5;

/// The most faults in the window that events of one sender count for, so that no single sender can cause a rollback or
/// a quarantine. Faults without a sender all count.
const FAULTS_OF_A_SENDER: usize = 2;

/// The trial of a generation after it was taken into use, in milliseconds. Only during the trial is it rolled back for
/// faults.
const TRIAL_MS: u64 = 5 * 60 * 1000;

/// The first quarantine, in milliseconds. Each further one is twice as long.
const FIRST_PAUSE_MS: u64 = 1000;

/// The longest quarantine, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 5 * 60 * 1000;

/// Calls without a fault after which earlier quarantines are forgotten.
const CALLS_TO_RECOVER: u32 = 100;

/// The consequence of a fault for its plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// The generation of this number is to be rolled back.
    RollBack(u64),
    /// The plugin is in quarantine for this many milliseconds from now.
    Quarantined(u64),
}

/// Calls over their deadline in a row before further ones get less time: one alone may be an unlucky payload.
const FREE_OVERRUNS: u32 = 2;

/// The most halvings of the time of a call.
const MAX_HALVINGS: u32 = 2;

/// Calls over their time in a row after which one has all of it again: a build that needs more than a part is found out.
const UNTIL_WHOLE: u32 = 8;

/// How much of its deadline a call of a build gets. A build that runs over it at each event would otherwise stop its thread, and
/// all else that is handled there, for a whole deadline each time, until its senders are refused or it is in quarantine.
#[derive(Debug, Default)]
pub(crate) struct Haste {
    overruns: AtomicU32,
}

impl Haste {
    /// What the deadline is divided by.
    pub(crate) fn divisor(&self) -> u32 {
        let overruns = self.overruns.load(Ordering::Relaxed) % UNTIL_WHOLE;
        1 << overruns.saturating_sub(FREE_OVERRUNS - 1).min(MAX_HALVINGS)
    }

    /// Notes whether a call was over its time. One that was not gives the next all of it.
    pub(crate) fn note(&self, is_over: bool) {
        if is_over {
            self.overruns.fetch_add(1, Ordering::Relaxed);
        } else if self.overruns.load(Ordering::Relaxed) > 0 {
            self.overruns.store(0, Ordering::Relaxed);
        }
    }
}

/// The faults and quarantines of one plugin. All times are milliseconds of uptime.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Whether the record has faults or quarantines to remember: for a healthy plugin a call costs one atomic load.
    troubled: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    generation: u64,
    activated: u64,
    /// Calls counted so far, without the faults of a sender beyond its share.
    n_calls: u64,
    /// The failed calls within the window: the number of each, and the client whose event it was, if any.
    faults: VecDeque<(u64, Option<Arc<str>>)>,
    /// Whether the rollback of this generation was asked for. If the rollback is refused, the plugin is put in
    /// quarantine like any other.
    roll_back_asked: bool,
    clean_calls: u32,
    pauses: u32,
    paused_until: Option<u64>,
}

impl Health {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a new record for a generation that is taken into use.
    pub(crate) fn activate(&self, generation: u64, now: u64) {
        *self.record() = Record { generation, activated: now, ..Record::default() };
        self.troubled.store(false, Ordering::Release);
    }

    /// The end of the plugin's quarantine; none if it is not in quarantine.
    pub(crate) fn paused_until(&self, now: u64) -> Option<u64> {
        if !self.troubled.load(Ordering::Acquire) {
            return None;
        }
        let mut record = self.record();
        match record.paused_until {
            Some(until) if until > now => Some(until),
            Some(_) => {
                // The quarantine is over: faults are counted from zero.
                record.paused_until = None;
                record.faults.clear();
                None
            }
            None => None,
        }
    }

    /// Notes a call without a fault.
    pub(crate) fn succeeded(&self) {
        if !self.troubled.load(Ordering::Acquire) {
            return;
        }
        let mut record = self.record();
        record.n_calls += 1;
        record.clean_calls += 1;
        if record.clean_calls >= CALLS_TO_RECOVER && record.paused_until.is_none() {
            record.pauses = 0;
            self.troubled.store(false, Ordering::Release);
        }
    }

    /// Notes a fault of a generation. `can_roll_back`: whether an earlier generation is loaded. `culprit`: the client
    /// whose event it was, if any.
    pub(crate) fn failed(&self, generation: u64, now: u64, can_roll_back: bool, culprit: Option<&Arc<str>>) -> Verdict {
        let mut record = self.record();
        // A call that began before the swap does not count against the new generation.
        if record.generation != generation || record.paused_until.is_some() {
            return Verdict::GoOn;
        }
        self.troubled.store(true, Ordering::Release);
        record.clean_calls = 0;
        let Some(faults) = record.add_fault(culprit) else { return Verdict::GoOn };
        let on_trial = now < record.activated + TRIAL_MS && !record.roll_back_asked;
        if can_roll_back && on_trial && faults >= FAULTS_TO_ROLL_BACK {
            record.roll_back_asked = true;
            return Verdict::RollBack(generation);
        }
        let is_first = record.pauses == 0;
        if faults < if is_first { FAULTS_TO_QUARANTINE } else { FAULTS_TO_QUARANTINE_AGAIN } {
            return Verdict::GoOn;
        }
        let pause = (FIRST_PAUSE_MS << record.pauses.min(20)).min(LONGEST_PAUSE_MS);
        record.pauses += 1;
        record.paused_until = Some(now + pause);
        Verdict::Quarantined(pause)
    }
}

impl Record {
    /// Adds a fault and returns the number of faults in the window; none if the sender's share of the window is used
    /// up.
    fn add_fault(&mut self, culprit: Option<&Arc<str>>) -> Option<usize> {
        let n_calls = self.n_calls;
        while self.faults.front().is_some_and(|(call, _)| n_calls - call >= WINDOW) {
            self.faults.pop_front();
        }
        let n_of_culprit =
            self.faults.iter().filter(|(_, other)| culprit.is_some() && other.as_ref() == culprit).count();
        if n_of_culprit >= FAULTS_OF_A_SENDER {
            return None;
        }
        self.n_calls += 1;
        self.faults.push_back((self.n_calls, culprit.cloned()));
        Some(self.faults.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(health: &Health, n: u32, now: u64, can_roll_back: bool) -> Verdict {
        (0..n).map(|_| health.failed(1, now, can_roll_back, None)).last().unwrap()
    }

    #[test]
    fn only_a_generation_on_trial_is_rolled_back() {
        let health = Health::default();
        health.activate(1, 0);
        assert_eq!(fail(&health, 4, 10, true), Verdict::GoOn);
        assert_eq!(fail(&health, 1, 10, true), Verdict::RollBack(1));
        // The rollback was refused.
        assert_eq!(fail(&health, 5, 10, true), Verdict::Quarantined(FIRST_PAUSE_MS));
        health.activate(1, 0);
        assert_eq!(fail(&health, 9, TRIAL_MS, true), Verdict::GoOn);
        assert_eq!(fail(&health, 1, TRIAL_MS, true), Verdict::Quarantined(FIRST_PAUSE_MS));
    }

    #[test]
    fn failing_plugin_is_quarantined_again_sooner() {
        let health = Health::default();
        health.activate(1, 0);
        assert_eq!(fail(&health, 10, 0, false), Verdict::Quarantined(FIRST_PAUSE_MS));
        assert!(health.paused_until(FIRST_PAUSE_MS).is_none());
        let fail_by = |who: &str| health.failed(1, FIRST_PAUSE_MS, false, Some(&who.into()));
        assert_eq!(["mal", "mal", "mal", "eve", "eve"].map(fail_by), [Verdict::GoOn; 5], "two senders are not enough");
        assert_eq!(fail_by("ana"), Verdict::Quarantined(2 * FIRST_PAUSE_MS));
    }

    #[test]
    fn repeated_overruns_shorten_the_deadline() {
        let haste = Haste::default();
        let divisors = |n: usize| -> Vec<u32> {
            let after = |_| {
                let divisor = haste.divisor();
                haste.note(true);
                divisor
            };
            (0..n).map(after).collect()
        };
        assert_eq!(divisors(12), [1, 1, 2, 4, 4, 4, 4, 4, 1, 1, 2, 4]);
        haste.note(false);
        assert_eq!(divisors(3), [1, 1, 2], "one that ends in time gives all of it back");
    }

    #[test]
    fn quarantine_doubles_to_a_bound_and_resets() {
        let health = Health::default();
        health.activate(1, 0);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let needed = if now == 0 { 10 } else { 5 };
            let Verdict::Quarantined(pause) = fail(&health, needed, now, false) else { panic!() };
            pauses.push(pause);
            assert_eq!(health.paused_until(now), Some(now + pause));
            now += pause;
            assert_eq!(health.paused_until(now), None);
        }
        assert_eq!(pauses[..3], [1000, 2000, 4000]);
        assert_eq!(pauses[11], LONGEST_PAUSE_MS);
        (0..CALLS_TO_RECOVER).for_each(|_| health.succeeded());
        assert_eq!(fail(&health, 10, now, false), Verdict::Quarantined(FIRST_PAUSE_MS));
    }

    #[test]
    fn sparse_and_other_generations_faults_are_ignored() {
        let health = Health::default();
        health.activate(2, 0);
        assert_eq!(fail(&health, 50, 0, true), Verdict::GoOn);
        health.activate(1, 0);
        for _ in 0..50 {
            assert_eq!(fail(&health, 1, 0, true), Verdict::GoOn);
            (0..10).for_each(|_| health.succeeded());
        }
    }

    #[test]
    fn one_sender_causes_neither_rollback_nor_quarantine() {
        let health = Health::default();
        health.activate(1, 0);
        let fail = |who: &str| health.failed(1, 0, true, Some(&who.into()));
        for _ in 0..100 {
            assert_eq!(fail("mal"), Verdict::GoOn);
        }
        assert_eq!([fail("eve"), fail("eve"), fail("eve")], [Verdict::GoOn; 3]);
        assert_eq!(fail("ana"), Verdict::RollBack(1), "the third sender that meets it");
    }
}
