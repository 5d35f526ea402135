//! A page: it does what it is told, and comes back by itself when its connection ends, as the page of a browser does.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedReceiver;

use super::model::{Command, Place, ROOMS, TIMELINES};
use super::record::{Message, Record};
use super::wire::Wire;
use crate::{Random, TestCluster};

/// What all pages share.
#[derive(Debug)]
pub(super) struct Shared {
    record: Mutex<Record>,
    /// The addresses for clients: of all hosts, or of the load balancer alone.
    pub(super) ws: Vec<String>,
    /// The addresses of the API, of all hosts.
    pub(super) apis: Vec<String>,
}

impl Shared {
    /// A new record, for pages that connect to these addresses.
    pub(super) fn new(ws: Vec<String>, apis: Vec<String>) -> Self {
        Self { record: Mutex::new(Record::new(apis.len(), TIMELINES)), ws, apis }
    }

    /// The record.
    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        // The record of a task that panicked is still read for the story.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    /// The number of the page.
    pub(super) number: usize,
    agent: usize,
    /// What all pages share.
    pub(super) shared: Arc<Shared>,
    pub(super) random: Random,
    /// What the page is told to do.
    pub(super) commands: UnboundedReceiver<Command>,
    pub(super) is_open: bool,
    /// The places where the page wants to be.
    pub(super) wanted: BTreeSet<Place>,
    /// The numbers of the messages that are to be sent, or sent again until they are acknowledged.
    pub(super) outbox: VecDeque<usize>,
}

impl Page {
    /// A closed page of an agent.
    pub(super) fn new(
        number: usize,
        agent: usize,
        shared: Arc<Shared>,
        random: Random,
        commands: UnboundedReceiver<Command>,
    ) -> Self {
        let (wanted, outbox) = (BTreeSet::new(), VecDeque::new());
        Self { number, agent, shared, random, commands, is_open: false, wanted, outbox }
    }

    /// Connects to any of the hosts.
    pub(super) async fn connect(&mut self) -> Result<(Wire, usize), String> {
        self.is_waiting("is not connected".to_owned());
        let target = self.random.below(self.shared.ws.len());
        let ws = self.shared.ws[target].clone();
        let wire = Wire::open(&ws, &TestCluster::token(&format!("agent{}", self.agent))).await?;
        let node = wire.node.unwrap_or(target);
        Ok((wire, node))
    }

    /// Does what a page does without a connection. Returns whether the page goes on.
    pub(super) fn apply(&mut self, command: Command) -> bool {
        match command {
            Command::Open => {
                self.is_open = true;
                self.wanted = [Place::Room(self.room()), Place::Timeline(self.agent % TIMELINES)].into();
                self.is_waiting("is not connected".to_owned());
            }
            Command::Close { .. } => {
                self.is_open = false;
                self.wanted.clear();
                self.outbox.clear();
                self.has_all();
            }
            Command::View(ticket) => _ = self.wanted.insert(Place::Ticket(ticket)),
            Command::Leave(ticket) => _ = self.wanted.remove(&Place::Ticket(ticket)),
            Command::Type(_) => {}
            Command::Say { is_keyed } => {
                let message =
                    Message { page: self.number, room: self.room(), is_keyed, sent: None, acknowledged: None };
                let mut record = self.shared.record();
                record.messages.push(message);
                let number = record.messages.len() - 1;
                drop(record);
                self.outbox.push_back(number);
            }
        }
        self.is_open
    }

    fn room(&self) -> usize {
        self.agent % ROOMS
    }

    /// Records that the page lacks something.
    pub(super) fn is_waiting(&self, why: String) {
        self.shared.record().unsettled.insert(self.number, why);
    }

    /// Records that the page lacks nothing.
    pub(super) fn has_all(&self) {
        self.shared.record().unsettled.remove(&self.number);
    }
}
