//! Scheduling on a plugin thread: fair queueing by the time that events take.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996), at two levels: between plugins, and within a plugin between
//! its flows, which are mostly senders. An event's tag is the time that its flow or its scope has used, whichever is
//! more. The event with the lowest tag is next; of events with the same tag, the one whose flow has used less. The tag
//! of a flow that begins to wait is at least that of the last turn, so that idle flows save no turns. Tags count in
//! rounds of a quantum, within which events keep the order of their arrival: while no flow takes more than its share,
//! all events do.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::plugin::event::Flow;

/// The time that a flow may use before others have their turn, in nanoseconds: some hundred events of a light feature,
/// so that only a flow that takes far more than others waits for them, and so short that a round is not noticed.
const QUANTUM: u64 = 1_000_000;

/// The longest turn of work that can be interrupted: a quantum.
pub(crate) const MAX_TURN: Duration = Duration::from_nanos(QUANTUM);

/// The number of idle flows, or of scopes, of a plugin above which those that are not ahead of the others are dropped.
const REMEMBERED: usize = 4096;

/// The flow and scope of a turn, which are charged for it.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    plugin: u32,
    flow: Flow,
    scope: Arc<str>,
}

/// The queues of a plugin thread.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    plugins: HashMap<u32, Queue<T>>,
    /// The tag of the plugin that had the last turn.
    now: u64,
    arrivals: u64,
    len: usize,
}

/// The queue of one plugin.
#[derive(Debug)]
struct Queue<T> {
    /// The time that the plugin has used, on the clock of [`Turns::now`].
    used: u64,
    /// The tag of the event that had the last turn of this plugin.
    now: u64,
    flows: HashMap<Flow, Waiting<T>>,
    /// The time that the events of each scope have used.
    scopes: HashMap<Arc<str>, u64>,
    /// The first event of each flow, by the event's tag and the flow's used time when the event was added here. Both
    /// may be higher by now, and never are lower.
    ready: BinaryHeap<Reverse<Candidate>>,
    len: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    used: u64,
    items: VecDeque<Item<T>>,
}

#[derive(Debug)]
struct Item<T> {
    arrival: u64,
    scope: Arc<str>,
    value: T,
}

/// The first event of a flow, in the order in which they have their turns.
#[derive(Debug)]
struct Candidate {
    /// The rounds of the event's tag and of its flow's used time.
    round: u64,
    flow_round: u64,
    arrival: u64,
    flow: Flow,
}

impl Candidate {
    fn key(&self) -> (u64, u64, u64) {
        (self.round, self.flow_round, self.arrival)
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { plugins: HashMap::new(), now: 0, arrivals: 0, len: 0 }
    }
}

impl<T> Turns<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item to its flow.
    pub(crate) fn push(&mut self, plugin: u32, flow: Flow, scope: Arc<str>, value: T) {
        self.arrivals += 1;
        self.len += 1;
        let now = self.now;
        let queue = self.plugins.entry(plugin).or_insert_with(|| Queue::new(now));
        if queue.len == 0 {
            queue.used = queue.used.max(now);
        }
        queue.push(flow, Item { arrival: self.arrivals, scope, value });
    }

    /// The next item, and the flow to charge for it.
    pub(crate) fn next(&mut self) -> Option<(Served, T)> {
        let waiting = self.plugins.iter().filter_map(|(plugin, queue)| {
            let Reverse(first) = queue.ready.peek()?;
            Some((queue.used / QUANTUM, first.arrival, *plugin))
        });
        let (_, _, plugin) = waiting.min()?;
        let queue = self.plugins.get_mut(&plugin)?;
        let (flow, item) = queue.pop()?;
        self.len -= 1;
        self.now = self.now.max(queue.used);
        Some((Served { plugin, flow, scope: item.scope }, item.value))
    }

    /// Charges a turn for the time that it took.
    pub(crate) fn charge(&mut self, turn: Served, took: Duration) {
        if self.len == 0 {
            // No other item waited, so no flow is ahead of another.
            self.plugins.clear();
            return;
        }
        let Served { plugin, flow, scope } = turn;
        let Some(queue) = self.plugins.get_mut(&plugin) else { return };
        let took = took.as_nanos() as u64;
        queue.used += took;
        queue.charge(flow, scope, took);
    }

    /// Removes and returns all items of a plugin, in the order of arrival.
    pub(crate) fn take(&mut self, plugin: u32) -> impl Iterator<Item = T> + use<T> {
        let queue = self.plugins.remove(&plugin);
        self.len -= queue.as_ref().map_or(0, |queue| queue.len);
        let mut items: Vec<_> =
            queue.into_iter().flat_map(|queue| queue.flows.into_values()).flat_map(|flow| flow.items).collect();
        items.sort_by_key(|item| item.arrival);
        items.into_iter().map(|item| item.value)
    }
}

