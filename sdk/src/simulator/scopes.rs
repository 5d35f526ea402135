//! The scopes of the simulated host, and an event on its way through one: call, check and commit.

use std::collections::BTreeSet;

use roundhouse_contract::raw::{self, StateChange};
use roundhouse_contract::{Counted, Effect, MIN_CHAINED_MS};
use serde_json::json;

use super::event::{connection, member};
use super::simulation::Simulation;
use super::state::{Connection, ConnectionSet, Due, Frame, Key, PendingAck, ScopeState};
use crate::event::{Acknowledgement, Timer};
use crate::log::capture;
use crate::random::Random;
use crate::{Call, Event, Failure, Feature, LeaveReason, Payload, handle};

/// The effects of an event that the caller of `run` carries out.
#[derive(Debug)]
pub(super) struct Handled {
    pub(super) reply: Option<Payload>,
    pub(super) fetch: Option<raw::Fetch>,
}

impl<F: Feature> Simulation<F> {
    /// The key of the scope that a payload's first argument, given as JSON text, names.
    pub(super) fn key(&self, template: usize, first: &str) -> Result<Key, Failure> {
        let address = self.manifest.scopes[template].template.address(first).map_err(Failure::bad_request)?;
        Ok(Key::new(template, &address))
    }

    /// The key of a scope of this feature. The scope need not exist yet.
    pub(super) fn key_of(&self, scope: &str) -> Key {
        self.find_key(scope).unwrap_or_else(|| panic!("{scope:?} is no scope of this feature"))
    }

    pub(super) fn find_key(&self, scope: &str) -> Option<Key> {
        let mut templates = self.manifest.scopes.iter().map(|scope| &scope.template).enumerate();
        templates.find_map(|(position, template)| Some(Key::new(position, &template.match_key(scope)?)))
    }

    /// Handles one event and commits its outcome, except for the reply and the fetch.
    pub(super) fn run(&mut self, key: &Key, event: Event) -> Result<Handled, Failure> {
        if self.is_idle(&key.scope) {
            self.scopes.remove(&key.scope);
        }
        let call = self.call(key, &event);
        let state = self.scopes.get(&key.scope).and_then(|slot| slot.state.as_deref());
        let (result, lines) = capture(|| handle::<F>(call.clone(), event.clone(), state));
        let (again, _) = capture(|| handle::<F>(call, event.clone(), state));
        assert!(
            result == again,
            "{event:?} in {:?} comes out differently when it is handled again:\n{result:?}\n{again:?}",
            key.scope
        );
        self.logs.extend(lines);
        let (effects, state) = self.check_outcome(key, &event, result?).unwrap_or_else(|why| {
            panic!("the host would fail {event:?} in {:?}, for the feature returned {why}", key.scope);
        });
        if event.is_query() {
            let reply = effects.into_iter().find_map(|effect| match effect {
                Effect::Reply(reply) => Some(payload(reply)),
                _ => None,
            });
            return Ok(Handled { reply, fetch: None });
        }
        self.commit_state(key, state);
        Ok(self.commit(key, &event, effects))
    }

    /// Commits the effects of an event in their order.
    fn commit(&mut self, key: &Key, event: &Event, effects: Vec<Effect<Connection>>) -> Handled {
        let mut ran = Handled { reply: None, fetch: None };
        let mut count = None;
        let mut reached = BTreeSet::new();
        for effect in effects {
            match effect {
                Effect::Emit { to, except, event, payload: carried, volatile } => {
                    let frame = Frame::new(&event, payload(carried), volatile);
                    reached.append(&mut self.deliver(&to, &except, &frame));
                }
                Effect::EmitWithAck { connections, event, payload: carried, tag, timeout_ms } => {
                    let frame = Frame::new(&event, payload(carried), false);
                    self.deliver_with_ack(key, &connections, &frame, &tag, timeout_ms);
                }
                Effect::Reply(reply) => ran.reply = Some(payload(reply)),
                Effect::ReplyReached(field, of) => count = Some((field, of)),
                Effect::Fetch(fetch) => ran.fetch = Some(fetch),
                Effect::SetTimer(timer) => {
                    let min_ms = if event.is_sent() { 0 } else { MIN_CHAINED_MS };
                    self.set_timer(key, timer.name, timer.after_ms.max(min_ms), timer.payload);
                }
                Effect::CancelTimer(name) => self.cancel(key, &name),
                Effect::Save(save) => self.store.promise(&key.scope, save),
                Effect::Join(connection, _)
                | Effect::Leave(connection, _)
                | Effect::Watch(connection)
                | Effect::Disconnect(connection, _)
                    if !self.is_open(connection) => {}
                Effect::Join(Connection(position), room) => {
                    self.enter(position, &room.unwrap_or_else(|| key.scope.clone()), Some(key));
                }
                Effect::Leave(Connection(position), room) => {
                    let room = room.unwrap_or_else(|| key.scope.clone());
                    if room == key.scope {
                        self.slot(key).watched.remove(&position);
                    }
                    self.exit(position, &room, Some(key), LeaveReason::Left);
                }
                Effect::Watch(connection) => self.watch(key, event, connection),
                Effect::Disconnect(Connection(position), reason) => self.close(position, &reason),
                // The SDK refuses by a failure.
                Effect::Refuse(_) => {}
            }
        }
        if let Some((field, of)) = count {
            let n = match of {
                Counted::Connections => reached.len(),
                Counted::Users => self.users(&reached).len(),
            };
            ran.reply = Some(Payload::from_args(json!([{field: n}]).to_string()));
        }
        ran
    }

