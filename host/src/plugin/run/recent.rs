//! The recent calls of each scope: what a new build is tried on, and what an operator looks back at.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

/// The most calls of one scope that are remembered.
const CALLS_OF_A_SCOPE: usize = 256;

/// The part of a plugin's bytes, as a divisor, that one scope has at most: a busy scope leaves others their past.
const SHARE_OF_A_SCOPE: usize = 2;

/// The calls of the scopes of one plugin on one thread, in their order. The oldest are forgotten first.
#[derive(Debug)]
pub(super) struct Recent<C> {
    scopes: HashMap<Arc<str>, OfScope<C>>,
    /// Each scope once, with the number of its oldest call or of one that is forgotten: the oldest of all is found by looking again.
    oldest: BinaryHeap<Reverse<(u64, Arc<str>)>>,
    last: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Kept<C> {
    number: u64,
    bytes: usize,
    call: C,
}

#[derive(Debug)]
struct OfScope<C> {
    calls: VecDeque<Kept<C>>,
    bytes: usize,
}

impl<C> Default for Recent<C> {
    fn default() -> Self {
        Self { scopes: HashMap::new(), oldest: BinaryHeap::new(), last: 0, bytes: 0 }
    }
}

impl<C: Clone> Recent<C> {
    /// Remembers a call of a scope, which keeps so many bytes, and forgets what is over `max_bytes` then.
    pub(super) fn push(&mut self, scope: &Arc<str>, bytes: usize, call: C, max_bytes: usize) {
        let share = max_bytes / SHARE_OF_A_SCOPE;
        if bytes > share {
            return;
        }
        self.last += 1;
        self.bytes += bytes;
        let kept = Kept { number: self.last, bytes, call };
        match self.scopes.get_mut(scope) {
            Some(of_scope) => {
                of_scope.calls.push_back(kept);
                of_scope.bytes += bytes;
                while of_scope.calls.len() > CALLS_OF_A_SCOPE || of_scope.bytes > share {
                    self.bytes -= of_scope.forget_oldest();
                }
            }
            None => {
                self.oldest.push(Reverse((self.last, scope.clone())));
                self.scopes.insert(scope.clone(), OfScope { calls: VecDeque::from([kept]), bytes });
            }
        }
        while self.bytes > max_bytes && self.forget_oldest() {}
    }

    /// Forgets the oldest of all calls, or finds out which it is. Returns false if there is none.
    fn forget_oldest(&mut self) -> bool {
        let Some(mut oldest) = self.oldest.peek_mut() else { return false };
        let Reverse((number, scope)) = &mut *oldest;
        let of_scope = self.scopes.get_mut(scope);
        let next = of_scope.and_then(|of_scope| {
            if of_scope.calls.front()?.number == *number {
                self.bytes -= of_scope.forget_oldest();
            }
            Some(of_scope.calls.front()?.number)
        });
        match next {
            Some(next) => *number = next,
            None => {
                let Reverse((_, scope)) = PeekMut::pop(oldest);
                self.scopes.remove(&scope);
            }
        }
        true
    }

    /// The calls that are remembered, the oldest first: of one scope, or of all.
    pub(super) fn calls(&self, scope: Option<&str>) -> Vec<C> {
        if let Some(scope) = scope {
            let calls = self.scopes.get(scope).into_iter().flat_map(|of_scope| &of_scope.calls);
            return calls.map(|kept| kept.call.clone()).collect();
        }
        let mut all: Vec<_> = self.scopes.values().flat_map(|of_scope| &of_scope.calls).collect();
        all.sort_unstable_by_key(|kept| kept.number);
        all.into_iter().map(|kept| kept.call.clone()).collect()
    }
}

impl<C> OfScope<C> {
    /// Returns the bytes that the call kept.
    fn forget_oldest(&mut self) -> usize {
        let bytes = self.calls.pop_front().map_or(0, |kept| kept.bytes);
        self.bytes -= bytes;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_scope_leaves_others_their_past() {
        let mut recent = Recent::default();
        let (busy, quiet): (Arc<str>, Arc<str>) = ("busy".into(), "quiet".into());
        recent.push(&quiet, 10, 0, 2000);
        (1..1000).for_each(|n| recent.push(&busy, 10, n, 2000));
        assert_eq!((recent.calls(Some("quiet")), recent.calls(Some("busy")).len()), (vec![0], 100));
        assert_eq!(recent.calls(None)[..2], [0, 900], "in their order");
        recent.push(&busy, 400, 1000, 2000);
        assert_eq!(recent.calls(Some("busy")).len(), 61, "a large call takes the place of several");
        recent.push(&busy, 1001, 1001, 2000);
        assert_eq!(recent.calls(Some("busy")).last(), Some(&1000), "none is kept that is larger than a scope's share");
    }

    #[test]
    fn calls_are_bounded_in_number_and_bytes() {
        let mut recent = Recent::default();
        let scopes: Vec<Arc<str>> = (0..100).map(|n| n.to_string().into()).collect();
        (0..3000).for_each(|n| recent.push(&scopes[n % 100], 10, n, 8000));
        assert_eq!((recent.calls(None).len(), recent.calls(None)[0]), (800, 2200));
        let one: Arc<str> = "one".into();
        (0..1000).for_each(|n| recent.push(&one, 1, n, 80_000));
        assert_eq!(recent.calls(Some("one")).len(), CALLS_OF_A_SCOPE);
        (0..800).for_each(|n| recent.push(&scopes[n % 100], 10, n, 8000));
        assert_eq!((recent.bytes, recent.scopes.len()), (8000, 100), "nothing is left of a scope without calls");
    }
}
