//! The owners of a plugin's scopes on a thread: if there are too many scopes, those of the largest owner are evicted
//! first.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::ledger::{Account, Charge};

/// The candidates among which the scope to evict is chosen: enough that a busy scope is hardly ever the choice.
const CANDIDATES: usize = 64;

/// The most slots that are examined to find the candidates. Far more than the candidates, because slots may be empty, or
/// hold scopes of other plugins or scopes in use, which cannot be evicted.
pub(crate) const LOOKS: usize = 4096;

/// Evictions after which the largest owner is searched again. The search visits each owner, and there may be as many
/// owners as scopes.
const EVICTIONS_PER_LOOK: usize = 256;

/// The owner of a scope: an account, by its address in memory, which no other account has while the scope's charge
/// refers to it. A restored scope has no owner, and the address 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner(usize);

impl Owner {
    /// The owner by the charge for a scope.
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
    /// The largest owner at the last search, and the evictions since.
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

    /// Whether an owner with one more scope would have no more than an even share of `bound` scopes.
    pub(crate) fn has_fair_share_left(&self, owner: Owner, bound: usize) -> bool {
        let n_owners = self.held.len() + usize::from(!self.held.contains_key(&owner));
        self.held(owner) < bound / n_owners
    }

    /// The largest owner, if it has enough scopes that a search finds enough candidates among them.
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

    /// Begins the choice of a scope to evict for a new scope of `asker`.
    pub(crate) fn choose(&mut self, asker: Owner) -> Choice {
        let least = self.held(asker);
        Choice { greediest: self.greediest(), least, of_greediest: Vec::new(), of_others: Vec::new() }
    }
}

/// Candidates for eviction: of the greediest owner among them, the scope whose last event is longest ago is chosen.
#[derive(Debug)]
pub(crate) struct Choice {
    greediest: Option<Owner>,
    /// The number of scopes of the asking owner: owners with fewer lose none to it.
    least: usize,
    /// The last event of each candidate, and its slot.
    of_greediest: Vec<(u64, usize)>,
    /// The same for candidates of other owners, behind the number of their owner's scopes.
    of_others: Vec<(Reverse<usize>, u64, usize)>,
}

impl Choice {
    /// Whether a scope of this owner, which has `held`, could still be chosen.
    pub(crate) fn wants(&self, owner: Owner, held: usize) -> bool {
        held >= self.least && (self.greediest == Some(owner) || self.of_others.len() < CANDIDATES)
    }

    /// Adds an unused scope, whose owner has `held`.
    pub(crate) fn offer(&mut self, owner: Owner, held: usize, last_event_ms: u64, slot: usize) {
        if self.greediest == Some(owner) {
            self.of_greediest.push((last_event_ms, slot));
        } else {
            self.of_others.push((Reverse(held), last_event_ms, slot));
        }
    }

    /// Whether there are enough candidates.
    pub(crate) fn is_ready(&self) -> bool {
        match self.greediest {
            Some(_) => self.of_greediest.len() >= CANDIDATES,
            None => self.of_others.len() >= CANDIDATES,
        }
    }

    /// The slot of the scope to evict.
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
    fn eviction_prefers_scopes_of_the_greediest_owner() {
        let mut owners = owners(&[(1, 3), (2, 500), (3, 40)]);
        let mut choice = owners.choose(Owner(4));
        // By age alone, scopes of other owners would be evicted.
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
    fn search_ends_after_enough_candidates() {
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
    fn eviction_spares_owners_with_fewer_scopes() {
        let mut owners = owners(&[(1, 10), (2, 500)]);
        let choice = owners.choose(Owner(2));
        assert!(!choice.wants(Owner(1), 10) && choice.wants(Owner(2), 500));
        let choice = owners.choose(Owner(1));
        assert!(choice.wants(Owner(1), 10) && choice.wants(Owner(2), 500));
    }

    #[test]
    fn equally_small_owners_lose_their_oldest_scope() {
        let many: Vec<_> = (1..=1000).map(|owner| (owner, 1)).collect();
        let mut owners = owners(&many);
        let mut choice = owners.choose(Owner(2000));
        (0..CANDIDATES).for_each(|slot| choice.offer(Owner(1 + slot), 1, 100 - slot as u64, slot));
        assert!(choice.is_ready(), "the first that are idle will do");
        assert_eq!(choice.slot(), Some(CANDIDATES - 1));
    }

    #[test]
    fn emptied_owner_is_no_longer_the_greediest() {
        let mut owners = owners(&[(1, 3), (2, 5)]);
        assert_eq!(owners.greediest(), Some(Owner(2)));
        (0..5).for_each(|_| owners.remove(Owner(2)));
        assert_eq!(owners.greediest(), Some(Owner(1)));
        (0..3).for_each(|_| owners.remove(Owner(1)));
        assert_eq!((owners.greediest(), owners.n_scopes, owners.held.len()), (None, 0, 0));
    }

    #[test]
    fn fair_share_divides_scopes_evenly_among_owners() {
        let owners = owners(&[(1, 49), (2, 50)]);
        assert!(owners.has_fair_share_left(Owner(1), 100) && !owners.has_fair_share_left(Owner(2), 100));
        assert!(owners.has_fair_share_left(Owner(3), 100), "of which there is one for who has nothing yet");
        assert!(!owners.has_fair_share_left(Owner(3), 2));
    }
}
