//! A page's connection: it enters the places that the page wants, and leaves the others, until the host has agreed.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::model::{Command, Place};
use super::page::Page;
use super::record::Stay;
use super::wire::{Arrival, Wire};

/// The time between two signs of life that the page asks for.
const PING: Duration = Duration::from_millis(500);
/// The time without a sign of life after which the page gives the connection up.
const PATIENCE: Duration = Duration::from_secs(3);
/// The time after a refusal until the page asks again.
const RETRY: Duration = Duration::from_millis(200);

/// What the page waits to have acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Asked {
    Enter(Place),
    Leave(Place),
    Say(usize),
    Type,
}

/// A connection of a page.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    page: &'a mut Page,
    wire: Wire,
    /// The number of the session in the record.
    session: usize,
    /// The places where the page is, and the number of the stay in the session.
    here: BTreeMap<Place, usize>,
    pending: HashMap<i64, Asked>,
    /// When what was refused may be asked again.
    refused: BTreeMap<Asked, Instant>,
    last_id: i64,
    last_sign: Instant,
}

impl<'a> Connection<'a> {
    /// A new connection to a host.
    pub(super) fn new(page: &'a mut Page, wire: Wire, node: usize) -> Self {
        let session = page.shared.record().open(page.number, node);
        let (here, pending, refused) = (BTreeMap::new(), HashMap::new(), BTreeMap::new());
        Self { page, wire, session, here, pending, refused, last_id: 0, last_sign: Instant::now() }
    }

    /// Serves the connection until it ends. Returns `None` if the run is over.
    pub(super) async fn run(mut self) -> Option<()> {
        let end = self.serve().await;
        let unkeyed = |page: &Page, number: &usize| !page.shared.record().messages[*number].is_keyed;
        let lost = self.pending.values().filter_map(|asked| match asked {
            Asked::Say(number) if unkeyed(self.page, number) => Some(*number),
            _ => None,
        });
        // A message without a client's id cannot be repeated.
        let lost: Vec<usize> = lost.collect();
        self.page.outbox.retain(|number| !lost.contains(number));
        let why = match &end {
            End::Lost(why) => why,
            End::Closed { .. } => "the page was closed",
            End::Over => "the run is over",
        };
        self.page.shared.record().close(self.session, why);
        match end {
            End::Lost(_) => Some(()),
            End::Closed { politely } => {
                if politely {
                    self.wire.close().await;
                }
                Some(())
            }
            End::Over => None,
        }
    }

    async fn serve(&mut self) -> End {
        let mut ping = tokio::time::interval(PING);
        loop {
            if let Err(why) = self.advance().await {
                return End::Lost(why);
            }
            tokio::select! {
                command = self.page.commands.recv() => match command {
                    None => return End::Over,
                    Some(command) => match self.take(command).await {
                        Ok(None) => {}
                        Ok(Some(end)) => return end,
                        Err(why) => return End::Lost(why),
                    }
                },
                arrival = self.wire.next() => {
                    self.last_sign = Instant::now();
                    match arrival {
                        Ok(Arrival::Frame(frame)) => self.see(&frame),
                        Ok(Arrival::Pong) => {}
                        Err(why) => return End::Lost(why),
                    }
                }
                _ = ping.tick() => {
                    if self.last_sign.elapsed() > PATIENCE {
                        return End::Lost("no sign of life".to_owned());
                    }
                    if let Err(why) = self.wire.ping().await {
                        return End::Lost(why);
                    }
                }
                () = tokio::time::sleep(RETRY), if !self.refused.is_empty() => {}
            }
        }
    }

    async fn take(&mut self, command: Command) -> Result<Option<End>, String> {
        if let Command::Type(ticket) = command
            && self.here.contains_key(&Place::Ticket(ticket))
        {
            self.ask(Asked::Type, "ticket:typing", json!({ "ticketId": format!("t{ticket}") })).await?;
        }
        self.page.apply(command);
        Ok(match command {
            Command::Close { politely } => Some(End::Closed { politely }),
            _ => None,
        })
    }

    /// Asks for what the page lacks.
    async fn advance(&mut self) -> Result<(), String> {
        self.refused.retain(|_, until| *until > Instant::now());
        let entered = self.page.wanted.iter().filter(|place| !self.here.contains_key(place));
        let left = self.here.keys().filter(|place| !self.page.wanted.contains(place));
        let room = self.here.keys().any(|place| matches!(place, Place::Room(_)));
        let said = self.page.outbox.iter().filter(|_| room);
        let lacking: Vec<Asked> = entered
            .map(|place| Asked::Enter(*place))
            .chain(left.map(|place| Asked::Leave(*place)))
            .chain(said.map(|number| Asked::Say(*number)))
            .collect();
        for asked in &lacking {
            if self.is_free(asked) {
                self.ask_for(*asked).await?;
            }
        }
        let waits = lacking.first().copied().or_else(|| self.pending.values().next().copied());
        match waits {
            Some(asked) => self.page.is_waiting(format!("waits for {asked:?} in session {}", self.session)),
            None => self.page.has_all(),
        }
        Ok(())
    }

