//! What came of an attack: whether anybody lost service, how much later they were served, and what memory it took.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::attack::{Attack, Group};
use super::ledger::Served;
use super::tally::Tally;
use crate::bench::quantile;

/// One deadline of a call by default, in milliseconds: neighbours may have to wait for it.
const DEADLINE_MS: f64 = 50.0;
/// By how much memory may grow under one attack, in megabytes. The budgets that a host has by default (its journal's and
/// store's queues, what is kept for clients that are away, what strangers and the API may hold) come to less.
const MAX_GROWTH_MB: f64 = 512.0;

/// How long something took, of many.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Latency {
    /// How many.
    pub n: usize,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// What one of a hundred took longer than.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latency {
    /// Of figures in microseconds, in order of size.
    pub fn of(sorted: &[u32]) -> Self {
        let at = |share| quantile(sorted, share) / 1000.0;
        Self { n: sorted.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
    }
}

/// A host's resident memory, in megabytes.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Memory {
    /// With the good clients alone.
    pub before: f64,
    /// The most while it was attacked.
    pub peak: f64,
    /// When the attackers had just gone.
    pub after: f64,
    /// Some seconds later.
    pub later: f64,
}

/// What came of one attack.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Who did it.
    pub who: String,
    /// What was sent.
    pub what: String,
    /// How long it went on.
    pub seconds: f64,
    /// How long good clients waited with nobody else there; not measured in a short run.
    pub alone: Option<Latency>,
    /// The same while the attackers attacked another host on this machine, where that was asked for.
    pub machine: Option<Latency>,
    /// The same under attack.
    pub during: Latency,
    /// How long newcomers took to be in and answered under attack.
    pub newcomers: Latency,
    /// How long the operator waited for the API under attack.
    pub operator: Latency,
    /// What was lost.
    pub served: Served,
    /// Memory of the host.
    pub memory: Memory,
    /// The processor time of the host in that time, in seconds.
    pub host_cpu: f64,
    /// The same of the attackers.
    pub attacker_cpu: f64,
    /// What the attackers sent and got.
    pub tally: Tally,
    /// Why the attack could not be made.
    pub failed: Option<String>,
    /// Whether the host ended.
    pub ended: bool,
}

impl Verdict {
    /// Of an attack of which nothing is known yet.
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

    /// What the good ones waited under attack, as a multiple of what they wait alone.
    pub fn ratio(&self) -> Option<f64> {
        self.alone.map(|alone| self.during.p99_ms / alone.p99_ms.max(f64::EPSILON))
    }

    /// The share of that which the machine has, not the host: attackers run on it, too.
    pub fn machine_ratio(&self) -> Option<f64> {
        let (alone, machine) = (self.alone?, self.machine?);
        Some(machine.p99_ms / alone.p99_ms.max(f64::EPSILON))
    }

    /// What somebody lost; nothing where nobody did.
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

    /// Whether the good ones waited longer than twice what they wait without the attack and one deadline.
    pub fn is_too_slow(&self) -> bool {
        let Some(alone) = self.alone else { return false };
        let without = self.machine.map_or(alone.p99_ms, |machine| machine.p99_ms.max(alone.p99_ms));
        self.during.p99_ms > 2.0 * without + DEADLINE_MS
    }

    /// Whether it is as it should be.
    pub fn is_good(&self) -> bool {
        self.loss().is_none() && self.failed.is_none() && !self.is_too_slow()
    }

    /// Its row in the table of one run.
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

/// Text that breaks no table.
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
        // Writing to a string does not fail.
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
    fn goal_is_twice_plus_one_deadline() {
        assert!(verdict(10.0, 70.0).is_good());
        assert!(verdict(10.0, 71.0).is_too_slow());
        let machine = Some(Latency { p99_ms: 20.0, ..Latency::default() });
        assert!(Verdict { machine, ..verdict(10.0, 71.0) }.is_good());
        assert!(Verdict { alone: None, ..verdict(1.0, 1e6) }.is_good(), "a short run judges no latency");
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
