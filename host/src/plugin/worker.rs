//! A plugin thread: it handles the events of its scopes strictly one after another.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::oneshot;

use super::bindings::Context;
use super::call;
use super::catalogue::Plugin;
use super::effect::{Check, Checked, Effect, StateChange};
use super::event::{Event, Member, Origin, ReplyTo};
use super::generation::Generation;
use super::health::Verdict;
use super::runtime::Inner;
use super::sandbox::{Fault, Instance};
use super::scope::{Deadlines, Due, Scope, Scopes, Timer};
use super::template::ScopeAddress;
use crate::hub::{Joined, ShardCommand};
use crate::model::{CloseCode, ConnId, ErrorCode, Failure, Mailbox, Payload};

/// Scopes of one plugin on one thread, at most. With 64 KiB of state each, that is 6 GiB in the worst case.
const MAX_SCOPES: usize = 100_000;

/// Calls after which an instance is replaced, so that what it leaks or fragments has an end.
const CALLS_PER_INSTANCE: u32 = 1_000_000;

/// Events handled in a row before the thread sees whether the shards keep up.
const EVENTS_IN_A_ROW: usize = 64;

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
    /// Copy the states of a plugin's scopes, with the version of their schema.
    States { plugin: u32, reply: oneshot::Sender<Vec<(u32, Vec<u8>)>> },
    /// A plugin was unloaded: drop what belongs to it.
    Forget { plugin: u32 },
    /// Handle what is queued, then end.
    Stop,
}

/// An acknowledgement that a client owes.
#[derive(Debug)]
struct Owed {
    plugin: Arc<Plugin>,
    address: ScopeAddress,
    connection: ConnId,
    tag: Box<str>,
}

/// The state of a plugin thread.
#[derive(Debug)]
pub(super) struct Worker {
    index: u64,
    inner: Arc<Inner>,
    inbox: Arc<Mailbox<Job>>,
    scopes: Scopes,
    deadlines: Deadlines,
    /// The warm instance of each plugin, with the generation that it is of and the calls that it has had.
    instances: HashMap<u32, (u64, u32, Instance)>,
    owed: HashMap<u64, Owed>,
    last_timer: u64,
    last_owed: u64,
    seed: u64,
}

/// What came of a call: what the component returned, or what was wrong with it.
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

