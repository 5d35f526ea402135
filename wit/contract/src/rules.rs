//! The check of an outcome: permissions, weights and bounds of all its effects, before any of them is committed.

use std::fmt::Display;

use crate::connect_refusal::{self, ConnectRefusal};
use crate::effect::{Audience, Counted, Effect, Payload};
use crate::grants::{DISCONNECT_ACTION, JOIN_ACTION, SAVE_ACTION};
use crate::id::{USER_ROOM_PREFIX, is_valid_id, is_valid_room};
use crate::manifest::Manifest;
use crate::payload::Arguments;
use crate::raw::{self, StateChange};
use crate::surrogates::without_lone_surrogates;
use crate::uses::Uses;

/// The greatest number of effects of one event.
const MAX_EFFECTS: usize = 1000;

/// The greatest weight of all effects of one event, in bytes: as much as a client may send at once by default. The
/// weight is the length of payloads and of the names under which they are sent or stored.
const MAX_EFFECT_BYTES: usize = 1024 * 1024;

/// The longest time of a timer, in milliseconds: 31 days.
const MAX_TIMER_MS: u64 = 31 * 24 * 60 * 60 * 1000;

/// The longest time-out of an acknowledgement, in milliseconds.
const MAX_ACKNOWLEDGE_MS: u64 = 10 * 60 * 1000;

/// The longest name, tag or key that a feature may choose, in bytes: an id of 128 characters fits, with a prefix.
const MAX_NAME_BYTES: usize = 1024;

/// The greatest number of documents in one fetch: a page, or all that a feature keeps of a scope.
const MAX_FETCHED: u32 = 1000;

/// The rule that an outcome breaks, to follow "it returned".
pub type Refusal = String;

/// The facts about connections that the rules need.
pub trait World {
    /// The host's type of a connection.
    type Connection: Copy + Ord + Display;

    /// The connection with this id; `None` if no connection of the host can have it.
    fn connection(&self, id: &str) -> Option<Self::Connection>;

    /// Whether the connection is the event's sender or subject, is in a room of the feature, or is watched by the
    /// feature. True for a closed connection, because the feature cannot know yet that it is closed.
    fn is_known(&self, connection: Self::Connection) -> bool;

    /// Whether a known connection came to the feature by itself: it sent this scope an event, or is in a room of the
    /// feature. A connection that only the host reported did not.
    fn has_come(&self, connection: Self::Connection) -> bool;
}

/// The rules for the outcome of one event.
#[derive(Debug)]
pub struct Rules<'a, W> {
    /// The feature's manifest. A feature whose needs are not all granted does not run, so its needs are what it may do.
    pub manifest: &'a Manifest,
    /// The key of the scope, which is the name of its room.
    pub room: &'a str,
    /// The greatest size of a state, in bytes.
    pub max_state_bytes: usize,
    /// Whether the event was a query, whose outcome may only reply.
    pub is_query: bool,
    /// Whether the event asks whether a connection may open.
    pub is_admission: bool,
    /// The connections.
    pub world: W,
}

