//! The growth of the cost with connections, with the members of a room, and with rooms.

use std::time::{Duration, Instant};

use roundhouse_tests::bench::{median, quantile, say};

use crate::audience::Audience;
use crate::bench::Bench;
use crate::options::Workload;
use crate::report::Curve;
use crate::servers::Kind;
use crate::wire::Wire;

/// The numbers of connections that are measured. A process on such a machine may have 20,000 open files.
const LEVELS: [usize; 5] = [1_000, 2_000, 5_000, 10_000, 18_000];
const ROOM_MEMBERS: usize = 100;
/// The time for which each level is measured, and that of the last level.
const LEVEL_TIME: Duration = Duration::from_secs(15);
const LAST_TIME: Duration = Duration::from_secs(60);

const PIPELINE: usize = 64;

/// Measures one message per second to each of up to 18,000 connections.
pub(crate) fn connections(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.options.wants(Workload::Connections) {
        return Ok(());
    }
    let levels = if bench.options.quick { &LEVELS[..2] } else { &LEVELS[..] };
    for at in 0..bench.field.specs.len() {
        if bench.field.specs[at].wire != Wire::Plain {
            continue;
        }
        let mut audience = Audience::start(bench, at, ROOM_MEMBERS)?;
        let name = audience.server.spec.name.clone();
        audience.add_publishers(bench, 1)?;
        let base = audience.server.process.resident_bytes()?;
        let mut rooms = 0;
        for level in levels {
            say(&format!("{name}: {level} connections, one message a second to each"))?;
            audience.fill(bench, rooms..level / ROOM_MEMBERS)?;
            rooms = level / ROOM_MEMBERS;
            bench.generator.poll_until(Instant::now() + Duration::from_secs(1))?;
            let is_last = level == LEVELS.last().unwrap_or(level);
            let time = if is_last { LAST_TIME } else { LEVEL_TIME };
            let figures = audience.at_rate(bench, 1, if bench.options.quick { LEVEL_TIME / 5 } else { time })?;
            let mib = audience.server.process.resident_bytes()? - base;
            bench.report.curves.push(Curve {
                curve: "connections",
                server: name.clone(),
                at: format!("{level} connections"),
                n: *level,
                figures: vec![
                    ("CPU %", figures.cpu * 100.0),
                    ("CPU µs per delivery", figures.cpu / figures.rate * 1e6),
                    ("memory MiB", mib / 1_048_576.0),
                    ("KiB each", mib / 1024.0 / *level as f64),
                    ("p50 ms", quantile(&figures.latencies, 0.5) / 1000.0),
                    ("p99 ms", quantile(&figures.latencies, 0.99) / 1000.0),
                    ("lost", figures.lost as f64),
                ],
            });
        }
        audience.end(bench);
        extrapolate(bench, &name);
    }
    Ok(())
}

/// Records the cost of far more connections, extrapolated from the first and the last level.
fn extrapolate(bench: &mut Bench, server: &str) {
    let points: Vec<&Curve> =
        bench.report.curves.iter().filter(|point| point.curve == "connections" && point.server == server).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
    let line = |name: &str, n: usize| {
        let (from, to) = (first.figure(name), last.figure(name));
        to + (to - from) / (last.n - first.n) as f64 * (n - last.n) as f64
    };
    let reckoned = [100_000, 1_000_000].map(|n| Curve {
        curve: "reckoned",
        server: server.to_owned(),
        at: format!("{n} connections"),
        n,
        figures: vec![
            ("cores", line("CPU %", n) / 100.0),
            ("memory MiB", line("memory MiB", n)),
            ("processes of 20,000 files", (n as f64 / 20_000.0).ceil()),
        ],
    });
    bench.report.curves.extend(reckoned);
}

/// Measures members of one room, and rooms, for the host and the floors.
pub(crate) fn members_and_rooms(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.options.wants(Workload::Growth) {
        return Ok(());
    }
    for at in 0..bench.field.specs.len() {
        let spec = bench.field.specs[at].clone();
        if spec.wire != Wire::Plain && !matches!(spec.kind, Kind::Floor(_)) {
            continue;
        }
        let mut audience = Audience::start(bench, at, 100)?;
        let base = audience.server.process.resident_bytes()?;
        audience.fill(bench, 0..1)?;
        audience.add_publishers(bench, 1)?;
        for members in [100, 1_000, 10_000] {
            audience.grow(bench, members)?;
            let each = (audience.server.process.resident_bytes()? - base) / 1024.0 / members as f64;
            note(bench, &audience, format!("1 room of {members}"), members, Some(each))?;
        }
        audience.end(bench);
        for rooms in [10, 1_000] {
            let audience = Audience::gather(bench, at, rooms, 1_000 / rooms)?;
            note(bench, &audience, format!("{rooms} rooms of {}", 1_000 / rooms), rooms, None)?;
            audience.end(bench);
        }
    }
    Ok(())
}

/// Records the medians of (a) and (b) in three turns each.
fn note(bench: &mut Bench, audience: &Audience, at: String, n: usize, each: Option<f64>) -> anyhow::Result<()> {
    let server = audience.server.spec.name.clone();
    say(&format!("{server}: {at}"))?;
    let time = Duration::from_millis(if bench.options.quick { 300 } else { 1_000 });
    let mut figures = Vec::new();
    for (rate_name, cpu_name, in_flight) in
        [("(a) deliveries/s", "(a) CPU ns each", 1), ("(b) deliveries/s", "(b) CPU ns each", PIPELINE)]
    {
        let mut floods = Vec::new();
        for _ in 0..3 {
            floods.push(audience.flood(bench, in_flight, time)?);
        }
        figures.push((rate_name, median(floods.iter().map(|flood| flood.rate).collect())));
        figures.push((cpu_name, median(floods.iter().map(|flood| flood.cpu).collect())));
    }
    figures.extend(each.map(|each| ("(e) KiB each", each)));
    bench.report.curves.push(Curve { curve: "growth", server, at, n, figures });
    Ok(())
}
