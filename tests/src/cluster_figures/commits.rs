//! Events and commits per second, and what an event costs Redis and the hosts.

use std::time::{Duration, Instant};

use crate::field::{Extent, Field, MOST_NODES, cpu_of, progress};
use crate::load::{ALL_IN_FLIGHT, Load, Sample, Spread};
use crate::table::{Table, ranged};

/// The time for which an idle cluster is watched.
const IDLE: Duration = Duration::from_secs(1);

/// The figures of one number of nodes; of a host that is alone, 0.
#[derive(Debug, Default)]
pub(crate) struct Level {
    pub(crate) nodes: usize,
    name: &'static str,
    /// By round: with events on many scopes, and on few.
    pub(crate) wide: Vec<Sample>,
    pub(crate) narrow: Vec<Sample>,
    /// Microseconds of Redis for each second in which there is no event, by round.
    pub(crate) idle: Vec<f64>,
}

/// Measures a host that is alone, and clusters of one to three, in turn.
pub(crate) fn measure(field: &mut Field, extent: Extent) -> anyhow::Result<Vec<Level>> {
    let (mut levels, mut loads) = (Vec::new(), Vec::new());
    for nodes in 0..=MOST_NODES {
        let hosts = field.level(nodes)?;
        levels.push(Level { nodes, name: hosts.name, ..Level::default() });
        loads.push(Load::connect(hosts)?);
        // Warms up caches before measuring.
        run(field, &mut loads[nodes], nodes, Spread::Wide, extent.time / 3)?;
    }
    for round in 0..extent.rounds {
        progress(&format!("commits: round {} of {}", round + 1, extent.rounds));
        for (nodes, (level, load)) in levels.iter_mut().zip(&mut loads).enumerate() {
            level.wide.push(run(field, load, nodes, Spread::Wide, extent.time)?);
            level.narrow.push(run(field, load, nodes, Spread::Narrow, extent.time)?);
            level.idle.push(idle(field, nodes)?);
        }
    }
    Ok(levels)
}

fn run(field: &mut Field, load: &mut Load, nodes: usize, spread: Spread, time: Duration) -> anyhow::Result<Sample> {
    field.level(nodes)?;
    let hosts = field.started(nodes)?;
    load.measure(hosts, &field.runtime, spread, time)
}

/// The microseconds of Redis for each second without events.
fn idle(field: &mut Field, nodes: usize) -> anyhow::Result<f64> {
    let redis = field.level(nodes)?.redis_pid();
    let (before, began) = (cpu_of(redis)?, Instant::now());
    std::thread::sleep(IDLE);
    Ok((cpu_of(redis)?.saturating_sub(before)).as_secs_f64() * 1e6 / began.elapsed().as_secs_f64())
}

/// The table of all levels.
pub(crate) fn table(levels: &[Level]) -> Table {
    let titles = [
        "hosts",
        "events/s",
        "commits/s",
        "events a commit",
        "forwarded %",
        "Redis µs a commit",
        "Redis µs an event",
        "hosts µs an event",
        "Redis % of a core",
        "a host %",
        "generator %",
    ];
    let mut table = Table::new("Throughput: `ticket:typing`, each acknowledged", &titles);
    for level in levels {
        table.row(format!("{}, {} scopes", level.name, Spread::Wide.scopes()), cells(level, &level.wide));
    }
    for level in levels {
        table.row(format!("{}, {} scopes", level.name, Spread::Narrow.scopes()), cells(level, &level.narrow));
    }
    let idle = levels.iter().filter(|level| level.nodes > 0);
    let idle: Vec<String> = idle.map(|level| format!("{}: {} µs", level.name, ranged(&level.idle, 0))).collect();
    table.note(format!("{ALL_IN_FLIGHT} events in flight. The generator never sleeps: below 100 % others use its core. Redis without events, a second: {}.", idle.join("; ")));
    table
}

fn cells(level: &Level, samples: &[Sample]) -> Vec<String> {
    let cell = |decimals, figure: fn(&Sample) -> f64| ranged(&each(samples, figure), decimals);
    let of_cluster = |decimals, figure| if level.nodes > 0 { cell(decimals, figure) } else { String::new() };
    vec![
        cell(0, |sample| sample.events / sample.seconds),
        of_cluster(0, |sample| sample.commits / sample.seconds),
        of_cluster(1, |sample| sample.events / sample.commits),
        of_cluster(0, |sample| 100.0 * sample.forwarded / sample.events),
        of_cluster(1, |sample| sample.redis / sample.commits),
        of_cluster(1, |sample| sample.redis / sample.events),
        cell(1, |sample| sample.hosts / sample.events),
        of_cluster(0, |sample| share(sample, sample.redis)),
        ranged(&each(samples, |sample| share(sample, sample.hosts) / level.nodes.max(1) as f64), 0),
        cell(0, |sample| share(sample, sample.generator)),
    ]
}

/// CPU time as a share of a core, in percent.
fn share(sample: &Sample, ran: f64) -> f64 {
    100.0 * ran / (sample.seconds * 1e6)
}

/// A figure of each sample.
pub(crate) fn each(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(figure).collect()
}
