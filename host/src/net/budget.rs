//! A budget in bytes for incomplete input, whose rest may never arrive: heads and bodies of requests, frames,
//! fragments, attachments, and unauthenticated transports.
//!
//! Each holder has a *stamp*: the time of its first byte, advanced by a second for each [`MIN_BYTES_PER_SECOND`] bytes
//! that arrive, but not beyond now. A holder whose input arrives at that rate keeps a current stamp, a slower one ages.
//! The stamp also gives a holder's deadline. At the bound the holder with the oldest stamp is evicted first, and where
//! none lags behind by [`GRACE_MS`] the largest: a small request that has just begun is no reason for the shortage.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntGauge};
use slab::Slab;
use tokio::sync::Notify;

use crate::model::Clock;

/// The rate at which a holder does not age, in bytes per second: a tenth of the slowest mobile networks in use, and too
/// expensive for an attacker to sustain on thousands of connections.
pub const MIN_BYTES_PER_SECOND: u64 = 4096;

/// How far a holder may lag behind [`MIN_BYTES_PER_SECOND`], in milliseconds: a mobile client changes its cell in less.
pub const MAX_LAG_MS: u64 = 30_000;

/// How far a holder may lag behind before it is evicted for its age, in milliseconds: clients that send what they have
/// at once take less, also on a busy machine.
const GRACE_MS: u64 = 1000;

/// A transport that holds bytes: the index of its shard, and its id as one number.
pub type TransportKey = (usize, u64);

/// Ends a transport that is evicted.
type EndTransport = Box<dyn Fn(TransportKey) + Send + Sync>;

/// A bound for the bytes of all holders. Clones share the bound.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    bound: usize,
    clock: Clock,
    held: IntGauge,
    evicted: IntCounter,
    end_transport: EndTransport,
    // Locked for table operations alone, never across a wait.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: usize,
    holders: Slab<Holder>,
    /// Stamps and keys of the holders that may be evicted, the oldest first.
    by_stamp: BTreeSet<(u64, usize)>,
    /// Size classes, stamps and keys of the same holders. The last is of the largest, and of these the oldest.
    by_size: BTreeSet<(u32, Reverse<(u64, usize)>)>,
}

impl State {
    fn enlist(&mut self, Place { size, stamp, key }: Place) {
        self.by_stamp.insert((stamp, key));
        self.by_size.insert((size, Reverse((stamp, key))));
    }

    fn strike(&mut self, Place { size, stamp, key }: Place) {
        self.by_stamp.remove(&(stamp, key));
        self.by_size.remove(&(size, Reverse((stamp, key))));
    }

    /// The holder to evict next.
    fn victim(&self, now: u64) -> Option<usize> {
        let &(stamp, oldest) = self.by_stamp.first()?;
        if now.saturating_sub(stamp) >= GRACE_MS {
            return Some(oldest);
        }
        self.by_size.last().map(|&(_, Reverse((_, largest)))| largest)
    }
}

/// Where a holder that may be evicted stands in the orders of [`State`].
#[derive(Clone, Copy, PartialEq)]
struct Place {
    /// The size class: buffers grow ahead, so sizes within a factor of sixteen count as equal.
    size: u32,
    stamp: u64,
    key: usize,
}

struct Holder {
    bytes: usize,
    /// In milliseconds of uptime.
    stamp: u64,
    /// Whether the holder may be evicted. Complete input is not: it is freed soon.
    gives_way: bool,
    owner: Owner,
}

impl Holder {
    fn place(&self, key: usize) -> Option<Place> {
        self.gives_way.then_some(Place { size: size_class(self.bytes), stamp: self.stamp, key })
    }
}

/// Classes end at 16 KiB, 256 KiB, 4 MiB and so on.
fn size_class(bytes: usize) -> u32 {
    (bytes.checked_ilog2().unwrap_or(0) + 2) / 4
}

enum Owner {
    Task(Arc<Eviction>),
    Transport(TransportKey),
}

#[derive(Default)]
struct Eviction {
    is_due: AtomicBool,
    notify: Notify,
}

/// A holder's bytes in a budget, given back on drop.
pub struct Holding {
    budget: Budget,
    key: usize,
    eviction: Option<Arc<Eviction>>,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("bound", &self.0.bound).finish_non_exhaustive()
    }
}

