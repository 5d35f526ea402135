//! A budget in bytes for what has come and is not whole yet: heads and bodies of requests, frames, fragments, attachments,
//! and clients that have not said who they are. Whoever sends it may never send the rest, and the host cannot know.
//!
//! At the bound the oldest and slowest goes first. Each holder has a *stamp*, which begins as the time at which it began and
//! is put on by a second for each [`SLOWEST`] bytes that come, up to now: whoever sends as fast as that is as good as new, who
//! stands still or trickles grows old. The same stamp says when a holder is over its time.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntGauge};
use slab::Slab;
use tokio::sync::Notify;

use crate::model::Clock;

/// How fast something must come not to grow old, in bytes a second: a tenth of what the slowest telephone networks in use
/// carry, and more than is worth an attacker's while to keep up on thousands of connections.
pub const SLOWEST: u64 = 4096;

/// For how long something may stay behind [`SLOWEST`], in milliseconds: a telephone that changes its cell is back by then.
pub const PATIENCE_MS: u64 = 30_000;

/// A transport that holds something, by its shard and its place there.
pub type HeldTransport = (usize, u64);

/// Ends a transport that has to make room.
type EndTransport = Box<dyn Fn(HeldTransport) + Send + Sync>;

/// A bound for what holders have in all. Clones share it.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    bound: usize,
    clock: Clock,
    held: IntGauge,
    evicted: IntCounter,
    end_transport: EndTransport,
    // Held for a look-up alone.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: usize,
    holders: Slab<Holder>,
    /// Those that may have to make room, the oldest first.
    order: BTreeSet<(u64, usize)>,
}

struct Holder {
    bytes: usize,
    /// In milliseconds of uptime.
    stamp: u64,
    /// Whether it may have to make room: what is whole is about to be gone.
    gives_way: bool,
    who: Who,
}

enum Who {
    Task(Arc<Eviction>),
    Transport(HeldTransport),
}

#[derive(Default)]
struct Eviction {
    has_come: AtomicBool,
    notify: Notify,
}

/// Somebody's part of a budget. It is given back when this is dropped.
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
    /// A budget of `bound` bytes. `held` shows what is held, and `evicted` counts who had to make room.
    pub fn new(bound: usize, clock: Clock, held: IntGauge, evicted: IntCounter) -> Self {
        Self::with_transports(bound, clock, held, evicted, Box::new(|_| ()))
    }

    /// As [`Budget::new`], of which transports have a part, too.
    pub fn with_transports(
        bound: usize,
        clock: Clock,
        held: IntGauge,
        evicted: IntCounter,
        end_transport: EndTransport,
    ) -> Self {
        Self(Arc::new(Inner { bound, clock, held, evicted, end_transport, state: Mutex::default() }))
    }

    /// A part for a task, which nothing is in yet. The task is to look for [`Holding::evicted`].
    pub fn part(&self) -> Holding {
        let eviction = Arc::<Eviction>::default();
        let key = self.enter(Who::Task(eviction.clone()));
        Holding { budget: self.clone(), key, eviction: Some(eviction) }
    }

    /// A part for a transport, which is ended where it has to make room.
    pub fn part_of_transport(&self, transport: HeldTransport) -> Holding {
        Holding { budget: self.clone(), key: self.enter(Who::Transport(transport)), eviction: None }
    }

    fn enter(&self, who: Who) -> usize {
        let stamp = self.0.clock.uptime_ms();
        self.lock().holders.insert(Holder { bytes: 0, stamp, gives_way: false, who })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half way, so a poisoned state is still whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what a holder has, and has others make room where that is too much.
    fn change(&self, key: usize, change: impl FnOnce(&mut Holder, u64)) {
        let now = self.0.clock.uptime_ms();
        let mut transports = Vec::new();
        {
            let state = &mut *self.lock();
            let Some(holder) = state.holders.get_mut(key) else { return };
            let (bytes, place) = (holder.bytes, holder.gives_way.then_some((holder.stamp, key)));
            change(holder, now);
            state.bytes = state.bytes - bytes + holder.bytes;
            let new_place = holder.gives_way.then_some((holder.stamp, key));
            if place != new_place {
                place.map(|place| state.order.remove(&place));
                state.order.extend(new_place);
            }
            while state.bytes > self.0.bound
                && let Some((_, oldest)) = state.order.pop_first()
            {
                self.evict(state, oldest, &mut transports);
            }
            self.0.held.set(state.bytes as i64);
        }
        transports.into_iter().for_each(|transport| (self.0.end_transport)(transport));
    }

    fn evict(&self, state: &mut State, key: usize, transports: &mut Vec<HeldTransport>) {
        let Some(holder) = state.holders.get_mut(key) else { return };
        state.bytes -= std::mem::take(&mut holder.bytes);
        holder.gives_way = false;
        self.0.evicted.inc();
        match &holder.who {
            Who::Transport(transport) => transports.push(*transport),
            Who::Task(eviction) => {
                eviction.has_come.store(true, Ordering::Release);
                eviction.notify.notify_waiters();
            }
        }
    }

    fn leave(&self, key: usize) {
        let state = &mut *self.lock();
        if let Some(holder) = state.holders.try_remove(key) {
            state.bytes -= holder.bytes;
            state.order.remove(&(holder.stamp, key));
            self.0.held.set(state.bytes as i64);
        }
    }
}

