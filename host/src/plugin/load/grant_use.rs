//! A record of which needs of a build its committed events made use of.

use std::sync::atomic::{AtomicU64, Ordering};

use roundhouse_contract::{CONNECT_ACTION, Grants, Uses};

use crate::model::Clock;

/// The number of events for which a noted use of a need is not noted again. A thread then writes to the record, which all
/// plugin threads share, once in so many events; a use may be this many events younger than the record says.
pub(crate) const GRAIN: u64 = 64;

/// The record of one generation, from the moment at which it was loaded. Every event counts, and the last use of each need
/// is known; so it can be told for any number of last events which needs they made use of. An update allocates nothing, and
/// takes no lock but that of the clock, for a use that is noted.
#[derive(Debug)]
// Each event counts here: the fields of the generation beside it, which are read only, must not share its cache lines (two
// of 64 bytes are fetched together).
#[repr(align(128))]
pub(crate) struct GrantUse {
    events: AtomicU64,
    since_ms: u64,
    /// Of each need, by its place among the manifest's.
    last: Box<[LastUse]>,
    /// The place of the action `connect`.
    connect: Option<usize>,
}

#[derive(Debug, Default)]
struct LastUse {
    /// The number of the event, from 1; 0 if there was none.
    event: AtomicU64,
    at_ms: AtomicU64,
}

/// The last use of a need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// How many events were committed since, [`GRAIN`] more than in truth at most.
    pub(crate) events_ago: u64,
    /// When, in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

impl GrantUse {
    pub(crate) fn new(needs: &Grants, clock: &Clock) -> Self {
        let last = needs.iter().map(|_| LastUse::default()).collect();
        let connect = needs.place_of_action(CONNECT_ACTION);
        Self { events: AtomicU64::new(0), since_ms: clock.now_ms(), last, connect }
    }

    /// Counts a committed event, and notes the needs that it made use of.
    pub(crate) fn record(&self, uses: Uses, clock: &Clock) {
        let event = self.events.fetch_add(1, Ordering::Relaxed) + 1;
        if uses.is_empty() {
            return;
        }
        uses.places().for_each(|place| self.note(place, event, clock));
    }

    /// Notes the use of the action `connect`: the feature got the event, which it may have refused.
    pub(crate) fn record_connect(&self, clock: &Clock) {
        if let Some(place) = self.connect {
            self.note(place, self.events() + 1, clock);
        }
    }

    fn note(&self, place: usize, event: u64, clock: &Clock) {
        let Some(last) = self.last.get(place) else { return };
        let before = last.event.load(Ordering::Relaxed);
        if before == 0 || event.saturating_sub(before) >= GRAIN {
            last.event.store(event, Ordering::Relaxed);
            last.at_ms.store(clock.now_ms(), Ordering::Relaxed);
        }
    }

    /// The number of committed events.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// When the record begins, in milliseconds since 1970.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// The last use of the need at this place; none if there was none among the last `within` events. In doubt, a use
    /// counts as one of them.
    pub(crate) fn last(&self, place: usize, within: u64) -> Option<Used> {
        let last = self.last.get(place)?;
        let event = Some(last.event.load(Ordering::Relaxed)).filter(|event| *event != 0)?;
        let events_ago = self.events().saturating_sub(event);
        let at_ms = last.at_ms.load(Ordering::Relaxed);
        (events_ago < within.saturating_add(GRAIN)).then_some(Used { events_ago, at_ms })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EVER: u64 = u64::MAX;

    fn using(places: &[usize]) -> Uses {
        let mut uses = Uses::default();
        places.iter().for_each(|place| uses.add(*place));
        uses
    }

    fn of_three() -> (GrantUse, Clock) {
        let clock = Clock::manual(1_800_000_000_000);
        let needs = Grants { rooms: ["a", "b", "c"].map(str::to_owned).to_vec(), ..Grants::default() };
        (GrantUse::new(&needs, &clock), clock)
    }

    #[test]
    fn last_use_counts_events_and_time() {
        let (record, clock) = of_three();
        record.record(using(&[0]), &clock);
        clock.advance(Duration::from_secs(10));
        record.record(using(&[1]), &clock);
        record.record(using(&[]), &clock);
        let (first, second) = (1_800_000_000_000, 1_800_000_010_000);
        assert_eq!((record.events(), record.since_ms()), (3, first));
        assert_eq!(record.last(0, EVER), Some(Used { events_ago: 2, at_ms: first }));
        assert_eq!(record.last(1, EVER), Some(Used { events_ago: 1, at_ms: second }));
        assert_eq!(record.last(2, EVER), None);
    }

    #[test]
    fn window_ends_a_grain_after_its_length() {
        let (record, clock) = of_three();
        record.record(using(&[0, 1]), &clock);
        let mut ended = Vec::new();
        for n in 1..=200 {
            record.record(using(&[1]), &clock);
            assert!(record.last(1, 1).is_some(), "a need that every event uses is always in use");
            if record.last(0, 100).is_none() {
                ended.push(n);
            }
        }
        assert_eq!(ended[0], 100 + GRAIN);
        assert!(record.last(0, EVER).is_some(), "no use is forgotten");
    }

    #[test]
    fn repeated_use_is_noted_once_a_grain() {
        let (record, clock) = of_three();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..GRAIN * 4 {
            record.record(using(&[2]), &clock);
            let last = record.last(2, EVER).unwrap();
            assert!(last.events_ago < GRAIN);
            seen.insert(record.events() - last.events_ago);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [1, 65, 129, 193]);
    }

    #[test]
    fn refused_connect_is_a_use() {
        let clock = Clock::manual(1_800_000_000_000);
        let needs = Grants { actions: ["save", "connect"].map(str::to_owned).to_vec(), ..Grants::default() };
        let record = GrantUse::new(&needs, &clock);
        record.record_connect(&clock);
        assert_eq!(record.events(), 0);
        assert_eq!(record.last(1, 1), Some(Used { events_ago: 0, at_ms: 1_800_000_000_000 }));
        assert_eq!(record.last(0, EVER), None);
        of_three().0.record_connect(&clock);
    }

    #[test]
    fn concurrent_events_all_count() {
        let (record, clock) = of_three();
        std::thread::scope(|scope| {
            for place in 0..2 {
                let (record, clock) = (&record, &clock);
                scope.spawn(move || (0..10_000).for_each(|_| record.record(using(&[place]), clock)));
            }
        });
        assert_eq!(record.events(), 20_000);
        assert!(record.last(0, EVER).is_some() && record.last(1, EVER).is_some() && record.last(2, EVER).is_none());
    }
}
