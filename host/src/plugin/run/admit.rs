//! The admission of an event to its feature, and its answer after the call.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use roundhouse_contract::ScopeAddress;

use super::commit::Done;
use super::deferred::{MAX_ATTEMPTS, RETRY_MS};
use super::durable::write;
use super::durable_change::DurableChange;
use super::invoke::Handled;
use super::job::Envelope;
use super::rooms::Questions;
use super::scopes::Place;
use super::shared::unavailable;
use super::state::{ThreadState, Visit};
use super::turns::MAX_TURN;
use crate::model::{ConnId, Failure, Payload};
use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::load::catalogue::Plugin;

/// The most events of clients and services that wait while their scope is read: reading takes a fraction of a
/// millisecond, unless the store is down.
const MAX_AWAITING_LOAD: usize = 1000;

/// Why an event is not handed to its feature now.
enum Stop {
    /// The event is answered with this failure.
    Refuse(Failure),
    /// The event waits until its scope was read from the store.
    AwaitLoad(Place),
    /// The feature gets the event later, because the event is guaranteed.
    Defer,
    /// The event is about a member, and the scope is not told of it.
    Drop,
}

fn refuse<T>(message: String) -> ControlFlow<Stop, T> {
    ControlFlow::Break(Stop::Refuse(unavailable(message)))
}

impl ThreadState {
    /// Handles one event and answers it.
    pub(super) fn handle(&mut self, envelope: Envelope) {
        if let Some(envelope) = self.route(envelope) {
            self.handle_here(envelope);
        }
    }

    /// Handles one event of a scope of this host, and answers it.
    pub(super) fn handle_here(&mut self, mut envelope: Envelope) {
        if let Event::Answered { ask, connection, .. } = envelope.event {
            return self.handle_answered(envelope, ask, connection);
        }
        if let Event::Placed { connection, from, to, is_settled } = envelope.event {
            return self.place_member(envelope, connection, (from, to), is_settled);
        }
        if self.is_outdated(&envelope) {
            return;
        }
        self.name_departed(&mut envelope);
        let opens = envelope.event.opened().filter(|_| envelope.event.is_admission());
        let is_gone = |connection: ConnId| {
            connection.node() == self.shared.hub.node() && self.shared.hub.identity(connection).is_none()
        };
        if opens.is_some_and(is_gone) {
            // The client has gone, and the feature would get no departure for what it stores about the connection.
            return self.settle(envelope, None);
        }
        match self.find_scope(&envelope) {
            ControlFlow::Continue(place) => self.handle_loaded(envelope, place),
            ControlFlow::Break(stop) => self.stop(envelope, stop),
        }
    }

    /// Handles an event whose scope is in memory, or need not be read.
    fn handle_loaded(&mut self, envelope: Envelope, place: Option<Place>) {
        let mut visit = Visit::new(&envelope, place);
        match self.admit(&mut visit) {
            ControlFlow::Continue(()) => {
                let place = visit.place;
                self.deliver(envelope, place, 0);
            }
            ControlFlow::Break(stop) => self.stop(envelope, stop),
        }
    }

    fn stop(&mut self, envelope: Envelope, stop: Stop) {
        match stop {
            Stop::Refuse(refusal) => self.answer(envelope, refusal),
            Stop::AwaitLoad(place) => {
                self.scopes[place].loading.get_or_insert_default().push_back(envelope);
            }
            Stop::Defer => {
                let now = self.shared.clock.uptime_ms();
                self.defer(envelope, 0, now);
            }
            Stop::Drop => self.settle(envelope, None),
        }
    }

    /// Finds the scope of an event. A durable scope that is not in memory is read first.
    fn find_scope(&mut self, envelope: &Envelope) -> ControlFlow<Stop, Option<Place>> {
        let Envelope { plugin, address, event, .. } = envelope;
        if plugin.is_unloaded() {
            return refuse(format!("the feature {} was unloaded", plugin.name));
        }
        let place = match self.scopes.find(plugin.number, &address.key) {
            Some(place) => place,
            None => match self.begin_load(&mut Visit::new(envelope, None))? {
                Some(place) => place,
                None => return ControlFlow::Continue(None),
            },
        };
        let Some(waiting) = &self.scopes[place].loading else { return ControlFlow::Continue(Some(place)) };
        if waiting.len() >= MAX_AWAITING_LOAD && !event.is_guaranteed() {
            return refuse(format!("too many events wait for the scope {} to be read: try again later", address.key));
        }
        ControlFlow::Break(Stop::AwaitLoad(place))
    }