impl<T> Queue<T> {
    fn new(used: u64) -> Self {
        Self { used, now: 0, flows: HashMap::new(), scopes: HashMap::new(), ready: BinaryHeap::new(), len: 0 }
    }

    fn push(&mut self, flow: Flow, item: Item<T>) {
        self.len += 1;
        let (now, arrival) = (self.now, item.arrival);
        let candidate = |flow: Flow, used: u64| {
            let round = used / QUANTUM;
            Reverse(Candidate { round, flow_round: round, arrival, flow })
        };
        if let Some(waiting) = self.flows.get_mut(&flow) {
            if waiting.items.is_empty() {
                waiting.used = waiting.used.max(now);
                self.ready.push(candidate(flow, waiting.used));
            }
            waiting.items.push_back(item);
            return;
        }
        self.ready.push(candidate(flow.clone(), now));
        self.flows.insert(flow, Waiting { used: now, items: VecDeque::from([item]) });
    }

    fn pop(&mut self) -> Option<(Flow, Item<T>)> {
        loop {
            let Reverse(first) = self.ready.pop()?;
            let Some(waiting) = self.flows.get_mut(&first.flow) else { continue };
            let Some(item) = waiting.items.front() else { continue };
            let tag = self.scopes.get(&item.scope).copied().unwrap_or(0).max(waiting.used);
            let (round, flow_round) = (tag / QUANTUM, waiting.used / QUANTUM);
            if (round, flow_round) > (first.round, first.flow_round) {
                // The flow or its scope has had turns since.
                self.ready.push(Reverse(Candidate { round, flow_round, ..first }));
                continue;
            }
            self.now = self.now.max(tag);
            let Some(item) = waiting.items.pop_front() else { continue };
            if let Some(next) = waiting.items.front() {
                let flow = first.flow.clone();
                self.ready.push(Reverse(Candidate { round: flow_round, flow_round, arrival: next.arrival, flow }));
            }
            self.len -= 1;
            return Some((first.flow, item));
        }
    }

