//! A plugin thread: it handles the events of its scopes strictly one after another.
//!
//! `commit` is what comes of an event that was handled, `due` what time brings.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::oneshot;

use super::bindings::Context;
use super::call;
use super::catalogue::Plugin;
use super::effect::{Check, Checked, Effect, Fetch};
use super::event::{Event, ReplyTo};
use super::generation::Generation;
use super::health::Verdict;
use super::runtime::Inner;
use super::sandbox::{Fault, Instance};
use super::scope::{Deadline, Deadlines, Due, Parked, Part, Scopes, State};
use super::template::ScopeAddress;
use crate::hub::Guard;
use crate::model::{ConnId, ErrorCode, Failure, Mailbox, Payload};
use crate::store::{ScopeRecord, StoreFailure};

/// Calls after which an instance is replaced, so that what it leaks or fragments has an end.
const CALLS_PER_INSTANCE: u32 = 1_000_000;

/// Events handled in a row before the thread looks at the clock and at whether the shards keep up.
const EVENTS_IN_A_ROW: usize = 64;

/// Times that a feature may fail on an event that must be told, before it is given up.
const MAX_ATTEMPTS: u32 = 3;

/// The pause before such an event is told again, in milliseconds: time for a roll-back.
pub(super) const RETRY_MS: u64 = 1000;

/// What a plugin thread is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Handle an event of a scope.
    Event { plugin: Arc<Plugin>, address: ScopeAddress, event: Event, reply: ReplyTo },
    /// Hand on a client's acknowledgement, or that there will be none.
    Acknowledged { id: u64, connection: ConnId, answer: Result<Payload, &'static str> },
    /// Ask every scope of a plugin, up to `limit`. Answers with the replies and how many were not asked.
    Gather {
        plugin: Arc<Plugin>,
        name: Box<str>,
        data: Box<str>,
        limit: usize,
        reply: oneshot::Sender<(Vec<Box<str>>, u32)>,
    },
    /// Tell what another generation would have to take over.
    Inherit { plugin: u32, by: Arc<Generation>, reply: oneshot::Sender<Inheritance> },
    /// A durable scope was read, or cannot be.
    Loaded { plugin: u32, key: Arc<str>, result: Result<Option<ScopeRecord>, StoreFailure> },
    /// Take scopes over from the process before.
    Restore { plugin: Arc<Plugin>, records: Vec<ScopeRecord> },
    /// Another generation runs: tell it what has been waiting.
    Resume { plugin: u32 },
    /// A plugin was unloaded: drop what belongs to it.
    Forget { plugin: u32 },
}

/// What a generation would have to take over.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    /// States of another schema than its own, and whether an older copy in its schema is kept.
    pub(super) states: Vec<(State, bool)>,
    /// A scope that it has no template for.
    pub(super) orphan: Option<Arc<str>>,
}

/// An acknowledgement that a client owes.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) plugin: Arc<Plugin>,
    pub(super) address: ScopeAddress,
    pub(super) connection: ConnId,
    pub(super) tag: Box<str>,
    pub(super) deadline: Deadline,
}

/// An instance that is ready for the next call.
#[derive(Debug)]
pub(super) struct Warm {
    generation: u64,
    calls: u32,
    instance: Instance,
}

/// The state of a plugin thread.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) index: u64,
    pub(super) inner: Arc<Inner>,
    pub(super) inbox: Arc<Mailbox<Job>>,
    pub(super) scopes: Scopes,
    pub(super) deadlines: Deadlines,
    /// The warm instance of each plugin.
    pub(super) instances: HashMap<u32, Warm>,
    pub(super) owed: HashMap<u64, Owed>,
    pub(super) last_owed: u64,
    /// While the outcome of a promise is committed: settles it when all that comes of it has been written.
    pub(super) settling: Option<Guard>,
    /// Plugins whose waiting events are due to be told.
    pub(super) resuming: HashSet<u32>,
    seed: u64,
}

