//! The events of this node that wait for the owners of their scopes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::wire::WireScope;
use crate::cluster::{ABSENT_MS, Cluster, Partition, View};
use crate::model::{ConnId, NodeId};
use crate::plugin::event::{Event, ReplyTo};

/// The forwarded events of each partition, until their owners are done with them.
#[derive(Debug)]
pub(crate) struct Forwarding {
    tables: Vec<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    waiting: BTreeMap<u64, Forwarded>,
    /// Those of `waiting` that are committed, whose answer comes later.
    underway: HashMap<u64, Underway>,
}

/// A committed event that its owner has yet to answer.
#[derive(Debug)]
struct Underway {
    owner: NodeId,
    /// Since when the owner is not in the view, in milliseconds of uptime. It may be newer than the view.
    absent_since: Option<u64>,
}

/// An event that was forwarded. It keeps its place in the backlogs of its sender and its feature.
#[derive(Debug)]
pub(crate) struct Forwarded {
    bytes: Bytes,
    pub(super) event: Event,
    pub(super) reply: ReplyTo,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self { tables: Partition::all().map(|_| Mutex::default()).collect() }
    }
}

impl Forwarding {
    fn table(&self, partition: Partition) -> MutexGuard<'_, Table> {
        self.tables[usize::from(partition.0)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forwards an event. The events of one partition arrive in the order of these calls.
    pub(super) fn forward(&self, cluster: &Cluster, partition: Partition, bytes: Bytes, event: Event, reply: ReplyTo) {
        // Sent while the table is locked, so that numbers are sent in their order.
        let mut table = self.table(partition);
        table.last += 1;
        let number = table.last;
        let before = table.before(number);
        table.waiting.insert(number, Forwarded { bytes: bytes.clone(), event, reply });
        cluster.forward(cluster.me(), partition, (number, before), bytes);
    }

    /// Forwards the events after this number again, which Redis may have lost.
    pub(super) fn forward_again(&self, cluster: &Cluster, partition: Partition, after: u64) {
        let table = self.table(partition);
        let me = cluster.me();
        for (number, forwarded) in table.waiting.range(after + 1..) {
            cluster.forward(me, partition, (*number, table.before(*number)), forwarded.bytes.clone());
        }
    }

    /// An event's owner is done with it.
    pub(super) fn done(&self, partition: Partition, number: u64) -> Option<Forwarded> {
        let mut table = self.table(partition);
        table.underway.remove(&number);
        table.waiting.remove(&number)
    }

    /// An event is committed, and `owner` answers it later.
    pub(super) fn underway(&self, partition: Partition, number: u64, owner: NodeId) {
        let mut table = self.table(partition);
        if table.waiting.contains_key(&number) {
            table.underway.insert(number, Underway { owner, absent_since: None });
        }
    }

    /// Takes the committed events of a partition whose owners died before their late replies: the next owners do not know them.
    pub(super) fn take_abandoned(&self, partition: Partition, view: &View, now: u64) -> Vec<Forwarded> {
        let mut table = self.table(partition);
        let is_abandoned = |_: &u64, underway: &mut Underway| {
            let is_absent = !view.nodes.contains_key(&underway.owner);
            let since = *underway.absent_since.get_or_insert(now);
            underway.absent_since.take_if(|_| !is_absent);
            is_absent && now >= since + ABSENT_MS
        };
        let abandoned: Vec<_> = table.underway.extract_if(is_abandoned).map(|(number, _)| number).collect();
        abandoned.iter().filter_map(|number| table.waiting.remove(number)).collect()
    }

    /// Whether anybody waits for the answer to an event.
    pub(super) fn awaits_answers(&self) -> bool {
        let awaits = |forwarded: &Forwarded| !matches!(forwarded.reply, ReplyTo::Nobody);
        Partition::all().any(|partition| self.table(partition).waiting.values().any(awaits))
    }

    /// Takes all events: the node has another number. It counts on, so that no number has two events.
    pub(super) fn take_all(&self) -> Vec<Forwarded> {
        let take = |partition| {
            let mut table = self.table(partition);
            table.underway.clear();
            std::mem::take(&mut table.waiting).into_values()
        };
        Partition::all().flat_map(take).collect()
    }
}

impl Table {
    /// The number of the event before this one that waits; 0 if there is none.
    fn before(&self, number: u64) -> u64 {
        self.waiting.range(..number).next_back().map_or(0, |(before, _)| *before)
    }
}

/// The acknowledgements that clients of this node owe to scopes, by the ids that the clients got.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    last: AtomicU64,
    owed: Mutex<HashMap<u64, Owed>>,
    /// When those that came too late were removed last, in milliseconds of uptime.
    swept_ms: AtomicU64,
}

/// The bits below the node in an id. Ids stay below 2^52, because JavaScript counts no further.
const NODE_SHIFT: u32 = 40;

/// The time after which a scope certainly waits for an acknowledgement no more, in milliseconds: its owner may have changed.
const LATE_MS: u64 = 60_000;

/// An acknowledgement that a client owes.
#[derive(Debug, Clone)]
pub(crate) struct Owed {
    pub(super) scope: WireScope,
    pub(super) ask: u64,
    pub(super) connection: ConnId,
    /// When the scope waits for it no more, in milliseconds of uptime.
    pub(super) until_ms: u64,
}

impl Asks {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Owed>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the id for the client.
    pub(super) fn add(&self, owed: Owed) -> u64 {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().insert(id, owed);
        id
    }

    /// Removes those that no scope waits for any more, now and then.
    pub(super) fn sweep(&self, now: u64) -> Vec<(u64, ConnId)> {
        if now < self.swept_ms.load(Ordering::Relaxed) + LATE_MS {
            return Vec::new();
        }
        self.swept_ms.store(now, Ordering::Relaxed);
        let late = self.lock().extract_if(|_, owed| now > owed.until_ms + LATE_MS).collect::<Vec<_>>();
        late.into_iter().map(|(id, owed)| (id, owed.connection)).collect()
    }

    /// Has ids of this node begin behind those of others, so that a client may answer at any node.
    pub(super) fn count_as(&self, node: NodeId) {
        self.last.fetch_max(u64::from(node.0) << NODE_SHIFT, Ordering::Relaxed);
    }

    /// Takes over what a client owes under an id that another node gave.
    pub(super) fn take_over(&self, id: u64, owed: Owed) {
        self.lock().insert(id, owed);
    }

    pub(super) fn take(&self, id: u64) -> Option<Owed> {
        self.lock().remove(&id)
    }
}
