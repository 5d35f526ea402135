//! Whose the scopes of a plugin are on a thread, so that where there are too many, those of whoever has most go first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::ledger::{Account, Charge};

/// Scopes of which one is chosen to go: enough that a busy one is hardly ever the choice.
const CANDIDATES: usize = 64;

/// Scopes that are looked at for so many: most may be in use, or other plugins'.
pub(crate) const LOOKS: usize = 4096;

/// After so many evictions it is looked anew for the greediest. That takes a look at each owner, of whom there may be as many
/// as scopes.
const EVICTIONS_PER_LOOK: usize = 256;

/// The owner of a scope: an account, by its place in memory, which no other has while it owns a scope; or nobody, for a scope
/// that was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner(usize);

impl Owner {
    /// The owner by what is charged for a scope.
    pub(crate) fn of(charge: &Charge) -> Self {
        Self::of_account(charge.principal().map(Arc::as_ref))
    }

    pub(crate) fn of_account(account: Option<&Account>) -> Self {
        Self(account.map_or(0, |account| std::ptr::from_ref(account).addr()))
    }
}

/// The owners of a plugin's scopes on one thread.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    n_scopes: usize,
    held: HashMap<Owner, usize>,
    /// Who had most when it was looked last, and evictions since.
    greediest: Option<(Owner, usize)>,
}

impl Owners {
    pub(crate) fn add(&mut self, owner: Owner) {
        self.n_scopes += 1;
        *self.held.entry(owner).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, owner: Owner) {
        let Some(held) = self.held.get_mut(&owner) else { return };
        self.n_scopes -= 1;
        *held -= 1;
        if *held == 0 {
            self.held.remove(&owner);
        }
    }

    pub(crate) fn held(&self, owner: Owner) -> usize {
        self.held.get(&owner).copied().unwrap_or(0)
    }

    /// Whether an owner would have no more than its part of `bound` scopes with one more, were they shared out evenly.
    pub(crate) fn has_fair_share_left(&self, owner: Owner, bound: usize) -> bool {
        let n_owners = self.held.len() + usize::from(!self.held.contains_key(&owner));
        self.held(owner) < bound / n_owners
    }

    /// Who has most, where that is so much that it is worth a search: as many as make for enough candidates.
    fn greediest(&mut self) -> Option<Owner> {
        let n_evictions = match self.greediest {
            Some((owner, n)) if n < EVICTIONS_PER_LOOK && self.held.contains_key(&owner) => n + 1,
            _ => 0,
        };
        let owner = match self.greediest {
            Some((owner, _)) if n_evictions > 0 => owner,
            _ => *self.held.iter().max_by_key(|(_, held)| **held)?.0,
        };
        self.greediest = Some((owner, n_evictions));
        (self.held(owner) * LOOKS >= self.n_scopes * CANDIDATES).then_some(owner)
    }

    /// Begins to choose a scope that goes for one of this owner.
    pub(crate) fn choose(&mut self, asker: Owner) -> Choice {
        let least = self.held(asker);
        Choice { greediest: self.greediest(), least, of_greediest: Vec::new(), of_others: Vec::new() }
    }
}

/// Scopes of which one goes: the one that was left alone for longest, of the greediest owner among them.
#[derive(Debug)]
pub(crate) struct Choice {
    greediest: Option<Owner>,
    /// What whoever asks holds: nobody who holds less loses anything to it.
    least: usize,
    /// When each was touched last, and where it is.
    of_greediest: Vec<(u64, usize)>,
    /// The same behind what its owner holds.
    of_others: Vec<(Reverse<usize>, u64, usize)>,
}

impl Choice {
    /// Whether a scope of this owner, who holds so many, could be chosen still.
    pub(crate) fn wants(&self, owner: Owner, held: usize) -> bool {
        held >= self.least && (self.greediest == Some(owner) || self.of_others.len() < CANDIDATES)
    }

    /// Takes note of a scope that nobody uses, whose owner holds so many.
    pub(crate) fn offer(&mut self, owner: Owner, held: usize, touched: u64, slot: usize) {
        if self.greediest == Some(owner) {
            self.of_greediest.push((touched, slot));
        } else {
            self.of_others.push((Reverse(held), touched, slot));
        }
    }

