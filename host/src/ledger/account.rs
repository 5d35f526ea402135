//! Accounts, and the entries in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::budget::{Bound, Budget, Means};
use super::overdraft::{Holder, Overdraft, What};
use super::terms::Terms;
use crate::model::{Allowance, Quota};

/// The account of one principal, plugin or scope: the resources that the host holds for it, and their limits.
#[derive(Debug)]
pub struct Account {
    name: Arc<str>,
    holder: Holder,
    terms: Arc<Terms>,
    held: [Held; Means::ALL.len()],
    /// The use of the rates of written and read documents.
    saved: Allowance,
    fetched: Allowance,
}

#[derive(Debug, Default)]
struct Held {
    count: AtomicUsize,
    bytes: AtomicUsize,
}

impl Account {
    pub(super) fn new(name: Arc<str>, holder: Holder, terms: Arc<Terms>) -> Self {
        Self {
            name,
            holder,
            terms,
            held: <[Held; Means::ALL.len()]>::default(),
            saved: Allowance::default(),
            fetched: Allowance::default(),
        }
    }

    /// The name of its holder: a user, `address …`, or `service …`.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether its holder is an API key.
    pub fn is_service(&self) -> bool {
        self.holder == Holder::Service
    }

    fn budget(&self) -> Option<&Budget> {
        match self.holder {
            Holder::User => Some(&self.terms.user),
            Holder::Service => Some(&self.terms.service),
            Holder::Plugin | Holder::Scope => None,
        }
    }

    fn bound(&self, means: Means) -> Bound {
        match self.holder {
            Holder::Plugin => Bound::of_plugin(means),
            Holder::Scope => Bound::of_scope(means),
            Holder::User | Holder::Service => self.budget().map_or(Bound::NONE, |budget| budget.bound(means)),
        }
    }

    /// The number of resources of a kind that the account holds, and their bytes.
    pub fn held(&self, means: Means) -> (usize, usize) {
        let held = &self.held[means as usize];
        (held.count.load(Ordering::Relaxed), held.bytes.load(Ordering::Relaxed))
    }

    /// Whether the account holds nothing.
    pub fn is_empty(&self) -> bool {
        Means::ALL.iter().all(|means| self.held(*means) == (0, 0))
    }

    /// Whether `more` resources and bytes may be charged. Another thread may charge first.
    ///
    /// # Errors
    /// Where the charge would exceed a limit.
    pub fn check(&self, means: Means, more: (usize, usize)) -> Result<(), Overdraft> {
        let (count, bytes) = self.held(means);
        self.compare(means, (count.saturating_add(more.0), bytes.saturating_add(more.1)), more)
    }

    /// Whether this count and these bytes, which include `more`, are within the limit.
    fn compare(&self, means: Means, (count, bytes): (usize, usize), more: (usize, usize)) -> Result<(), Overdraft> {
        let bound = self.bound(means);
        let is_over = |held: usize, more: usize, bound: usize| more > 0 && held > bound;
        if is_over(count, more.0, bound.count) {
            return Err(self.overdraft(What::Count(means), count - more.0, bound.count));
        }
        if is_over(bytes, more.1, bound.bytes) {
            return Err(self.overdraft(What::Bytes(means), bytes - more.1, bound.bytes));
        }
        Ok(())
    }

    fn overdraft(&self, what: What, held: usize, bound: usize) -> Overdraft {
        Overdraft { account: self.name.clone(), holder: self.holder, what, held, bound, wait_ms: 0 }
    }

    fn enter(&self, means: Means, more: (usize, usize)) -> (usize, usize) {
        let held = &self.held[means as usize];
        let count = held.count.fetch_add(more.0, Ordering::Relaxed) + more.0;
        (count, held.bytes.fetch_add(more.1, Ordering::Relaxed) + more.1)
    }

