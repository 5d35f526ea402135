//! Effects: checked as a whole before anything comes of any of them.

use std::sync::Arc;

use roundhouse_contract::JOIN_ACTION;

use super::effect_parts::{
    Refusal, connections_of, json, parse_connection, payload, read_audience, unknown_connection, weigh,
};
use crate::hub::{Audience, Publication, USER_ROOM_PREFIX};
use crate::ledger::Charge;
use crate::model::{ConnId, Payload, is_valid_id, is_valid_room, without_lone_surrogates};
use crate::plugin::guest::bindings::roundhouse::feature::effects as wit;
use crate::plugin::load::generation::Generation;
use crate::protocol::Outgoing;

/// Effects of one event, at most.
const MAX_EFFECTS: usize = 1000;

/// The longest that a timer may take, in milliseconds: 31 days.
const MAX_TIMER_MS: u64 = 31 * 24 * 60 * 60 * 1000;

/// The longest that a client may take to acknowledge, in milliseconds.
const MAX_ACKNOWLEDGE_MS: u64 = 10 * 60 * 1000;

/// The longest name or tag that a feature may choose, in bytes: an id of 128 characters fits, and what goes with it.
const MAX_NAME_BYTES: usize = 1024;

/// Documents that are fetched at once, at most: a page, or what a feature remembers of a scope.
const MAX_FETCHED: u32 = 1000;

/// An effect that may be carried out.
#[derive(Debug)]
pub(crate) enum Effect {
    Publish(Publication),
    Ask {
        connections: Vec<ConnId>,
        outgoing: Arc<Outgoing>,
        tag: Box<str>,
        timeout_ms: u64,
        /// One for each connection, once they are charged.
        charges: Vec<Charge>,
    },
    Reply(Payload),
    /// Answers with how many the emits of this event went to, under the name of this field.
    ReplyReached {
        field: Box<str>,
        of: Counted,
    },
    Join {
        connection: ConnId,
        room: Arc<str>,
    },
    Leave {
        connection: ConnId,
        room: Arc<str>,
    },
    Watch(ConnId),
    SetTimer {
        name: Box<str>,
        after_ms: u64,
        payload: Box<str>,
        charge: Charge,
    },
    CancelTimer(Box<str>),
    Save(Document),
    Fetch(Fetch),
    Disconnect {
        connection: ConnId,
        reason: String,
    },
}

/// What is counted of those whom an event reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Connections,
    Users,
}

/// A document that is to be stored.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) tag: String,
    pub(crate) collection: String,
    pub(crate) key: Option<String>,
    pub(crate) document: String,
    /// In the account of whoever pays for it, once it is charged.
    pub(crate) charge: Option<Arc<Charge>>,
}

/// Documents that are wanted.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) tag: Box<str>,
    pub(crate) collection: String,
    pub(crate) before: Option<String>,
    pub(crate) limit: u32,
    pub(crate) charge: Charge,
}

/// What becomes of the state.
#[derive(Debug)]
pub(crate) enum StateChange {
    Keep,
    Put(Vec<u8>),
    Clear,
}

/// All that an event leads to.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) effects: Vec<Effect>,
    pub(crate) state: StateChange,
}

/// What the effects are checked against.
pub(crate) struct Check<'a> {
    pub(crate) generation: &'a Generation,
    /// The scope's room.
    pub(crate) room: &'a Arc<str>,
    pub(crate) state_bytes: usize,
    /// Whether the event was a query, which may be answered and nothing else.
    pub(crate) is_question: bool,
    /// Whether the feature has to do with a connection: it is the sender's, in a room of the feature's, or watched.
    pub(crate) knows: &'a dyn Fn(ConnId) -> bool,
    /// Whether a connection that it knows came to it by itself: it sent the feature something, or is in a room of the
    /// feature's.
    pub(crate) came: &'a dyn Fn(ConnId) -> bool,
}

