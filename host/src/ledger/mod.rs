//! The ledger: the resources that the host holds for each principal, and their limits.
//!
//! - [`Ledger`] has an [`Account`] for each principal: a user, the network of anonymous users, an API key. Plugins and
//!   scopes have accounts, too, which are bounded in the same way.
//! - [`Charge`] is an entry in the accounts of all payers of a resource ([`Payers`]). The resource owns the entry, so
//!   dropping the resource, on any thread, removes the entry.
//! - [`Memberships`] is the charge for the rooms and watching scopes of a connection.
//! - [`Budget`] has the limits of a principal: of resources held, and of the rates of writes and reads.
//! - [`Overdraft`] is a refusal, which names the exceeded limit and the remedy.

mod account;
mod budget;
mod overdraft;
mod terms;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

pub use account::{Account, Charge, Memberships, Payers};
pub use budget::{Bound, Budget, Means};
pub use overdraft::{Holder, Overdraft, What};

use self::terms::Terms;
use crate::metrics::Metrics;
use crate::model::{Clock, Failure, LogLimit};

/// The number of accounts below which none is closed: their memory is some hundred KiB.
const FEW_ACCOUNTS: usize = 4096;

/// The accounts of all principals. Clones share the accounts.
#[derive(Debug, Clone)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    terms: Arc<Terms>,
    /// By principal. Names of users have no whitespace, those of other principals have.
    accounts: DashMap<Arc<str>, Arc<Account>>,
    n_accounts: AtomicUsize,
    /// The number of accounts at which unused ones are closed next.
    n_to_sweep: AtomicUsize,
    metrics: Metrics,
    overdrawn: Mutex<LogLimit>,
}

impl Ledger {
    /// A ledger without entries. The budget of users, and of the networks of anonymous users, is `user`; that of API keys is
    /// `service`.
    pub fn new(user: Budget, service: Budget, clock: Clock, metrics: Metrics) -> Self {
        for holder in Holder::ALL {
            for what in What::ALL {
                // A refusal that has not occurred is shown as zero, so that its rate can be watched from the start.
                metrics.over_budget.with_label_values(&[holder.label(), what.label()]);
            }
        }
        Self(Arc::new(Inner {
            terms: Arc::new(Terms { user, service, clock }),
            accounts: DashMap::new(),
            n_accounts: AtomicUsize::new(0),
            n_to_sweep: AtomicUsize::new(FEW_ACCOUNTS),
            metrics,
            overdrawn: Mutex::default(),
        }))
    }

    /// The account of a user, or of the network of anonymous users.
    pub fn user(&self, principal: &Arc<str>) -> Arc<Account> {
        if let Some(account) = self.0.accounts.get(principal) {
            return account.clone();
        }
        self.open(principal.clone(), Holder::User)
    }

    /// The account of an API key.
    pub fn service(&self, name: &str) -> Arc<Account> {
        let principal = format!("service {name}");
        if let Some(account) = self.0.accounts.get(principal.as_str()) {
            return account.clone();
        }
        self.open(principal.into(), Holder::Service)
    }

    /// An account for a new plugin.
    pub fn plugin(&self, name: &str) -> Arc<Account> {
        Arc::new(Account::new(name.into(), Holder::Plugin, self.0.terms.clone()))
    }

    /// An account for a scope.
    pub fn scope(&self, key: &Arc<str>) -> Arc<Account> {
        Arc::new(Account::new(key.clone(), Holder::Scope, self.0.terms.clone()))
    }

    fn open(&self, principal: Arc<str>, holder: Holder) -> Arc<Account> {
        let account = match self.0.accounts.entry(principal) {
            Entry::Occupied(open) => return open.get().clone(),
            Entry::Vacant(free) => {
                let account = Arc::new(Account::new(free.key().clone(), holder, self.0.terms.clone()));
                free.insert(account.clone());
                account
            }
        };
        // The map's entry must be unlocked here, because a sweep locks all entries.
        if self.0.n_accounts.fetch_add(1, Ordering::Relaxed) >= self.0.n_to_sweep.load(Ordering::Relaxed) {
            self.sweep();
        }
        account
    }

