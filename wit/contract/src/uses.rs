//! The needs that an outcome made use of.

/// The words of a set: room for the most needs that a manifest may have.
const WORDS: usize = 5;

/// A set of a manifest's needs, each by its place in [`Grants::iter`](crate::Grants::iter). It is made anew for each
/// event, so it is a few words without an allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Uses([u64; WORDS]);

impl Uses {
    /// The places that a set has room for.
    pub(crate) const CAPACITY: usize = WORDS * 64;

    /// Adds the need at this place.
    pub fn add(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    /// Whether nothing beyond the feature's own scopes was used.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// The places of the needs, ascending.
    pub fn places(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, word)| {
            let rest = |word: &u64| Some(word & (word - 1)).filter(|rest| *rest != 0);
            let words = std::iter::successors(Some(word).filter(|word| *word != 0), rest);
            words.map(move |word| at * 64 + word.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_added_in_order() {
        let mut uses = Uses::default();
        assert!(uses.is_empty() && uses.places().next().is_none());
        for place in [319, 0, 64, 63, 7, 7, Uses::CAPACITY] {
            uses.add(place);
        }
        assert_eq!(uses.places().collect::<Vec<_>>(), [0, 7, 63, 64, 319]);
        assert!(!uses.is_empty());
    }
}
