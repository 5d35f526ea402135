//! Roundhouse's goals, and whether a run meets them.

use crate::report::{
    EVENT_ADDED, EVENTS_TYPING, Goal, IDLE_CPU, IDLE_MEMORY, LATENCY_P99, Metric, PIPELINED, PIPELINED_CPU, Report,
    SINGLE, SINGLE_CPU,
};
use Bound::{AtLeast, AtMost};

/// The bound of a figure, or of its ratio to the floor if it has one.
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// The number of decimals of a ratio.
const RATIO_DECIMALS: usize = 2;

const PLAIN: &[(&str, Metric, Bound)] = &[
    ("(a) deliveries/s: at least 0.95 of the floor", SINGLE, AtLeast(0.95)),
    ("(b) deliveries/s: at least 0.5 of the merging floor", PIPELINED, AtLeast(0.5)),
    // The goals of (a) and (b) in CPU time, for runs in which the machine or the generator bounds the rate.
    ("(a) CPU each: at most 1.05 of the floor's", SINGLE_CPU, AtMost(1.05)),
    ("(b) CPU each: at most 2 of the merging floor's", PIPELINED_CPU, AtMost(2.0)),
    ("(c) p99: at most 1.2 of the floor", LATENCY_P99, AtMost(1.2)),
    ("(g) typing/s: at least 100,000", EVENTS_TYPING, AtLeast(100_000.0)),
    ("(g) added to an echo, µs: at most 20", EVENT_ADDED, AtMost(20.0)),
];

const EACH: &[(&str, Metric, Bound)] = &[
    ("(e) KiB per idle connection: at most 2", IDLE_MEMORY, AtMost(2.0)),
    ("(e) CPU % at 1,000 idle: at most 0.1", IDLE_CPU, AtMost(0.1)),
];

/// The bounds of the p99 latency at 18,000 connections, in milliseconds, and of the cost of a connection relative to
/// that at 1,000: linear but for noise.
const CURVE_P99: f64 = 100.0;
const CURVE_GROWTH: f64 = 1.1;

impl Report {
    /// The goals for which the run has figures.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for server in self.servers.iter().filter(|server| server.starts_with("roundhouse")) {
            let is_plain = !server.starts_with("roundhouse-socketio");
            for (text, metric, bound) in PLAIN.iter().filter(|_| is_plain).chain(EACH) {
                let (measured, decimals) = match metric.base {
                    Some(_) => (self.ratio(*metric, server), RATIO_DECIMALS),
                    None => (self.median(*metric, server), metric.decimals),
                };
                let Some(measured) = measured else { continue };
                let is_met = match bound {
                    AtLeast(bound) => measured >= *bound,
                    AtMost(bound) => measured <= *bound,
                };
                goals.push(Goal { server: server.clone(), text, measured, decimals, is_met });
            }
            goals.extend(self.goals_of_curve(server));
        }
        goals
    }

    fn goals_of_curve(&self, server: &str) -> Vec<Goal> {
        let points: Vec<_> =
            self.curves.iter().filter(|point| point.curve == "connections" && point.server == server).collect();
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
        let lost: f64 = points.iter().map(|point| point.figure("lost")).sum();
        let p99 = last.figure("p99 ms");
        let growth = last.figure("CPU µs per delivery") / first.figure("CPU µs per delivery");
        let goal =
            |text, measured, decimals, is_met| Goal { server: server.to_owned(), text, measured, decimals, is_met };
        vec![
            goal("(i) lost: none", lost, 0, lost == 0.0),
            goal("(i) p99 ms with most connections: at most 100", p99, 1, p99 <= CURVE_P99),
            goal("(i) CPU each with most over that with fewest: at most 1.1", growth, 2, growth <= CURVE_GROWTH),
        ]
    }
}
