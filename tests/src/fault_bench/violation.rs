//! A violated invariant, and those it concerns.

use std::collections::BTreeSet;

use super::model::Place;

/// A violated invariant.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    /// The invariant, as a sentence.
    pub(super) invariant: &'static str,
    /// How it is violated.
    pub(super) what: String,
    /// The pages that it concerns.
    pub(super) pages: BTreeSet<usize>,
    /// The places that it concerns.
    pub(super) places: BTreeSet<Place>,
}

impl Violation {
    /// A violation of the whole cluster, or of a page that is not named yet.
    pub(super) fn new(invariant: &'static str, what: String) -> Self {
        Self { invariant, what, pages: BTreeSet::new(), places: BTreeSet::new() }
    }

    /// The same, of these pages.
    #[must_use]
    pub(super) fn of(mut self, pages: impl IntoIterator<Item = usize>) -> Self {
        self.pages.extend(pages);
        self
    }

    /// The same, in this place.
    #[must_use]
    pub(super) fn within(mut self, place: Place) -> Self {
        self.places.insert(place);
        self
    }
}