/// What came of a call that did not go well.
enum CallError {
    /// The feature refused the event: its sender is told, and nothing else happens.
    Refused(Failure),
    /// The component did what it must not.
    Fault(String),
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault.to_string())
    }
}

/// What came of an event.
pub(super) enum Handled {
    Done(Done),
    Refused(Failure),
    /// The feature failed on it. Nothing has changed.
    Failed(Failure),
}

/// What is left to do of an event that went well.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) reply: Option<Payload>,
    /// Documents that the feature asks for. Without a reply, what it makes of them is the answer.
    pub(super) fetch: Option<Fetch>,
}

impl Worker {
    pub(super) fn start(index: usize, inner: Arc<Inner>, inbox: Arc<Mailbox<Job>>) -> io::Result<JoinHandle<()>> {
        inner.clock.on_move({
            let inbox = inbox.clone();
            move || inbox.nudge()
        });
        let mut worker = Self {
            index: index as u64,
            inner,
            inbox,
            scopes: Scopes::default(),
            deadlines: Deadlines::default(),
            instances: HashMap::new(),
            owed: HashMap::new(),
            last_owed: 0,
            settling: None,
            resuming: HashSet::new(),
            // Different in each process and thread.
            seed: RandomState::new().hash_one(index),
        };
        thread::Builder::new()
            .name(format!("plugin-{index}"))
            // Ample room for the host's own frames around a component's stack.
            .stack_size(4 * 1024 * 1024)
            .spawn(move || worker.run())
    }

    fn run(&mut self) {
        let mut jobs = VecDeque::new();
        let inbox = self.inbox.clone();
        let inner = self.inner.clone();
        let is_stopping = || inner.stopping.load(Ordering::Relaxed);
        while !is_stopping() {
            let timeout = self.deadlines.next().and_then(|next| self.inner.clock.wait_for(next));
            inbox.wait(&mut jobs, timeout);
            for (n, job) in jobs.drain(..).enumerate() {
                if is_stopping() {
                    break;
                }
                self.perform(job);
                if n % EVENTS_IN_A_ROW == EVENTS_IN_A_ROW - 1 {
                    self.meet_deadlines();
                }
            }
            if !is_stopping() {
                self.meet_deadlines();
            }
        }
        // Whoever still waits for something of this thread is told that it will not come.
        inbox.close();
    }

    /// Waits until the shards keep up.
    pub(super) fn wait_for_shards(&self) {
        self.inner.hub.shards().iter().for_each(crate::hub::ShardPort::wait_for_space);
    }

    fn perform(&mut self, job: Job) {
        match job {
            Job::Event { plugin, address, event, reply } => self.handle(&plugin, &address, event, reply),
            Job::Acknowledged { id, connection, answer } => self.acknowledged(id, connection, answer),
            Job::Gather { plugin, name, data, limit, reply } => {
                let answers = self.gather(&plugin, &name, &data, limit, &reply);
                // Whoever asked may have gone, here and below.
                let _ = reply.send(answers);
            }
            Job::Inherit { plugin, by, reply } => {
                let _ = reply.send(self.inheritance(plugin, &by));
            }
            Job::Loaded { plugin, key, result } => self.loaded(plugin, &key, result),
            Job::Restore { plugin, records } => self.restore(&plugin, records),
            Job::Resume { plugin } => self.resume(plugin, self.inner.clock.uptime_ms()),
            Job::Forget { plugin } => self.forget(plugin),
        }
    }

