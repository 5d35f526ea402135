//! Numbered events, each of which must arrive once and in order.

use std::collections::BTreeSet;

use super::tally::Kind;

/// The numbers that have arrived.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The number after the greatest that has arrived.
    next: u64,
    /// Smaller numbers that have not arrived.
    missing: BTreeSet<u64>,
}

impl Sequence {
    /// Takes a number that has arrived. A gap is no fault yet, because what is missing may come late, which is one.
    pub(super) fn take(&mut self, number: u64) -> Result<(), Kind> {
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
            return Ok(());
        }
        Err(if self.missing.remove(&number) { Kind::Disordered } else { Kind::Doubled })
    }

    /// The number after the greatest that has arrived.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether all of `total` numbers have arrived.
    pub(super) fn is_complete(&self, total: u64) -> bool {
        self.missing.is_empty() && self.next >= total
    }

    /// The number of those among `total` numbers that have not arrived, and the first of them.
    pub(super) fn lost(&self, total: u64) -> (u64, Option<u64>) {
        let behind = total.saturating_sub(self.next);
        let first = self.missing.first().copied().or((behind > 0).then_some(self.next));
        (self.missing.len() as u64 + behind, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_doubled_and_late_numbers_are_told_apart() {
        let mut sequence = Sequence::default();
        assert_eq!([0, 1, 3].map(|number| sequence.take(number)), [Ok(()); 3]);
        assert_eq!(sequence.lost(4), (1, Some(2)));
        assert_eq!(sequence.take(1), Err(Kind::Doubled));
        assert_eq!(sequence.take(2), Err(Kind::Disordered));
        assert_eq!(sequence.take(2), Err(Kind::Doubled));
        assert!(sequence.is_complete(4) && !sequence.is_complete(5));
        assert_eq!(sequence.lost(6), (2, Some(4)));
    }
}
