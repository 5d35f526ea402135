//! How a plugin is doing: when to go back to the generation before, and when to leave it alone for a while.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The calls that a judgement is made on: enough that one unlucky payload is not the end, few enough to act at once.
const WINDOW: u64 = 20;

/// Faults in the window after which a generation on trial is taken back.
const FAULTS_TO_ROLL_BACK: usize = 5;

/// Faults in the window after which a plugin is quarantined.
const FAULTS_TO_QUARANTINE: usize = 10;

/// Faults in the window that events of one sender count for, at most: a generation is taken back, and a plugin
/// quarantined, for what several senders meet, or its own events, and never because one of them wants that.
const FAULTS_OF_A_SENDER: usize = 2;

/// A generation is on trial for so long after it was taken into use, in milliseconds.
const TRIAL_MS: u64 = 5 * 60 * 1000;

/// The first pause, in milliseconds. Each one that follows is twice as long.
const FIRST_PAUSE_MS: u64 = 1000;

/// The longest pause, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 5 * 60 * 1000;

/// Calls without a fault after which earlier pauses are forgotten.
const CALLS_TO_RECOVER: u32 = 100;

/// What to do after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    GoOn,
    /// Take the generation of this number out of use.
    RollBack(u64),
    /// It is in quarantine now, for so many milliseconds.
    Quarantined(u64),
}

/// The record of one plugin. All times are milliseconds of uptime.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Whether there is anything on the record, so that healthy plugins cost one load.
    troubled: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    generation: u64,
    activated: u64,
    /// Calls of this record, those that one sender brought to fail beyond its share left out.
    n_calls: u64,
    /// The calls that failed within the window: each its number, and the sender that brought it about, if one did.
    faults: VecDeque<(u64, Option<Arc<str>>)>,
    /// Whether this generation's roll-back was asked for. If it is refused, the plugin is paused like any other.
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

    /// Until when the plugin is in quarantine, if it is.
    pub(crate) fn paused_until(&self, now: u64) -> Option<u64> {
        if !self.troubled.load(Ordering::Acquire) {
            return None;
        }
        let mut record = self.record();
        match record.paused_until {
            Some(until) if until > now => Some(until),
            Some(_) => {
                // The pause is over: it is judged anew.
                record.paused_until = None;
                record.faults.clear();
                None
            }
            None => None,
        }
    }

    /// Notes a call that went well.
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

    /// Notes a fault of a generation. `can_roll_back` says whether there is one before it; `culprit` is the client
    /// whose event it was, if it was one's.
    pub(crate) fn failed(&self, generation: u64, now: u64, can_roll_back: bool, culprit: Option<&Arc<str>>) -> Verdict {
        let mut record = self.record();
        // A call that began before the swap says nothing of the new generation.
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
        if faults < FAULTS_TO_QUARANTINE {
            return Verdict::GoOn;
        }
        let pause = (FIRST_PAUSE_MS << record.pauses.min(20)).min(LONGEST_PAUSE_MS);
        record.pauses += 1;
        record.paused_until = Some(now + pause);
        Verdict::Quarantined(pause)
    }
}

impl Record {
    /// Adds a fault, and says how many there are in the window. None where its sender has had its share in it.
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
        // It was refused.
        assert_eq!(fail(&health, 5, 10, true), Verdict::Quarantined(FIRST_PAUSE_MS));
        health.activate(1, 0);
        assert_eq!(fail(&health, 9, TRIAL_MS, true), Verdict::GoOn);
        assert_eq!(fail(&health, 1, TRIAL_MS, true), Verdict::Quarantined(FIRST_PAUSE_MS));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_reset() {
        let health = Health::default();
        health.activate(1, 0);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let Verdict::Quarantined(pause) = fail(&health, 10, now, false) else { panic!() };
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
    fn sparse_and_foreign_faults_do_not_count() {
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