impl Worker {
    pub(super) fn start(index: usize, inner: Arc<Inner>, inbox: Arc<Mailbox<Job>>) -> io::Result<JoinHandle<()>> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
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
            last_timer: 0,
            last_owed: 0,
            seed: u64::from_ne_bytes(seed),
        };
        thread::Builder::new()
            .name(format!("plugin-{index}"))
            // Ample room for the host's own frames around a component's stack.
            .stack_size(4 * 1024 * 1024)
            .spawn(move || worker.run())
    }

    fn run(&mut self) {
        let mut jobs = VecDeque::new();
        loop {
            let timeout = match self.deadlines.next() {
                Some(next) => self.inner.clock.wait_for(next),
                None => None,
            };
            self.inbox.clone().wait(&mut jobs, timeout);
            for (n, job) in jobs.drain(..).enumerate() {
                if matches!(job, Job::Stop) {
                    return;
                }
                self.perform(job);
                if n % EVENTS_IN_A_ROW == EVENTS_IN_A_ROW - 1 {
                    self.wait_for_shards();
                }
            }
            self.meet_deadlines();
            self.wait_for_shards();
        }
    }

    fn wait_for_shards(&self) {
        self.inner.hub.shards().iter().for_each(crate::hub::ShardPort::wait_for_space);
    }

    fn perform(&mut self, job: Job) {
        match job {
            Job::Event { plugin, address, event, reply } => self.handle(&plugin, &address, event, reply),
            Job::Acknowledged { id, connection, answer } => self.acknowledged(id, connection, answer),
            Job::Gather { plugin, name, data, limit, reply } => {
                let answers = self.gather(&plugin, &name, &data, limit);
                // Whoever asked may have gone.
                let _ = reply.send(answers);
            }
            Job::States { plugin, reply } => {
                let _ = reply.send(self.scopes.of(plugin).filter_map(|scope| scope.state.clone()).collect());
            }
            Job::Forget { plugin } => self.forget(plugin),
            Job::Stop => {}
        }
    }

    /// Handles one event and answers it.
    fn handle(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: Event, reply: ReplyTo) {
        let now = self.inner.clock.uptime_ms();
        if !self.note_member(plugin, address, &event) {
            return;
        }
        if plugin.is_unloaded() {
            return self.answer(&event, reply, Err(unavailable(format!("the feature {} was unloaded", plugin.name))));
        }
        if let Some(until) = plugin.health.paused_until(now) {
            return self.refuse_or_park(plugin, address, event, reply, until);
        }
        self.handle_parked(plugin, address);
        let outcome = self.handle_now(plugin, address, &event);
        self.answer(&event, reply, outcome);
    }

    /// Keeps count of who takes part in a scope. Says whether the event is to be told: a scope that has seen a connection
    /// off already is not told again that it went.
    fn note_member(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event) -> bool {
        match event {
            Event::Joined(member) => {
                let scope = self.scopes.enter(plugin, address, MAX_SCOPES);
                scope.is_some_and(|scope| scope.members.insert(member.connection))
            }
            Event::Left { member, .. } => {
                let scope = self.scopes.get_mut(plugin.number, &address.key);
                scope.is_some_and(|scope| scope.members.remove(&member.connection))
            }
            _ => true,
        }
    }

    /// What nobody would send again waits for the end of the quarantine; everything else is refused.
    fn refuse_or_park(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: Event,
        reply: ReplyTo,
        until: u64,
    ) {
        if !event.must_be_told() {
            let message = format!("the feature {} failed too often and is paused: try again later", plugin.name);
            return self.answer(&event, reply, Err(unavailable(message)));
        }
        let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) else { return };
        if scope.park(event) {
            self.inner.metrics.plugin_dropped.inc();
            tracing::warn!(plugin = %plugin.name, scope = %address.key, "too much waits for a paused plugin, and the oldest was dropped");
        }
        self.deadlines.push(until, Due::Resume { plugin: plugin.number });
    }

    fn handle_parked(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress) {
        let parked = self.scopes.get_mut(plugin.number, &address.key).map(Scope::take_parked).unwrap_or_default();
        for event in parked {
            // Nobody waits for what comes of these.
            let _ = self.handle_now(plugin, address, &event);
        }
    }

    /// Calls the feature, checks what it returned, and commits it.
    fn handle_now(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event) -> Result<Payload, Failure> {
        let generation = plugin.current();
        match self.call_and_check(plugin, &generation, address, event) {
            Ok(checked) => {
                plugin.health.succeeded();
                Ok(self.commit(plugin, &generation, address, event, checked))
            }
            Err(CallError::Refused(failure)) => {
                plugin.health.succeeded();
                Err(failure)
            }
            Err(CallError::Fault(fault)) => {
                self.note_fault(plugin, &generation, address, event, &fault);
                Err(Failure::new(ErrorCode::Internal, format!("the feature {} failed on this event", plugin.name)))
            }
        }
    }

    fn call_and_check(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Arc<Generation>,
        address: &ScopeAddress,
        event: &Event,
    ) -> Result<Checked, CallError> {
        let is_query = matches!(event, Event::Query { .. } | Event::Gathered { .. });
        self.migrate(plugin, generation, address)?;
        let seed = self.next_seed();
        if !is_query && self.scopes.enter(plugin, address, MAX_SCOPES).is_none() {
            let message = format!("the feature {} has as many scopes as it may have", plugin.name);
            return Err(CallError::Refused(unavailable(message)));
        }
        let (room_connections, room_users) = self.inner.hub.room_size(&address.key);
        let params: Vec<&str> = address.params.iter().map(String::as_str).collect();
        let scope = self.scopes.get(plugin.number, &address.key);
        let context = Context {
            now: self.inner.clock.now_ms(),
            seed,
            sequence: scope.map_or(0, |scope| scope.sequence) + 1,
            scope: &address.key,
            params: &params,
            room_connections: room_connections as u32,
            room_users: room_users as u32,
            settings: &generation.settings,
        };
        let state = scope.and_then(|scope| scope.state.as_ref()).map(|(_, bytes)| &bytes[..]);
        let instance = instance(&mut self.instances, &self.inner, plugin, generation)?;
        let started = Instant::now();
        let result = call::lend(event, |event| instance.handle(&self.inner.ticker, context, event, state));
        plugin.latency.observe(started.elapsed().as_secs_f64());
        plugin.calls.fetch_add(1, Ordering::Relaxed);
        self.inner.metrics.plugin_calls.inc();
        let outcome = result?.map_err(|failure| CallError::Refused(call::failure(failure)))?;
        let sender = match event {
            Event::Acknowledged { connection, .. } => Some(*connection),
            event => sender_of(event).map(|member| member.connection),
        };
        let check = Check {
            generation,
            room: &address.key,
            state_bytes: self.inner.config.state_bytes,
            is_query,
            timers: &|names: &mut HashSet<Box<str>>| {
                names.extend(scope.into_iter().flat_map(|scope| scope.timers.keys().cloned()));
            },
            knows: &|connection| {
                let owns = |room: &str| generation.manifest.scope_of_key(room).is_some();
                // One that has gone meanwhile is no offence.
                sender == Some(connection)
                    || self.inner.hub.is_known_to(connection, plugin.number, owns).unwrap_or(true)
            },
        };
        let checked = check.outcome(outcome).map_err(|refusal| CallError::Fault(format!("it returned {refusal}")))?;
        for effect in &checked.effects {
            if let Effect::Join { connection, room } = effect
                && !self.inner.hub.has_room_for(*connection, room)
            {
                let message = "the connection is in as many rooms as it may be: leave one first";
                return Err(CallError::Refused(Failure::new(ErrorCode::Conflict, message)));
            }
        }
        Ok(checked)
    }

    /// Brings a scope's state to the schema of the generation that is to handle it.
    fn migrate(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Arc<Generation>,
        address: &ScopeAddress,
    ) -> Result<(), CallError> {
        let wanted = generation.manifest.state_version;
        let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) else { return Ok(()) };
        let Some((version, state)) = &scope.state else { return Ok(()) };
        if *version == wanted {
            return Ok(());
        }
        let instance = instance(&mut self.instances, &self.inner, plugin, generation)?;
        match instance.migrate(&self.inner.ticker, *version, state)? {
            Ok(state) if state.len() <= self.inner.config.state_bytes => {
                scope.state = Some((wanted, state));
                Ok(())
            }
            Ok(state) => Err(CallError::Fault(format!("it migrated a state to {} bytes", state.len()))),
            Err(failure) => Err(CallError::Fault(format!(
                "it cannot take over the state of schema {version}: {}",
                call::failure(failure).message
            ))),
        }
    }

    /// Carries out what was checked, and gives the reply.
    fn commit(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Generation,
        address: &ScopeAddress,
        event: &Event,
        checked: Checked,
    ) -> Payload {
        let now = self.inner.clock.uptime_ms();
        if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key)
            // To be asked about is no activity.
            && !matches!(event, Event::Query { .. })
        {
            scope.touched = now;
            scope.sequence += 1;
            match checked.state {
                StateChange::Keep => {}
                StateChange::Put(state) => scope.state = Some((generation.manifest.state_version, state)),
                StateChange::Clear => scope.state = None,
            }
        }
        let mut reply = Payload::empty();
        for effect in checked.effects {
            match effect {
                Effect::Reply(payload) => reply = payload,
                effect => self.carry_out(plugin, generation, address, event, effect, now),
            }
        }
        self.arm_idle(plugin, generation, address, now);
        reply
    }

    fn carry_out(
        &mut self,
        plugin: &Arc<Plugin>,
        generation: &Generation,
        address: &ScopeAddress,
        event: &Event,
        effect: Effect,
        now: u64,
    ) {
        let hub = &self.inner.hub;
        match effect {
            Effect::Publish(publication) => hub.publish(publication),
            Effect::Ask { connections, outgoing, tag, timeout_ms } => {
                for connection in connections {
                    let owed = Owed { plugin: plugin.clone(), address: address.clone(), connection, tag: tag.clone() };
                    self.ask(owed, &outgoing, now + timeout_ms);
                }
            }
            Effect::Join { connection, room } => match hub.join(connection, &room) {
                Joined::Yes | Joined::Already if room == address.key => self.take_part(plugin, address, connection),
                Joined::Yes => self.tell_owner(connection, &room, None),
                Joined::Already => {}
                Joined::Gone => self.tell_gone(plugin, address, event, connection),
                Joined::TooMany => tracing::warn!(
                    plugin = %plugin.name, %connection, room = %room,
                    "a join came to nothing, for the connection is in too many rooms"
                ),
            },
            Effect::Leave { connection, room } => {
                let was_in = hub.leave(connection, &room);
                if room != address.key {
                    if was_in {
                        self.tell_owner(connection, &room, Some("left"));
                    }
                } else if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) {
                    scope.members.remove(&connection);
                }
            }
            Effect::Watch(connection) => {
                if hub.watch(connection, (plugin.number, address.key.clone())) {
                    self.take_part(plugin, address, connection);
                } else {
                    self.tell_gone(plugin, address, event, connection);
                }
            }
            Effect::SetTimer { name, after_ms, payload } => {
                self.last_timer += 1;
                let id = self.last_timer;
                let due_ms = self.inner.clock.now_ms() + after_ms;
                if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) {
                    scope.timers.insert(name.clone(), Timer { id, due_ms, payload });
                    let due = Due::Timer { plugin: plugin.number, scope: address.key.clone(), name, id };
                    self.deadlines.push(now + after_ms, due);
                }
            }
            Effect::CancelTimer(name) => {
                if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) {
                    scope.timers.remove(&name);
                }
            }
            Effect::Disconnect { connection, reason } => {
                tracing::info!(plugin = %plugin.name, generation = generation.id.generation, %connection, "a plugin disconnects a client");
                hub.close(connection, CloseCode::Disconnected, &reason);
            }
            // The caller has taken it out.
            Effect::Reply(_) => {}
        }
    }

    fn take_part(&mut self, plugin: &Plugin, address: &ScopeAddress, connection: ConnId) {
        if let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) {
            scope.members.insert(connection);
        }
    }

    /// Tells the owner of a room of a change that another scope made.
    fn tell_owner(&self, connection: ConnId, room: &str, left: Option<&'static str>) {
        let Some(identity) = self.inner.hub.identity(connection) else { return };
        let member = Member { connection, identity };
        let catalogue = self.inner.catalogue.load();
        let Some((owner, scope)) = catalogue.owner(room) else { return };
        let event = match left {
            None => Event::Joined(member),
            Some(reason) => Event::Left { member, reason },
        };
        self.inner.submit(Job::Event { plugin: owner.clone(), address: scope, event, reply: ReplyTo::Nobody });
    }

    /// A connection that was to take part in a scope went before it came to that: the scope is told once, after
    /// everything that the connection sent, which is queued already.
    fn tell_gone(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event, connection: ConnId) {
        let Some(member) = sender_of(event).filter(|sender| sender.connection == connection).cloned() else {
            return tracing::debug!(plugin = %plugin.name, %connection, "a connection was gone before it joined");
        };
        let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) else { return };
        // One that takes part already is told of by its shard.
        if scope.members.insert(connection) {
            let event = Event::Left { member, reason: "disconnected" };
            self.inbox.push(Job::Event {
                plugin: plugin.clone(),
                address: address.clone(),
                event,
                reply: ReplyTo::Nobody,
            });
        }
    }

    fn ask(&mut self, owed: Owed, outgoing: &Arc<crate::protocol::Outgoing>, deadline: u64) {
        self.last_owed += 1;
        // Each thread has its own numbers, so that an answer finds its thread.
        let id = self.last_owed * self.inner.inboxes.len() as u64 + self.index;
        let connection = owed.connection;
        self.owed.insert(id, owed);
        if self.inner.hub.owe(connection, id) {
            let shard = &self.inner.hub.shards()[connection.shard()];
            shard.push(ShardCommand::Ask { connection, id, outgoing: outgoing.clone() });
            self.deadlines.push(deadline, Due::Acknowledgement(id));
        } else {
            self.inbox.push(Job::Acknowledged { id, connection, answer: Err("disconnected") });
        }
    }

    fn acknowledged(&mut self, id: u64, connection: ConnId, answer: Result<Payload, &'static str>) {
        // An id that was guessed by another connection is not its own to answer.
        if self.owed.get(&id).is_none_or(|owed| owed.connection != connection) {
            return;
        }
        let Some(Owed { plugin, address, connection, tag }) = self.owed.remove(&id) else { return };
        self.inner.hub.settle(connection, id);
        self.handle(&plugin, &address, Event::Acknowledged { tag, connection, answer }, ReplyTo::Nobody);
    }

    fn gather(&mut self, plugin: &Arc<Plugin>, name: &str, data: &str, limit: usize) -> (Vec<Box<str>>, u32) {
        let addresses: Vec<ScopeAddress> = self.scopes.of(plugin.number).map(|scope| scope.address.clone()).collect();
        let mut answers = Vec::new();
        let omitted = addresses.len().saturating_sub(limit) as u32;
        for address in addresses.iter().take(limit) {
            let event = Event::Query { name: name.into(), data: data.into() };
            if let Ok(answer) = self.handle_now(plugin, address, &event) {
                answers.push(answer.arguments().first().map_or("null", |answer| answer.get()).into());
            }
        }
        (answers, omitted)
    }

    fn answer(&self, event: &Event, reply: ReplyTo, outcome: Result<Payload, Failure>) {
        match reply {
            ReplyTo::Nobody => {}
            // Without an id, success is silent.
            ReplyTo::Client { id: None, .. } if outcome.is_ok() => {}
            ReplyTo::Client { connection, id, read_at } => {
                let event = event.name().into();
                let command = ShardCommand::Reply { connection, event, id, outcome, read_at };
                self.inner.hub.shards()[connection.shard()].push(command);
            }
            ReplyTo::Caller(caller) => {
                // Whoever asked may have gone.
                let _ = caller.send(outcome);
            }
        }
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
            Verdict::Quarantined(pause_ms) => {
                tracing::error!(plugin = %id.name, generation = id.generation, pause_ms, "the plugin fails too often and is paused");
            }
        }
    }

    fn arm_idle(&mut self, plugin: &Arc<Plugin>, generation: &Generation, address: &ScopeAddress, now: u64) {
        let Some(scope) = self.scopes.get_mut(plugin.number, &address.key) else { return };
        if !scope.idle_armed {
            scope.idle_armed = true;
            let idle = idle_ms(generation, &address.key);
            self.deadlines
                .push(now.saturating_add(idle), Due::Idle { plugin: plugin.number, scope: address.key.clone() });
        }
    }

    fn meet_deadlines(&mut self) {
        let now = self.inner.clock.uptime_ms();
        while let Some(due) = self.deadlines.pop_due(now) {
            match due {
                Due::Timer { plugin, scope, name, id } => self.fire(plugin, &scope, &name, id),
                Due::Idle { plugin, scope } => self.expire(plugin, &scope, now),
                Due::Acknowledgement(id) => {
                    if let Some(connection) = self.owed.get(&id).map(|owed| owed.connection) {
                        self.acknowledged(id, connection, Err("timeout"));
                    }
                }
                Due::Resume { plugin } => self.resume(plugin),
            }
        }
    }

    fn fire(&mut self, plugin: u32, key: &str, name: &str, id: u64) {
        let Some(scope) = self.scopes.get_mut(plugin, key) else { return };
        if scope.timers.get(name).is_none_or(|timer| timer.id != id) {
            return;
        }
        let Some(Timer { due_ms, payload, .. }) = scope.timers.remove(name) else { return };
        let (plugin, address) = (scope.plugin.clone(), scope.address.clone());
        self.handle(&plugin, &address, Event::Timer { name: name.into(), payload, due_ms }, ReplyTo::Nobody);
    }

    /// Drops a scope that has had no member, timer or event for its idle time.
    fn expire(&mut self, plugin: u32, key: &Arc<str>, now: u64) {
        let Some(scope) = self.scopes.get_mut(plugin, key) else { return };
        let idle_until = scope.touched.saturating_add(idle_ms(&scope.plugin.current(), key));
        let is_used = !scope.timers.is_empty()
            || scope.is_parked()
            || !scope.members.is_empty()
            || self.inner.hub.room_size(key).0 > 0;
        if now >= idle_until && !is_used {
            self.scopes.remove(plugin, key);
        } else {
            // A scope in use is looked at again after the shortest time in which it could have become idle.
            let again = if is_used { now.saturating_add(idle_ms(&scope.plugin.current(), key)) } else { idle_until };
            self.deadlines.push(again, Due::Idle { plugin, scope: key.clone() });
        }
    }

    fn resume(&mut self, plugin: u32) {
        let waiting: Vec<_> = self
            .scopes
            .of(plugin)
            .filter(|scope| scope.is_parked())
            .map(|scope| (scope.plugin.clone(), scope.address.clone()))
            .collect();
        for (plugin, address) in waiting {
            match plugin.health.paused_until(self.inner.clock.uptime_ms()) {
                Some(until) => return self.deadlines.push(until, Due::Resume { plugin: plugin.number }),
                None => self.handle_parked(&plugin, &address),
            }
        }
    }

    fn forget(&mut self, plugin: u32) {
        self.instances.remove(&plugin);
        self.owed.retain(|_, owed| owed.plugin.number != plugin);
        for scope in self.scopes.remove_all(plugin) {
            for connection in self.inner.hub.members(&scope.address.key) {
                self.inner.hub.leave(connection, &scope.address.key);
            }
        }
    }

    /// The next number of a sequence that nobody can foresee who does not know its start. (SplitMix64, Steele et al. 2014.)
    fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The warm instance of a generation; one of another generation makes way for it.
