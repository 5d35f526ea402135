//! What a cluster adds to the acknowledged round trip of an event, one at a time.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use anyhow::ensure;
use roundhouse_tests::bench::quantile;

use crate::client::Client;
use crate::field::{ACKNOWLEDGED, Extent, Field, Hosts, MOST_NODES, progress};
use crate::generator::TIMEOUT;
use crate::load::ticket_event;
use crate::table::{Table, ranged};

/// The number of tickets of each way.
const TICKETS: usize = 32;

/// A kind of round trip.
struct Way {
    name: &'static str,
    trip: Trip,
    /// Microseconds, by round.
    p50: Vec<f64>,
    p99: Vec<f64>,
}

enum Trip {
    /// Typing events on tickets.
    Typing { client: Client, frames: Vec<Vec<u8>> },
    /// `PING` to Redis.
    Ping(TcpStream),
}

impl Way {
    /// Typing events of one client of the first host, on tickets whose owner is `wanted`.
    fn typing(name: &'static str, hosts: &Hosts, wanted: impl Fn(usize) -> bool) -> anyhow::Result<Self> {
        let mut client = hosts.connect(0, "ana")?;
        let tickets = (0..).map(|n| format!("l{n}")).filter(|ticket| wanted(hosts.owner(&format!("ticket:{ticket}"))));
        let mut frames = Vec::new();
        for ticket in tickets.take(TICKETS) {
            client.ask(&ticket_event("ticket:view", &ticket), ACKNOWLEDGED)?;
            frames.push(ticket_event("ticket:typing", &ticket));
            client.ask(&frames[frames.len() - 1], ACKNOWLEDGED)?;
        }
        Ok(Self::of(name, Trip::Typing { client, frames }))
    }

    fn of(name: &'static str, trip: Trip) -> Self {
        Self { name, trip, p50: Vec::new(), p99: Vec::new() }
    }

    /// Makes the n-th round trip. Returns the time in nanoseconds.
    fn go(&mut self, n: usize) -> anyhow::Result<f64> {
        match &mut self.trip {
            Trip::Typing { client, frames } => client.ask(&frames[n % frames.len()], ACKNOWLEDGED),
            Trip::Ping(socket) => ping(socket),
        }
    }
}

/// Asks Redis for a sign of life, without sleeping. Returns the time in nanoseconds.
fn ping(socket: &mut TcpStream) -> anyhow::Result<f64> {
    let began = Instant::now();
    socket.write_all(b"PING\r\n")?;
    let (mut answer, mut n) = ([0; 7], 0);
    while n < answer.len() {
        match socket.read(&mut answer[n..]) {
            Ok(0) => anyhow::bail!("Redis closed the connection"),
            Ok(more) => n += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(began.elapsed() < TIMEOUT, "Redis did not answer for {TIMEOUT:?}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(began.elapsed().as_nanos() as f64)
}

/// Measures all ways in turn, event by event.
pub(crate) fn measure(field: &mut Field, extent: Extent) -> anyhow::Result<Table> {
    let mut ways = vec![Way::typing("alone", field.level(0)?, |_| true)?];
    ways.push(Way::typing("1 node", field.level(1)?, |_| true)?);
    let hosts = field.level(MOST_NODES)?;
    ways.push(Way::typing("3 nodes, scope of the client's node", hosts, |owner| owner == 0)?);
    ways.push(Way::typing("3 nodes, scope of another node", hosts, |owner| owner != 0)?);
    let socket = TcpStream::connect(hosts.redis_address())?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    ways.push(Way::of("for comparison: PING to Redis", Trip::Ping(socket)));
    for round in 0..extent.rounds {
        progress(&format!("latency: round {} of {}", round + 1, extent.rounds));
        let mut times = vec![Vec::with_capacity(extent.n_asks); ways.len()];
        for n in 0..extent.n_asks {
            for (way, times) in ways.iter_mut().zip(&mut times) {
                times.push(way.go(n)?);
            }
        }
        for (way, mut times) in ways.iter_mut().zip(times) {
            times.sort_by(f64::total_cmp);
            way.p50.push(quantile(&times, 0.5) / 1000.0);
            way.p99.push(quantile(&times, 0.99) / 1000.0);
        }
    }
    Ok(table(&ways))
}

fn table(ways: &[Way]) -> Table {
    let titles = ["µs, one event at a time", "p50", "p99", "added p50", "added p99"];
    let mut table = Table::new("Latency of an event: `ticket:typing` until it is acknowledged", &titles);
    for way in ways {
        let added = |of: fn(&Way) -> &Vec<f64>| -> Vec<f64> {
            of(way).iter().zip(of(&ways[0])).map(|(here, alone)| here - alone).collect()
        };
        let mut figures = vec![ranged(&way.p50, 0), ranged(&way.p99, 0)];
        if matches!(way.trip, Trip::Typing { .. }) && way.name != ways[0].name {
            figures.extend([ranged(&added(|way| &way.p50), 0), ranged(&added(|way| &way.p99), 0)]);
        }
        table.row(way.name, figures);
    }
    table
}