    /// Makes a durable scope that is not in memory and begins to read it. Other scopes are made when their event is
    /// committed.
    fn begin_load(&mut self, visit: &mut Visit<'_>) -> ControlFlow<Stop, Option<Place>> {
        let Visit { plugin, address, event, .. } = *visit;
        let generation = plugin.current();
        let kind = generation.manifest.scope_of_key(&address.key).map(|(kind, _)| kind);
        if kind.is_none() && !address.key.is_empty() {
            // The event was routed by the manifest of the previous generation.
            return refuse(format!(
                "the feature {} was replaced by a build without this scope: send it again",
                plugin.name
            ));
        }
        // A scope that is not in memory has no members that could leave.
        let is_departure = matches!(event, Event::Left { .. } | Event::Presence { .. });
        let is_stored = self.shared.store.is_some() && kind.is_some_and(|kind| kind.is_durable);
        if is_departure || !is_stored {
            return ControlFlow::Continue(None);
        }
        match self.check_scopes(visit).and_then(|()| self.enter(visit)) {
            Ok(place) => {
                self.scopes[place].loading = Some(VecDeque::new());
                self.load(place);
                ControlFlow::Continue(Some(place))
            }
            Err(refusal) => ControlFlow::Break(Stop::Refuse(refusal)),
        }
    }

    /// Whether a feature gets an event now.
    fn admit(&mut self, visit: &mut Visit<'_>) -> ControlFlow<Stop> {
        if !self.note_member(visit) {
            return ControlFlow::Break(Stop::Drop);
        }
        let Visit { plugin, address, event, .. } = *visit;
        let now = self.shared.clock.uptime_ms();
        if plugin.health.paused_until(now).is_some() {
            if event.is_guaranteed() {
                return ControlFlow::Break(Stop::Defer);
            }
            return refuse(format!("the feature {} failed too often and is paused: try again later", plugin.name));
        }
        if visit.place.is_some_and(|place| self.scopes[place].has_deferred()) {
            self.handle_deferred(plugin, address);
            visit.place = self.scopes.find(plugin.number, &address.key);
        }
        if let Some(scope) = visit.place.map(|place| &self.scopes[place]).filter(|scope| scope.has_deferred()) {
            if event.is_guaranteed() {
                // Guaranteed events stay in order: a join is handled before its departure.
                return ControlFlow::Break(Stop::Defer);
            }
            // A feature gets the `connect` of a connection before the connection's own events.
            if event.sender_id().is_some_and(|sender| scope.has_deferred_connect(sender)) {
                return refuse(format!(
                    "the feature {} does not know of this connection yet: try again later",
                    plugin.name
                ));
            }
        }
        let sender = event.sender().filter(|_| event.is_retryable());
        match sender.and_then(|sender| sender.refusal(plugin.number, &plugin.name, now)) {
            // The event was queued before its sender was over its bounds.
            Some(failure) => ControlFlow::Break(Stop::Refuse(failure)),
            None => ControlFlow::Continue(()),
        }
    }

    /// Updates a scope's members for joins, departures and changes of presence. Returns whether the event is to be
    /// handled: a scope gets one departure of each member.
    fn note_member(&mut self, visit: &mut Visit<'_>) -> bool {
        match visit.event {
            Event::Joined(member) => match self.enter(visit) {
                Ok(place) => {
                    let part = self.scopes[place].members.entry(member.connection).or_default();
                    let is_new = !std::mem::replace(&mut part.joined, true);
                    self.note_membership(visit, member.connection, Some(&member.identity));
                    self.catch_up_presence(place, member.connection);
                    is_new
                }
                Err(refusal) => {
                    self.shared.metrics.plugin_dropped.inc();
                    let (plugin, scope) = (&visit.plugin.name, &visit.address.key);
                    tracing::warn!(%plugin, %scope, %refusal, "a join was not told");
                    false
                }
            },
            Event::Presence { member, is_away, n_changes } => {
                let is_told =
                    visit.place.is_some_and(|place| self.note_presence(place, member.connection, *is_away, *n_changes));
                if is_told {
                    self.note_membership(visit, member.connection, None);
                }
                is_told
            }
            Event::Left { member, is_gone, .. } => {
                let Some(place) = visit.place else { return false };
                let members = &mut self.scopes[place].members;
                let Some(part) = members.get_mut(&member.connection) else { return false };
                part.joined = false;
                if *is_gone || !part.watched {
                    members.remove(&member.connection);
                }
                self.note_membership(visit, member.connection, None);
                true
            }
            _ => true,
        }
    }

    /// Hands an event to its feature and answers it. A guaranteed event is tried again after a fault.
    fn deliver(&mut self, envelope: Envelope, place: Option<Place>, attempts: u32) {
        let mut visit = Visit::new(&envelope, place);
        if let ReplyTo::Client { read_at, .. } = &envelope.reply {
            envelope.plugin.metrics.waiting.inc_by(read_at.elapsed().as_secs_f64());
        }
        let failure = match self.invoke(&mut visit) {
            Handled::Done(done) => {
                let place = visit.place;
                return self.finish(envelope, place, done);
            }
            Handled::Refused(failure) => return self.refuse(envelope, failure),
            Handled::Pending(questions) => return self.await_backend(envelope, attempts, &questions),
            Handled::Failed(failure) => failure,
        };
        let Envelope { plugin, address, event, .. } = &envelope;
        if event.is_guaranteed() {
            if attempts + 1 < MAX_ATTEMPTS {
                let not_before = self.shared.clock.uptime_ms() + RETRY_MS;
                return self.defer(envelope, attempts + 1, not_before);
            }
            self.shared.metrics.plugin_dropped.inc();
            tracing::error!(
                plugin = %plugin.name, generation = plugin.current().id.generation, scope = %address.key,
                event = %event.name(), "the plugin failed {MAX_ATTEMPTS} times on an event, which is given up"
            );
        }
        self.answer(envelope, failure);
    }