impl Check<'_> {
    /// Checks an outcome.
    ///
    /// # Errors
    /// With the first thing that is not allowed.
    pub(crate) fn outcome(&self, outcome: wit::Outcome) -> Result<Checked, Refusal> {
        let wit::Outcome { effects, state } = outcome;
        if effects.len() > MAX_EFFECTS {
            return Err(format!("{} effects, and there may be {MAX_EFFECTS}", effects.len()));
        }
        let mut bytes = 0;
        let effects =
            effects.into_iter().map(|effect| self.effect(effect, &mut bytes)).collect::<Result<Vec<_>, _>>()?;
        if self.is_question && !effects.iter().all(|effect| matches!(effect, Effect::Reply(_))) {
            return Err("more than a reply to a query".to_owned());
        }
        let count = |is_it: fn(&Effect) -> bool| effects.iter().filter(|effect| is_it(effect)).count();
        if count(|effect| matches!(effect, Effect::Reply(_) | Effect::ReplyReached { .. })) > 1 {
            return Err("two replies to one event".to_owned());
        }
        if count(|effect| matches!(effect, Effect::Fetch(_))) > 1 {
            return Err("two fetches for one event".to_owned());
        }
        let state = match state {
            wit::StateChange::Keep => StateChange::Keep,
            _ if self.is_question => return Err("a new state from a query".to_owned()),
            wit::StateChange::Clear => StateChange::Clear,
            wit::StateChange::Put(state) if state.len() > self.state_bytes => {
                return Err(format!("a state of {} bytes, and it may have {}", state.len(), self.state_bytes));
            }
            wit::StateChange::Put(state) => StateChange::Put(state),
        };
        Ok(Checked { effects, state })
    }

    fn effect(&self, effect: wit::Effect, bytes: &mut usize) -> Result<Effect, Refusal> {
        Ok(match effect {
            wit::Effect::Emit(emit) => self.emit(emit, bytes)?,
            wit::Effect::Reply(reply) => Effect::Reply(payload(reply, bytes)?),
            wit::Effect::Join(membership) => {
                let (connection, room) = self.membership(membership)?;
                if !(self.came)(connection) && !self.generation.grants.allows_action(JOIN_ACTION) {
                    return Err(format!(
                        "a join of the connection {connection}, which sent it nothing and which it was not granted (the \
                         action {JOIN_ACTION})"
                    ));
                }
                Effect::Join { connection, room }
            }
            wit::Effect::Leave(membership) => {
                let (connection, room) = self.membership(membership)?;
                Effect::Leave { connection, room }
            }
            wit::Effect::Watch(connection) => Effect::Watch(self.connection(&connection)?),
            wit::Effect::SetTimer(wit::SetTimer { name, after_ms, payload }) => {
                if name.len() > MAX_NAME_BYTES || after_ms > MAX_TIMER_MS {
                    return Err("a timer of more than 31 days, or with a name of more than 1024 bytes".to_owned());
                }
                weigh(payload.len() + name.len(), bytes)?;
                json(&payload, "a timer's payload")?;
                Effect::SetTimer { name: name.into(), after_ms, payload: payload.into(), charge: Charge::default() }
            }
            wit::Effect::CancelTimer(name) => Effect::CancelTimer(name.into()),
            wit::Effect::Save(save) => self.save(save, bytes)?,
            wit::Effect::Fetch(fetch) => self.fetch(fetch, bytes)?,
            wit::Effect::ReplyReached(wit::Reached { field, of }) => {
                weigh(field.len(), bytes)?;
                let of = match of.as_str() {
                    "connections" => Counted::Connections,
                    "users" => Counted::Users,
                    _ => return Err(format!("a reply with the number of {of:?}, which is connections or users")),
                };
                Effect::ReplyReached { field: field.into(), of }
            }
            wit::Effect::Disconnect(wit::Disconnect { connection, reason }) => {
                if !self.generation.grants.allows_action("disconnect") {
                    return Err("a disconnect, which it was not granted".to_owned());
                }
                Effect::Disconnect { connection: self.connection(&connection)?, reason }
            }
            wit::Effect::Other((kind, _)) => return Err(format!("an effect {kind:?}, which this host does not know")),
        })
    }

    fn emit(&self, emit: wit::Emit, bytes: &mut usize) -> Result<Effect, Refusal> {
        let wit::Emit { to, except, event, payload: carried, volatile, acknowledge } = emit;
        if !self.generation.manifest.emits.contains(&event) {
            return Err(format!("an emit of {event:?}, which is not among the events that its manifest lists"));
        }
        weigh(event.len(), bytes)?;
        let carried = payload(carried, bytes)?;
        let to = to.into_iter().map(|audience| self.audience(audience, bytes)).collect::<Result<Vec<_>, _>>()?;
        // Leaving somebody out needs no grant.
        let except =
            except.into_iter().map(|audience| read_audience(audience, bytes)).collect::<Result<Vec<_>, _>>()?;
        let outgoing = Arc::new(Outgoing::new(event, carried));
        let Some(wit::Acknowledge { tag, timeout_ms }) = acknowledge else {
            return Ok(Effect::Publish(Publication { to, except, outgoing, volatile, guard: None }));
        };
        if tag.len() > MAX_NAME_BYTES || timeout_ms > MAX_ACKNOWLEDGE_MS {
            return Err("an acknowledgement with a time-out of more than 10 minutes or a tag of more than 1024 bytes"
                .to_owned());
        }
        let except = connections_of(except)?;
        let mut connections = connections_of(to)?;
        connections.retain(|connection| !except.contains(connection));
        connections.sort_unstable();
        connections.dedup();
        Ok(Effect::Ask { connections, outgoing, tag: tag.into(), timeout_ms, charges: Vec::new() })
    }

    fn save(&self, save: wit::Save, bytes: &mut usize) -> Result<Effect, Refusal> {
        let wit::Save { tag, collection, key, document } = save;
        self.check_collection(&collection)?;
        if tag.len() > MAX_NAME_BYTES || key.as_ref().is_some_and(|key| key.len() > MAX_NAME_BYTES) {
            return Err("a document with a tag or key of more than 1024 bytes".to_owned());
        }
        weigh(document.len() + tag.len(), bytes)?;
        json(&document, "a document")?;
        let document = without_lone_surrogates(&document).into_owned();
        Ok(Effect::Save(Document { tag, collection, key, document, charge: None }))
    }

    fn fetch(&self, fetch: wit::Fetch, bytes: &mut usize) -> Result<Effect, Refusal> {
        let wit::Fetch { tag, collection, before, limit } = fetch;
        self.check_collection(&collection)?;
        weigh(tag.len() + before.as_ref().map_or(0, String::len), bytes)?;
        if tag.len() > MAX_NAME_BYTES {
            return Err("a fetch with a tag of more than 1024 bytes".to_owned());
        }
        if !(1..=MAX_FETCHED).contains(&limit) {
            return Err(format!("a fetch of {limit} documents, and it may be 1 to {MAX_FETCHED}"));
        }
        Ok(Effect::Fetch(Fetch { tag: tag.into(), collection, before, limit, charge: Charge::default() }))
    }

    fn check_collection(&self, collection: &str) -> Result<(), Refusal> {
        if !self.generation.grants.allows_action("save") {
            return Err("something of the document store, which it was not granted (the action save)".to_owned());
        }
        if !is_valid_id(collection) {
            return Err(format!("a collection {collection:?}, whose name must be 1 to 128 printable characters"));
        }
        Ok(())
    }

    fn audience(&self, audience: wit::Audience, bytes: &mut usize) -> Result<Audience, Refusal> {
        let audience = read_audience(audience, bytes)?;
        let needs = match &audience {
            Audience::Room(room) if self.reaches_room(room) => return Ok(audience),
            Audience::Room(room) => return Err(format!("an emit to the room {room:?}, which it was not granted")),
            Audience::Connection(connection) if (self.knows)(*connection) => return Ok(audience),
            Audience::Connection(connection) => return Err(unknown_connection(*connection)),
            Audience::Users(_) => "user",
            Audience::Roles(_) => "roles",
            Audience::All => "all",
        };
        if self.generation.grants.allows_audience(needs) {
            Ok(audience)
        } else {
            Err(format!("an emit to the audience {needs}, which it was not granted"))
        }
    }

    fn reaches_room(&self, room: &str) -> bool {
        let Generation { grants, manifest, .. } = self.generation;
        *room == **self.room
            || grants.allows_room(room)
            || manifest.scope_of_key(room).is_some()
            || (room.starts_with(USER_ROOM_PREFIX) && grants.allows_audience("user"))
    }

    fn membership(&self, membership: wit::Membership) -> Result<(ConnId, Arc<str>), Refusal> {
        let connection = self.connection(&membership.connection)?;
        let Some(room) = membership.room else { return Ok((connection, self.room.clone())) };
        if room.starts_with(USER_ROOM_PREFIX) {
            return Err(format!("a membership of {room:?}, which only the user's own connections have"));
        }
        if !is_valid_room(&room) || !self.reaches_room(&room) {
            return Err(format!("a membership of the room {room:?}, which it was not granted"));
        }
        Ok((connection, room.into()))
    }

    fn connection(&self, id: &str) -> Result<ConnId, Refusal> {
        let connection = parse_connection(id)?;
        if (self.knows)(connection) { Ok(connection) } else { Err(unknown_connection(connection)) }
    }
}