fn instance<'a>(
    instances: &'a mut HashMap<u32, (u64, u32, Instance)>,
    inner: &Inner,
    plugin: &Plugin,
    generation: &Generation,
) -> Result<&'a mut Instance, Fault> {
    let number = generation.id.generation;
    let is_warm =
        instances.get(&plugin.number).is_some_and(|(of, calls, _)| *of == number && *calls < CALLS_PER_INSTANCE);
    if !is_warm {
        let instance = Instance::new(&generation.pre, &inner.ticker, generation.bounds, generation.log.clone())?;
        instances.insert(plugin.number, (number, 0, instance));
    }
    match instances.get_mut(&plugin.number) {
        Some((_, calls, instance)) => {
            *calls += 1;
            Ok(instance)
        }
        None => unreachable!("it was put there, or found there, above"),
    }
}

fn idle_ms(generation: &Generation, key: &str) -> u64 {
    generation.manifest.scope_of_key(key).map_or(0, |(scope, _)| scope.idle.as_millis() as u64)
}

fn sender_of(event: &Event) -> Option<&Member> {
    match event {
        Event::Message { origin: Origin::Client(member), .. } | Event::Joined(member) | Event::Left { member, .. } => {
            Some(member)
        }
        _ => None,
    }
}

fn unavailable(message: String) -> Failure {
    Failure::new(ErrorCode::FeatureUnavailable, message)
}
