//! A client of a group: it enters the scopes, sends events, has its connection cut, and checks what arrives.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::acks::{Acknowledgements, Asked};
use super::board::{Board, Phase, Totals, count, read};
use super::group::{Group, SIZE, Scope, with};
use super::line::{Arrival, Line, Protocol, within};
use super::seen::{Seen, VISITOR};
use super::talk::body;
use super::tally::Kind;
use super::viewers::Change;
use crate::{Random, TIMEOUT};

/// The longest time without an arrival after which a condition is checked again.
const TICK: Duration = Duration::from_millis(20);

/// The indexes of the clients whose connections are cut: of both protocols, and a typist.
const CUT: [usize; 4] = [1, 3, 4, 5];

/// The index of the client whose typing ends by stopping, of the one whose typing ends by the feature's timer, and of
/// one that types to the contact alone.
const STOPS: usize = 0;
const EXPIRES: usize = 1;
const WRITES: usize = 3;

/// A client.
#[derive(Debug)]
pub(super) struct Member {
    number: usize,
    /// The index in the group.
    me: usize,
    group: Group,
    protocol: Protocol,
    ws: String,
    token: String,
    /// `None` while it is cut.
    line: Option<Line>,
    acknowledgements: Acknowledgements,
    random: Random,
    board: Arc<Board>,
    /// What it has seen.
    pub(super) seen: Seen,
    /// The number of times that its connection was cut and recovered.
    pub(super) n_cuts: u64,
    /// The number of messages that were sent again after a cut.
    pub(super) n_repeated: u64,
}

impl Member {
    /// A client that is not connected.
    pub(super) fn new(number: usize, ws: &str, token: String, random: Random, board: Arc<Board>) -> Self {
        let (me, group) = (number % SIZE, Group(number / SIZE));
        let protocol = match (me + group.0) % 4 {
            0 | 2 => Protocol::Plain,
            1 => Protocol::SocketIo,
            _ => Protocol::Upgraded,
        };
        Self {
            number,
            me,
            group,
            protocol,
            ws: ws.to_owned(),
            token,
            line: None,
            acknowledgements: Acknowledgements::default(),
            random,
            seen: Seen::new(number, board.clone()),
            board,
            n_cuts: 0,
            n_repeated: 0,
        }
    }

    /// Runs the client through all phases. It stays connected until the returned value is dropped.
    ///
    /// # Errors
    /// If its connection ends, or is not recovered, or something does not happen in time.
    pub(super) async fn run(mut self) -> anyhow::Result<Self> {
        let name = self.name();
        self.enter().await.with_context(|| format!("{name} enters"))?;
        self.work().await.with_context(|| format!("{name} under load"))?;
        self.rest().await.with_context(|| format!("{name} at the end"))?;
        Ok(self)
    }

    /// The number of the client.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// The index of the client in its group.
    pub(super) fn index(&self) -> usize {
        self.me
    }

    /// The client and its protocol.
    pub(super) fn name(&self) -> String {
        format!("client {} ({:?})", self.number, self.protocol)
    }

    /// The number of acknowledgements that have arrived.
    pub(super) fn n_acknowledgements(&self) -> u64 {
        self.acknowledgements.n_arrived
    }

    fn totals(&self) -> &Totals {
        &self.board.totals[self.group.0]
    }

    async fn enter(&mut self) -> anyhow::Result<()> {
        self.line = Some(within(TIMEOUT, Line::open(self.protocol, &self.ws, &self.token)).await??);
        let contact = self.group.contact();
        let account = json!({ "accountId": contact["accountId"] });
        let contact = json!({ "contactId": contact["contactId"] });
        self.view().await?;
        self.ask(Scope::Timeline, Asked::Subscribe, "timeline:subscribe", &self.group.timeline()).await?;
        self.ask(Scope::Campaign, Asked::Snapshot, "subscribe:campaign", &self.group.campaign()).await?;
        self.ask(Scope::Chat, Asked::Other, self.group.join_chat(), &self.group.chat()).await?;
        self.ask(Scope::Contact, Asked::Other, "subscribe:contact", &contact).await?;
        self.ask(Scope::Account, Asked::Other, "subscribe:whatsapp", &account).await?;
        self.settle().await?;
        self.board.reach(Phase::Enter);
        self.read_until("the first fence", |member| member.seen.fences == 1).await?;
        // Those who entered first have seen more changes than the others.
        self.seen.viewers.forget();
        self.board.reach(Phase::Load);
        self.read_until("the load begins", |member| member.board.has_begun(Phase::Load)).await
    }

