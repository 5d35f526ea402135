//! A plugin thread: it handles the events of its scopes strictly one after another.
//!
//! `commit` is what comes of an event that was handled, `due` what time brings.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use roundhouse_contract::ScopeAddress;
use tokio::sync::oneshot;

use super::gather::Gather;
use super::invoke::{Done, Handled, Warm};
use super::scope::{Deadline, Deadlines, Parked, Part, Scopes};
use super::shared::Shared;
use super::turns::Turns;
use crate::hub::{ShardQueue, WakeBatch};
use crate::ledger::Charge;
use crate::model::{Allowance, ConnId, ErrorCode, Failure, Mailbox, Payload, spawn_essential};
use crate::plugin::event::Flow;
use crate::plugin::event::senders::Reservation;
use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::load::catalogue::Plugin;
use crate::plugin::load::generation::Generation;
use crate::plugin::load::migrate::State;
use crate::store::{DeliveryReceipt, ScopeRecord, StoreFailure};

/// Times that a feature may fail on an event that must be told, before it is given up.
const MAX_ATTEMPTS: u32 = 3;

/// The pause before such an event is told again, in milliseconds: time for a roll-back.
pub(crate) const RETRY_MS: u64 = 1000;

/// What a plugin thread is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Handle an event of a scope.
    Event { plugin: Arc<Plugin>, address: ScopeAddress, event: Event, reply: ReplyTo },
    /// Hand on a client's acknowledgement, or that there will be none.
    Acknowledged { id: u64, connection: ConnId, answer: Result<Payload, &'static str>, place: Option<Reservation> },
    /// A timer of a scope is due.
    Timer { plugin: u32, scope: Arc<str>, name: Box<str>, deadline: Deadline },
    /// Tell a scope what has been waiting.
    Deferred { plugin: Arc<Plugin>, address: ScopeAddress },
    /// Go on with what came in while a scope was read.
    Held { plugin: u32, key: Arc<str> },
    /// Ask every scope of a plugin.
    Gather(Gather),
    /// Tell what another generation would have to take over.
    Inherit { plugin: u32, by: Arc<Generation>, reply: oneshot::Sender<Inheritance> },
    /// Give up the states that the running generation cannot take over, and say how many.
    GiveUp { plugin: u32, reply: oneshot::Sender<usize> },
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
pub(crate) struct Inheritance {
    /// States of another schema than its own, and the version of the copy that is kept from before each was migrated.
    pub(crate) states: Vec<(State, Option<u32>)>,
    /// A scope that it has no template for.
    pub(crate) orphan: Option<Arc<str>>,
}

/// An acknowledgement that a client owes.
#[derive(Debug)]
pub(crate) struct Owed {
    pub(crate) plugin: Arc<Plugin>,
    pub(crate) address: ScopeAddress,
    pub(crate) connection: ConnId,
    pub(crate) tag: Box<str>,
    pub(crate) deadline: Deadline,
    /// With what the answer waits its turn.
    pub(crate) flow: Flow,
    /// In the account of whoever brought it about.
    pub(crate) _charge: Charge,
}

/// Rolls a plugin back from the generation of this number, which fails too often.
pub(crate) type RollBack = Arc<dyn Fn(&str, u64) + Send + Sync>;

/// What asks for rollbacks: the plugin threads are below the room that makes them.
pub(crate) struct RollBackHook(pub(crate) RollBack);

impl std::fmt::Debug for RollBackHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RollBackHook")
    }
}