    fn remove(&self, means: Means, less: (usize, usize)) {
        let held = &self.held[means as usize];
        held.count.fetch_sub(less.0, Ordering::Relaxed);
        held.bytes.fetch_sub(less.1, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.terms.clock.uptime_ms()
    }

    /// Whether a rate allows more.
    fn check_rate(&self, what: What, used: &Allowance, quota: Option<Quota>) -> Result<(), Overdraft> {
        let Some(quota) = quota else { return Ok(()) };
        used.wait_ms(quota, self.now()).map_or(Ok(()), |wait_ms| {
            let overdraft = self.overdraft(what, quota.burst as usize, quota.per_second as usize);
            Err(Overdraft { wait_ms, ..overdraft })
        })
    }

    /// Whether more documents may be written for the holder.
    ///
    /// # Errors
    /// Where the holder is over its rate of writes.
    pub fn may_save(&self) -> Result<(), Overdraft> {
        self.check_rate(What::Saved, &self.saved, self.budget().map(Budget::saving))
    }

    /// Charges written bytes to the rate of writes.
    pub fn pay_saved(&self, bytes: usize) {
        if let Some(budget) = self.budget() {
            self.saved.charge(budget.saving(), self.now(), bytes as u64);
        }
    }

    /// Whether more documents may be read for the holder.
    ///
    /// # Errors
    /// Where the holder is over its rate of reads.
    pub fn may_fetch(&self) -> Result<(), Overdraft> {
        self.check_rate(What::Fetched, &self.fetched, self.budget().map(Budget::fetching))
    }

    /// Charges read bytes to the rate of reads.
    pub fn pay_fetched(&self, bytes: usize) {
        if let Some(budget) = self.budget() {
            self.fetched.charge(budget.fetching(), self.now(), bytes as u64);
        }
    }

    /// Whether no debt of writes and reads is left.
    pub(super) fn is_at_rest(&self, now_ms: u64) -> bool {
        self.saved.is_clear(now_ms) && self.fetched.is_clear(now_ms)
    }
}

/// The payers of a resource, each of which is charged in full.
#[derive(Debug, Clone, Default)]
pub struct Payers {
    /// The principal whose event caused it; `None` if the host did.
    pub principal: Option<Arc<Account>>,
    /// The plugin that requested it.
    pub plugin: Option<Arc<Account>>,
    /// The scope that it is for.
    pub scope: Option<Arc<Account>>,
    /// Whether the principal may exceed its limit, for events that a feature must get and that are therefore not
    /// refused.
    pub is_lenient: bool,
}

impl Payers {
    /// Charges all payers with `count` resources of `bytes` together.
    ///
    /// # Errors
    /// Where a payer would exceed its limit. No payer is charged then.
    pub fn charge(&self, means: Means, count: usize, bytes: usize) -> Result<Charge, Overdraft> {
        let more = (count, bytes);
        let mut charge = Charge { accounts: [const { None }; 3], means, more };
        let [principal, plugin, scope] = [&self.principal, &self.plugin, &self.scope];
        for (at, account) in [principal, plugin, scope].into_iter().enumerate() {
            let Some(account) = account else { continue };
            let held = account.enter(means, more);
            // If a later payer is over its limit, dropping the charge removes this entry again.
            charge.accounts[at] = Some(account.clone());
            if at > 0 || !self.is_lenient {
                account.compare(means, held, more)?;
            }
        }
        Ok(charge)
    }

    /// Charges all payers, even over their limits.
    pub fn charge_anyway(&self, means: Means, count: usize, bytes: usize) -> Charge {
        let accounts = [self.principal.clone(), self.plugin.clone(), self.scope.clone()];
        for account in accounts.iter().flatten() {
            account.enter(means, (count, bytes));
        }
        Charge { accounts, means, more: (count, bytes) }
    }
}

/// An entry in the accounts of all payers of a resource, which is removed when it is dropped. The default has no payer.
#[derive(Debug)]
pub struct Charge {
    /// Principal, plugin and scope.
    accounts: [Option<Arc<Account>>; 3],
    means: Means,
    more: (usize, usize),
}

impl Default for Charge {
    fn default() -> Self {
        Self { accounts: [const { None }; 3], means: Means::Scopes, more: (0, 0) }
    }
}

impl Charge {
    /// The principal among the payers.
    pub fn principal(&self) -> Option<&Arc<Account>> {
        self.accounts[0].as_ref()
    }

    /// The charged bytes.
    pub fn bytes(&self) -> usize {
        self.more.1
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.accounts.iter().flatten().for_each(|account| account.remove(self.means, self.more));
    }
}

/// The charge of a connection's rooms and watching scopes to the account of its principal. To keep connections small,
/// this takes less memory than two charges.
#[derive(Debug)]
pub struct Memberships {
    account: Arc<Account>,
    rooms: u32,
    watches: u32,
}

impl Memberships {
    /// Empty memberships: no room, and no watching scope.
    pub fn new(account: Arc<Account>) -> Self {
        Self { account, rooms: 0, watches: 0 }
    }

    /// Whether `rooms` more rooms and `watches` more watching scopes may be charged.
    ///
    /// # Errors
    /// Where its principal would exceed its limit, over all of its connections.
    pub fn check(&self, rooms: usize, watches: usize) -> Result<(), Overdraft> {
        self.account.check(Means::Rooms, (rooms, 0))?;
        self.account.check(Means::Watches, (watches, 0))
    }

    /// Charges a room.
    ///
    /// # Errors
    /// Where the principal is at its limit of rooms. The room is not charged then.
    pub fn join(&mut self) -> Result<(), Overdraft> {
        let held = self.account.enter(Means::Rooms, (1, 0));
        let compared = self.account.compare(Means::Rooms, held, (1, 0));
        match compared {
            Ok(()) => self.rooms += 1,
            Err(_) => self.account.remove(Means::Rooms, (1, 0)),
        }
        compared
    }

    /// Removes a room.
    pub fn leave(&mut self) {
        self.account.remove(Means::Rooms, (1, 0));
        self.rooms -= 1;
    }

    /// Charges a watching scope, which was checked before.
    pub fn watch(&mut self) {
        self.account.enter(Means::Watches, (1, 0));
        self.watches += 1;
    }

    /// Removes a watching scope.
    pub fn unwatch(&mut self) {
        self.account.remove(Means::Watches, (1, 0));
        self.watches -= 1;
    }

    /// The number of charged rooms.
    pub fn n_rooms(&self) -> usize {
        self.rooms as usize
    }
}

impl Drop for Memberships {
    fn drop(&mut self) {
        self.account.remove(Means::Rooms, (self.rooms as usize, 0));
        self.account.remove(Means::Watches, (self.watches as usize, 0));
    }
}