    async fn work(&mut self) -> anyhow::Result<()> {
        while !self.board.has_begun(Phase::Rest) {
            for _ in 0..=self.random.below(3) {
                self.act().await?;
            }
            self.settle().await?;
            let pause = Duration::from_millis(20 + self.random.below(80) as u64);
            self.read_for(pause).await?;
            if CUT.contains(&self.me) && self.random.in_hundred(8) {
                self.cut().await?;
            }
        }
        self.settle().await
    }

    async fn rest(&mut self) -> anyhow::Result<()> {
        self.read_until("its typing ends", |member| !member.seen.viewers.types() && !member.types_to_contact()).await?;
        self.board.reach(Phase::Rest);
        self.read_until("all others rest", |member| member.board.has_begun(Phase::Settle)).await?;
        let arrived = self.read_until("all that was sent arrives", |member| member.seen.is_complete()).await;
        for (n, what) in self.seen.missing() {
            self.found(Kind::Lost, n, &format!("has not got {n} {what}"));
        }
        arrived?;
        self.board.reach(Phase::Settle);
        self.read_until("the last fence", |member| member.seen.fences == 2).await?;
        self.view().await?;
        self.settle().await?;
        for (kind, what) in self.seen.compare() {
            self.found(kind, 1, &what);
        }
        if self.me == 0 {
            self.compare_history().await?;
        }
        self.board.reach(Phase::Compare);
        Ok(())
    }

    /// Sends one event or a few, by chance.
    async fn act(&mut self) -> anyhow::Result<()> {
        match self.random.below(10) {
            0..=3 => self.say().await,
            4 => self.ask(Scope::Timeline, Asked::Subscribe, "timeline:subscribe", &self.group.timeline()).await,
            5 => self.ask(Scope::Campaign, Asked::Snapshot, "subscribe:campaign", &self.group.campaign()).await,
            6 => self.view().await,
            7 => {
                let event = format!("{}History", self.group.family());
                self.ask(Scope::History, Asked::History, &event, &with(self.group.chat(), &[("limit", json!(3))])).await
            }
            _ => self.play().await,
        }
    }

    /// Does what only this client of the group does.
    async fn play(&mut self) -> anyhow::Result<()> {
        let ticket = self.group.ticket();
        match self.me {
            STOPS => {
                count(&self.totals().ticket_typings[STOPS]);
                self.ask(Scope::Ticket, Asked::Other, "ticket:typing", &ticket).await?;
                self.ask(Scope::Ticket, Asked::Other, "ticket:stop_typing", &ticket).await
            }
            EXPIRES => {
                let begun = read(&self.totals().ticket_typings[EXPIRES]);
                if self.seen.viewers.n_changes(Change::Stopped, self.number) == begun {
                    count(&self.totals().ticket_typings[EXPIRES]);
                    self.ask(Scope::Ticket, Asked::Other, "ticket:typing", &ticket).await?;
                }
                if !self.types_to_contact() {
                    self.type_to_contact("typing:start").await?;
                }
                Ok(())
            }
            VISITOR => {
                // The client must be in before it can leave.
                self.settle().await?;
                count(&self.totals().visits);
                self.ask(Scope::Ticket, Asked::Leave, "ticket:leave", &ticket).await?;
                self.settle().await?;
                self.view().await
            }
            WRITES => {
                self.type_to_contact("typing:start").await?;
                self.type_to_contact("typing:stop").await
            }
            _ => self.say().await,
        }
    }

    async fn view(&mut self) -> anyhow::Result<()> {
        self.seen.viewers.enter();
        self.ask(Scope::Ticket, Asked::View, "ticket:view", &self.group.ticket()).await
    }

    /// Whether the client has typed to the contact, and no other has seen the end of it.
    fn types_to_contact(&self) -> bool {
        let totals = self.totals();
        read(&totals.contact_ends[self.me]) < read(&totals.contact_typings[self.me])
    }

    async fn type_to_contact(&mut self, event: &str) -> anyhow::Result<()> {
        if event == "typing:start" {
            count(&self.totals().contact_typings[self.me]);
        }
        let ids = self.group.contact();
        let data = json!({ "contactId": ids["contactId"], "whatsappAccountId": ids["accountId"] });
        self.ask(Scope::Contact, Asked::Other, event, &data).await
    }

    async fn say(&mut self) -> anyhow::Result<()> {
        let number = count(&self.totals().said[self.me]);
        self.send_message(number).await
    }

    async fn send_message(&mut self, number: u64) -> anyhow::Result<()> {
        let body = json!(body(self.me, number));
        let data = with(self.group.chat(), &[("body", body.clone()), ("clientId", body)]);
        self.ask(Scope::Chat, Asked::Say(number), &format!("{}Message", self.group.family()), &data).await
    }