/// The state of a plugin thread.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) roll_back: RollBackHook,
    pub(crate) inbox: Arc<Mailbox<Job>>,
    /// What waits to be handled.
    pub(crate) turns: Turns<Job>,
    pub(crate) scopes: Scopes,
    pub(crate) deadlines: Deadlines,
    /// The warm instance of each plugin.
    pub(crate) instances: HashMap<u32, Warm>,
    pub(crate) owed: HashMap<u64, Owed>,
    pub(crate) last_owed: u64,
    /// While the outcome of a promise is committed: settles it when all that comes of it has been written.
    pub(crate) receipt: Option<DeliveryReceipt>,
    /// The shards to wake for what events have led to.
    pub(crate) wakes: WakeBatch,
    /// For how long calls have run since that was last too long for shards not to be woken.
    pub(crate) busy: Duration,
    /// Plugins whose waiting events are due to be told.
    pub(crate) resuming: HashSet<u32>,
    /// How much the timers of each plugin have used of this thread's time.
    pub(crate) timer_time: HashMap<u32, Allowance>,
    seed: u64,
}

impl Worker {
    pub(crate) fn start(
        index: usize,
        shared: Arc<Shared>,
        inbox: Arc<Mailbox<Job>>,
        roll_back: RollBack,
    ) -> io::Result<JoinHandle<()>> {
        shared.clock.on_move({
            let inbox = inbox.clone();
            move || inbox.interrupt()
        });
        let mut worker = Self {
            index: index as u64,
            shared,
            roll_back: RollBackHook(roll_back),
            inbox,
            turns: Turns::default(),
            scopes: Scopes::default(),
            deadlines: Deadlines::default(),
            instances: HashMap::new(),
            owed: HashMap::new(),
            last_owed: 0,
            receipt: None,
            wakes: WakeBatch::default(),
            busy: Duration::ZERO,
            resuming: HashSet::new(),
            timer_time: HashMap::new(),
            // Different in each process and thread.
            seed: RandomState::new().hash_one(index),
        };
        // Ample room for the host's own frames around a component's stack.
        let thread = thread::Builder::new().name(format!("plugin-{index}")).stack_size(4 * 1024 * 1024);
        spawn_essential(thread, move || worker.run())
    }

    /// Waits until the shards keep up.
    pub(crate) fn wait_for_shards(&self) {
        if self.shared.hub.shards().iter().any(ShardQueue::is_full) {
            // No shard waits for what this thread has for it because another is slow.
            self.wakes.wake();
            self.shared.hub.shards().iter().for_each(ShardQueue::wait_for_space);
        }
    }

    /// Handles one event and answers it.
    pub(crate) fn handle(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: Event, reply: ReplyTo) {
        if plugin.is_unloaded() {
            return self.answer(
                plugin,
                &event,
                reply,
                unavailable(format!("the feature {} was unloaded", plugin.name)),
            );
        }
        if !self.is_addressable(plugin, address) {
            let message =
                format!("the feature {} was replaced by a build without this scope: send it again", plugin.name);
            return self.answer(plugin, &event, reply, unavailable(message));
        }
        if let Some((event, reply)) = self.hold(plugin, address, event, reply) {
            self.handle_present(plugin, address, event, reply);
        }
    }

    /// Handles an event whose scope is in memory, or is none that has to be read.
    pub(crate) fn handle_present(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: Event,
        reply: ReplyTo,
    ) {
        if !self.note_member(plugin, address, &event) {
            return;
        }
        let now = self.shared.clock.uptime_ms();
        if plugin.health.paused_until(now).is_some() {
            if event.must_be_told() {
                return self.park(plugin, address, Parked { event, attempts: 0, not_before: now });
            }
            let message = format!("the feature {} failed too often and is paused: try again later", plugin.name);
            return self.answer(plugin, &event, reply, unavailable(message));
        }
        self.handle_parked(plugin, address);
        let waiting = self.scopes.get(plugin.number, &address.key).filter(|scope| scope.has_parked());
        if waiting.is_some() && event.must_be_told() {
            // Behind what waits already: a join is told before its departure.
            return self.park(plugin, address, Parked { event, attempts: 0, not_before: now });
        }
        // A feature hears of a connection before it hears from it.
        if waiting.zip(event.sender_id()).is_some_and(|(scope, sender)| scope.has_parked_opening(sender)) {
            let message = format!("the feature {} does not know of this connection yet: try again later", plugin.name);
            return self.answer(plugin, &event, reply, unavailable(message));
        }
        let sender = event.sender().filter(|_| event.can_be_sent_again());
        if let Some(failure) = sender.and_then(|sender| sender.refusal(plugin.number, &plugin.name, now)) {
            // It came in before its sender was found to be over its bounds.
            return self.answer(plugin, &event, reply, failure);
        }
        self.handle_or_park(plugin, address, event, 0, reply);
    }