    /// Handles one event and answers it.
    pub(super) fn handle(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: Event, reply: ReplyTo) {
        if plugin.is_unloaded() {
            return self.answer(&event, reply, unavailable(format!("the feature {} was unloaded", plugin.name)));
        }
        if !self.is_addressable(plugin, address) {
            let message =
                format!("the feature {} was replaced by a build without this scope: send it again", plugin.name);
            return self.answer(&event, reply, unavailable(message));
        }
        let Some((event, reply)) = self.hold(plugin, address, event, reply) else { return };
        if !self.note_member(plugin, address, &event) {
            return;
        }
        let now = self.inner.clock.uptime_ms();
        if plugin.health.paused_until(now).is_some() {
            if event.must_be_told() {
                return self.park(plugin, address, Parked { event, attempts: 0, not_before: now });
            }
            let message = format!("the feature {} failed too often and is paused: try again later", plugin.name);
            return self.answer(&event, reply, unavailable(message));
        }
        self.handle_parked(plugin, address);
        let still_waits = self.scopes.get(plugin.number, &address.key).is_some_and(|scope| scope.has_parked());
        if still_waits && event.must_be_told() {
            // Behind what waits already: a join is told before its departure.
            return self.park(plugin, address, Parked { event, attempts: 0, not_before: now });
        }
        self.handle_or_park(plugin, address, event, 0, reply);
    }

    /// Handles an event. What nobody would send again is told again if the feature fails on it.
    fn handle_or_park(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: Event,
        attempts: u32,
        reply: ReplyTo,
    ) {
        let failure = match self.handle_now(plugin, address, &event) {
            Handled::Done(done) => return self.finish(plugin, address, &event, done, reply),
            Handled::Refused(failure) => return self.answer(&event, reply, failure),
            Handled::Failed(failure) => failure,
        };
        if event.must_be_told() {
            if attempts + 1 < MAX_ATTEMPTS {
                let not_before = self.inner.clock.uptime_ms() + RETRY_MS;
                return self.park(plugin, address, Parked { event, attempts: attempts + 1, not_before });
            }
            self.inner.metrics.plugin_dropped.inc();
            tracing::error!(
                plugin = %plugin.name, generation = plugin.current().id.generation, scope = %address.key,
                event = %event.name(), "the plugin failed {MAX_ATTEMPTS} times on an event, which is given up"
            );
        }
        self.answer(&event, reply, failure);
    }

    /// Answers an event that went well: now, or when what it changed is on disk, or when what it asks for was read.
    fn finish(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event, done: Done, mut reply: ReplyTo) {
        let Done { reply: answer, fetch } = done;
        if let Some(fetch) = fetch {
            let asker = if answer.is_none() { std::mem::replace(&mut reply, ReplyTo::Nobody) } else { ReplyTo::Nobody };
            self.fetch(plugin, address, event, fetch, asker);
        }
        let answer = answer.unwrap_or_else(Payload::empty);
        let unwritten = self.write(plugin, address, reply, answer, event.name());
        self.drop_if_empty(plugin, address);
        if let Some((reply, answer)) = unwritten {
            self.inner.answer(event.name(), reply, Ok(answer));
        }
    }

    fn park(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, parked: Parked) {
        let now = self.inner.clock.uptime_ms();
        let again = parked.not_before.max(plugin.health.paused_until(now).unwrap_or(0));
        let is_there = self.enter(plugin, address);
        let scope = self.scopes.get_mut(plugin.number, &address.key).filter(|_| is_there);
        if scope.is_none_or(|scope| scope.park(parked)) {
            self.inner.metrics.plugin_dropped.inc();
            tracing::warn!(
                plugin = %plugin.name, generation = plugin.current().id.generation, scope = %address.key,
                "too much waits to be told to a plugin, and some of it was dropped"
            );
        }
        if self.resuming.insert(plugin.number) {
            self.deadlines.push(again, Due::Resume { plugin: plugin.number });
        }
    }

    /// Tells a scope what has been waiting, unless it has to wait for longer.
    pub(super) fn handle_parked(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        let now = self.inner.clock.uptime_ms();
        while plugin.health.paused_until(now).is_none() {
            let scope = self.scopes.get_mut(plugin.number, &address.key);
            let Some(Parked { event, attempts, .. }) = scope.and_then(|scope| scope.unpark(now)) else { return };
            self.wait_for_shards();
            self.handle_or_park(plugin, address, event, attempts, ReplyTo::Nobody);
        }
    }