    fn watch(&mut self, key: &Key, event: &Event, connection: Connection) {
        let has_come = event.comes_from() == Some(&*connection.to_string());
        let Connection(position) = connection;
        let watched = &mut self.slot(key).watched;
        let is_new = !watched.contains_key(&position);
        *watched.entry(position).or_default() |= has_come;
        if is_new && self.clients[position].is_away {
            self.report_presence(position, &key.scope);
        }
    }

    fn users(&self, positions: &BTreeSet<usize>) -> BTreeSet<&str> {
        positions.iter().map(|position| self.clients[*position].member.user_id()).collect()
    }

    fn call(&mut self, key: &Key, event: &Event) -> Call {
        self.n_events += 1;
        let room = self.rooms.get(&key.scope);
        let position = connection(event).and_then(|id| self.position(id));
        let count = |n: Option<usize>| u32::try_from(n.unwrap_or(0)).unwrap_or(u32::MAX);
        Call {
            now: self.now,
            seed: Random::new(self.n_events).next(),
            sequence: self.scopes.get(&key.scope).map_or(0, |slot| slot.sequence) + 1,
            scope: key.scope.clone(),
            params: key.params.clone(),
            room_connections: count(room.map(ConnectionSet::n_connections)),
            room_users: count(room.map(ConnectionSet::n_users)),
            connection_in_room: room.zip(position).is_some_and(|(room, position)| room.has(position)),
            user_connections: count(
                room.zip(member(event)).map(|(room, member)| room.n_connections_of(member.user_id())),
            ),
            settings: self.settings.clone(),
        }
    }

    fn commit_state(&mut self, key: &Key, state: StateChange) {
        let now = self.now;
        let slot = self.slot(key);
        slot.sequence += 1;
        slot.last_event = now;
        match state {
            StateChange::Keep => {}
            StateChange::Put(bytes) => slot.state = Some(bytes),
            StateChange::Clear => slot.state = None,
        }
    }

    fn set_timer(&mut self, key: &Key, name: String, after_ms: u64, payload: String) {
        self.cancel(key, &name);
        let due = Due::Timer { key: key.clone(), name: name.clone(), payload };
        let at = self.agenda.add(self.now.saturating_add(after_ms), due);
        self.slot(key).timers.insert(name, at);
    }

    fn cancel(&mut self, key: &Key, timer: &str) {
        if let Some(at) = self.slot(key).timers.remove(timer) {
            self.agenda.remove(at);
        }
    }

    fn slot(&mut self, key: &Key) -> &mut ScopeState {
        self.scopes.entry(key.scope.clone()).or_insert_with(|| ScopeState {
            template: key.template,
            params: key.params.clone(),
            ..ScopeState::default()
        })
    }

    pub(super) fn answer(&mut self, asked: PendingAck, answer: Result<Payload, Failure>) {
        let acknowledgement = Acknowledgement {
            tag: asked.tag,
            connection: self.clients[asked.connection].member.connection.clone(),
            answer,
        };
        self.pending.push_back((asked.key, Event::Acknowledgement(acknowledgement)));
    }

    /// Handles the events that earlier effects have caused, until none is pending.
    pub(super) fn handle_pending(&mut self) {
        loop {
            while let Some((key, event)) = self.pending.pop_front() {
                self.notify(&key, event);
            }
            if !self.answer_fetch() {
                return;
            }
        }
    }

    /// Lets a scope handle an event without a sender. A failure is the author's mistake, and panics.
    pub(super) fn notify(&mut self, key: &Key, event: Event) {
        let ran = self.run(key, event.clone());
        let ran = ran.unwrap_or_else(|failure| panic!("{event:?} in {:?} failed: {failure}", key.scope));
        if let Some(fetch) = ran.fetch {
            self.store.fetch(key, fetch, false);
        }
    }

    pub(super) fn advance_to(&mut self, target: u64) {
        while let Some(entry) = self.agenda.due.first_entry() {
            let at = *entry.key();
            if at.0 > target {
                break;
            }
            let due = entry.remove();
            self.now = self.now.max(at.0);
            match due {
                Due::Timer { key, name, payload } => {
                    self.slot(&key).timers.remove(&name);
                    let timer = Timer { name, payload, due: at.0 };
                    self.notify(&key, Event::Timer(timer));
                }
                Due::AnswerTimeout => {
                    if let Some(position) = self.pending_acks.iter().position(|asked| asked.at == at) {
                        let asked = self.pending_acks.remove(position);
                        self.answer(asked, Err(Failure::unanswered("timeout")));
                    }
                }
            }
            self.handle_pending();
        }
        self.now = target;
        self.forget_idle();
    }

    pub(super) fn forget_idle(&mut self) {
        let idle: Vec<String> = self.scopes.keys().filter(|scope| self.is_idle(scope)).cloned().collect();
        for scope in idle {
            self.scopes.remove(&scope);
        }
    }

    fn is_idle(&self, scope: &str) -> bool {
        let Some(slot) = self.scopes.get(scope) else {
            return false;
        };
        let idle = u64::try_from(self.manifest.scopes[slot.template].idle.as_millis()).unwrap_or(u64::MAX);
        slot.timers.is_empty()
            && slot.watched.is_empty()
            && self.rooms.get(scope).is_none_or(|room| room.n_connections() == 0)
            && slot.last_event.saturating_add(idle) <= self.now
    }
}

fn payload(payload: roundhouse_contract::Payload) -> Payload {
    Payload { args: payload.arguments.text.into(), attachments: payload.attachments }
}