    /// Has an event wait for the backend of rooms. Guaranteed events keep their order: they are deferred, like those on which
    /// the feature failed, until there is an answer or a failure to answer.
    fn await_backend(&mut self, envelope: Envelope, attempts: u32, questions: &Questions) {
        let shared = self.shared.clone();
        let Some(policy) = &shared.config.rooms else { return };
        if !envelope.event.is_guaranteed() {
            return shared.submit_later(policy, questions, envelope);
        }
        for (identity, room) in questions {
            if !policy.ask(identity, room, Box::new(|| {})) {
                tracing::debug!(%room, "too much waits for a room's backend, which is asked later");
            }
        }
        let not_before = shared.clock.uptime_ms() + RETRY_MS;
        self.defer(envelope, attempts, not_before);
    }

    /// Answers a handled event: now, or when its change is on disk, or when the documents that the feature asks for
    /// were read.
    fn finish(&mut self, envelope: Envelope, place: Option<Place>, done: Done) {
        let Envelope { plugin, address, event, mut reply } = envelope;
        let Done { reply: answer, fetch, reached } = done;
        let is_answered = answer.is_some() || reached.is_some();
        let (fetch_for_answer, fetch) = if is_answered { (None, fetch) } else { (fetch, None) };
        if let Some(fetch) = fetch {
            self.fetch(&plugin, &address, &event, fetch, ReplyTo::Nobody, None);
        }
        let answer = answer.unwrap_or_else(Payload::empty);
        Self::charge_answer(&event, &answer);
        if self.partitions.is_some() {
            let epoch = self.epoch_of(&address.key);
            let change =
                place.and_then(|place| DurableChange::of(&self.shared, &mut self.scopes[place], Some(&event), epoch));
            let envelope = Envelope { plugin, address, event, reply };
            match fetch_for_answer {
                Some(fetch) => self.settle_fetching(envelope, fetch, change),
                None => self.finish_clustered(envelope, answer, reached, change),
            }
            return place.into_iter().for_each(|place| self.drop_if_empty(place));
        }
        if let Some(fetch) = fetch_for_answer {
            let asker = std::mem::replace(&mut reply, ReplyTo::Nobody);
            self.fetch(&plugin, &address, &event, fetch, asker, None);
        }
        let unwritten = match place {
            Some(place) => {
                let unwritten = write(&self.shared, &mut self.scopes[place], reply, answer, Some(&event));
                self.drop_if_empty(place);
                unwritten
            }
            None => Some((reply, answer)),
        };
        if let Some((reply, answer)) = unwritten {
            self.shared.answer(event.name(), reply, Ok(answer), &self.wakes);
        }
    }

    /// Handles the deferred events of a scope that are due, for at most a turn.
    pub(super) fn handle_deferred(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        let (now, started) = (self.shared.clock.uptime_ms(), Instant::now());
        while plugin.health.paused_until(now).is_none() && !plugin.is_unloaded() {
            let Some(place) = self.scopes.find(plugin.number, &address.key) else { return };
            if !self.is_ready(&address.key) {
                // The cluster has yet to take earlier commits; it is tried again with the next deadline.
                return;
            }
            let Some(deferred) = self.scopes[place].next_deferred(now) else { return };
            let attempts = deferred.attempts;
            let envelope = deferred.into_envelope(plugin, address);
            if envelope.event.presence_of().is_some() && !plugin.current().manifest.has_presence(&address.key) {
                // The build that asked for presence was replaced by one that does not.
                self.settle(envelope, None);
                continue;
            }
            self.wait_for_shards();
            self.deliver(envelope, Some(place), attempts);
            if started.elapsed() > MAX_TURN {
                return self.give_turn(plugin, address);
            }
        }
    }

    /// Handles the events that came in while a scope was read, for at most a turn; later events wait behind them.
    pub(super) fn handle_awaiting_load(&mut self, plugin: u32, key: &Arc<str>) {
        let started = Instant::now();
        loop {
            let Some(place) = self.scopes.find(plugin, key) else { return };
            let scope = &mut self.scopes[place];
            // Waiting events of an unloaded plugin are answered when the scope is forgotten.
            let Some(waiting) = scope.loading.as_mut().filter(|_| !scope.plugin.is_unloaded()) else { return };
            if started.elapsed() > MAX_TURN
                && let Some(next) = waiting.front()
            {
                let flow = next.event.flow(key);
                return self.queue_awaiting_load(plugin, key, flow);
            }
            let Some(envelope) = waiting.pop_front() else {
                scope.loading = None;
                return self.drop_if_empty(place);
            };
            self.wait_for_shards();
            self.handle_loaded(envelope, Some(place));
        }
    }
}