impl Holding {
    /// Something new begins, of which so many bytes are held.
    pub fn begin(&self, bytes: usize) {
        self.change(|holder, now| {
            holder.bytes = bytes;
            holder.stamp = now;
            holder.gives_way = true;
        });
    }

    /// So many bytes are held now, and so many more have come. What was cleared begins anew.
    pub fn grow(&self, bytes: usize, came: usize) {
        self.change(|holder, now| {
            holder.bytes = bytes;
            let begun = if holder.gives_way { holder.stamp } else { now };
            holder.stamp = (begun + came as u64 * 1000 / SLOWEST).min(now);
            holder.gives_way = true;
        });
    }

    /// It is whole, and so many bytes are held until it has been dealt with.
    pub fn keep(&self, bytes: usize) {
        self.change(|holder, _| {
            holder.bytes = bytes;
            holder.gives_way = false;
        });
    }

    /// Nothing is held for now.
    pub fn clear(&self) {
        self.change(|holder, _| {
            holder.bytes = 0;
            holder.gives_way = false;
        });
    }

    /// When it is over its time, in milliseconds of uptime.
    pub fn deadline(&self) -> u64 {
        let state = self.budget.lock();
        state.holders.get(self.key).map_or(u64::MAX, |holder| holder.stamp + PATIENCE_MS)
    }

    fn change(&self, change: impl FnOnce(&mut Holder, u64)) {
        // Whoever had to make room has nothing to hold any more.
        if !self.is_evicted() {
            self.budget.change(self.key, change);
        }
    }

    /// Whether it had to make room.
    pub fn is_evicted(&self) -> bool {
        self.eviction.as_ref().is_some_and(|eviction| eviction.has_come.load(Ordering::Acquire))
    }

    /// Waits until it has to make room.
    pub async fn evicted(&self) {
        let Some(eviction) = &self.eviction else { return std::future::pending().await };
        loop {
            // Whoever looks first and listens then would miss what comes between.
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

    fn budget(bound: usize) -> (Budget, Clock, Arc<Mutex<Vec<HeldTransport>>>) {
        let (clock, ended) = (Clock::manual(0), Arc::<Mutex<Vec<HeldTransport>>>::default());
        let (held, evicted) = (IntGauge::new("a", "a").unwrap(), IntCounter::new("b", "b").unwrap());
        let noted = ended.clone();
        let end = Box::new(move |transport| noted.lock().unwrap().push(transport));
        (Budget::with_transports(bound, clock.clone(), held, evicted, end), clock, ended)
    }

    fn figures(budget: &Budget) -> (i64, u64) {
        (budget.0.held.get(), budget.0.evicted.get())
    }

    #[test]
    fn oldest_holder_makes_room_first() {
        let (budget, clock, ended) = budget(100);
        let transport = budget.part_of_transport((1, 7));
        transport.begin(40);
        clock.advance(Duration::from_millis(1));
        let (old, new) = (budget.part(), budget.part());
        old.begin(40);
        clock.advance(Duration::from_millis(1));
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
    fn slow_holders_grow_old_and_fast_ones_do_not() {
        let (budget, clock, _) = budget(10_000);
        let (fast, trickle, still) = (budget.part(), budget.part(), budget.part());
        for holding in [&fast, &trickle, &still] {
            holding.begin(1);
        }
        for _ in 0..20 {
            clock.advance(Duration::from_secs(1));
            fast.grow(1, SLOWEST as usize * 2);
            trickle.grow(1, 1);
        }
        assert_eq!([&fast, &trickle, &still].map(Holding::deadline), [50_000, PATIENCE_MS, PATIENCE_MS]);
        let young = budget.part();
        young.begin(9_999);
        assert_eq!([&fast, &trickle, &still].map(|holding| holding.is_evicted()), [false, true, true]);
    }

    #[test]
    fn whole_messages_are_kept_and_newcomers_go() {
        let (budget, clock, _) = budget(100);
        let whole = budget.part();
        whole.begin(80);
        whole.keep(80);
        clock.advance(Duration::from_millis(1));
        let other = budget.part();
        other.begin(21);
        assert_eq!((whole.is_evicted(), other.is_evicted(), figures(&budget)), (false, true, (80, 1)));
        whole.clear();
        assert_eq!(figures(&budget), (0, 1));
    }

    #[tokio::test]
    async fn eviction_is_heard_before_and_after_it_comes() {
        let (budget, _, _) = budget(10);
        let holding = Arc::new(budget.part());
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
