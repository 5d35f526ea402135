//! A host without sockets, threads or WebAssembly: clients that connect and send, a clock that tests move, and the real
//! host's rooms, timers and rules. A test acts as clients and services, and checks the events that they receive. The
//! first page of the crate has an example.
//!
//! A mistake of the author, rather than of a sender, panics: for example an event that the manifest does not list, or
//! an outcome that differs when the same event is handled again.

mod case;
mod contract;
mod documents;
mod event;
mod inspect;
mod limits;
mod rooms;
mod scopes;
mod simulation;
mod state;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::time::Duration;

use roundhouse_contract::CONNECT_EVENT;
use serde_json::{Value, json};

use crate::event::{Answers, Message, Query};
use crate::{Event, Failure, Feature, Identity, LeaveReason, Member, Payload, Sender, decode};
use event::{first_argument, values};
use limits::check_bounds;
use state::{Agenda, ClientState, Frame, Key};
use store::Store;

pub use case::{case_end, replay_case};
pub use simulation::Simulation;
pub use state::{Connection, Delivery, Save};

/// The time at which simulations begin, in epoch milliseconds: a round number, which is easy to read in failures.
const BEGINNING: u64 = 1_800_000_000_000;

impl<F: Feature> Default for Simulation<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Feature> Simulation<F> {
    /// A simulation with default settings and without connections.
    ///
    /// # Panics
    /// If the host would refuse the manifest, or the type of messages lacks a routed event.
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
            clients: Vec::new(),
            rooms: BTreeMap::new(),
            scopes: BTreeMap::new(),
            agenda: Agenda::default(),
            pending_acks: Vec::new(),
            store: Store::default(),
            logs: Vec::new(),
            pending: VecDeque::new(),
            feature: PhantomData,
        }
    }

    /// Sets the operator's settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Value) -> Self {
        self.set_settings(&settings);
        self
    }

    /// Changes the operator's settings.
    pub fn set_settings(&mut self, settings: &Value) {
        self.settings = settings.to_string();
    }

    /// Connects a client of a user. A user may have several connections.
    pub fn connect(&mut self, user_id: &str, name: &str) -> Connection {
        self.connect_as(Identity {
            user_id: user_id.to_owned(),
            name: Some(name.to_owned()),
            roles: Vec::new(),
            claims: "{}".to_owned(),
        })
    }

    /// Connects a client with this identity.
    pub fn connect_as(&mut self, identity: Identity) -> Connection {
        self.connect_to("/", identity, &json!({}))
    }

    /// Connects a client to a Socket.IO namespace with this `auth`. If the feature refuses `connect`, the client gets an `error`
    /// event; or `connect_error`, and its connection is closed, if the feature [admits](crate::Scope::admits) connections.
    ///
    /// # Panics
    /// If the manifest does not list the namespace.
    pub fn connect_to(&mut self, namespace: &str, identity: Identity, auth: &Value) -> Connection {
        let is_there = namespace == "/" || self.manifest.namespaces.contains(namespace);
        assert!(is_there, "the manifest of {} does not name the namespace {namespace:?}", self.manifest.name);
        let position = self.clients.len();
        let user_id = identity.user_id.clone();
        self.clients.push(ClientState {
            member: Member { connection: format!("c{}", position + 1), identity },
            inbox: Vec::new(),
            closed: None,
            is_away: false,
        });
        self.rooms.entry(format!("user:{user_id}")).or_default().insert(position, &user_id);
        let connection = Connection(position);
        if let Some(address) = &self.manifest.connect_scope {
            let key = self.key_of(&address.key);
            let sender = Sender::Client(self.client(connection).member.clone());
            let (payload, checked) = self.connect_payload(namespace, auth);
            if let Err(failure) = checked {
                self.refuse(connection, CONNECT_EVENT, failure);
            }
            let admits = self.manifest.admits;
            let message = Message { event: CONNECT_EVENT.to_owned(), sender, payload, wants_reply: admits };
            match self.handle_message(&key, message) {
                Ok(_) => {}
                Err(failure) if admits => self.refuse_connection(connection, failure),
                Err(failure) => self.refuse(connection, CONNECT_EVENT, failure),
            }
        }
        connection
    }

    /// Sends an event with acknowledgement. Returns the acknowledgement, or the refusal. Several arguments are an
    /// array, none is `null`.
    pub fn emit_with_ack(&mut self, from: Connection, event: &str, data: Value) -> Result<Value, Failure> {
        self.emit_payload_with_ack(from, event, Payload::from_args(json!([data]).to_string()))
    }

    /// Sends an event with any arguments and attachments, and with acknowledgement; see
    /// [`emit_with_ack`](Self::emit_with_ack).
    pub fn emit_payload_with_ack(&mut self, from: Connection, event: &str, payload: Payload) -> Result<Value, Failure> {
        let sender = self.sender(from);
        self.message(sender, event, payload, true)
    }

    /// Sends an event without acknowledgement. A refusal reaches the client as an `error` event.
    pub fn emit(&mut self, from: Connection, event: &str, data: Value) {
        let sender = self.sender(from);
        let payload = Payload::from_args(json!([data]).to_string());
        if let Err(failure) = self.message(sender, event, payload, false) {
            self.refuse(from, event, failure);
        }
    }

    fn sender(&self, from: Connection) -> Sender {
        Sender::Client(self.client(from).member.clone())
    }

    fn refuse(&mut self, connection: Connection, event: &str, failure: Failure) {
        let Failure { code, message, .. } = failure;
        let error = json!([{"code": code, "message": message, "event": event}]);
        self.clients[connection.0].inbox.push(Frame::new("error", Payload::from_args(error.to_string()), false));
    }

    /// The client of a connection that does not open gets the event `connect_error`, and the connection is closed.
    fn refuse_connection(&mut self, connection: Connection, failure: Failure) {
        let refusal = failure.connect_refusal().and_then(|refusal| serde_json::from_str::<Value>(&refusal).ok());
        let Failure { code, message, .. } = failure;
        let data = refusal.map(|mut refusal| refusal["data"].take());
        let data = data.unwrap_or_else(|| json!({ "code": code, "message": message }));
        let error = Payload::from_args(json!([{ "message": message, "data": data }]).to_string());
        self.clients[connection.0].inbox.push(Frame::new("connect_error", error, false));
        self.close(connection.0, &message);
    }

    /// Sends an event as a service.
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
        if let (Sender::Client(member), Some(permission)) = (&sender, &route.permission) {
            permission.check(event, &member.identity.roles).map_err(Failure::forbidden)?;
        }
        check_bounds(route.limits, event, &payload)?;
        let key = self.key(route.scope, first_argument(&payload).get())?;
        self.handle_message(&key, Message { event: event.to_owned(), sender, payload, wants_reply })
    }

    /// Lets a scope handle a message. Returns the reply.
    fn handle_message(&mut self, key: &Key, message: Message) -> Result<Value, Failure> {
        let (event, wants_reply) = (message.event.clone(), message.wants_reply);
        let ran = self.run(key, Event::Message(message))?;
        let is_deferred = ran.fetch.is_some() && ran.reply.is_none();
        if let Some(fetch) = ran.fetch {
            self.store.fetch(key, fetch, is_deferred);
        }
        self.handle_pending();
        let reply = match (is_deferred, self.store.take_deferred()) {
            (false, _) => ran.reply.unwrap_or_default(),
            (true, Some(result)) => result?,
            (true, None) if wants_reply => panic!("{event} is answered when fetches are released: use `emit`"),
            (true, None) => Payload::none(),
        };
        Ok(values(&reply))
    }

    /// Sends a query as a service. Without a scope, all scopes answer, and the feature folds the answers.
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

    /// Sends the query `stats`, as the host does.
    pub fn stats(&mut self) -> Result<Value, Failure> {
        self.query("stats", json!({}))
    }

    /// Disconnects a client.
    pub fn disconnect(&mut self, connection: Connection) {
        self.close(connection.0, "disconnected");
        self.handle_pending();
    }

    /// A client loses its transport. The host keeps the connection in its rooms, and the events for it. Scopes with
    /// [`on_away`](crate::Scope::on_away) get [`away`](Feature::away).
    pub fn lose(&mut self, connection: Connection) {
        self.set_away(connection.0, true);
        self.handle_pending();
    }

    /// A client that lost its transport resumes its connection. Scopes with [`on_away`](crate::Scope::on_away) get
    /// [`back`](Feature::back). A client that does not resume in time [disconnects](Self::disconnect).
    pub fn come_back(&mut self, connection: Connection) {
        self.set_away(connection.0, false);
        self.handle_pending();
    }

    /// Another feature or an operator adds a connection to a room.
    pub fn join(&mut self, connection: Connection, room: &str) {
        self.enter(connection.0, room, None);
        self.handle_pending();
    }

    /// Another feature or an operator removes a connection from a room.
    pub fn leave(&mut self, connection: Connection, room: &str) {
        self.exit(connection.0, room, None, LeaveReason::Left);
        self.handle_pending();
    }

    /// A client acknowledges an event.
    ///
    /// # Panics
    /// If no acknowledgement with this tag is pending for the connection.
    pub fn acknowledge(&mut self, connection: Connection, tag: &str, data: Value) {
        self.acknowledge_payload(connection, tag, Payload::from_args(json!([data]).to_string()));
    }

    /// Lets a client acknowledge an event with any arguments and attachments.
    ///
    /// # Panics
    /// If no acknowledgement with this tag is pending for the connection.
    pub fn acknowledge_payload(&mut self, connection: Connection, tag: &str, payload: Payload) {
        let position = self
            .pending_acks
            .iter()
            .position(|asked| asked.connection == connection.0 && asked.tag == tag)
            .unwrap_or_else(|| panic!("nothing tagged {tag:?} waits for an answer"));
        let asked = self.pending_acks.remove(position);
        self.agenda.remove(asked.at);
        let answer = self.checked_answer(connection, payload);
        self.answer(asked, answer);
        self.handle_pending();
    }

    /// Moves the clock. Timers and time-outs that are due on the way are handled at their times.
    pub fn advance(&mut self, by: Duration) {
        self.advance_to(self.now + u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
    }

    fn client(&self, connection: Connection) -> &ClientState {
        let client = &self.clients[connection.0];
        assert!(client.closed.is_none(), "{connection} is closed");
        assert!(!client.is_away, "{connection} is away, and sends nothing until it comes back");
        client
    }
}
