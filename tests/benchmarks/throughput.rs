//! Rooms, measured on all servers in turns: one room of 1,000 without a pause and at a rate, and 100 rooms of 10 at a
//! rate.

use std::time::Duration;

use anyhow::ensure;
use roundhouse_tests::bench::{quantile, say};

use crate::audience::Audience;
use crate::bench::Bench;
use crate::options::Workload;
use crate::report::{
    LATENCY_P50, LATENCY_P99, LATENCY_P999, PIPELINED, PIPELINED_CPU, PIPELINED_GENERATOR, ROOMS_CPU, ROOMS_P50,
    ROOMS_P99, ROOMS_RATE, SINGLE, SINGLE_CPU,
};

const MEMBERS: usize = 1_000;
/// The number of events in flight.
const PIPELINE: usize = 64;
/// Events per second when latency is measured.
const RATE: u32 = 50;

/// The number of small rooms, of their members, and of events per second in each.
const ROOMS: usize = 100;
const ROOM_MEMBERS: usize = 10;
const ROOM_RATE: u32 = 20;

/// Measures one room of 1,000 members.
pub(crate) fn one_room(bench: &mut Bench) -> anyhow::Result<()> {
    let workloads = [Workload::Single, Workload::Pipelined, Workload::Latency];
    let [single, pipelined, latency] = workloads.map(|workload| bench.options.wants(workload));
    if !(single || pipelined || latency) {
        return Ok(());
    }
    let flood = Duration::from_millis(if bench.options.quick { 500 } else { 1_500 });
    let rate = Duration::from_secs(if bench.options.quick { 1 } else { 5 });
    let mut audiences = Vec::new();
    for at in 0..bench.field.specs.len() {
        audiences.push(Audience::gather(bench, at, 1, MEMBERS)?);
        // Warms up compilers and caches before measuring.
        audiences[at].flood(bench, PIPELINE, flood)?;
    }
    for round in 0..bench.options.rounds() {
        say(&format!("one room of {MEMBERS}: round {} of {}", round + 1, bench.options.rounds()))?;
        let floods = [(single, SINGLE, SINGLE_CPU, 1), (pipelined, PIPELINED, PIPELINED_CPU, PIPELINE)];
        for (_, metric, cpu, in_flight) in floods.into_iter().filter(|(wanted, ..)| *wanted) {
            for audience in &audiences {
                let figures = audience.flood(bench, in_flight, flood)?;
                bench.report.note(metric, &audience.server.spec.name, figures.rate);
                bench.report.note(cpu, &audience.server.spec.name, figures.cpu);
                if in_flight > 1 {
                    bench.report.note(PIPELINED_GENERATOR, &audience.server.spec.name, figures.generator);
                }
            }
        }
        for audience in audiences.iter().filter(|_| latency) {
            let figures = audience.at_rate(bench, RATE, rate)?;
            let name = &audience.server.spec.name;
            ensure!(figures.lost == 0, "{name}: {} deliveries were lost", figures.lost);
            for (metric, share) in [(LATENCY_P50, 0.5), (LATENCY_P99, 0.99), (LATENCY_P999, 0.999)] {
                bench.report.note(metric, name, quantile(&figures.latencies, share) / 1000.0);
            }
        }
    }
    for audience in audiences {
        audience.end(bench);
    }
    Ok(())
}

/// Measures 100 rooms of 10 members.
pub(crate) fn many_rooms(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.options.wants(Workload::Rooms) {
        return Ok(());
    }
    let time = Duration::from_secs(if bench.options.quick { 1 } else { 4 });
    let mut audiences = Vec::new();
    for at in 0..bench.field.specs.len() {
        audiences.push(Audience::gather(bench, at, ROOMS, ROOM_MEMBERS)?);
        audiences[at].at_rate(bench, ROOM_RATE, time / 2)?;
    }
    for round in 0..bench.options.rounds() {
        say(&format!("{ROOMS} rooms of {ROOM_MEMBERS}: round {} of {}", round + 1, bench.options.rounds()))?;
        for audience in &audiences {
            let figures = audience.at_rate(bench, ROOM_RATE, time)?;
            let name = &audience.server.spec.name;
            ensure!(figures.lost == 0, "{name}: {} deliveries were lost", figures.lost);
            bench.report.note(ROOMS_RATE, name, figures.rate);
            bench.report.note(ROOMS_P50, name, quantile(&figures.latencies, 0.5) / 1000.0);
            bench.report.note(ROOMS_P99, name, quantile(&figures.latencies, 0.99) / 1000.0);
            bench.report.note(ROOMS_CPU, name, figures.cpu * 100.0);
        }
    }
    for audience in audiences {
        audience.end(bench);
    }
    Ok(())
}