    /// Handles an event. What nobody would send again is told again if the feature fails on it.
    pub(crate) fn handle_or_park(
        &mut self,
        plugin: &Arc<Plugin>,
        address: &ScopeAddress,
        event: Event,
        attempts: u32,
        reply: ReplyTo,
    ) {
        let failure = match self.handle_now(plugin, address, &event) {
            Handled::Done(done) => return self.finish(plugin, address, &event, done, reply),
            Handled::Refused(failure) => return self.refuse(plugin, &event, reply, failure),
            Handled::Failed(failure) => failure,
        };
        if event.must_be_told() {
            if attempts + 1 < MAX_ATTEMPTS {
                let not_before = self.shared.clock.uptime_ms() + RETRY_MS;
                return self.park(plugin, address, Parked { event, attempts: attempts + 1, not_before });
            }
            self.shared.metrics.plugin_dropped.inc();
            tracing::error!(
                plugin = %plugin.name, generation = plugin.current().id.generation, scope = %address.key,
                event = %event.name(), "the plugin failed {MAX_ATTEMPTS} times on an event, which is given up"
            );
        }
        self.answer(plugin, &event, reply, failure);
    }

    /// Answers an event that went well: now, or when what it changed is on disk, or when what it asks for was read.
    fn finish(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event, done: Done, mut reply: ReplyTo) {
        let Done { reply: answer, fetch } = done;
        if let Some(fetch) = fetch {
            let asker = if answer.is_none() { std::mem::replace(&mut reply, ReplyTo::Nobody) } else { ReplyTo::Nobody };
            self.fetch(plugin, address, event, fetch, asker);
        }
        let answer = answer.unwrap_or_else(Payload::empty);
        Self::charge_answer(event, &answer);
        let unwritten = self.write(plugin, address, reply, answer, Some(event));
        self.drop_if_empty(plugin, address);
        if let Some((reply, answer)) = unwritten {
            self.shared.answer(event.name(), reply, Ok(answer), &self.wakes);
        }
    }