    fn charge(&mut self, flow: Flow, scope: Arc<str>, took: u64) {
        if self.len == 0 {
            self.flows.clear();
            self.scopes.clear();
            return;
        }
        let now = self.now;
        if let Some(waiting) = self.flows.get_mut(&flow) {
            waiting.used += took;
        }
        let used = self.scopes.entry(scope).or_insert(now);
        *used = (*used).max(now) + took;
        if self.flows.len() > REMEMBERED + self.ready.len() {
            self.flows.retain(|_, waiting| !waiting.items.is_empty() || waiting.used > now);
        }
        if self.scopes.len() > REMEMBERED {
            self.scopes.retain(|_, used| *used > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sender(name: &str) -> Flow {
        Flow::Sender(name.into())
    }

    /// The items of the next `n` turns, where the turn of an item takes `cost(item)`.
    fn served(turns: &mut Turns<&'static str>, n: usize, cost: impl Fn(&str) -> Duration) -> Vec<&'static str> {
        let turn = || {
            let (turn, item) = turns.next()?;
            turns.charge(turn, cost(item));
            Some(item)
        };
        std::iter::from_fn(turn).take(n).collect()
    }

    #[test]
    fn light_events_keep_the_order_of_arrival() {
        let mut turns = Turns::default();
        for (plugin, name, item) in
            [(1, "ana", "a"), (2, "ben", "b"), (1, "ana", "c"), (1, "cleo", "d"), (2, "ana", "e")]
        {
            turns.push(plugin, sender(name), "scope".into(), item);
        }
        assert_eq!(served(&mut turns, 9, |_| MS / 100), ["a", "b", "c", "d", "e"]);
        assert!(turns.is_empty());
    }

    #[test]
    fn a_slow_plugin_waits_for_the_others() {
        let mut turns = Turns::default();
        for _ in 0..10 {
            turns.push(1, sender("mal"), "x".into(), "slow");
        }
        assert_eq!(served(&mut turns, 1, |_| 49 * MS), ["slow"]);
        turns.push(2, sender("ana"), "y".into(), "quick");
        turns.push(2, sender("ben"), "y".into(), "quick");
        let order = served(&mut turns, 4, |item| if item == "slow" { 49 * MS } else { MS / 10 });
        assert_eq!(order, ["quick", "quick", "slow", "slow"]);
    }

    #[test]
    fn slow_sender_yields_to_others_in_scope() {
        let mut turns = Turns::default();
        for _ in 0..10 {
            turns.push(1, sender("mal"), "ticket:1".into(), "slow");
        }
        assert_eq!(served(&mut turns, 2, |_| 5 * MS), ["slow", "slow"]);
        turns.push(1, sender("ana"), "ticket:1".into(), "ana");
        turns.push(1, sender("ben"), "ticket:2".into(), "ben");
        assert_eq!(served(&mut turns, 3, |_| 5 * MS), ["ben", "ana", "slow"], "the scope has had turns, too");
    }

    #[test]
    fn a_busy_scope_waits_for_the_others() {
        let mut turns = Turns::default();
        let crowd: Vec<Arc<str>> = (0..100).map(|n| format!("u{n}").into()).collect();
        for user in &crowd {
            turns.push(1, Flow::Sender(user.clone()), "hall".into(), "hall");
        }
        served(&mut turns, 10, |_| MS);
        turns.push(1, sender("ana"), "room".into(), "room");
        assert_eq!(served(&mut turns, 2, |_| MS), ["room", "hall"]);
    }

    #[test]
    fn events_of_one_sender_stay_in_order() {
        let mut turns = Turns::default();
        for n in 0..100_i32 {
            turns.push(1, sender("ana"), format!("scope:{}", n % 7).into(), n);
            turns.push(1, sender("ben"), format!("scope:{}", n % 3).into(), -n);
        }
        let mut seen = Vec::new();
        while let Some((turn, item)) = turns.next() {
            turns.charge(turn, MS * (item.unsigned_abs() % 5));
            seen.push(item);
        }
        let of = |sign: i32| seen.iter().filter(move |item| item.signum() == sign).map(|item| item.abs());
        assert!(of(1).eq(1..100) && of(-1).eq(1..100));
    }

    #[test]
    fn idle_flows_accumulate_no_credit() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            turns.push(1, sender("ana"), "a".into(), "ana");
            turns.push(2, sender("ben"), "b".into(), "ben");
        }
        served(&mut turns, 100, |_| 5 * MS);
        for _ in 0..100 {
            turns.push(3, sender("cleo"), "c".into(), "cleo");
        }
        let order = served(&mut turns, 30, |_| 5 * MS);
        for name in ["ana", "ben", "cleo"] {
            let n = order.iter().filter(|item| **item == name).count();
            assert!((9..=11).contains(&n), "{name} had {n} of 30 turns");
        }
    }

    #[test]
    fn take_keeps_the_order_of_arrival() {
        let mut turns = Turns::default();
        for (name, item) in [("ana", "a"), ("ben", "b"), ("ana", "c")] {
            turns.push(1, sender(name), "x".into(), item);
        }
        turns.push(2, sender("ana"), "y".into(), "d");
        assert!(turns.take(1).eq(["a", "b", "c"]));
        assert_eq!(served(&mut turns, 9, |_| MS), ["d"]);
        assert!(turns.is_empty());
    }
}
