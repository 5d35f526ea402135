//! Clients that send events on many scopes, each acknowledged, to all hosts of a cluster.

use std::time::{Duration, Instant};

use anyhow::ensure;
use roundhouse_tests::raw::client_frame;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::client::Client;
use crate::field::{ACKNOWLEDGED, Hosts, cpu_of};
use crate::generator::TIMEOUT;
use crate::process::own_cpu;

/// The number of clients, the same share of them on each host.
const CLIENTS: usize = 48;
/// The number of tickets on which each client types.
const TICKETS: usize = 16;

/// The events of a client that are in flight.
const IN_FLIGHT: usize = 16;
/// All events that are in flight.
pub(crate) const ALL_IN_FLIGHT: usize = CLIENTS * IN_FLIGHT;

/// The scopes of a client's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    /// All its tickets in turn.
    Wide,
    /// One ticket, so that the events in flight are for one partition.
    Narrow,
}

impl Spread {
    /// The number of each client's tickets.
    fn tickets(self) -> usize {
        if self == Self::Wide { TICKETS } else { 1 }
    }

    /// The number of all scopes.
    pub(crate) fn scopes(self) -> usize {
        CLIENTS * self.tickets()
    }
}

/// The clients of some hosts.
pub(crate) struct Load {
    senders: Vec<Sender>,
}

struct Sender {
    client: Client,
    frames: Vec<Vec<u8>>,
    sent: usize,
    answered: usize,
}

/// What happened in one measurement.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) events: f64,
    pub(crate) seconds: f64,
    pub(crate) commits: f64,
    pub(crate) forwarded: f64,
    /// CPU time in microseconds.
    pub(crate) redis: f64,
    pub(crate) hosts: f64,
    pub(crate) generator: f64,
}

/// A frame of an event on a ticket that asks for an acknowledgement.
pub(crate) fn ticket_event(event: &str, ticket: &str) -> Vec<u8> {
    client_frame(json!({ "event": event, "data": { "ticketId": ticket }, "id": 7 }).to_string().as_bytes())
}

impl Load {
    /// Connects the clients, each of which views its tickets.
    pub(crate) fn connect(hosts: &Hosts) -> anyhow::Result<Self> {
        let mut senders = Vec::new();
        for n in 0..CLIENTS {
            let mut client = hosts.connect(n % hosts.len(), &format!("agent{n}"))?;
            let tickets: Vec<String> = (0..TICKETS).map(|ticket| format!("c{n}t{ticket}")).collect();
            for ticket in &tickets {
                client.ask(&ticket_event("ticket:view", ticket), ACKNOWLEDGED)?;
            }
            let frames = tickets.iter().map(|ticket| ticket_event("ticket:typing", ticket)).collect();
            senders.push(Sender { client, frames, sent: 0, answered: 0 });
        }
        Ok(Self { senders })
    }

    /// Sends events for `time`, and measures the servers meanwhile.
    pub(crate) fn measure(
        &mut self,
        hosts: &Hosts,
        runtime: &Runtime,
        spread: Spread,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        let counts = || ["cluster_commits_total", "cluster_forwarded_total"].map(|name| hosts.metric(runtime, name));
        let clocks =
            || -> anyhow::Result<[Duration; 3]> { Ok([cpu_of(hosts.redis_pid())?, cpu_of(hosts.pids())?, own_cpu()?]) };
        let (counted, before, began) = (counts(), clocks()?, Instant::now());
        let events = self.flood(spread, time)?;
        let (seconds, after) = (began.elapsed().as_secs_f64(), clocks()?);
        let now = counts();
        let ran = |at: usize| after[at].saturating_sub(before[at]).as_secs_f64() * 1e6;
        Ok(Sample {
            events: events as f64,
            seconds,
            commits: now[0] - counted[0],
            forwarded: now[1] - counted[1],
            redis: ran(0),
            hosts: ran(1),
            generator: ran(2),
        })
    }

    /// Keeps events of each client in flight. Returns the number of acknowledged events.
    fn flood(&mut self, spread: Spread, time: Duration) -> anyhow::Result<usize> {
        let before = self.answered();
        let began = Instant::now();
        let mut in_flight = 0;
        loop {
            let goes_on = began.elapsed() < time;
            for sender in &mut self.senders {
                let answered = sender.client.poll(ACKNOWLEDGED)?;
                sender.answered += answered;
                in_flight -= answered;
                if goes_on {
                    in_flight += sender.fill(spread)?;
                }
            }
            if !goes_on && in_flight == 0 {
                return Ok(self.answered() - before);
            }
            ensure!(began.elapsed() < time + TIMEOUT, "{in_flight} events were not acknowledged in {TIMEOUT:?}");
        }
    }

    fn answered(&self) -> usize {
        self.senders.iter().map(|sender| sender.answered).sum()
    }
}

impl Sender {
    /// Sends events until enough are in flight. Returns their number.
    fn fill(&mut self, spread: Spread) -> anyhow::Result<usize> {
        let n = self.answered + IN_FLIGHT - self.sent;
        // Half of them at once; otherwise each turn would write single events.
        if n < IN_FLIGHT / 2 {
            return Ok(0);
        }
        let frames = (self.sent..self.sent + n).map(|at| &*self.frames[at % spread.tickets()]);
        self.client.write(&frames.collect::<Vec<_>>().concat())?;
        self.sent += n;
        Ok(n)
    }
}