    /// Closes the accounts that hold nothing and have no debt of writes and reads. Others stay, so that a principal
    /// cannot get rid of debt by reconnecting.
    fn sweep(&self) {
        let now = self.0.terms.clock.uptime_ms();
        let mut n_closed = 0;
        self.0.accounts.retain(|_, account| {
            // The map's shard is locked, so that an account without other owners cannot gain one meanwhile.
            let is_kept = Arc::strong_count(account) > 1 || !account.is_at_rest(now);
            n_closed += usize::from(!is_kept);
            is_kept
        });
        let n_left = self.0.n_accounts.fetch_sub(n_closed, Ordering::Relaxed) - n_closed;
        // The cost of a sweep is amortised over the accounts opened since the last one.
        self.0.n_to_sweep.store((n_left * 2).max(FEW_ACCOUNTS), Ordering::Relaxed);
    }

    /// Counts a refusal, and returns the failure for the sender. One refusal in ten seconds is logged.
    pub fn refuse(&self, overdraft: &Overdraft) -> Failure {
        let Overdraft { account, holder, what, held, bound, .. } = overdraft;
        self.0.metrics.over_budget.with_label_values(&[holder.label(), what.label()]).inc();
        if let Some(left_out) = self.0.overdrawn.lock().unwrap_or_else(PoisonError::into_inner).ask() {
            tracing::warn!(
                holder = holder.label(), name = %account, what = what.label(), held, bound, left_out,
                "refused what would go over a budget (limits.user, limits.service)"
            );
        }
        overdraft.failure()
    }
}

