//! The state of a simulation: connections, rooms, scopes, and the agenda of timers and time-outs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use roundhouse_contract::ScopeAddress;
use serde_json::Value;

use crate::{Member, Payload};

/// One connection of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection(pub(super) usize);

/// An event that a connection received.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The event's name.
    pub event: String,
    /// The event's arguments.
    pub args: Vec<Value>,
    /// The event's binary attachments.
    pub attachments: Vec<Vec<u8>>,
    /// Whether the host may drop the event for a slow connection.
    pub volatile: bool,
}

/// A document that a feature saved, and that is not stored yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Save {
    /// The scope that saved it.
    pub scope: String,
    /// The tag, which the outcome repeats.
    pub tag: String,
    /// The collection.
    pub collection: String,
    /// The key under which no second document is stored in the scope's collection.
    pub key: Option<String>,
    /// The document.
    pub document: Value,
    /// The number of the promise.
    pub(super) number: u64,
    /// The number of restarts before the promise.
    pub(super) life: u32,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0 + 1)
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct ClientState {
    pub(super) member: Member,
    pub(super) inbox: Vec<Frame>,
    pub(super) closed: Option<String>,
    pub(super) is_away: bool,
}

/// An event in an inbox. All recipients share it, and it is decoded only for tests that read it.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) event: Rc<str>,
    pub(super) payload: Rc<Payload>,
    pub(super) volatile: bool,
}

impl Frame {
    pub(super) fn new(event: &str, payload: Payload, volatile: bool) -> Self {
        Self { event: event.into(), payload: Rc::new(payload), volatile }
    }

    pub(super) fn read(&self) -> Delivery {
        Delivery {
            event: self.event.to_string(),
            args: serde_json::from_str(&self.payload.args).expect("arguments were checked"),
            attachments: self.payload.attachments.clone(),
            volatile: self.volatile,
        }
    }
}

/// The connections in a room, and their number for each user. Joins and departures keep the numbers, so that an event in a
/// large room costs no more than in an empty one.
#[derive(Debug, Default)]
pub(super) struct ConnectionSet {
    members: BTreeSet<usize>,
    users: BTreeMap<String, usize>,
}

impl ConnectionSet {
    /// Adds a connection. Returns whether it is new.
    pub(super) fn insert(&mut self, position: usize, user_id: &str) -> bool {
        let new = self.members.insert(position);
        if new {
            *self.users.entry(user_id.to_owned()).or_default() += 1;
        }
        new
    }

    /// Removes a connection. Returns whether it was a member.
    pub(super) fn remove(&mut self, position: usize, user_id: &str) -> bool {
        let was_in = self.members.remove(&position);
        if was_in && let Some(n) = self.users.get_mut(user_id) {
            *n -= 1;
            if *n == 0 {
                self.users.remove(user_id);
            }
        }
        was_in
    }

    pub(super) fn has(&self, position: usize) -> bool {
        self.members.contains(&position)
    }

    pub(super) fn n_connections(&self) -> usize {
        self.members.len()
    }

    pub(super) fn n_users(&self) -> usize {
        self.users.len()
    }

    pub(super) fn n_connections_of(&self, user_id: &str) -> usize {
        self.users.get(user_id).copied().unwrap_or(0)
    }

    pub(super) fn members(&self) -> &BTreeSet<usize> {
        &self.members
    }
}

/// One scope.
#[derive(Debug, Default)]
pub(super) struct ScopeState {
    pub(super) template: usize,
    pub(super) params: Vec<String>,
    pub(super) state: Option<Vec<u8>>,
    pub(super) sequence: u64,
    /// The time and number of each timer in the agenda.
    pub(super) timers: BTreeMap<String, At>,
    /// Each connection that the scope watches, and whether the connection came to the feature by itself.
    pub(super) watched: BTreeMap<usize, bool>,
    pub(super) last_event: u64,
}

impl ScopeState {
    pub(super) fn key(&self, scope: &str) -> Key {
        Key { template: self.template, scope: scope.to_owned(), params: self.params.clone() }
    }
}

/// A scope's key, its template and the values of the placeholders.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) template: usize,
    pub(super) scope: String,
    pub(super) params: Vec<String>,
}

impl Key {
    pub(super) fn new(template: usize, address: &ScopeAddress) -> Self {
        Self { template, scope: address.key.to_string(), params: address.params.to_vec() }
    }

    /// The key of `gathered` events, which have no scope.
    pub(super) fn nowhere() -> Self {
        Self { template: 0, scope: String::new(), params: Vec::new() }
    }
}

/// A place in the agenda: the time at which an entry is due, and a number that orders entries of the same time.
pub(super) type At = (u64, u64);

/// Timers and time-outs, in the order in which they are due.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    pub(super) due: BTreeMap<At, Due>,
    pub(super) n_set: u64,
}

#[derive(Debug)]
pub(super) enum Due {
    Timer { key: Key, name: String, payload: String },
    AnswerTimeout,
}

impl Agenda {
    pub(super) fn add(&mut self, at: u64, due: Due) -> At {
        self.n_set += 1;
        self.due.insert((at, self.n_set), due);
        (at, self.n_set)
    }

    pub(super) fn remove(&mut self, at: At) {
        self.due.remove(&at);
    }
}

/// A pending acknowledgement.
#[derive(Debug)]
pub(super) struct PendingAck {
    pub(super) key: Key,
    pub(super) tag: String,
    pub(super) connection: usize,
    pub(super) at: At,
}

/// A payload's arguments as tests get them: several are an array, none is `null`.
pub(super) fn one_or_many(mut args: Vec<Value>) -> Value {
    match args.len() {
        0 => Value::Null,
        1 => args.remove(0),
        _ => Value::Array(args),
    }
}