    async fn ask(&mut self, scope: Scope, asked: Asked, event: &str, data: &Value) -> anyhow::Result<()> {
        let id = self.acknowledgements.ask(scope, asked);
        let line = self.line.as_mut().context("it is connected")?;
        within(TIMEOUT, line.send(event, data, id)).await
    }

    /// Cuts the connection, mostly with unread events and half of the time with messages on the way, and recovers it.
    async fn cut(&mut self) -> anyhow::Result<()> {
        // Events arrive that are not read.
        tokio::time::sleep(Duration::from_millis(self.random.below(20) as u64)).await;
        if self.random.in_hundred(50) {
            for _ in 0..=self.random.below(3) {
                self.say().await?;
            }
        }
        let line = self.line.take().context("it is connected")?;
        let lost = line.cut(&self.token).await;
        tokio::time::sleep(Duration::from_millis(self.random.below(150) as u64)).await;
        let recovered = within(TIMEOUT, lost.recover(&self.ws, &self.token)).await.and_then(|line| line);
        self.line = Some(recovered.inspect_err(|error| self.found(Kind::Disconnected, 1, &format!("{error:#}")))?);
        self.n_cuts += 1;
        for number in self.acknowledgements.cut() {
            self.n_repeated += 1;
            self.send_message(number).await?;
        }
        self.settle().await
    }

    /// Reads until all events are acknowledged.
    async fn settle(&mut self) -> anyhow::Result<()> {
        let settled = self.read_until("acknowledgements", |member| member.acknowledgements.is_settled()).await;
        let missing: Vec<String> = self.acknowledgements.missing().collect();
        for missing in missing {
            self.found(Kind::Lost, 1, &format!("has not got {missing}"));
        }
        settled
    }

    /// Reads until `holds`.
    async fn read_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        // The load may last longer than anything else that is waited for.
        let deadline = Instant::now() + TIMEOUT;
        while !holds(self) {
            self.read_for_at_most(TICK).await?;
            ensure!(Instant::now() < deadline, "it did not come to this in time: {what}");
        }
        Ok(())
    }

    async fn read_for(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.read_for_at_most(left).await?;
        }
        Ok(())
    }

    /// Reads what arrives next, if it arrives in time.
    async fn read_for_at_most(&mut self, time: Duration) -> anyhow::Result<()> {
        let line = self.line.as_mut().context("it is connected")?;
        let Ok(arrival) = timeout(time, line.next()).await else { return Ok(()) };
        let arrival = arrival.inspect_err(|error| self.found(Kind::Disconnected, 1, &format!("{error:#}")))?;
        let check = match arrival {
            Arrival::Event(event, data) => self.seen.see(&event, &data),
            Arrival::Acknowledgement(id, answer) => match (self.acknowledgements.take(id), answer) {
                (Ok(asked), Ok(data)) => self.seen.see_answer(asked, &data),
                (Ok(asked), Err(error)) => Err((Kind::Refused, format!("{asked:?} was refused: {error}"))),
                (Err(fault), _) => Err(fault),
            },
        };
        if let Err((kind, what)) = check {
            self.found(kind, 1, &what);
        }
        Ok(())
    }

    fn found(&self, kind: Kind, n: u64, what: &str) {
        self.board.tally().add(kind, n, format!("{}: {what}", self.name()));
    }

    /// Compares the stored messages of the room or the channel with those that were shown.
    async fn compare_history(&mut self) -> anyhow::Result<()> {
        let event = format!("{}History", self.group.family());
        let mut stored: Vec<String> = Vec::new();
        let mut before = Value::Null;
        loop {
            let data = with(self.group.chat(), &[("limit", json!(100)), ("before", before)]);
            let id = self.acknowledgements.ask(Scope::History, Asked::History);
            let line = self.line.as_mut().context("it is connected")?;
            within(TIMEOUT, line.send(&event, &data, id)).await?;
            let page = match within(TIMEOUT, line.next()).await?? {
                Arrival::Acknowledgement(answered, Ok(page)) if answered == id => page,
                other => bail!("the history was asked for, and there came {other:?}"),
            };
            let messages = page["messages"].as_array().context("a page has messages")?;
            stored.extend(messages.iter().map(|message| message["body"].as_str().unwrap_or_default().to_owned()));
            if page["hasMore"] != true {
                break;
            }
            before =
                messages.last().map(|last| last["_id"].clone()).context("a page that is not the last has messages")?;
        }
        stored.reverse();
        let shown = &self.seen.talk.shown;
        if stored != *shown {
            let at = stored.iter().zip(shown).take_while(|(a, b)| a == b).count();
            let what = format!("{} stored messages, {} shown, equal up to {at}", stored.len(), shown.len());
            self.found(Kind::Wrong, 1, &what);
        }
        Ok(())
    }
}