impl fmt::Debug for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holding").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of `bound` bytes. `held` shows the bytes held, and `evicted` counts evictions.
    pub fn new(bound: usize, clock: Clock, held: IntGauge, evicted: IntCounter) -> Self {
        Self::with_transports(bound, clock, held, evicted, Box::new(|_| ()))
    }

    /// As [`Budget::new`], with transports among the holders.
    pub fn with_transports(
        bound: usize,
        clock: Clock,
        held: IntGauge,
        evicted: IntCounter,
        end_transport: EndTransport,
    ) -> Self {
        Self(Arc::new(Inner { bound, clock, held, evicted, end_transport, state: Mutex::default() }))
    }

    /// An empty holding of a task, which must watch [`Holding::evicted`].
    pub fn holding(&self) -> Holding {
        let eviction = Arc::<Eviction>::default();
        let key = self.enter(Owner::Task(eviction.clone()));
        Holding { budget: self.clone(), key, eviction: Some(eviction) }
    }

    /// An empty holding of a transport, which is ended on eviction.
    pub fn holding_of_transport(&self, transport: TransportKey) -> Holding {
        Holding { budget: self.clone(), key: self.enter(Owner::Transport(transport)), eviction: None }
    }

    fn enter(&self, owner: Owner) -> usize {
        let stamp = self.0.clock.uptime_ms();
        self.lock().holders.insert(Holder { bytes: 0, stamp, gives_way: false, owner })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a holder, and evicts others where the bound is exceeded.
    fn change(&self, key: usize, change: impl FnOnce(&mut Holder, u64)) {
        let now = self.0.clock.uptime_ms();
        let mut transports = Vec::new();
        {
            let state = &mut *self.lock();
            let Some(holder) = state.holders.get_mut(key) else { return };
            let (bytes, place) = (holder.bytes, holder.place(key));
            change(holder, now);
            state.bytes = state.bytes - bytes + holder.bytes;
            let new_place = holder.place(key);
            if place != new_place {
                place.into_iter().for_each(|place| state.strike(place));
                new_place.into_iter().for_each(|place| state.enlist(place));
            }
            while state.bytes > self.0.bound
                && let Some(victim) = state.victim(now)
            {
                self.evict(state, victim, &mut transports);
            }
            self.0.held.set(state.bytes as i64);
        }
        transports.into_iter().for_each(|transport| (self.0.end_transport)(transport));
    }

    fn evict(&self, state: &mut State, key: usize, transports: &mut Vec<TransportKey>) {
        let Some(holder) = state.holders.get_mut(key) else { return };
        let place = holder.place(key);
        state.bytes -= std::mem::take(&mut holder.bytes);
        holder.gives_way = false;
        self.0.evicted.inc();
        match &holder.owner {
            Owner::Transport(transport) => transports.push(*transport),
            Owner::Task(eviction) => {
                eviction.is_due.store(true, Ordering::Release);
                eviction.notify.notify_waiters();
            }
        }
        place.into_iter().for_each(|place| state.strike(place));
    }

    fn leave(&self, key: usize) {
        let state = &mut *self.lock();
        if let Some(holder) = state.holders.try_remove(key) {
            state.bytes -= holder.bytes;
            holder.place(key).into_iter().for_each(|place| state.strike(place));
            self.0.held.set(state.bytes as i64);
        }
    }
}

impl Holding {
    /// Begins new input, with `bytes` so far.
    pub fn begin(&self, bytes: usize) {
        self.change(|holder, now| {
            holder.bytes = bytes;
            holder.stamp = now;
            holder.gives_way = true;
        });
    }

    /// Sets the size of the input to `bytes`, of which `came` are new. After [`Holding::clear`] new input begins.
    pub fn grow(&self, bytes: usize, came: usize) {
        self.change(|holder, now| {
            holder.bytes = bytes;
            let begun = if holder.gives_way { holder.stamp } else { now };
            holder.stamp = (begun + came as u64 * 1000 / MIN_BYTES_PER_SECOND).min(now);
            holder.gives_way = true;
        });
    }

    /// Marks the input as complete, with `bytes` held until it was handled.
    pub fn keep(&self, bytes: usize) {
        self.change(|holder, _| {
            holder.bytes = bytes;
            holder.gives_way = false;
        });
    }

    /// Sets the holding to no bytes.
    pub fn clear(&self) {
        self.change(|holder, _| {
            holder.bytes = 0;
            holder.gives_way = false;
        });
    }

    /// Deadline of the input, in milliseconds of uptime.
    pub fn deadline(&self) -> u64 {
        let state = self.budget.lock();
        state.holders.get(self.key).map_or(u64::MAX, |holder| holder.stamp + MAX_LAG_MS)
    }

    fn change(&self, change: impl FnOnce(&mut Holder, u64)) {
        // After an eviction the holder is no longer in the budget.
        if !self.is_evicted() {
            self.budget.change(self.key, change);
        }
    }

    /// Whether the holder was evicted. Always false for a transport's holding.
    pub fn is_evicted(&self) -> bool {
        self.eviction.as_ref().is_some_and(|eviction| eviction.is_due.load(Ordering::Acquire))
    }

