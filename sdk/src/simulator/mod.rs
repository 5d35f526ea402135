//! A host without sockets, threads or WebAssembly: people who connect and send, a clock that tests move,
//! rooms, timers and checks as the real host has them. A test says what people do and looks at what they
//! received.
//!
//! The crate's first page shows one at work.
//!
//! What is the author's mistake and not a sender's, such as an event that the manifest does not name or an
//! outcome that differs when the same event is handled again, panics and says so.

mod contract;
mod limits;
mod look;
mod rooms;
mod store;
mod world;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use roundhouse_contract::{CONNECT_EVENT, Manifest};
use serde_json::{Value, json};

use crate::event::{Answers, Message, Query};
use crate::log::Level;
use crate::{Event, Failure, Feature, Identity, LeaveReason, Member, Payload, Sender, decode};
use limits::check_bounds;
use rooms::{Crowd, Frame, Line};
use store::Store;
use world::{Agenda, Asked, Key, Slot, first_argument, values};

/// When simulations begin, in epoch milliseconds: any moment would do, a round one reads well in failures.
const BEGINNING: u64 = 1_800_000_000_000;

/// One connection of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection(usize);

/// An event that a connection received, with all that came with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The event's name.
    pub event: String,
    /// Its arguments.
    pub args: Vec<Value>,
    /// Its binary attachments.
    pub attachments: Vec<Vec<u8>>,
    /// Whether a slow connection might have missed it.
    pub volatile: bool,
}

/// A document that a feature wants stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Save {
    /// The scope that wants it.
    pub scope: String,
    /// Its tag, which comes back with the outcome.
    pub tag: String,
    /// Where it is to be stored.
    pub collection: String,
    /// What no two documents of the scope's collection have in common, if anything.
    pub key: Option<String>,
    /// The document.
    pub document: Value,
    /// Which promise it is, of how many.
    number: u64,
    /// How often the host had been started anew when it was promised.
    life: u32,
}

/// A feature, the people who use it, and a clock.
pub struct Simulation<F: Feature> {
    manifest: Manifest,
    settings: String,
    now: u64,
    n_events: u64,
    lines: Vec<Line>,
    rooms: BTreeMap<String, Crowd>,
    scopes: BTreeMap<String, Slot>,
    agenda: Agenda,
    asked: Vec<Asked>,
    store: Store,
    logs: Vec<(Level, String)>,
    /// What scopes are still to be told of what the last event caused elsewhere.
    pending: VecDeque<(Key, Event)>,
    feature: PhantomData<fn() -> F>,
}

