//! The result of an attack: lost service, latency, and memory.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::attack::{Attack, Group};
use super::ledger::Served;
use super::tally::Tally;
use crate::bench::quantile;

/// The default deadline of a call, in milliseconds: other events may have to wait for one call.
const DEADLINE_MS: f64 = 50.0;
/// The allowed growth of memory under one attack, in megabytes. The default budgets of a host (its journal's and
/// store's queues, sessions of detached clients, unfinished input and the API's requests) come to less.
const MAX_GROWTH_MB: f64 = 512.0;

/// The latency of a number of requests.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    /// The number of requests.
    pub n: usize,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// The 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// The longest, in milliseconds.
    pub max_ms: f64,
}

impl Latency {
    /// From latencies in microseconds, sorted.
    pub fn of(sorted: &[u32]) -> Self {
        let at = |share| quantile(sorted, share) / 1000.0;
        Self { n: sorted.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// A host's resident memory, in megabytes.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    /// Before the attack, with the good clients alone.
    pub before: f64,
    /// The peak under attack.
    pub peak: f64,
    /// When the attackers have left.
    pub after: f64,
    /// Some seconds later.
    pub later: f64,
}

/// The result of one attack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// The name of the attack.
    pub name: String,
    /// The group of the attack.
    pub group: String,
    /// The attacker.
    pub who: String,
    /// The bytes that were sent, in words.
    pub what: String,
    /// The time that the attack ran, in seconds.
    pub seconds: f64,
    /// The latency of good clients without attackers; `None` in a short run.
    pub alone: Option<Latency>,
    /// The latency of good clients while the attackers attacked another host on this machine, if that was measured.
    pub machine: Option<Latency>,
    /// The latency of good clients under attack.
    pub during: Latency,
    /// The latency of newcomers under attack, from connecting to an answer.
    pub newcomers: Latency,
    /// The latency of the API for the operator under attack.
    pub operator: Latency,
    /// The service of good clients under attack, with its losses.
    pub served: Served,
    /// The memory of the host.
    pub memory: Memory,
    /// The CPU time of the host during the attack, in seconds.
    pub host_cpu: f64,
    /// The CPU time of the attackers, in seconds.
    pub attacker_cpu: f64,
    /// The attackers' sent and received frames.
    pub tally: Tally,
    /// Why the attack failed, if it did.
    pub failed: Option<String>,
    /// Whether the host's process ended.
    pub ended: bool,
}

impl Verdict {
    /// The verdict of an attack before its measurements.
    pub(super) fn of(group: Group, attack: &Attack) -> Self {
        Self {
            name: attack.name.to_owned(),
            group: group.name().to_owned(),
            who: attack.who.to_string(),
            what: attack.what.to_owned(),
            seconds: 0.0,
            alone: None,
            machine: None,
            during: Latency::default(),
            newcomers: Latency::default(),
            operator: Latency::default(),
            served: Served::default(),
            memory: Memory::default(),
            host_cpu: 0.0,
            attacker_cpu: 0.0,
            tally: Tally::default(),
            failed: None,
            ended: false,
        }
    }

    /// The verdict of several runs of one attack: a run with a loss, else the run whose ratio is the median.
    pub(super) fn median(mut runs: Vec<Self>) -> Option<Self> {
        if let Some(lost) = runs.iter().position(|run| run.loss().is_some() || run.failed.is_some()) {
            return Some(runs.swap_remove(lost));
        }
        runs.sort_by(|a, b| a.ratio().partial_cmp(&b.ratio()).unwrap_or(Ordering::Equal));
        (!runs.is_empty()).then(|| runs.swap_remove(runs.len() / 2))
    }

    /// The latency of good clients under attack, as a multiple of that without.
    pub fn ratio(&self) -> Option<f64> {
        self.alone.map(|alone| self.during.p99_ms / alone.p99_ms.max(f64::EPSILON))
    }

    /// The latency of good clients while another host on this machine is attacked, as a multiple of that without
    /// attackers: the part of [`Verdict::ratio`] that the machine causes.
    pub fn machine_ratio(&self) -> Option<f64> {
        let (alone, machine) = (self.alone?, self.machine?);
        Some(machine.p99_ms / alone.p99_ms.max(f64::EPSILON))
    }

    /// The losses in words; `None` if there are none.
    pub fn loss(&self) -> Option<String> {
        let Served { refused, disconnected, missing, unheard, said, .. } = &self.served;
        let mut losses = Vec::new();
        for (n, what) in
            [(refused, "refused"), (disconnected, "disconnected"), (missing, "unanswered"), (unheard, "unheard")]
        {
            if *n > 0 {
                losses.push(format!("{n} {what}"));
            }
        }
        if !said.is_empty() {
            losses.push(format!("({})", said.join("; ")));
        }
        losses.extend(self.tally.harm.iter().cloned());
        if self.ended {
            losses.push("the host ended".to_owned());
        }
        if self.memory.peak - self.memory.before > MAX_GROWTH_MB {
            losses.push(format!("{:.0} MB more memory", self.memory.peak - self.memory.before));
        }
        (!losses.is_empty()).then(|| losses.join(", "))
    }

