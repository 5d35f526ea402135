//! The recent calls of each scope: what a new build is tried on, and what an operator looks back at.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// The most calls of one scope that are remembered.
const CALLS_OF_A_SCOPE: usize = 256;

/// The part of a plugin's bytes, as a divisor, that one scope has at most: a busy scope leaves others their past.
const SHARE_OF_A_SCOPE: usize = 2;

/// The calls of the scopes of one plugin on one thread, in their order. The oldest are forgotten first.
#[derive(Debug)]
pub(super) struct Recent<C> {
    calls: BTreeMap<u64, Kept<C>>,
    scopes: HashMap<Arc<str>, OfScope>,
    last: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Kept<C> {
    scope: Arc<str>,
    bytes: usize,
    call: C,
}

#[derive(Debug, Default)]
struct OfScope {
    numbers: VecDeque<u64>,
    bytes: usize,
}

impl<C> Default for Recent<C> {
    fn default() -> Self {
        Self { calls: BTreeMap::new(), scopes: HashMap::new(), last: 0, bytes: 0 }
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
        self.calls.insert(self.last, Kept { scope: scope.clone(), bytes, call });
        let of_scope = self.scopes.entry(scope.clone()).or_default();
        of_scope.numbers.push_back(self.last);
        of_scope.bytes += bytes;
        while let Some(of_scope) = self.scopes.get(scope)
            && (of_scope.numbers.len() > CALLS_OF_A_SCOPE || of_scope.bytes > share)
            && let Some(&oldest) = of_scope.numbers.front()
        {
            self.forget(oldest);
        }
        while self.bytes > max_bytes
            && let Some((&oldest, _)) = self.calls.first_key_value()
        {
            self.forget(oldest);
        }
    }

    /// Forgets a call, which is the oldest of its scope.
    fn forget(&mut self, number: u64) {
        let Some(Kept { scope, bytes, .. }) = self.calls.remove(&number) else { return };
        self.bytes -= bytes;
        if let Entry::Occupied(mut of_scope) = self.scopes.entry(scope) {
            of_scope.get_mut().numbers.pop_front();
            of_scope.get_mut().bytes -= bytes;
            if of_scope.get().numbers.is_empty() {
                of_scope.remove();
            }
        }
    }

    /// The calls that are remembered, the oldest first: of one scope, or of all.
    pub(super) fn calls(&self, scope: Option<&str>) -> Vec<C> {
        let Some(scope) = scope else { return self.calls.values().map(|kept| kept.call.clone()).collect() };
        let numbers = self.scopes.get(scope).into_iter().flat_map(|scope| &scope.numbers);
        numbers.filter_map(|number| Some(self.calls.get(number)?.call.clone())).collect()
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
