//! The times at which a fault may have touched a host.

/// A time, in milliseconds from the start of the run.
pub(super) type At = u64;

/// The time after a fault for which its host may still be catching up, in milliseconds.
pub(super) const RECOVERY: At = 5_000;

/// The times of each host's faults.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// By host: the starts and ends of faults, without an end while the fault lasts.
    faults: Vec<Vec<(At, Option<At>)>>,
}

impl Health {
    /// This many hosts, all healthy.
    pub(super) fn new(nodes: usize) -> Self {
        Self { faults: vec![Vec::new(); nodes] }
    }

    /// A fault of a host begins.
    pub(super) fn harm(&mut self, node: usize, at: At) {
        self.faults[node].push((at, None));
    }

    /// All faults of a host end.
    pub(super) fn heal(&mut self, node: usize, at: At) {
        for (_, end) in &mut self.faults[node] {
            end.get_or_insert(at);
        }
    }

    /// Whether no fault has touched the host from one time to the other.
    pub(super) fn is_healthy(&self, node: usize, from: At, to: At) -> bool {
        let touches = |(start, end): &(At, Option<At>)| *start <= to && end.is_none_or(|end| end + RECOVERY >= from);
        !self.faults[node].iter().any(touches)
    }

    /// Whether a fault has touched any host from one time to the other.
    pub(super) fn is_harmed(&self, from: At, to: At) -> bool {
        (0..self.faults.len()).any(|node| !self.is_healthy(node, from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_touches_its_host_until_it_has_recovered() {
        let mut health = Health::new(2);
        health.harm(0, 1_000);
        assert!(!health.is_healthy(0, 2_000, 3_000));
        health.heal(0, 2_000);
        assert!(health.is_healthy(0, 0, 999));
        assert!(!health.is_healthy(0, 2_000 + RECOVERY, 9_000));
        assert!(health.is_healthy(0, 2_001 + RECOVERY, 9_000));
        assert!(health.is_healthy(1, 0, 9_000));
        assert!(health.is_harmed(0, 1_000));
    }
}