    /// Whether good clients waited longer than twice their time without the attack plus one deadline.
    pub fn is_too_slow(&self) -> bool {
        let Some(alone) = self.alone else { return false };
        let without = self.machine.map_or(alone.p99_ms, |machine| machine.p99_ms.max(alone.p99_ms));
        self.during.p99_ms > 2.0 * without + DEADLINE_MS
    }

    /// Whether the attack did no harm.
    pub fn is_good(&self) -> bool {
        self.loss().is_none() && self.failed.is_none() && !self.is_too_slow()
    }

    /// The row of the attack in the table of one run.
    pub fn row(&self) -> String {
        let alone = self.alone.map_or_else(|| "–".to_owned(), |alone| format!("{:.1}", alone.p99_ms));
        let ratio = self.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.1}"));
        let machine = self.machine_ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.1}"));
        let Memory { before, peak, after, later } = self.memory;
        let slow = self.is_too_slow().then(|| "too slow".to_owned());
        let failed = self.failed.as_ref().map(|why| format!("NOT MADE: {why}"));
        let lost: Vec<String> = [self.loss(), slow, failed].into_iter().flatten().collect();
        let lost = if lost.is_empty() { "none".to_owned() } else { lost.join("; ") };
        format!(
            "| {} | {} | {alone} → {:.1} | {ratio} | {machine} | {:.0} / {:.0} | {before:.0} / {peak:.0} / {after:.0} / \
             {later:.0} | {:.1} / {:.1} | {} | {} |",
            self.name,
            self.who,
            self.during.p99_ms,
            self.newcomers.p99_ms,
            self.operator.p99_ms,
            self.host_cpu,
            self.attacker_cpu,
            cell(&lost),
            cell(&self.tally.line()),
        )
    }
}

/// Escapes text for a cell of a table.
pub(super) fn cell(text: &str) -> String {
    text.replace('|', "/").replace(['\n', '\r'], " ")
}

/// The head of the table of one run.
const HEAD: &str = "\
| attack | who | p99 alone → during, ms | ratio | ratio of the machine | newcomers / operator p99, ms | memory before / peak / \
after / later, MB | CPU s host / attackers | lost | attackers got |
|---|---|---|---|---|---|---|---|---|---|";

/// The table of one run.
pub fn table(verdicts: &[Verdict]) -> String {
    let mut table = HEAD.to_owned();
    for verdict in verdicts {
        // Writing to a string cannot fail.
        let _ = write!(table, "\n{}", verdict.row());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abuse::all;

    fn verdict(alone: f64, during: f64) -> Verdict {
        let (group, attack) = all().next().expect("there are attacks");
        let latency = |p99_ms| Latency { n: 100, p50_ms: 1.0, p99_ms, max_ms: p99_ms };
        Verdict { alone: Some(latency(alone)), during: latency(during), ..Verdict::of(group, attack) }
    }

    #[test]
    fn latency_goal_is_twice_plus_one_deadline() {
        assert!(verdict(10.0, 70.0).is_good());
        assert!(verdict(10.0, 71.0).is_too_slow());
        let machine = Some(Latency { p99_ms: 20.0, ..Latency::default() });
        assert!(Verdict { machine, ..verdict(10.0, 71.0) }.is_good());
        assert!(Verdict { alone: None, ..verdict(1.0, 1e6) }.is_good(), "a short run judges no latency");
    }

    #[test]
    fn median_run_counts_unless_one_lost() {
        let runs = || [30.0, 10.0, 20.0].map(|during| verdict(10.0, during)).to_vec();
        assert_eq!(Verdict::median(runs()).unwrap().ratio(), Some(2.0));
        let mut runs = runs();
        runs[1].served.missing = 1;
        assert_eq!(Verdict::median(runs).unwrap().loss().unwrap(), "1 unanswered");
        assert!(Verdict::median(Vec::new()).is_none());
    }

    #[test]
    fn each_loss_is_reported() {
        let mut lost = verdict(1.0, 1.0);
        assert_eq!(lost.loss(), None);
        lost.served.refused = 2;
        lost.ended = true;
        lost.memory.peak = MAX_GROWTH_MB + 1.0;
        lost.tally.harm.push("rolled back".to_owned());
        assert_eq!(lost.loss().unwrap(), "2 refused, rolled back, the host ended, 513 MB more memory");
        assert!(!lost.is_good() && table(&[lost]).lines().count() == 3);
    }
}
