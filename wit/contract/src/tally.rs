//! The differences between two builds over many calls.

use std::collections::BTreeMap;
use std::fmt;

use crate::case::CaseEnd;
use crate::difference::differences;

/// The most kinds of differences that are told apart.
const MOST: usize = 100;

/// What two builds made of the same calls, compared.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// The calls that were compared.
    pub calls: u64,
    /// The calls of which the second build made something else.
    pub different: u64,
    kinds: BTreeMap<(String, String), (u64, String)>,
}

/// A difference that some calls have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind<'a> {
    /// The name of the event.
    pub event: &'a str,
    /// The difference, in words without values.
    pub difference: &'a str,
    /// How many calls have it.
    pub calls: u64,
    /// The first of them.
    pub first: &'a str,
}

impl Tally {
    /// Adds a call, named `place` where it is the first with a difference, and what was made of it `then` and `now`. Returns
    /// whether that differs.
    pub fn add(&mut self, event: &str, place: &str, then: &CaseEnd, now: &CaseEnd) -> bool {
        self.calls += 1;
        let found = differences(then, now);
        let is_different = !found.is_empty();
        self.different += u64::from(is_different);
        for difference in found {
            let kind = (event.to_owned(), difference);
            if self.kinds.len() < MOST || self.kinds.contains_key(&kind) {
                self.kinds.entry(kind).or_insert_with(|| (0, place.to_owned())).0 += 1;
            }
        }
        is_different
    }

    /// The differences, the most frequent first.
    pub fn kinds(&self) -> Vec<Kind<'_>> {
        let mut kinds: Vec<_> = self
            .kinds
            .iter()
            .map(|((event, difference), (calls, first))| Kind { event, difference, calls: *calls, first })
            .collect();
        kinds.sort_by_key(|kind| std::cmp::Reverse(kind.calls));
        kinds
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "of {} events {} differ", self.calls, self.different)?;
        self.kinds().iter().try_for_each(|kind| writeln!(f, "{kind}"))
    }
}

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8}  {}: {} (first in {})", self.calls, self.event, self.difference, self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_counts_differences_by_kind() {
        let (handled, failed) =
            (CaseEnd::Handled { effects: Vec::new(), state: None }, CaseEnd::Failed("it trapped".to_owned()));
        let refused = CaseEnd::Refused("no".to_owned());
        let mut tally = Tally::default();
        assert!(!tally.add("a", "s:1", &handled, &handled));
        assert!(tally.add("a", "s:2", &handled, &refused));
        assert!(tally.add("a", "s:3", &handled, &failed) && tally.add("a", "s:4", &handled, &failed));
        assert_eq!(
            tally.to_string(),
            "of 4 events 3 differ\n       2  a: handled it, and now failed (first in s:3)\n       1  a: handled it, and \
             now refused it (first in s:2)\n"
        );
    }

    #[test]
    fn kinds_are_bounded() {
        let (refused, handled) =
            (CaseEnd::Refused("no".to_owned()), CaseEnd::Handled { effects: Vec::new(), state: None });
        let mut tally = Tally::default();
        (0..MOST + 5).for_each(|n| assert!(tally.add(&n.to_string(), "s", &refused, &handled)));
        assert_eq!((tally.kinds().len(), tally.different), (MOST, MOST as u64 + 5));
    }
}
