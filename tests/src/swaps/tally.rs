//! The faults that the bench has found, by kind, and the first of them in words.

use std::fmt;

/// The greatest number of faults that are kept in words: the first ones lead to the cause.
const MAX_FINDINGS: usize = 30;

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A connection ended that the bench did not cut, or a cut one was not recovered.
    Disconnected,
    /// An acknowledgement or an event has not arrived.
    Lost,
    /// One has arrived twice.
    Doubled,
    /// One has arrived before one that was to come earlier.
    Disordered,
    /// An event or a call was refused.
    Refused,
    /// The content differs from the model.
    Wrong,
}

const KINDS: [(Kind, &str); 6] = [
    (Kind::Disconnected, "disconnected"),
    (Kind::Lost, "lost"),
    (Kind::Doubled, "doubled"),
    (Kind::Disordered, "out of order"),
    (Kind::Refused, "refused"),
    (Kind::Wrong, "other than in the model"),
];

/// The faults so far.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [u64; KINDS.len()],
    findings: Vec<String>,
}

impl Tally {
    /// Counts `n` faults of one kind.
    pub(super) fn add(&mut self, kind: Kind, n: u64, what: String) {
        self.counts[kind as usize] += n;
        if n > 0 && self.findings.len() < MAX_FINDINGS && !self.findings.contains(&what) {
            self.findings.push(what);
        }
    }

    /// The number of faults of one kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts[kind as usize]
    }

    /// Whether there is no fault.
    pub fn is_clean(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = KINDS.iter().map(|(kind, name)| format!("{} {name}", self.count(*kind))).collect();
        writeln!(f, "{}", counts.join(", "))?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
    }
}