    /// Keeps count of who takes part in a scope. Says whether the event is to be told: a scope that has seen a
    /// connection off already is not told again that it went.
    fn note_member(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event) -> bool {
        match event {
            Event::Joined(member) => {
                if !self.enter(plugin, address) {
                    self.inner.metrics.plugin_dropped.inc();
                    tracing::warn!(plugin = %plugin.name, scope = %address.key, "a join was not told, for there are too many scopes");
                    return false;
                }
                let scope = self.scopes.get_mut(plugin.number, &address.key);
                scope.is_some_and(|scope| {
                    let part = scope.members.entry(member.connection).or_default();
                    !std::mem::replace(&mut part.joined, true)
                })
            }
            Event::Left { member, is_gone, .. } => {
                let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) else { return false };
                let Some(part) = scope.members.get_mut(&member.connection) else { return false };
                part.joined = false;
                if *is_gone || !part.watched {
                    scope.members.remove(&member.connection);
                }
                true
            }
            _ => true,
        }
    }

    /// Whether the scope is there, or the running generation could make it. What was routed by the manifest of the
    /// generation before may be neither.
    fn is_addressable(&self, plugin: &Plugin, address: &ScopeAddress) -> bool {
        address.key.is_empty()
            || self.scopes.get(plugin.number, &address.key).is_some()
            || plugin.current().manifest.scope_of_key(&address.key).is_some()
    }

    /// Makes the scope if it is not there. Says whether there was room for it.
    pub(super) fn enter(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) -> bool {
        if self.scopes.get(plugin.number, &address.key).is_some() {
            return true;
        }
        let generation = plugin.current();
        let Some((kind, _)) = generation.manifest.scope_of_key(&address.key) else { return false };
        if !self.scopes.has_room_for(plugin.number, &address.key) && !self.evict(plugin) {
            return false;
        }
        let (idle_ms, now) = (kind.idle.as_millis() as u64, self.inner.clock.uptime_ms());
        let look = self.deadlines.push(now + idle_ms, Due::Idle { plugin: plugin.number, scope: address.key.clone() });
        self.scopes.insert(plugin, address, kind, now, look);
        true
    }

    /// Calls the feature, checks what it returned, and commits it.
    pub(super) fn handle_now(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event) -> Handled {
        let generation = plugin.current();
        match self.call_and_check(plugin, &generation, address, event) {
            Ok((mut checked, migrated)) => {
                plugin.health.succeeded();
                match self.promise(plugin, address, &mut checked.effects) {
                    Ok(()) => Handled::Done(self.commit(plugin, &generation, address, event, checked, migrated)),
                    // What nobody would send again is tried again.
                    Err(failure) if event.must_be_told() => Handled::Failed(failure),
                    Err(failure) => Handled::Refused(failure),
                }
            }
            Err(CallError::Refused(failure)) => {
                plugin.health.succeeded();
                Handled::Refused(failure)
            }
            Err(CallError::Fault(fault)) => {
                self.note_fault(plugin, &generation, address, event, &fault);
                let message = format!("the feature {} failed on this event", plugin.name);
                Handled::Failed(Failure::new(ErrorCode::Internal, message))
            }
        }
    }

    /// Gives what the feature wants done, and its state in the present schema if that is not the stored one.
    fn call_and_check(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Arc<Generation>,
        address: &ScopeAddress,
        event: &Event,
    ) -> Result<(Checked, Option<Vec<u8>>), CallError> {
        let refused = |code, message: String| Err(CallError::Refused(Failure::new(code, message)));
        let is_room = self.scopes.has_room_for(plugin.number, &address.key) || self.evict(plugin);
        if !event.is_question() && !is_room {
            let message = format!("the feature {} has as many scopes as it may have", plugin.name);
            return refused(ErrorCode::FeatureUnavailable, message);
        }
        let seed = self.next_seed();
        let Self { scopes, instances, inner, .. } = self;
        let scope = scopes.get(plugin.number, &address.key);
        let instance = warm_instance(instances, inner, plugin, generation)?;

        let stored = scope.and_then(|scope| scope.state.as_ref());
        let wanted = generation.manifest.state_version;
        let migrated = match stored.filter(|stored| stored.version != wanted) {
            Some(stored) => {
                let kept = scope.and_then(|scope| scope.before_migration.as_ref());
                Some(migrate(instance, inner, stored, wanted, kept)?)
            }
            None => None,
        };
        let (room_connections, room_users, user_connections) = match event.member() {
            Some(member) => inner.hub.room_size_with(&address.key, &member.identity.user),
            None => {
                let (connections, users) = inner.hub.room_size(&address.key);
                (connections, users, 0)
            }
        };
        // Not as the hub has it, where a connection that has gone since it sent this is out already.
        let connection_in_room = scope
            .zip(event.sender_id())
            .is_some_and(|(scope, id)| scope.members.get(&id).is_some_and(|part| part.joined));
        let params: Vec<&str> = address.params.iter().map(String::as_str).collect();
        let context = Context {
            now: inner.clock.now_ms(),
            seed,
            sequence: scope.map_or(0, |scope| scope.sequence) + 1,
            scope: &address.key,
            params: &params,
            room_connections: room_connections as u32,
            room_users: room_users as u32,
            connection_in_room,
            user_connections: user_connections as u32,
            settings: &generation.settings,
        };
        let state = migrated.as_deref().or(stored.map(|stored| &stored.bytes[..]));
        let started = Instant::now();
        let result = call::lend(event, |event| instance.handle(&inner.ticker, context, event, state));
        generation.latency.observe(started.elapsed().as_secs_f64());
        plugin.calls.fetch_add(1, Ordering::Relaxed);
        inner.metrics.plugin_calls.inc();
        let outcome = result?.map_err(|failure| CallError::Refused(call::failure(failure)))?;
        let sender = event.sender_id();
        let check = Check {
            generation,
            room: &address.key,
            state_bytes: inner.config.state_bytes,
            is_question: event.is_question(),
            timers: scope.map(|scope| &scope.timers),
            knows: &|connection| {
                let owns = |room: &str| generation.manifest.scope_of_key(room).is_some();
                // One that has gone meanwhile is no offence.
                sender == Some(connection) || inner.hub.is_known_to(connection, plugin.number, owns).unwrap_or(true)
            },
        };
        let checked = check.outcome(outcome).map_err(|refusal| CallError::Fault(format!("it returned {refusal}")))?;
        // Who sent a message can send it again. What must be told is not refused for somebody's full rooms.
        let is_message = matches!(event, Event::Message { .. });
        match first_overfull(inner, &checked.effects, (plugin.number, &address.key)) {
            Some(connection) if is_message => {
                let message =
                    format!("the connection {connection} takes part in as much as it may: leave something first");
                refused(ErrorCode::Conflict, message)
            }
            _ => Ok((checked, migrated)),
        }
    }

    fn inheritance(&self, plugin: u32, by: &Generation) -> Inheritance {
        let wanted = by.manifest.state_version;
        let mut inheritance = Inheritance::default();
        for scope in self.scopes.of(plugin) {
            if by.manifest.scope_of_key(&scope.address.key).is_none() {
                inheritance.orphan = Some(scope.address.key.clone());
            }
            let is_kept = scope.before_migration.as_ref().is_some_and(|kept| kept.version == wanted);
            if let Some(state) = scope.state.as_ref().filter(|state| state.version != wanted) {
                inheritance.states.push((state.clone(), is_kept));
            }
        }
        inheritance
    }

    fn acknowledged(&mut self, id: u64, connection: ConnId, answer: Result<Payload, &'static str>) {
        // An id that another connection has guessed is not its own to answer.
        if self.owed.get(&id).is_none_or(|owed| owed.connection != connection) {
            return;
        }
        let Some(Owed { plugin, address, connection, tag, deadline }) = self.owed.remove(&id) else { return };
        self.deadlines.cancel(deadline);
        self.inner.hub.settle(connection, id);
        self.handle(&plugin, &address, Event::Acknowledged { tag, connection, answer }, ReplyTo::Nobody);
    }

    /// The end of the wait for an acknowledgement.
    pub(super) fn give_up_on(&mut self, id: u64) {
        if let Some(connection) = self.owed.get(&id).map(|owed| owed.connection) {
            self.acknowledged(id, connection, Err("timeout"));
        }
    }

    fn gather<T>(
        &mut self,
        plugin: &Arc<Plugin>,
        name: &str,
        data: &str,
        limit: usize,
        asker: &oneshot::Sender<T>,
    ) -> (Vec<Box<str>>, u32) {
        let n_scopes = self.scopes.of(plugin.number).count();
        let loaded = self.scopes.of(plugin.number).filter(|scope| scope.loading.is_none());
        let addresses: Vec<_> = loaded.take(limit).map(|scope| scope.address.clone()).collect();
        let mut answers = Vec::new();
        for address in &addresses {
            let is_paused = plugin.health.paused_until(self.inner.clock.uptime_ms()).is_some();
            if asker.is_closed() || plugin.is_unloaded() || is_paused {
                break;
            }
            let event = Event::Query { name: name.into(), data: data.into() };
            if let Handled::Done(Done { reply, .. }) = self.handle_now(plugin, address, &event) {
                let answer = reply.unwrap_or_else(Payload::empty);
                answers.push(answer.arguments().first().map_or("null", |answer| answer.get()).into());
            }
        }
        let omitted = n_scopes - answers.len();
        (answers, omitted as u32)
    }

    /// Answers an event that was not handled. Nothing more will come of it.
    pub(super) fn answer(&self, event: &Event, reply: ReplyTo, refusal: Failure) {
        if let (Event::Saved { promise, .. }, Some(store)) = (event, &self.inner.store) {
            store.settle(promise);
        }
        self.inner.answer(event.name(), reply, Err(refusal));
    }

    fn note_fault(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Generation,
        address: &ScopeAddress,
        event: &Event,
        fault: &str,
    ) {
        let now = self.inner.clock.uptime_ms();
        plugin.traps.fetch_add(1, Ordering::Relaxed);
        self.inner.metrics.plugin_faults.inc();
        // A component that went wrong is in no state to be called again.
        self.instances.remove(&plugin.number);
        let id = &generation.id;
        tracing::error!(
            plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest,
            scope = %address.key, event = %event.name(), "the plugin failed: {fault}"
        );
        match plugin.health.failed(id.generation, now, plugin.before().is_some()) {
            Verdict::GoOn => {}
            Verdict::RollBack(generation) => self.inner.loads.roll_back_failing(&plugin.name, generation),
            Verdict::Quarantined(pause_ms) => tracing::error!(
                plugin = %id.name, version = %id.version, generation = id.generation, digest = %id.digest, pause_ms,
                "the plugin fails too often and is paused"
            ),
        }
    }

    fn forget(&mut self, plugin: u32) {
        self.instances.remove(&plugin);
        let Self { owed, deadlines, inner, .. } = self;
        owed.retain(|id, owed| {
            let is_others = owed.plugin.number != plugin;
            if !is_others {
                deadlines.cancel(owed.deadline);
                inner.hub.settle(owed.connection, *id);
            }
            is_others
        });
        for scope in self.scopes.remove_all(plugin) {
            self.deadlines.cancel(scope.look);
            for (event, reply) in scope.loading.into_iter().flatten() {
                self.answer(&event, reply, unavailable(format!("the feature {} was unloaded", scope.plugin.name)));
            }
            scope.timers.values().for_each(|timer| self.deadlines.cancel(timer.deadline));
            for (connection, _) in scope.members.iter().filter(|(_, part)| part.watched) {
                self.inner.hub.unwatch(*connection, plugin, &scope.address.key);
            }
            for connection in self.inner.hub.members(&scope.address.key) {
                self.inner.hub.leave(connection, &scope.address.key);
            }
        }
    }

    /// The next number of a sequence that nobody can foresee who does not know its start. (SplitMix64, Steele et al.
    /// 2014.)
    pub(super) fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The warm instance of a generation; one of another generation makes way for it.
