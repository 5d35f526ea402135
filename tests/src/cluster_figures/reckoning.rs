//! What more nodes would take, from what one to three took.

use std::fmt;

/// The CPU time of an event in microseconds, as it grows with the share of events that are forwarded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// Of an event that is handled where it came.
    own: f64,
    /// What more a forwarded one takes.
    forwarded: f64,
}

/// What has no time left first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bottleneck {
    /// The thread on which Redis runs scripts.
    Redis,
    /// The hosts, if each has one core.
    Hosts,
}

/// The most events that some nodes can handle in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) redis: f64,
    pub(crate) hosts: f64,
}

impl Cost {
    /// The line through what was measured: pairs of the forwarded share and the cost of an event. The costs are not
    /// below zero, and do not fall with the share.
    pub(crate) fn fit(points: &[(f64, f64)]) -> Self {
        let n = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (share, cost) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - share).powi(2)).sum();
        let rise: f64 = points.iter().map(|point| (point.0 - share) * (point.1 - cost)).sum();
        let forwarded = if spread > 0.0 { (rise / spread).max(0.0) } else { 0.0 };
        Self { own: (cost - forwarded * share).max(0.0), forwarded }
    }

    /// The cost of an event with this many nodes, of which each owns the same share of the scopes.
    pub(crate) fn at(self, nodes: usize) -> f64 {
        self.own + self.forwarded * forwarded_share(nodes)
    }
}

/// The share of events that are for another node's scope.
fn forwarded_share(nodes: usize) -> f64 {
    (nodes - 1) as f64 / nodes as f64
}

impl Bounds {
    /// The bounds of this many nodes with one core each. `idle` is the share of its core that Redis needs without events.
    pub(crate) fn of(nodes: usize, redis: Cost, hosts: Cost, idle: f64) -> Self {
        Self { redis: (1.0 - idle).max(0.0) * 1e6 / redis.at(nodes), hosts: nodes as f64 * 1e6 / hosts.at(nodes) }
    }

    /// What saturates first.
    pub(crate) fn first(self) -> Bottleneck {
        if self.redis < self.hosts { Bottleneck::Redis } else { Bottleneck::Hosts }
    }
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        text.write_str(match self {
            Self::Redis => "redis-server",
            Self::Hosts => "roundhouse",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_grows_with_forwarded_share() {
        let cost = Cost::fit(&[(0.0, 10.0), (0.5, 15.0), (2.0 / 3.0, 10.0 + 20.0 / 3.0)]);
        assert!((cost.own - 10.0).abs() < 1e-9 && (cost.forwarded - 10.0).abs() < 1e-9, "{cost:?}");
        assert!((cost.at(10) - 19.0).abs() < 1e-9);
    }

    #[test]
    fn falling_or_single_points_are_level() {
        assert_eq!(Cost::fit(&[(0.0, 12.0), (0.5, 8.0)]), Cost { own: 10.0, forwarded: 0.0 });
        assert_eq!(Cost::fit(&[(0.5, 8.0)]), Cost { own: 8.0, forwarded: 0.0 });
    }

    #[test]
    fn hosts_saturate_before_redis_while_they_are_few() {
        let (redis, hosts) = (Cost { own: 5.0, forwarded: 0.0 }, Cost { own: 20.0, forwarded: 0.0 });
        let [few, many] = [1, 10].map(|nodes| Bounds::of(nodes, redis, hosts, 0.0));
        assert_eq!((few.hosts, few.first()), (50_000.0, Bottleneck::Hosts));
        assert_eq!((many.redis, many.first()), (200_000.0, Bottleneck::Redis));
        assert_eq!(Bounds::of(10, redis, hosts, 0.5).redis, 100_000.0);
    }
}
