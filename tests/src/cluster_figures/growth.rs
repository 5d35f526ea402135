//! The growth with nodes, reckoned for more than one machine can run.

use roundhouse_tests::bench::{median, thousands};

use crate::commits::{Level, each};
use crate::load::Sample;
use crate::reckoning::{Bounds, Cost};
use crate::table::Table;

/// The numbers of nodes for which it is reckoned.
const NODES: [usize; 5] = [1, 2, 3, 10, 100];

/// The costs of an event, by how full batches are.
struct Costs {
    redis: Cost,
    hosts: Cost,
}

impl Costs {
    fn of(levels: &[Level], samples: fn(&Level) -> &Vec<Sample>) -> Self {
        let fit = |figure: fn(&Sample) -> f64| {
            let point = |level: &Level| {
                let of = |figure: fn(&Sample) -> f64| median(each(samples(level), figure));
                (of(|sample| sample.forwarded / sample.events), of(figure))
            };
            let points: Vec<(f64, f64)> = levels.iter().filter(|level| level.nodes > 0).map(point).collect();
            Cost::fit(&points)
        };
        Self { redis: fit(|sample| sample.redis / sample.events), hosts: fit(|sample| sample.hosts / sample.events) }
    }
}

/// The table of what is reckoned from the clusters that were measured.
pub(crate) fn table(levels: &[Level]) -> Table {
    let titles = [
        "nodes",
        "Redis µs an event",
        "hosts µs an event",
        "Redis is full at events/s",
        "hosts are full at events/s",
        "full first",
        "few scopes: Redis is full at",
        "hosts are full at",
        "full first",
    ];
    let mut table = Table::new("Growth, reckoned", &titles);
    let (wide, narrow) = (Costs::of(levels, |level| &level.wide), Costs::of(levels, |level| &level.narrow));
    let most = levels.iter().max_by_key(|level| level.nodes);
    let idle_each = most.map_or(0.0, |level| median(level.idle.clone()) / level.nodes as f64 / 1e6);
    for nodes in NODES {
        let bounds =
            [&wide, &narrow].map(|costs| Bounds::of(nodes, costs.redis, costs.hosts, idle_each * nodes as f64));
        let cells =
            |bounds: &Bounds| [thousands(bounds.redis, 0), thousands(bounds.hosts, 0), bounds.first().to_string()];
        let costs = [thousands(wide.redis.at(nodes), 1), thousands(wide.hosts.at(nodes), 1)];
        table.row(nodes.to_string(), costs.into_iter().chain(bounds.iter().flat_map(cells)));
    }
    table.note(
        "Reckoned from one to three nodes: an event costs what it costs where it came, and more if it is forwarded, as \
         (n − 1) of n are. Redis has one core, each host one; that Redis looks after each node is subtracted. With few \
         scopes more events share a commit. Redis was not full where it was measured: one that is takes more commands \
         in each turn, and less time for each.",
    );
    table
}
