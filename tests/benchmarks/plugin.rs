//! The cost of a feature: events of the bundled `ticket-collision` with acknowledgements, compared with an echo without
//! a feature.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use roundhouse_tests::bench::{median, quantile, say};
use roundhouse_tests::raw::client_frame;
use roundhouse_tests::target_dir;
use serde_json::{Value, json};

use crate::audience::Audience;
use crate::bench::Bench;
use crate::client::Client;
use crate::options::Workload;
use crate::process::Process;
use crate::report::{
    ECHO_P50, EVENT_ADDED, EVENT_CPU, EVENT_P50, EVENT_P99, EVENTS_TYPING, EVENTS_VIEW, VIEW_P50, VIEW_P99,
};
use crate::wire::Wire;

const TICKETS: usize = 64;
const IN_FLIGHT: usize = 256;
/// The beginning of each acknowledgement.
const ACKNOWLEDGED: &[u8] = b"{\"id\":7,";

/// Sends frames again and again for `time`, with 256 in flight. Returns the answers per second.
fn flood(client: &mut Client, frames: &[Vec<u8>], time: Duration) -> anyhow::Result<f64> {
    let began = Instant::now();
    let (mut sent, mut answered) = (0, 0);
    loop {
        // Checked once per turn, so that each wait has an answer to come.
        let goes_on = began.elapsed() < time;
        if !goes_on && answered == sent {
            break;
        }
        let mut batch = Vec::new();
        while goes_on && sent - answered < IN_FLIGHT {
            batch.extend_from_slice(&frames[sent % frames.len()]);
            sent += 1;
        }
        client.write(&batch)?;
        answered += client.wait(ACKNOWLEDGED)?;
    }
    Ok(answered as f64 / began.elapsed().as_secs_f64())
}

fn event(event: &str, ticket: usize) -> Vec<u8> {
    client_frame(
        json!({ "event": event, "data": { "ticketId": format!("t{ticket}") }, "id": 7 }).to_string().as_bytes(),
    )
}

fn microseconds(mut nanoseconds: Vec<f64>, share: f64) -> f64 {
    nanoseconds.sort_by(f64::total_cmp);
    quantile(&nanoseconds, share) / 1000.0
}

/// Starts the host for protocol suites, which has an echo.
fn start_echo() -> anyhow::Result<(Process, SocketAddr)> {
    let mut command = Command::new(target_dir().join("release/conformance"));
    command.args(["--ping-interval-ms", "25000", "--ping-timeout-ms", "35000"]);
    let process = Process::start(command, tempfile::tempdir()?, true)?;
    let line: Value = serde_json::from_str(&process.first_line)?;
    let address = line["listening"].as_str().context("the host says where it listens")?.trim_start_matches("ws://");
    Ok((process, address.parse()?))
}

/// Measures each build of the host over the plain protocol.
pub(crate) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let there_is_one = bench.field.specs.iter().any(|spec| spec.wire == Wire::Plain);
    if !bench.options.wants(Workload::Plugin) || !there_is_one {
        return Ok(());
    }
    let time = Duration::from_secs(if bench.options.quick { 1 } else { 2 });
    let n_asks = if bench.options.quick { 500 } else { 3_000 };
    let (_echo, address) = start_echo()?;
    let mut echo = Client::connect(address, &Wire::connect_at("/echo"))?;
    let mut hosts = Vec::new();
    for at in 0..bench.field.specs.len() {
        if bench.field.specs[at].wire == Wire::Plain {
            let audience = Audience::start(bench, at, 0)?;
            let mut client = Client::connect(audience.server.address, &Wire::Plain.connect("ana")?)?;
            for ticket in 0..TICKETS {
                client.ask(&event("ticket:view", ticket), ACKNOWLEDGED)?;
                client.ask(&event("ticket:typing", ticket), ACKNOWLEDGED)?;
            }
            hosts.push((audience, client));
        }
    }
    let typing: Vec<Vec<u8>> = (0..TICKETS).map(|ticket| event("ticket:typing", ticket)).collect();
    // Tickets of their own, so that the other tickets are viewed all the time.
    let coming_and_going: Vec<Vec<u8>> = (TICKETS..2 * TICKETS)
        .map(|ticket| event("ticket:view", ticket))
        .chain((TICKETS..2 * TICKETS).map(|ticket| event("ticket:leave", ticket)))
        .collect();
    let echoed: Vec<u8> = typing[0][6..].to_vec();
    for round in 0..bench.options.rounds() {
        say(&format!("the plugin: round {} of {}", round + 1, bench.options.rounds()))?;
        for (audience, client) in &mut hosts {
            let name = audience.server.spec.name.clone();
            let (mut echoes, mut typings, mut views) = (Vec::new(), Vec::new(), Vec::new());
            for n in 0..n_asks {
                echoes.push(echo.ask(&client_frame(&echoed), &echoed)?);
                typings.push(client.ask(&typing[n % TICKETS], ACKNOWLEDGED)?);
                views.push(client.ask(&coming_and_going[n % TICKETS], ACKNOWLEDGED)?);
                client.ask(&coming_and_going[TICKETS + n % TICKETS], ACKNOWLEDGED)?;
            }
            let report = &mut bench.report;
            report.note(EVENT_ADDED, &name, (median(typings.clone()) - median(echoes.clone())) / 1000.0);
            report.note(ECHO_P50, &name, microseconds(echoes, 0.5));
            report.note(EVENT_P50, &name, microseconds(typings.clone(), 0.5));
            report.note(EVENT_P99, &name, microseconds(typings, 0.99));
            report.note(VIEW_P50, &name, microseconds(views.clone(), 0.5));
            report.note(VIEW_P99, &name, microseconds(views, 0.99));
            let (cpu, began) = (audience.server.process.cpu()?, Instant::now());
            let rate = flood(client, &typing, time)?;
            let ran = audience.server.process.cpu()?.saturating_sub(cpu);
            report.note(EVENTS_TYPING, &name, rate);
            report.note(EVENT_CPU, &name, ran.as_nanos() as f64 / (rate * began.elapsed().as_secs_f64()) / 1000.0);
            report.note(EVENTS_VIEW, &name, flood(client, &coming_and_going, time)?);
        }
    }
    for (audience, _) in hosts {
        audience.end(bench);
    }
    Ok(())
}