#[cfg(test)]
impl Ledger {
    /// A ledger on a manual clock.
    pub(crate) fn of_test(user: Budget, service: Budget) -> (Self, Clock) {
        let clock = Clock::manual(0);
        (Self::new(user, service, clock.clone(), Metrics::new().unwrap()), clock)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn ledger(user: Budget) -> (Ledger, Clock) {
        Ledger::of_test(user, Budget::of_service())
    }

    fn few_timers() -> Budget {
        Budget { timers: 2, timer_bytes: 100, ..Budget::of_user() }
    }

    fn payers(ledger: &Ledger, user: &str) -> Payers {
        Payers { principal: Some(ledger.user(&user.into())), ..Payers::default() }
    }

    #[test]
    fn charge_over_the_bound_counts_nothing() {
        let (ledger, _) = ledger(few_timers());
        let ana = payers(&ledger, "ana");
        let first = ana.charge(Means::Timers, 1, 60).unwrap();
        let refused = ana.charge(Means::Timers, 1, 60).unwrap_err();
        assert_eq!((refused.held, refused.bound), (60, 100), "in bytes");
        let second = ana.charge(Means::Timers, 1, 40).unwrap();
        let refused = ledger.refuse(&ana.charge(Means::Timers, 1, 0).unwrap_err());
        assert_eq!(refused.code, crate::model::ErrorCode::RateLimited);
        assert!(refused.message.contains("2 timers"), "{refused}");
        drop(first);
        assert!(ana.charge(Means::Timers, 1, 60).is_ok());
        assert!(payers(&ledger, "ben").charge(Means::Timers, 2, 100).is_ok(), "another user has its own");
        drop(second);
        assert_eq!(ledger.user(&"ana".into()).held(Means::Timers), (0, 0));
        assert_eq!(ledger.0.metrics.over_budget.with_label_values(&["user", "timers"]).get(), 1);
    }

    #[test]
    fn refusal_by_one_payer_charges_none() {
        let (ledger, _) = ledger(few_timers());
        let (plugin, scope) = (ledger.plugin("p"), ledger.scope(&"s".into()));
        let ana = Payers { plugin: Some(plugin.clone()), scope: Some(scope.clone()), ..payers(&ledger, "ana") };
        assert!(ana.charge(Means::Timers, 3, 0).is_err());
        let lenient = Payers { is_lenient: true, ..ana };
        let charge = lenient.charge(Means::Timers, 3, 0).unwrap();
        assert_eq!((plugin.held(Means::Timers), scope.held(Means::Timers)), ((3, 0), (3, 0)));
        drop(charge);
        assert!(plugin.is_empty() && scope.is_empty());
    }

    #[test]
    fn service_and_user_accounts_are_separate() {
        let (ledger, _) = ledger(few_timers());
        let service = Payers { principal: Some(ledger.service("ana")), ..Payers::default() };
        assert!(service.charge(Means::Timers, 1000, 0).is_ok());
        assert!(payers(&ledger, "ana").charge(Means::Timers, 3, 0).is_err(), "a user of its name is another");
    }

    #[test]
    fn sweep_closes_settled_accounts_only() {
        let (ledger, clock) = ledger(Budget { saved_bytes_per_second: 1000, ..Budget::of_user() });
        let ana = ledger.user(&"ana".into());
        ana.pay_saved(5000);
        drop(ana);
        let held = payers(&ledger, "ben").charge(Means::Documents, 1, 1).unwrap();
        for n in 0..FEW_ACCOUNTS {
            drop(ledger.user(&format!("user-{n}").into()));
        }
        let is_open = |user: &str| ledger.0.accounts.contains_key(user);
        ledger.sweep();
        assert!(is_open("ana") && is_open("ben") && !is_open("user-1"));
        clock.advance(Duration::from_secs(5));
        drop(held);
        ledger.sweep();
        assert!(ledger.0.accounts.is_empty());
        assert_eq!(ledger.0.n_accounts.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn anonymous_users_leave_no_accounts() {
        let (ledger, _) = ledger(Budget::of_user());
        for n in 0..10 * FEW_ACCOUNTS {
            drop(ledger.user(&format!("user-{n}").into()));
        }
        assert!(ledger.0.accounts.len() <= FEW_ACCOUNTS + 1);
    }

    /// An endless pseudorandom sequence (SplitMix64).
    fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
        move |below| {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % below
        }
    }

    /// Concurrent charges, refusals, moves and drops leave nothing in the end.
    #[test]
    fn random_operations_leave_all_accounts_empty() {
        let (ledger, _) = ledger(Budget { rooms: 50, ..few_timers() });
        let plugin = ledger.plugin("p");
        let work = |thread: u64| {
            let mut number = numbers(thread);
            let mut charges = Vec::new();
            let mut memberships = Vec::new();
            for _ in 0..20_000 {
                let account = match number(12) {
                    n @ 0..=9 => ledger.user(&format!("user-{n}").into()),
                    n => ledger.service(&n.to_string()),
                };
                let means = Means::ALL[number(Means::ALL.len() as u64) as usize];
                match number(6) {
                    0 | 1 => {
                        let (is_lenient, n, bytes) = (number(2) == 0, number(3) as usize, number(60) as usize);
                        let (principal, plugin) = (Some(account), Some(plugin.clone()));
                        let payers = Payers { principal, plugin, scope: None, is_lenient };
                        charges.extend(payers.charge(means, n, bytes));
                    }
                    2 => memberships.push(Memberships::new(account)),
                    3 if !memberships.is_empty() => {
                        let at = number(memberships.len() as u64) as usize;
                        let membership: &mut Memberships = &mut memberships[at];
                        match number(4) {
                            0 => drop(membership.join()),
                            1 if membership.n_rooms() > 0 => membership.leave(),
                            2 => membership.watch(),
                            _ => drop(memberships.swap_remove(at)),
                        }
                    }
                    4 if !charges.is_empty() => drop(charges.swap_remove(number(charges.len() as u64) as usize)),
                    _ => drop(account),
                }
            }
        };
        thread::scope(|scope| (0..4).for_each(|n| drop(scope.spawn(move || work(n)))));
        assert!(plugin.is_empty());
        assert!(ledger.0.accounts.iter().all(|account| account.is_empty() && Arc::strong_count(&account) == 1));
        ledger.sweep();
        assert!(ledger.0.accounts.is_empty());
    }
}