impl<W: World> Rules<'_, W> {
    /// Checks the effects and the state of an outcome. `convert` makes the host's own effects, so that they are collected
    /// once. Returns the needs that the effects made use of, too.
    ///
    /// # Errors
    /// With the first rule that the outcome breaks.
    pub fn check<A: Iterator<Item = raw::Audience>, E>(
        &self,
        effects: impl ExactSizeIterator<Item = raw::Effect<A>>,
        state: StateChange,
        mut convert: impl FnMut(Effect<W::Connection>) -> E,
    ) -> Result<(Vec<E>, StateChange, Uses), Refusal> {
        if effects.len() > MAX_EFFECTS {
            return Err(format!("{} effects, and there may be {MAX_EFFECTS}", effects.len()));
        }
        let mut tally = Tally::default();
        let (mut n_replies, mut n_fetches, mut only_replies, mut refuses) = (0, 0, true, false);
        let n_effects = effects.len();
        let effects = effects.map(|effect| {
            let effect = self.effect(effect, &mut tally)?;
            only_replies &= matches!(effect, Effect::Reply(_));
            match effect {
                Effect::Reply(_) | Effect::ReplyReached(..) => n_replies += 1,
                Effect::Fetch(_) => n_fetches += 1,
                Effect::Refuse(_) => refuses = true,
                _ => {}
            }
            Ok(convert(effect))
        });
        let effects = effects.collect::<Result<Vec<_>, Refusal>>()?;
        if self.is_query && !only_replies {
            return Err("more than a reply to a query".to_owned());
        }
        if refuses && (n_effects > 1 || state != StateChange::Keep) {
            return Err("a refusal of a connection together with something else".to_owned());
        }
        if n_replies > 1 {
            return Err("two replies to one event".to_owned());
        }
        if n_fetches > 1 {
            return Err("two fetches for one event".to_owned());
        }
        self.state(&state)?;
        Ok((effects, state, tally.uses))
    }

    fn state(&self, state: &StateChange) -> Result<(), Refusal> {
        match state {
            StateChange::Keep => Ok(()),
            _ if self.is_query => Err("a new state from a query".to_owned()),
            StateChange::Put(state) if state.len() > self.max_state_bytes => {
                Err(format!("a state of {} bytes, and it may have {}", state.len(), self.max_state_bytes))
            }
            StateChange::Put(_) | StateChange::Clear => Ok(()),
        }
    }

    fn effect<A: Iterator<Item = raw::Audience>>(
        &self,
        effect: raw::Effect<A>,
        tally: &mut Tally,
    ) -> Result<Effect<W::Connection>, Refusal> {
        Ok(match effect {
            raw::Effect::Emit(emit) => self.emit(emit, tally)?,
            raw::Effect::Reply(reply) => Effect::Reply(payload(reply, tally)?),
            raw::Effect::ReplyReached { field, of } => {
                tally.weigh(field.len())?;
                let of = match of.as_str() {
                    "connections" => Counted::Connections,
                    "users" => Counted::Users,
                    _ => return Err(format!("a reply with the number of {of:?}, which is connections or users")),
                };
                Effect::ReplyReached(field, of)
            }
            raw::Effect::Join(membership) => {
                let (connection, room) = self.membership(membership, tally)?;
                if !self.world.has_come(connection) && !self.may_perform(JOIN_ACTION, tally) {
                    return Err(format!(
                        "a join of the connection {connection}, which sent it nothing, and its manifest does not ask for the \
                         action {JOIN_ACTION}"
                    ));
                }
                Effect::Join(connection, room)
            }
            raw::Effect::Leave(membership) => {
                let (connection, room) = self.membership(membership, tally)?;
                Effect::Leave(connection, room)
            }
            raw::Effect::Watch(connection) => Effect::Watch(self.connection(&connection)?),
            raw::Effect::SetTimer(timer) => set_timer(timer, tally)?,
            raw::Effect::CancelTimer(name) => Effect::CancelTimer(name),
            raw::Effect::Save(save) => self.save(save, tally)?,
            raw::Effect::Fetch(fetch) => self.fetch(fetch, tally)?,
            raw::Effect::Disconnect { connection, reason } => {
                if !self.may_perform(DISCONNECT_ACTION, tally) {
                    return Err("a disconnect, and its manifest does not ask for the action disconnect".to_owned());
                }
                Effect::Disconnect(self.connection(&connection)?, reason)
            }
            raw::Effect::Other(kind, value) if kind == connect_refusal::KIND => {
                if !self.is_admission {
                    return Err("a refusal of a connection, at an event that does not ask for one".to_owned());
                }
                Effect::Refuse(ConnectRefusal::read(&value)?)
            }
            raw::Effect::Other(kind, _) => return Err(format!("an effect {kind:?}, which this host does not know")),
        })
    }

    fn emit<A: Iterator<Item = raw::Audience>>(
        &self,
        emit: raw::Emit<A>,
        tally: &mut Tally,
    ) -> Result<Effect<W::Connection>, Refusal> {
        let raw::Emit { to, except, event, payload: carried, volatile, acknowledge } = emit;
        if !self.manifest.emits.contains(&event) {
            return Err(format!("an emit of {event:?}, which is not among the events that its manifest lists"));
        }
        tally.weigh(event.len())?;
        let payload = payload(carried, tally)?;
        let to = to.map(|audience| self.recipients(audience, tally)).collect::<Result<Vec<_>, _>>()?;
        // Leaving out an audience needs no grant.
        let except = except.map(|audience| self.audience(audience, tally)).collect::<Result<Vec<_>, _>>()?;
        let Some((tag, timeout_ms)) = acknowledge else {
            return Ok(Effect::Emit { to, except, event, payload, volatile });
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
        Ok(Effect::EmitWithAck { connections, event, payload, tag, timeout_ms })
    }

    fn save(&self, mut save: raw::Save, tally: &mut Tally) -> Result<Effect<W::Connection>, Refusal> {
        self.collection(&save.collection, tally)?;
        if save.tag.len() > MAX_NAME_BYTES || save.key.as_ref().is_some_and(|key| key.len() > MAX_NAME_BYTES) {
            return Err("a document with a tag or key of more than 1024 bytes".to_owned());
        }
        tally.weigh(save.document.len() + save.tag.len())?;
        json(&save.document, "a document")?;
        save.document = without_lone_surrogates(&save.document).into_owned();
        Ok(Effect::Save(save))
    }

    fn fetch(&self, fetch: raw::Fetch, tally: &mut Tally) -> Result<Effect<W::Connection>, Refusal> {
        self.collection(&fetch.collection, tally)?;
        tally.weigh(fetch.tag.len() + fetch.before.as_ref().map_or(0, String::len))?;
        if fetch.tag.len() > MAX_NAME_BYTES {
            return Err("a fetch with a tag of more than 1024 bytes".to_owned());
        }
        if !(1..=MAX_FETCHED).contains(&fetch.limit) {
            return Err(format!("a fetch of {} documents, and it may be 1 to {MAX_FETCHED}", fetch.limit));
        }
        Ok(Effect::Fetch(fetch))
    }

    fn collection(&self, collection: &str, tally: &mut Tally) -> Result<(), Refusal> {
        if !self.may_perform(SAVE_ACTION, tally) {
            return Err("something of the document store, and its manifest does not ask for the action save".to_owned());
        }
        if !is_valid_id(collection) {
            return Err(format!("a collection {collection:?}, whose name must be 1 to 128 printable characters"));
        }
        Ok(())
    }

    /// An audience that the feature may emit to.
    fn recipients(&self, audience: raw::Audience, tally: &mut Tally) -> Result<Audience<W::Connection>, Refusal> {
        let audience = self.audience(audience, tally)?;
        let needs = match &audience {
            Audience::Room(room) if self.reaches(room, tally) => return Ok(audience),
            Audience::Room(room) => {
                return Err(format!("an emit to the room {room:?}, which its manifest does not ask for"));
            }
            Audience::Connection(connection) if self.world.is_known(*connection) => return Ok(audience),
            Audience::Connection(connection) => return Err(unknown_connection(connection)),
            Audience::Users(_) => "user",
            Audience::Roles(_) => "roles",
            Audience::All => "all",
        };
        if tally.use_need(self.manifest.needs.place_of_audience(needs)) {
            Ok(audience)
        } else {
            Err(format!("an emit to the audience {needs}, which its manifest does not ask for"))
        }
    }

    /// An audience, granted or not.
    fn audience(&self, audience: raw::Audience, tally: &mut Tally) -> Result<Audience<W::Connection>, Refusal> {
        Ok(match audience {
            raw::Audience::Room(room) => {
                tally.weigh(room.len())?;
                Audience::Room(room)
            }
            raw::Audience::User(user) => {
                tally.weigh(user.len())?;
                Audience::Users(vec![user])
            }
            raw::Audience::Users(users) => {
                tally.weigh(users.iter().map(String::len).sum())?;
                Audience::Users(users)
            }
            raw::Audience::Roles(roles) => {
                tally.weigh(roles.iter().map(String::len).sum())?;
                Audience::Roles(roles)
            }
            raw::Audience::Connection(id) => Audience::Connection(self.parse(&id)?),
            raw::Audience::All => Audience::All,
            raw::Audience::Other(kind) => {
                return Err(format!("an audience {kind:?}, which this host does not know"));
            }
        })
    }

    /// Whether the feature may emit to a room, and let connections join it.
    fn reaches(&self, room: &str, tally: &mut Tally) -> bool {
        let Manifest { needs, .. } = self.manifest;
        // A room of the feature's own scopes makes no use of a need, though one may name it.
        if room == self.room || self.manifest.scope_of_key(room).is_some() {
            return true;
        }
        let of_a_user = || room.starts_with(USER_ROOM_PREFIX).then(|| needs.place_of_audience("user")).flatten();
        tally.use_need(needs.place_of_room(room).or_else(of_a_user))
    }

    fn may_perform(&self, action: &str, tally: &mut Tally) -> bool {
        tally.use_need(self.manifest.needs.place_of_action(action))
    }

    fn membership(
        &self,
        membership: raw::Membership,
        tally: &mut Tally,
    ) -> Result<(W::Connection, Option<String>), Refusal> {
        let connection = self.connection(&membership.connection)?;
        let Some(room) = membership.room else { return Ok((connection, None)) };
        if room.starts_with(USER_ROOM_PREFIX) {
            return Err(format!("a membership of {room:?}, which only the user's own connections have"));
        }
        if !is_valid_room(&room) || !self.reaches(&room, tally) {
            return Err(format!("a membership of the room {room:?}, which its manifest does not ask for"));
        }
        Ok((connection, Some(room)))
    }

    fn connection(&self, id: &str) -> Result<W::Connection, Refusal> {
        let connection = self.parse(id)?;
        if self.world.is_known(connection) { Ok(connection) } else { Err(unknown_connection(&connection)) }
    }

    fn parse(&self, id: &str) -> Result<W::Connection, Refusal> {
        self.world.connection(id).ok_or_else(|| format!("a connection id {id:?} that the host never gave"))
    }
}