impl<F: Feature> fmt::Debug for Simulation<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("now", &self.now)
            .field("rooms", &self.rooms)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl<F: Feature> Default for Simulation<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Feature> Simulation<F> {
    /// The feature with its default settings, and nobody there.
    ///
    /// # Panics
    /// Where the manifest contradicts itself or the feature's types.
    pub fn new() -> Self {
        let manifest = contract::check_manifest(F::describe()).unwrap_or_else(|why| panic!("the manifest: {why}"));
        let connect = manifest.connect_scope.iter().map(|_| CONNECT_EVENT);
        for event in manifest.routes.keys().map(String::as_str).chain(connect) {
            assert!(decode::knows::<F::Message>(event), "no message is called {event:?}, yet it is routed");
        }
        Self {
            manifest,
            settings: "{}".to_owned(),
            now: BEGINNING,
            n_events: 0,
            lines: Vec::new(),
            rooms: BTreeMap::new(),
            scopes: BTreeMap::new(),
            agenda: Agenda::default(),
            asked: Vec::new(),
            store: Store::default(),
            logs: Vec::new(),
            pending: VecDeque::new(),
            feature: PhantomData,
        }
    }

    /// The same with an operator's settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Value) -> Self {
        self.set_settings(&settings);
        self
    }

    /// Changes the settings, as an operator may at any time.
    pub fn set_settings(&mut self, settings: &Value) {
        self.settings = settings.to_string();
    }

    /// A person connects: with an id that is connected already, by another tab.
    pub fn connect(&mut self, user_id: &str, name: &str) -> Connection {
        self.connect_as(Identity {
            user_id: user_id.to_owned(),
            name: Some(name.to_owned()),
            roles: Vec::new(),
            claims: "{}".to_owned(),
        })
    }

    /// A person with roles, claims or no name connects.
    pub fn connect_as(&mut self, identity: Identity) -> Connection {
        self.connect_to("/", identity, &json!({}))
    }

    /// A person connects to a Socket.IO namespace, with what its client gives as `auth`. Where the feature refuses to
    /// hear of it, that comes as an `error` event.
    ///
    /// # Panics
    /// Where the manifest does not name the namespace.
    pub fn connect_to(&mut self, namespace: &str, identity: Identity, auth: &Value) -> Connection {
        let is_there = namespace == "/" || self.manifest.namespaces.contains(namespace);
        assert!(is_there, "the manifest of {} does not name the namespace {namespace:?}", self.manifest.name);
        let position = self.lines.len();
        let user_id = identity.user_id.clone();
        self.lines.push(Line {
            member: Member { connection: format!("c{}", position + 1), identity },
            inbox: Vec::new(),
            closed: None,
            is_away: false,
        });
        self.rooms.entry(format!("user:{user_id}")).or_default().insert(position, &user_id);
        let connection = Connection(position);
        if let Some(address) = &self.manifest.connect_scope {
            let key = self.key_of(&address.key);
            let sender = Sender::Client(self.line(connection).member.clone());
            let (payload, checked) = self.connect_payload(namespace, auth);
            if let Err(failure) = checked {
                self.refuse(connection, CONNECT_EVENT, failure);
            }
            let message = Message { event: CONNECT_EVENT.to_owned(), sender, payload, wants_reply: false };
            if let Err(failure) = self.take(&key, message) {
                self.refuse(connection, CONNECT_EVENT, failure);
            }
        }
        connection
    }

    /// Sends an event and asks for an acknowledgement: what comes back is that, or the refusal. Several
    /// arguments come back as an array, none as `null`.
    pub fn emit_with_ack(&mut self, from: Connection, event: &str, data: Value) -> Result<Value, Failure> {
        self.emit_payload_with_ack(from, event, Payload::from_args(json!([data]).to_string()))
    }

    /// Sends an event with any arguments and attachments, and asks for an acknowledgement.
    pub fn emit_payload_with_ack(&mut self, from: Connection, event: &str, payload: Payload) -> Result<Value, Failure> {
        let sender = self.sender(from);
        self.message(sender, event, payload, true)
    }

    /// Sends an event without asking for an acknowledgement: a refusal comes as an `error` event.
    pub fn emit(&mut self, from: Connection, event: &str, data: Value) {
        let sender = self.sender(from);
        let payload = Payload::from_args(json!([data]).to_string());
        if let Err(failure) = self.message(sender, event, payload, false) {
            self.refuse(from, event, failure);
        }
    }

    /// The connection as the sender of what it sends.
    fn sender(&mut self, from: Connection) -> Sender {
        let sender = Sender::Client(self.line(from).member.clone());
        sender
    }

    fn refuse(&mut self, connection: Connection, event: &str, failure: Failure) {
        let Failure { code, message } = failure;
        let error = json!([{"code": code, "message": message, "event": event}]);
        self.lines[connection.0].inbox.push(Frame::new("error", Payload::from_args(error.to_string()), false));
    }

    /// A backend service sends an event.
    pub fn service(&mut self, key: &str, event: &str, data: Value) -> Result<Value, Failure> {
        let payload = Payload::from_args(json!([data]).to_string());
        self.message(Sender::Service(key.to_owned()), event, payload, true)
    }

    fn message(&mut self, sender: Sender, event: &str, payload: Payload, wants_reply: bool) -> Result<Value, Failure> {
        let route = self.manifest.routes.get(event);
        let route = route.ok_or_else(|| Failure::new("unknown_event", format!("there is no event {event}")))?;
        let (may_send, others) = match sender {
            Sender::Client(_) => (route.from_client, "services"),
            _ => (route.from_service, "clients"),
        };
        if !may_send {
            return Err(Failure::forbidden(format!("only {others} may send {event}")));
        }
        check_bounds(route.limits, event, &payload)?;
        let key = self.key(route.scope, first_argument(&payload).get())?;
        self.take(&key, Message { event: event.to_owned(), sender, payload, wants_reply })
    }

    /// Hands a message to the scope that it is for, and gives the reply.
    fn take(&mut self, key: &Key, message: Message) -> Result<Value, Failure> {
        let (event, wants_reply) = (message.event.clone(), message.wants_reply);
        let ran = self.run(key, Event::Message(message))?;
        let is_deferred = ran.fetch.is_some() && ran.reply.is_none();
        if let Some(fetch) = ran.fetch {
            self.store.fetch(key, fetch, is_deferred);
        }
        self.settle();
        let reply = match (is_deferred, self.store.take_deferred()) {
            (false, _) => ran.reply.unwrap_or_default(),
            (true, Some(result)) => result?,
            (true, None) if wants_reply => panic!("{event} is answered when fetches are released: use `emit`"),
            (true, None) => Payload::none(),
        };
        Ok(values(&reply))
    }

    /// A service asks. A question without scope is put to all scopes and their answers are folded.
    pub fn query(&mut self, name: &str, data: Value) -> Result<Value, Failure> {
        let query = Query { name: name.to_owned(), data: data.to_string() };
        match self.manifest.queries.get(name) {
            None => Err(Failure::not_found(format!("there is no query {name}"))),
            Some(None) => self.gather(query),
            Some(Some(scope)) => {
                let key = self.key(*scope, &query.data)?;
                self.ask(&key, Event::Query(query))
            }
        }
    }

    fn gather(&mut self, query: Query) -> Result<Value, Failure> {
        self.forget_idle();
        let keys: Vec<Key> = self.scopes.iter().map(|(scope, slot)| slot.key(scope)).collect();
        let mut texts = Vec::with_capacity(keys.len());
        for key in &keys {
            texts.push(self.ask(key, Event::Query(query.clone()))?.to_string());
        }
        let answers = Answers { texts, omitted: 0 };
        self.ask(&Key::nowhere(), Event::Gathered(query, answers))
    }

    fn ask(&mut self, key: &Key, question: Event) -> Result<Value, Failure> {
        Ok(values(&self.run(key, question)?.reply.unwrap_or_default()))
    }

    /// The feature's own figures, as the host asks for them.
    pub fn stats(&mut self) -> Result<Value, Failure> {
        self.query("stats", json!({}))
    }

    /// A connection goes, however it goes.
    pub fn disconnect(&mut self, connection: Connection) {
        self.close(connection.0, "disconnected");
        self.settle();
    }

    /// A connection's client loses its transport, and may come back: the connection keeps its place, and what it is sent
    /// waits for the client. Scopes that ask for it are told that it is [away](Feature::away).
    pub fn lose(&mut self, connection: Connection) {
        self.set_away(connection.0, true);
        self.settle();
    }

    /// A client that lost its transport comes back to its connection. Scopes that ask for it are told that it is
    /// [back](Feature::back). One that does not come back in time [disconnects](Self::disconnect).
    pub fn come_back(&mut self, connection: Connection) {
        self.set_away(connection.0, false);
        self.settle();
    }

    /// Another feature or an operator takes a connection into a room.
    pub fn join(&mut self, connection: Connection, room: &str) {
        self.enter(connection.0, room, None);
        self.settle();
    }

    /// Another feature or an operator takes a connection out of a room.
    pub fn leave(&mut self, connection: Connection, room: &str) {
        self.exit(connection.0, room, None, LeaveReason::Left);
        self.settle();
    }

    /// A client answers an event that asked for an acknowledgement.
    ///
    /// # Panics
    /// Where nothing with this tag waits for an answer of this connection.
    pub fn acknowledge(&mut self, connection: Connection, tag: &str, data: Value) {
        self.acknowledge_payload(connection, tag, Payload::from_args(json!([data]).to_string()));
    }

    /// The same with any arguments and attachments.
    ///
    /// # Panics
    /// Where nothing with this tag waits for an answer of this connection.
    pub fn acknowledge_payload(&mut self, connection: Connection, tag: &str, payload: Payload) {
        let position = self
            .asked
            .iter()
            .position(|asked| asked.connection == connection.0 && asked.tag == tag)
            .unwrap_or_else(|| panic!("nothing tagged {tag:?} waits for an answer"));
        let asked = self.asked.remove(position);
        self.agenda.remove(asked.at);
        let answer = self.checked_answer(connection, payload);
        self.answer(asked, answer);
        self.settle();
    }

    /// Moves the clock: whatever is due on the way happens at its time.
    pub fn advance(&mut self, by: Duration) {
        self.advance_to(self.now + u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
    }

    fn line(&self, connection: Connection) -> &Line {
        let line = &self.lines[connection.0];
        assert!(line.closed.is_none(), "{} is closed", line.member.connection);
        assert!(!line.is_away, "{} is away, and sends nothing until it comes back", line.member.connection);
        line
    }
}

fn one_or_many(mut args: Vec<Value>) -> Value {
    match args.len() {
        0 => Value::Null,
        1 => args.remove(0),
        _ => Value::Array(args),
    }
}
