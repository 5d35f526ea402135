//! Idle connections, and many connections that open at once: memory, CPU time, handshakes.

use std::time::{Duration, Instant};

use roundhouse_tests::bench::{quantile, say};

use crate::audience::Audience;
use crate::bench::Bench;
use crate::options::Workload;
use crate::report::{IDLE_CPU, IDLE_MEMORY, STORM_P99, STORM_RATE};
use crate::wire::{Step, Wire};

/// The number of connections whose memory is measured.
const CONNECTIONS: usize = 10_000;
/// The number of connections before the measurement, which bear the shared costs.
const FIRST: usize = 100;
/// The number of idle connections whose CPU time is measured.
const BEATING: usize = 1_000;
/// The time of the measurement: two heartbeats of most servers.
const BEATS: Duration = Duration::from_secs(52);
/// The number of connections that are opened for the rate of handshakes, and how many at a time.
const STORM: usize = 5_000;
const AT_ONCE: usize = 64;

/// Users who only connect. On a floor they also join a room, because it ignores connections that have not sent their
/// first bytes.
fn users(wire: Wire, prefix: &str, n: usize) -> anyhow::Result<Vec<(usize, Vec<Step>)>> {
    let scripts = (0..n).map(|n| {
        let mut steps = wire.connect(&format!("{prefix}{n}"))?;
        steps.extend((wire == Wire::Floor).then(|| wire.join(0)));
        Ok((0, steps))
    });
    scripts.collect()
}

/// Measures memory of one server after another, and CPU time of all servers at the same time.
pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.options.wants(Workload::Idle) {
        return Ok(());
    }
    let quick = bench.options.quick;
    let connections = if quick { CONNECTIONS / 10 } else { CONNECTIONS };
    for at in 0..bench.field.specs.len() {
        let audience = Audience::start(bench, at, 0)?;
        let (name, wire, address) =
            (audience.server.spec.name.clone(), audience.server.spec.wire, audience.server.address);
        say(&format!("idle: {connections} connections to {name}"))?;
        bench.generator.connect_all(audience.crowd, address, users(wire, "first", FIRST)?)?;
        let before = audience.server.process.resident_bytes()?;
        bench.generator.connect_all(audience.crowd, address, users(wire, "idle", connections)?)?;
        let after = audience.server.process.resident_bytes()?;
        bench.report.note(IDLE_MEMORY, &name, (after - before) / connections as f64 / 1024.0);
        audience.end(bench);
    }
    let mut audiences = Vec::new();
    for at in 0..bench.field.specs.len() {
        let audience = Audience::start(bench, at, 0)?;
        let scripts = users(audience.server.spec.wire, "beating", BEATING)?;
        bench.generator.connect_all(audience.crowd, audience.server.address, scripts)?;
        audiences.push(audience);
    }
    // The servers' work right after connecting is not counted as idle.
    bench.generator.poll_until(Instant::now() + Duration::from_secs(3))?;
    let time = if quick { BEATS / 4 } else { BEATS };
    say(&format!("idle: {BEATING} connections to each server for {time:?}"))?;
    let began = Instant::now();
    let before: Vec<Duration> =
        audiences.iter().map(|audience| audience.server.process.cpu()).collect::<anyhow::Result<_>>()?;
    bench.generator.poll_until(began + time)?;
    for (audience, before) in audiences.iter().zip(before) {
        let ran = audience.server.process.cpu()?.saturating_sub(before);
        let percent = ran.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        bench.report.note(IDLE_CPU, &audience.server.spec.name, percent);
    }
    for audience in audiences {
        audience.end(bench);
    }
    Ok(())
}

/// Measures the rate of handshakes.
pub(crate) fn storm(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.options.wants(Workload::Storm) {
        return Ok(());
    }
    let connections = if bench.options.quick { STORM / 10 } else { STORM };
    for round in 0..bench.options.rounds().min(3) {
        say(&format!("{connections} connections at once: round {}", round + 1))?;
        for at in 0..bench.field.specs.len() {
            let audience = Audience::start(bench, at, 0)?;
            let (name, wire) = (audience.server.spec.name.clone(), audience.server.spec.wire);
            // As after a restart, but without the costs of the very first clients.
            bench.generator.connect_all(audience.crowd, audience.server.address, users(wire, "first", FIRST)?)?;
            let scripts = users(wire, "storm", connections)?;
            let began = Instant::now();
            let took = bench.generator.connect(audience.crowd, audience.server.address, AT_ONCE, scripts)?.1;
            bench.report.note(STORM_RATE, &name, connections as f64 / began.elapsed().as_secs_f64());
            let mut took: Vec<u32> = took.iter().map(|took| took.as_micros() as u32).collect();
            took.sort_unstable();
            bench.report.note(STORM_P99, &name, quantile(&took, 0.99) / 1000.0);
            audience.end(bench);
        }
    }
    Ok(())
}