    /// Whether there are enough to choose from.
    pub(crate) fn is_ready(&self) -> bool {
        match self.greediest {
            Some(_) => self.of_greediest.len() >= CANDIDATES,
            None => self.of_others.len() >= CANDIDATES,
        }
    }

    /// Where the scope is that goes.
    pub(crate) fn slot(self) -> Option<usize> {
        let of_greediest = self.of_greediest.into_iter().min().map(|(_, slot)| slot);
        of_greediest.or_else(|| self.of_others.into_iter().min().map(|(_, _, slot)| slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(held: &[(usize, usize)]) -> Owners {
        let mut owners = Owners::default();
        for (owner, held) in held {
            (0..*held).for_each(|_| owners.add(Owner(*owner)));
        }
        owners
    }

    #[test]
    fn an_idle_scope_of_the_greediest_goes_first() {
        let mut owners = owners(&[(1, 3), (2, 500), (3, 40)]);
        let mut choice = owners.choose(Owner(4));
        // By age the others' would go.
        choice.offer(Owner(1), owners.held(Owner(1)), 5, 10);
        choice.offer(Owner(2), owners.held(Owner(2)), 90, 20);
        choice.offer(Owner(2), owners.held(Owner(2)), 80, 21);
        choice.offer(Owner(3), owners.held(Owner(3)), 1, 30);
        assert_eq!(choice.slot(), Some(21));
        let mut choice = owners.choose(Owner(4));
        choice.offer(Owner(1), owners.held(Owner(1)), 5, 10);
        choice.offer(Owner(3), owners.held(Owner(3)), 6, 30);
        assert_eq!(choice.slot(), Some(30), "where the greediest uses all of its own, the next greediest's");
        assert_eq!(owners.choose(Owner(4)).slot(), None);
    }

    #[test]
    fn the_search_ends_with_enough_candidates() {
        let mut owners = owners(&[(1, 10), (2, 500)]);
        let mut choice = owners.choose(Owner(3));
        for slot in 0..CANDIDATES {
            assert!(choice.wants(Owner(1), 10) && !choice.is_ready());
            choice.offer(Owner(1), 10, 1, slot);
        }
        assert!(!choice.wants(Owner(1), 10) && choice.wants(Owner(2), 500));
        (0..CANDIDATES).for_each(|slot| choice.offer(Owner(2), 500, 1, slot));
        assert!(choice.is_ready());
    }

    #[test]
    fn nobody_loses_scopes_to_the_greedier() {
        let mut owners = owners(&[(1, 10), (2, 500)]);
        let choice = owners.choose(Owner(2));
        assert!(!choice.wants(Owner(1), 10) && choice.wants(Owner(2), 500));
        let choice = owners.choose(Owner(1));
        assert!(choice.wants(Owner(1), 10) && choice.wants(Owner(2), 500));
    }

    #[test]
    fn nobody_is_greedy_among_many_with_little() {
        let many: Vec<_> = (1..=1000).map(|owner| (owner, 1)).collect();
        let mut owners = owners(&many);
        let mut choice = owners.choose(Owner(2000));
        (0..CANDIDATES).for_each(|slot| choice.offer(Owner(1 + slot), 1, 100 - slot as u64, slot));
        assert!(choice.is_ready(), "the first that are idle will do");
        assert_eq!(choice.slot(), Some(CANDIDATES - 1));
    }

    #[test]
    fn the_greediest_is_found_anew_when_it_has_nothing_left() {
        let mut owners = owners(&[(1, 3), (2, 5)]);
        assert_eq!(owners.greediest(), Some(Owner(2)));
        (0..5).for_each(|_| owners.remove(Owner(2)));
        assert_eq!(owners.greediest(), Some(Owner(1)));
        (0..3).for_each(|_| owners.remove(Owner(1)));
        assert_eq!((owners.greediest(), owners.n_scopes, owners.held.len()), (None, 0, 0));
    }

    #[test]
    fn fair_shares_are_even() {
        let owners = owners(&[(1, 49), (2, 50)]);
        assert!(owners.has_fair_share_left(Owner(1), 100) && !owners.has_fair_share_left(Owner(2), 100));
        assert!(owners.has_fair_share_left(Owner(3), 100), "of which there is one for who has nothing yet");
        assert!(!owners.has_fair_share_left(Owner(3), 2));
    }
}
