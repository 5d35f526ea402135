//! The requests of good clients, and their outcomes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// An event of a good client, and its acknowledgement.
    Event,
    /// A newcomer's connection, authentication and one answer.
    Newcomer,
    /// An answer of the API.
    Operator,
}

#[derive(Debug, Clone)]
struct Request {
    service: RequestKind,
    due: Instant,
    /// The time that the request took, or why it failed; `None` while it is pending.
    outcome: Option<Result<Duration, String>>,
}

/// The index of a request in the ledger.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry(usize);

#[derive(Debug, Default)]
struct Book {
    asked: Vec<Request>,
    cut: Vec<(Instant, String)>,
    /// The numbers of acknowledged messages, and of received copies.
    acknowledged: u64,
    received: u64,
}

/// The records of all good clients, on any thread.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Book>);

/// The service of the good clients during a period.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Served {
    /// Microseconds until the acknowledgements of events, sorted.
    #[serde(skip)]
    pub events: Vec<u32>,
    /// Microseconds until newcomers were connected and answered, sorted.
    #[serde(skip)]
    pub newcomers: Vec<u32>,
    /// Microseconds until the operator was answered, sorted.
    #[serde(skip)]
    pub operator: Vec<u32>,
    /// Refused requests.
    pub refused: u64,
    /// Connections that the host ended.
    pub disconnected: u64,
    /// Requests that were not answered in time.
    pub missing: u64,
    /// Copies of acknowledged messages that did not reach the others in the room.
    pub unheard: u64,
    /// The first few losses, in words.
    pub said: Vec<String>,
}

/// The greatest number of losses that are described in words.
const SAID: usize = 3;

impl Ledger {
    fn book<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records a request, and the time from which its latency is measured.
    pub(super) fn ask(&self, service: RequestKind, due: Instant) -> Entry {
        self.book(|book| {
            book.asked.push(Request { service, due, outcome: None });
            Entry(book.asked.len() - 1)
        })
    }

    /// Records the outcome of a request. The first outcome counts.
    pub(super) fn end(&self, Entry(entry): Entry, outcome: Result<(), String>) {
        self.book(|book| {
            let asked = &mut book.asked[entry];
            let took = asked.due.elapsed();
            asked.outcome.get_or_insert(outcome.map(|()| took));
        });
    }

    /// Records that the host ended a good client's connection, and why.
    pub(super) fn cut(&self, why: String) {
        self.book(|book| book.cut.push((Instant::now(), why)));
    }

    /// Records that a message was acknowledged.
    pub(super) fn acknowledged(&self) {
        self.book(|book| book.acknowledged += 1);
    }

    /// Records that a message was received.
    pub(super) fn received(&self) {
        self.book(|book| book.received += 1);
    }

    /// The service between `from` and `until`, once each request due by then has an outcome and each acknowledged
    /// message has reached all `listeners`. Until then `None` if `waits`, else the service so far.
    pub(super) fn take(&self, from: Instant, until: Instant, listeners: u64, waits: bool) -> Option<Served> {
        self.book(|book| {
            let open = |asked: &Request| asked.due < until && asked.outcome.is_none();
            let is_settled = !book.asked.iter().any(open) && book.received >= book.acknowledged * listeners;
            (is_settled || !waits).then(|| book.take(from, until, listeners))
        })
    }
}

impl Book {
    fn take(&mut self, from: Instant, until: Instant, listeners: u64) -> Served {
        let mut served = Served::default();
        for asked in self.asked.iter().filter(|asked| asked.due >= from && asked.due < until) {
            served.note(asked);
        }
        for (_, why) in self.cut.iter().filter(|(at, _)| *at >= from) {
            served.disconnected += 1;
            served.say(format!("disconnected: {why}"));
        }
        self.cut.clear();
        served.unheard = (self.acknowledged * listeners).saturating_sub(self.received);
        // A missing copy counts once. Received copies may outnumber acknowledgements, which arrive after them.
        self.received += served.unheard;
        for latencies in [&mut served.events, &mut served.newcomers, &mut served.operator] {
            latencies.sort_unstable();
        }
        served
    }
}

impl Served {
    fn note(&mut self, asked: &Request) {
        match (&asked.outcome, asked.service) {
            (Some(Ok(took)), service) => {
                let latencies = match service {
                    RequestKind::Event => &mut self.events,
                    RequestKind::Newcomer => &mut self.newcomers,
                    RequestKind::Operator => &mut self.operator,
                };
                latencies.push(took.as_micros() as u32);
            }
            (Some(Err(why)), service) => {
                self.refused += 1;
                self.say(format!("{service:?}: {why}"));
            }
            (None, service) => {
                self.missing += 1;
                self.say(format!("{service:?}: no answer"));
            }
        }
    }

    fn say(&mut self, what: String) {
        if self.said.len() < SAID && !self.said.contains(&what) {
            self.said.push(what);
        }
    }

    /// Whether no good client lost anything.
    pub fn is_lossless(&self) -> bool {
        self.refused + self.disconnected + self.missing + self.unheard == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_each_kind_are_counted() {
        let (ledger, from) = (Ledger::default(), Instant::now());
        let answered = ledger.ask(RequestKind::Event, from);
        let refused = ledger.ask(RequestKind::Newcomer, from);
        ledger.ask(RequestKind::Operator, from);
        ledger.end(answered, Ok(()));
        ledger.end(refused, Err("no".to_owned()));
        ledger.acknowledged();
        ledger.received();
        ledger.cut("1001".to_owned());
        let until = Instant::now() + Duration::from_secs(1);
        assert!(ledger.take(from, until, 2, true).is_none());
        let served = ledger.take(from, until, 2, false).unwrap();
        let counts = (served.events.len(), served.refused, served.missing, served.disconnected, served.unheard);
        assert_eq!(counts, (1, 1, 1, 1, 1));
        assert!(!served.is_lossless() && Served::default().is_lossless());
    }

    #[test]
    fn first_outcome_of_a_request_counts() {
        let (ledger, from) = (Ledger::default(), Instant::now());
        let asked = ledger.ask(RequestKind::Event, from);
        ledger.end(asked, Ok(()));
        ledger.end(asked, Err("late".to_owned()));
        let until = Instant::now() + Duration::from_secs(1);
        assert!(ledger.take(from, until, 2, true).unwrap().is_lossless());
    }
}