    /// Whether nothing is under way, or was just refused, that concerns the same place or message.
    fn is_free(&self, asked: &Asked) -> bool {
        let same = |other: &Asked| match (asked, other) {
            (Asked::Enter(a) | Asked::Leave(a), Asked::Enter(b) | Asked::Leave(b)) => a == b,
            (a, b) => a == b,
        };
        !self.pending.values().any(same) && !self.refused.keys().any(same)
    }

    async fn ask_for(&mut self, asked: Asked) -> Result<(), String> {
        let (event, data) = match asked {
            Asked::Enter(place) => enter(place),
            Asked::Leave(place) => {
                let stay = self.here[&place];
                let mut record = self.page.shared.record();
                let now = record.now();
                record.sessions[self.session].stays[stay].to.get_or_insert(now);
                drop(record);
                leave(place)
            }
            Asked::Say(number) => self.message(number),
            Asked::Type => return Ok(()),
        };
        self.ask(asked, event, data).await
    }

    async fn ask(&mut self, asked: Asked, event: &str, data: Value) -> Result<(), String> {
        self.last_id += 1;
        self.pending.insert(self.last_id, asked);
        self.wire.send(&json!({ "event": event, "data": data, "id": self.last_id })).await
    }

    fn message(&self, number: usize) -> (&'static str, Value) {
        let mut record = self.page.shared.record();
        let now = record.now();
        let message = &mut record.messages[number];
        message.sent.get_or_insert(now);
        let body = format!("m{number}");
        let mut data = json!({ "roomId": format!("r{}", message.room), "body": body });
        if message.is_keyed {
            data["clientId"] = json!(body);
        }
        let (page, place) = (self.page.number, Place::Room(message.room));
        record.note_of(page, Some(place), format!("page {page} sends message {number} in session {}", self.session));
        ("roomMessage", data)
    }

    fn see(&mut self, frame: &Value) {
        let Some(asked) = frame["id"].as_i64().and_then(|id| self.pending.remove(&id)) else {
            let event = frame["event"].as_str().unwrap_or_default();
            return self.page.shared.record().see(self.session, event, &frame["data"]);
        };
        match frame.get("error") {
            Some(error) => self.on_refused(asked, error),
            None => self.on_acknowledged(asked, &frame["data"]),
        }
    }

    fn on_refused(&mut self, asked: Asked, error: &Value) {
        let page = self.page.number;
        let mut record = self.page.shared.record();
        if asked == Asked::Type {
            return;
        }
        record.refused(error);
        record.note_of(page, place_of(asked), format!("page {page} was refused {asked:?}: {error}"));
        if let Asked::Say(number) = asked
            && !record.messages[number].is_keyed
        {
            self.page.outbox.retain(|other| *other != number);
        }
        self.refused.insert(asked, Instant::now() + RETRY);
    }

    fn on_acknowledged(&mut self, asked: Asked, data: &Value) {
        let page = self.page.number;
        let mut record = self.page.shared.record();
        let now = record.now();
        record.note_of(page, place_of(asked), format!("page {page} has {asked:?} acknowledged"));
        match asked {
            Asked::Enter(place) => {
                record.sessions[self.session].stays.push(Stay { place, from: now, to: None });
                self.here.insert(place, record.sessions[self.session].stays.len() - 1);
                if let Place::Ticket(_) = place {
                    record.see_viewers(self.session, data);
                }
            }
            Asked::Leave(place) => _ = self.here.remove(&place),
            Asked::Say(number) => {
                let temp = data["tempId"].as_str().unwrap_or_default().to_owned();
                record.messages[number].acknowledged = Some((now, temp));
                self.page.outbox.retain(|other| *other != number);
            }
            Asked::Type => {}
        }
    }
}

/// The end of a connection.
#[derive(Debug)]
enum End {
    /// It was lost, for this reason.
    Lost(String),
    /// The page was closed.
    Closed {
        /// Whether there is a closing handshake.
        politely: bool,
    },
    /// The run is over.
    Over,
}

fn enter(place: Place) -> (&'static str, Value) {
    match place {
        Place::Ticket(ticket) => ("ticket:view", json!({ "ticketId": format!("t{ticket}") })),
        Place::Room(room) => ("joinRoom", json!({ "roomId": format!("r{room}") })),
        Place::Timeline(timeline) => {
            ("timeline:subscribe", json!({ "entityType": "ticket", "entityId": format!("e{timeline}") }))
        }
    }
}

fn leave(place: Place) -> (&'static str, Value) {
    let event = match place {
        Place::Ticket(_) => "ticket:leave",
        Place::Room(_) => "leaveRoom",
        Place::Timeline(_) => "timeline:unsubscribe",
    };
    (event, enter(place).1)
}

fn place_of(asked: Asked) -> Option<Place> {
    match asked {
        Asked::Enter(place) | Asked::Leave(place) => Some(place),
        Asked::Say(_) | Asked::Type => None,
    }
}
