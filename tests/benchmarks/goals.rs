//! What Roundhouse sets itself, and whether a run shows it.

use crate::report::{
    EVENT_ADDED, EVENTS_TYPING, IDLE_CPU, IDLE_MEMORY, LATENCY_P99, Metric, PIPELINED, PIPELINED_CPU, Report, SINGLE,
    SINGLE_CPU,
};

/// A goal, and how it went.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) server: String,
    pub(crate) text: &'static str,
    pub(crate) measured: f64,
    pub(crate) decimals: usize,
    pub(crate) is_met: bool,
}

/// What is measured, either as it is or as a ratio to the floor, and the bound.
struct Bound {
    text: &'static str,
    metric: Metric,
    is_ratio: bool,
    /// At least this; otherwise at most.
    at_least: bool,
    bound: f64,
    decimals: usize,
}

const fn bound(
    text: &'static str,
    metric: Metric,
    is_ratio: bool,
    at_least: bool,
    bound: f64,
    decimals: usize,
) -> Bound {
    Bound { text, metric, is_ratio, at_least, bound, decimals }
}

const PLAIN: &[Bound] = &[
    bound("(a) deliveries/s: at least 0.95 of the floor", SINGLE, true, true, 0.95, 2),
    bound("(b) deliveries/s: at least 0.5 of the merging floor", PIPELINED, true, true, 0.5, 2),
    // The same goals where it is not the server that keeps a rate down: on a busy machine, or by the generator.
    bound("(a) CPU each: at most 1.05 of the floor's", SINGLE_CPU, true, false, 1.05, 2),
    bound("(b) CPU each: at most 2 of the merging floor's", PIPELINED_CPU, true, false, 2.0, 2),
    bound("(c) p99: at most 1.2 of the floor", LATENCY_P99, true, false, 1.2, 2),
    bound("(g) typing/s: at least 100,000", EVENTS_TYPING, false, true, 100_000.0, 0),
    bound("(g) added to an echo, µs: at most 20", EVENT_ADDED, false, false, 20.0, 1),
];

const EACH: &[Bound] = &[
    bound("(e) KiB per idle connection: at most 2", IDLE_MEMORY, false, false, 2.0, 2),
    bound("(e) CPU % at 1,000 idle: at most 0.1", IDLE_CPU, false, false, 0.1, 3),
];

/// Latency where all 18,000 are served, and how much dearer one may be than at 1,000: linear, but for noise.
const CURVE_P99: f64 = 100.0;
const CURVE_GROWTH: f64 = 1.1;

impl Report {
    /// All goals for which there are figures.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        for server in self.servers.iter().filter(|server| server.starts_with("roundhouse")) {
            let is_plain = !server.starts_with("roundhouse-socketio");
            for bound in PLAIN.iter().filter(|_| is_plain).chain(EACH) {
                let of = if bound.is_ratio { Self::ratio } else { Self::median };
                let Some(measured) = of(self, bound.metric, server) else { continue };
                let is_met = if bound.at_least { measured >= bound.bound } else { measured <= bound.bound };
                let (server, text, decimals) = (server.clone(), bound.text, bound.decimals);
                goals.push(Goal { server, text, measured, decimals, is_met });
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