fn warm_instance<'a>(
    instances: &'a mut HashMap<u32, Warm>,
    inner: &Inner,
    plugin: &Plugin,
    generation: &Generation,
) -> Result<&'a mut Instance, Fault> {
    let number = generation.id.generation;
    let fits = |warm: &Warm| warm.generation == number && warm.calls < CALLS_PER_INSTANCE;
    if !instances.get(&plugin.number).is_some_and(fits) {
        let instance = Instance::new(&generation.pre, &inner.ticker, generation.bounds, generation.log.clone())?;
        instances.insert(plugin.number, Warm { generation: number, calls: 0, instance });
    }
    match instances.get_mut(&plugin.number) {
        Some(warm) => {
            warm.calls += 1;
            Ok(&mut warm.instance)
        }
        None => unreachable!("it was put there, or found there, above"),
    }
}

/// A state in the schema that is wanted. Where the component cannot turn it back, the copy from before it was turned
/// forward will do: what has happened since is lost, but the scope goes on.
fn migrate(
    instance: &mut Instance,
    inner: &Inner,
    stored: &State,
    wanted: u32,
    kept: Option<&State>,
) -> Result<Vec<u8>, CallError> {
    let limit = inner.config.state_bytes;
    let refused = match instance.migrate(&inner.ticker, stored.version, &stored.bytes)? {
        Ok(state) if state.len() <= limit => return Ok(state),
        Ok(state) => format!("it migrated a state to {} bytes", state.len()),
        Err(failure) => {
            let message = call::failure(failure).message;
            format!("it cannot take over the state of schema {}: {message}", stored.version)
        }
    };
    match kept.filter(|kept| kept.version == wanted) {
        Some(kept) => Ok(kept.bytes.clone()),
        None => Err(CallError::Fault(refused)),
    }
}

/// A connection that these effects would bring into more rooms or scopes than it may be in.
fn first_overfull(inner: &Inner, effects: &[Effect], scope: (u32, &str)) -> Option<ConnId> {
    let mut wanted: HashMap<ConnId, (HashSet<&str>, bool)> = HashMap::new();
    for effect in effects {
        match effect {
            Effect::Join { connection, room } => drop(wanted.entry(*connection).or_default().0.insert(room)),
            Effect::Watch(connection) => wanted.entry(*connection).or_default().1 = true,
            _ => {}
        }
    }
    wanted
        .into_iter()
        .find(|(connection, (rooms, watches))| !inner.hub.has_room_for(*connection, rooms, watches.then_some(scope)))
        .map(|(connection, _)| connection)
}

/// Sets one of the ways in which a connection takes part in a scope.
pub(super) fn take_part(scopes: &mut Scopes, plugin: u32, key: &str, connection: ConnId, how: impl FnOnce(&mut Part)) {
    if let Some(scope) = scopes.get_mut(plugin, key) {
        how(scope.members.entry(connection).or_default());
    }
}

pub(super) fn unavailable(message: String) -> Failure {
    Failure::new(ErrorCode::FeatureUnavailable, message)
}