    /// Keeps count of who takes part in a scope. Says whether the event is to be told: a scope that has seen a
    /// connection off already is not told again that it went.
    fn note_member(&mut self, plugin: &Arc<Plugin>, address: &ScopeAddress, event: &Event) -> bool {
        match event {
            Event::Joined(member) => {
                if let Err(refusal) = self.enter(plugin, address, Some(event)) {
                    self.shared.metrics.plugin_dropped.inc();
                    tracing::warn!(plugin = %plugin.name, scope = %address.key, %refusal, "a join was not told");
                    return false;
                }
                let scope = self.scopes.get_mut(plugin.number, &address.key);
                let is_new = scope.is_some_and(|scope| {
                    let part = scope.members.entry(member.connection).or_default();
                    !std::mem::replace(&mut part.joined, true)
                });
                self.look_at_presence(plugin, address, member.connection);
                is_new
            }
            Event::Presence { member, is_away, n_changes } => {
                self.note_presence(plugin, address, member.connection, (*is_away, *n_changes))
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

    pub(crate) fn acknowledged(
        &mut self,
        id: u64,
        connection: ConnId,
        answer: Result<Payload, &'static str>,
        place: Option<Reservation>,
    ) {
        // An id that another connection has guessed is not its own to answer.
        if self.owed.get(&id).is_none_or(|owed| owed.connection != connection) {
            return;
        }
        let Some(Owed { plugin, address, connection, tag, deadline, .. }) = self.owed.remove(&id) else { return };
        self.deadlines.cancel(deadline);
        self.shared.hub.take_ack(connection, id);
        let answer = answer.and_then(|payload| self.shared.checked_answer(&plugin, connection, payload));
        self.handle(&plugin, &address, Event::Acknowledged { tag, connection, answer, place }, ReplyTo::Nobody);
    }

    /// The end of the wait for an acknowledgement.
    pub(crate) fn give_up_on(&mut self, id: u64) {
        if let Some(connection) = self.owed.get(&id).map(|owed| owed.connection) {
            self.queue(Job::Acknowledged { id, connection, answer: Err("timeout"), place: None });
        }
    }

    /// Answers an event that was not handled. Nothing more will come of it.
    pub(crate) fn answer(&self, plugin: &Plugin, event: &Event, reply: ReplyTo, refusal: Failure) {
        if let (Event::Saved { promise, .. }, Some(store)) = (event, &self.shared.store) {
            // It is told again when another build is loaded, or the host is started anew.
            store.requeue(promise);
            if !plugin.is_unloaded() {
                tracing::error!(
                    plugin = %plugin.name, scope = %promise.scope, tag = %promise.tag, %refusal,
                    "the plugin does not take what became of a document"
                );
            }
        }
        self.shared.answer(event.name(), reply, Err(refusal), &self.wakes);
    }

    /// Passes a feature's refusal on, or logs it where no client could do anything about it: what the host tells was not
    /// asked for. A client is told all the same where the feature has something to say to it about its connection.
    fn refuse(&self, plugin: &Plugin, event: &Event, reply: ReplyTo, refusal: Failure) {
        let is_of_host = event.must_be_told() && !matches!(event, Event::Saved { .. });
        if is_of_host && (event.opened().is_none() || refusal.code == ErrorCode::BadRequest) {
            return plugin.note_refusal(event.name(), &refusal);
        }
        self.answer(plugin, event, reply, refusal);
    }

    pub(crate) fn forget(&mut self, plugin: u32) {
        self.instances.remove(&plugin);
        self.timer_time.remove(&plugin);
        let Self { owed, deadlines, shared, .. } = self;
        owed.retain(|id, owed| {
            let is_others = owed.plugin.number != plugin;
            if !is_others {
                deadlines.cancel(owed.deadline);
                shared.hub.take_ack(owed.connection, *id);
            }
            is_others
        });
        for mut scope in self.scopes.remove_all(plugin) {
            self.deadlines.cancel(scope.look);
            let parked = scope.take_parked().into_iter().map(|parked| (parked.event, ReplyTo::Nobody));
            for (event, reply) in parked.chain(scope.loading.take().into_iter().flatten()) {
                self.answer(
                    &scope.plugin,
                    &event,
                    reply,
                    unavailable(format!("the feature {} was unloaded", scope.plugin.name)),
                );
            }
            scope.timers.values().for_each(|timer| self.deadlines.cancel(timer.deadline));
            for (connection, _) in scope.members.iter().filter(|(_, part)| part.watched) {
                self.shared.hub.unwatch(*connection, plugin, &scope.address.key);
            }
            for connection in self.shared.hub.members(&scope.address.key) {
                self.shared.hub.leave(connection, &scope.address.key, &self.wakes);
            }
        }
    }

    /// The next number of a sequence that nobody can foresee who does not know its start. (SplitMix64, Steele et al.
    /// 2014.)
    pub(crate) fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Sets one of the ways in which a connection takes part in a scope.
pub(crate) fn take_part(scopes: &mut Scopes, plugin: u32, key: &str, connection: ConnId, how: impl FnOnce(&mut Part)) {
    if let Some(scope) = scopes.get_mut(plugin, key) {
        how(scope.members.entry(connection).or_default());
    }
}

pub(crate) fn unavailable(message: String) -> Failure {
    Failure::new(ErrorCode::FeatureUnavailable, message)
}