/// The weight of the effects so far, and the needs that they made use of.
#[derive(Default)]
struct Tally {
    bytes: usize,
    uses: Uses,
}

impl Tally {
    fn weigh(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.bytes += bytes;
        if self.bytes > MAX_EFFECT_BYTES {
            return Err(format!("effects of more than {MAX_EFFECT_BYTES} bytes"));
        }
        Ok(())
    }

    /// Notes the use of the need at this place. Returns whether there is one.
    fn use_need(&mut self, place: Option<usize>) -> bool {
        place.inspect(|place| self.uses.add(*place)).is_some()
    }
}

fn payload(payload: raw::Payload, tally: &mut Tally) -> Result<Payload, Refusal> {
    let raw::Payload { args, attachments } = payload;
    tally.weigh(args.len() + attachments.iter().map(Vec::len).sum::<usize>())?;
    let arguments = Arguments::check(args, attachments.len());
    let arguments = arguments.map_err(|error| format!("a payload that cannot be sent: {error}"))?;
    Ok(Payload { arguments, attachments })
}

fn set_timer<C>(timer: raw::SetTimer, tally: &mut Tally) -> Result<Effect<C>, Refusal> {
    if timer.name.len() > MAX_NAME_BYTES || timer.after_ms > MAX_TIMER_MS {
        return Err("a timer of more than 31 days, or with a name of more than 1024 bytes".to_owned());
    }
    tally.weigh(timer.payload.len() + timer.name.len())?;
    json(&timer.payload, "a timer's payload")?;
    Ok(Effect::SetTimer(timer))
}

fn json(text: &str, what: &str) -> Result<(), Refusal> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|error| format!("{what} is not JSON: {error}"))
}

/// The connections of an emit with acknowledgement, whose audiences must all be connections.
fn connections_of<C>(audiences: Vec<Audience<C>>) -> Result<Vec<C>, Refusal> {
    audiences
        .into_iter()
        .map(|audience| match audience {
            Audience::Connection(connection) => Ok(connection),
            _ => Err("an acknowledgement asked of an audience that is not a connection".to_owned()),
        })
        .collect()
}

fn unknown_connection(connection: &impl Display) -> Refusal {
    format!("something for the connection {connection}, which it has nothing to do with")
}