    /// Waits for eviction; for ever on a transport's holding.
    pub async fn evicted(&self) {
        let Some(eviction) = &self.eviction else { return std::future::pending().await };
        loop {
            // Listening begins before the check, or an eviction in between would be missed.
            let notified = eviction.notify.notified();
            if self.is_evicted() {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.budget.leave(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget(bound: usize) -> (Budget, Clock, Arc<Mutex<Vec<TransportKey>>>) {
        let (clock, ended) = (Clock::manual(0), Arc::<Mutex<Vec<TransportKey>>>::default());
        let (held, evicted) = (IntGauge::new("a", "a").unwrap(), IntCounter::new("b", "b").unwrap());
        let noted = ended.clone();
        let end = Box::new(move |transport| noted.lock().unwrap().push(transport));
        (Budget::with_transports(bound, clock.clone(), held, evicted, end), clock, ended)
    }

    fn figures(budget: &Budget) -> (i64, u64) {
        (budget.0.held.get(), budget.0.evicted.get())
    }

    #[test]
    fn oldest_holder_is_evicted_first() {
        let (budget, clock, ended) = budget(100);
        let transport = budget.holding_of_transport((1, 7));
        transport.begin(40);
        clock.advance(Duration::from_millis(GRACE_MS));
        let (old, new) = (budget.holding(), budget.holding());
        old.begin(40);
        clock.advance(Duration::from_millis(GRACE_MS));
        new.begin(20);
        assert_eq!((figures(&budget), ended.lock().unwrap().len()), ((100, 0), 0), "the bound is not too much");
        new.grow(21, 1);
        assert_eq!((figures(&budget), &ended.lock().unwrap()[..]), ((61, 1), &[(1, 7)][..]));
        new.grow(90, 0);
        assert_eq!((old.is_evicted(), new.is_evicted(), figures(&budget)), (true, false, (90, 2)));
        old.grow(50, 50);
        assert_eq!(figures(&budget), (90, 2), "who had to go holds nothing more");
        drop((transport, old, new));
        assert_eq!(figures(&budget), (0, 2));
    }

    #[test]
    fn largest_holder_is_evicted_where_none_lags() {
        let (budget, clock, _) = budget(1000);
        let [small, large, other] = [(); 3].map(|()| budget.holding());
        small.begin(1);
        clock.advance(Duration::from_millis(1));
        large.begin(499);
        clock.advance(Duration::from_millis(1));
        other.begin(501);
        let evicted = || [&small, &large, &other].map(|holding| holding.is_evicted());
        assert_eq!(evicted(), [false, true, false], "of those of about a size the older one is");
        clock.advance(Duration::from_millis(GRACE_MS - 2));
        other.grow(1000, MIN_BYTES_PER_SECOND as usize);
        assert_eq!(evicted(), [true, true, false], "the small one lags now");
    }

    #[test]
    fn slow_holders_are_evicted_before_fast_ones() {
        let (budget, clock, _) = budget(10_000);
        let (fast, trickle, still) = (budget.holding(), budget.holding(), budget.holding());
        for holding in [&fast, &trickle, &still] {
            holding.begin(1);
        }
        for _ in 0..20 {
            clock.advance(Duration::from_secs(1));
            fast.grow(1, MIN_BYTES_PER_SECOND as usize * 2);
            trickle.grow(1, 1);
        }
        assert_eq!([&fast, &trickle, &still].map(Holding::deadline), [50_000, MAX_LAG_MS, MAX_LAG_MS]);
        let young = budget.holding();
        young.begin(9_999);
        assert_eq!([&fast, &trickle, &still].map(|holding| holding.is_evicted()), [false, true, true]);
    }

    #[test]
    fn newcomers_are_evicted_before_complete_input() {
        let (budget, clock, _) = budget(100);
        let whole = budget.holding();
        whole.begin(80);
        whole.keep(80);
        clock.advance(Duration::from_millis(1));
        let other = budget.holding();
        other.begin(21);
        assert_eq!((whole.is_evicted(), other.is_evicted(), figures(&budget)), (false, true, (80, 1)));
        whole.clear();
        assert_eq!(figures(&budget), (0, 1));
    }

    #[tokio::test]
    async fn waiting_ends_for_past_and_future_evictions() {
        let (budget, _, _) = budget(10);
        let holding = Arc::new(budget.holding());
        let waiting = tokio::spawn({
            let holding = holding.clone();
            async move { holding.evicted().await }
        });
        tokio::task::yield_now().await;
        holding.begin(11);
        waiting.await.unwrap();
        holding.evicted().await;
    }
}
