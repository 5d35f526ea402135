//! The memory of a plugin thread, and one event on its way through it.
//!
//! Each part of the memory is a type of its own. The steps of an event are methods, one file a step: `admit`, `invoke`,
//! `commit`. The files that the steps use: `charges`, `durable`, `deferred`, `presence`, `timers`.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use roundhouse_contract::ScopeAddress;

use super::acks::PendingAcks;
use super::clustered::partitions::Partitions;
use super::deadlines::Deadlines;
use super::instances::Instances;
use super::job::{Envelope, Job, Underway};
use super::recent::Recent;
use super::scope::Scope;
use super::scopes::{Place, Scopes};
use super::shared::{Shared, unavailable};
use super::turns::Turns;
use crate::hub::{ShardQueue, WakeBatch};
use crate::model::{Allowance, ErrorCode, Failure, Mailbox, NodeId};
use crate::plugin::event::{Event, ReplyTo};
use crate::plugin::load::call::{Call, Facts};
use crate::plugin::load::catalogue::Plugin;
use crate::store::DeliveryReceipt;

/// Rolls a plugin back from the generation of this number.
pub(crate) type RollBack = Arc<dyn Fn(&str, u64) + Send + Sync>;

/// The memory of a plugin thread.
pub(super) struct ThreadState {
    pub(super) shared: Arc<Shared>,
    /// Called for a generation that fails too often. A hook, because rollbacks are made in `lifecycle`, above this
    /// room.
    pub(super) roll_back: RollBack,
    /// The thread's own inbox, for events that the thread queues for itself.
    pub(super) inbox: Arc<Mailbox<Job>>,
    /// Jobs that wait their turn.
    pub(super) turns: Turns<Job>,
    pub(super) scopes: Scopes,
    pub(super) deadlines: Deadlines,
    pub(super) instances: Instances,
    pub(super) acks: PendingAcks,
    /// The partitions of this thread; none if the host is alone.
    pub(super) partitions: Option<Partitions>,
    /// The number of this thread.
    pub(super) index: usize,
    /// While the outcome of a promise is committed: the receipt, which acknowledges the promise when the frames of all
    /// recipients were written.
    pub(super) receipt: Option<DeliveryReceipt>,
    /// The shards to wake for the effects of events.
    pub(super) wakes: WakeBatch,
    /// Plugins that have a deadline at which their deferred events are handled.
    pub(super) resuming: HashSet<u32>,
    /// The migration of each plugin whose states are migrated in the background.
    pub(super) migrating: HashMap<u32, Underway>,
    /// The time of this thread that the timers of each plugin have used.
    pub(super) timer_time: HashMap<u32, Allowance>,
    /// The facts of the last call; none if a component could not be called.
    pub(super) called: Option<Facts>,
    /// The recent calls of each plugin.
    pub(super) recent: HashMap<u32, Recent<Arc<Call>>>,
    seed: u64,
}

impl fmt::Debug for ThreadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadState").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// An event and the place of its scope, which is looked up once and then passed from step to step.
pub(super) struct Visit<'a> {
    pub(super) plugin: &'a Arc<Plugin>,
    pub(super) address: &'a ScopeAddress,
    pub(super) event: &'a Event,
    /// None while the scope is not in memory.
    pub(super) place: Option<Place>,
    /// The node that forwarded the event, if one did.
    pub(super) origin: Option<NodeId>,
}

impl<'a> Visit<'a> {
    pub(super) fn new(envelope: &'a Envelope, place: Option<Place>) -> Self {
        let Envelope { plugin, address, event, reply } = envelope;
        let origin = if let ReplyTo::Node { id, .. } = reply { Some(id.origin) } else { None };
        Self { plugin, address, event, place, origin }
    }
}

impl ThreadState {
    pub(super) fn new(index: usize, shared: Arc<Shared>, inbox: Arc<Mailbox<Job>>, roll_back: RollBack) -> Self {
        Self {
            acks: PendingAcks::new(index, shared.inboxes.len()),
            partitions: shared.node.clone().map(Partitions::new),
            index,
            shared,
            roll_back,
            inbox,
            turns: Turns::default(),
            scopes: Scopes::default(),
            deadlines: Deadlines::default(),
            instances: Instances::default(),
            receipt: None,
            wakes: WakeBatch::default(),
            resuming: HashSet::new(),
            migrating: HashMap::new(),
            timer_time: HashMap::new(),
            called: None,
            recent: HashMap::new(),
            // Different in each process and thread.
            seed: RandomState::new().hash_one(index),
        }
    }

    /// Waits until the shards keep up.
    pub(super) fn wait_for_shards(&self) {
        if self.shared.hub.shards().iter().any(ShardQueue::is_full) {
            // Before it waits for a slow shard, this thread wakes the others.
            self.wakes.wake();
            self.shared.hub.shards().iter().for_each(ShardQueue::wait_for_space);
        }
    }

    /// Answers an event that was not handled, and will not be.
    pub(super) fn answer(&mut self, envelope: Envelope, refusal: Failure) {
        let Envelope { plugin, event, .. } = &envelope;
        if let (Event::Saved { promise, .. }, Some(store)) = (event, &self.shared.store) {
            // The outcome is sent again when another build is loaded, or by the next process.
            store.requeue(promise);
            if !plugin.is_unloaded() {
                tracing::error!(
                    plugin = %plugin.name, scope = %promise.scope, tag = %promise.tag, %refusal,
                    "the plugin does not take what became of a document"
                );
            }
        }
        self.settle(envelope, Some(Err(refusal)));
    }

    /// Answers an event that its feature refused. Events of the host have no sender, so their refusals are logged. The
    /// refusal of a `connect` goes to the client, unless it is a `bad_request`; the refusal of an outcome has the store
    /// keep the promise.
    pub(super) fn refuse(&mut self, envelope: Envelope, refusal: Failure) {
        let event = &envelope.event;
        let is_of_host = event.is_guaranteed() && !matches!(event, Event::Saved { .. });
        if is_of_host && (event.opened().is_none() || refusal.code == ErrorCode::BadRequest) {
            envelope.plugin.note_refusal(event.name(), &refusal);
            return self.settle(envelope, None);
        }
        self.answer(envelope, refusal);
    }

    /// Cancels the deadlines of a scope that is dropped from memory. Returns the events that wait in it.
    pub(super) fn end_scope(&mut self, scope: &mut Scope) -> Vec<Envelope> {
        self.deadlines.cancel(scope.idle_check);
        scope.timers.values().for_each(|timer| self.deadlines.cancel(timer.deadline));
        let deferred = scope.take_deferred().into_iter();
        let deferred = deferred.map(|deferred| deferred.into_envelope(&scope.plugin, &scope.address));
        let mut waiting: Vec<_> = deferred.collect();
        waiting.extend(scope.loading.take().into_iter().flatten());
        waiting
    }

    /// Drops the scopes, timers and pending acknowledgements of a plugin that was unloaded, and answers its waiting
    /// events.
    pub(super) fn forget(&mut self, plugin: u32) {
        self.instances.drop_instances(plugin);
        self.recent.remove(&plugin);
        self.timer_time.remove(&plugin);
        self.migrating.remove(&plugin);
        for (id, ack) in self.acks.take_all(plugin) {
            self.deadlines.cancel(ack.deadline);
            self.shared.hub.take_ack(ack.connection, id);
        }
        for mut scope in self.scopes.remove_all(plugin) {
            let (owner, address) = (scope.plugin.clone(), scope.address.clone());
            for envelope in self.end_scope(&mut scope) {
                self.answer(envelope, unavailable(format!("the feature {} was unloaded", owner.name)));
            }
            if self.partitions.is_some() {
                self.forget_clustered(&scope);
                continue;
            }
            for (connection, _) in scope.members.iter().filter(|(_, member)| member.watched) {
                self.shared.hub.unwatch(*connection, plugin, &address.key);
            }
            for connection in self.shared.hub.members(&address.key) {
                self.shared.hub.leave(connection, &address.key, &self.wakes);
            }
        }
    }

    /// The next number of a sequence that cannot be foreseen without its start. (SplitMix64, Steele et al. 2014.)
    pub(super) fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
