//! How fast users are read. A user over its share is not read for a moment: what it sends waits in the kernel and then at
//! the client, by TCP's flow control, while others are read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Allowance, Quota};

/// Bytes that are read from one user's connections on one shard. To read, check and copy them takes some hundredths of a
/// shard's time; the burst is an upload of some of the largest messages.
const READ: Quota = Quota { per_second: 8 * 1024 * 1024, burst: 32 * 1024 * 1024 };

/// Bytes that are read from a transport before its user is charged for them: to charge each read would cost too much.
pub(crate) const CHARGED_AT: usize = 64 * 1024;

/// Users that are remembered before those that owe nothing are forgotten.
const REMEMBERED: usize = 1024;

/// Bytes a second for each event a second that a connection may send, so that a high limit on events can be used.
const EVENT_BYTES: u64 = 256;

/// What each user of a shard has been charged.
#[derive(Debug)]
pub(crate) struct ReadPace {
    quota: Quota,
    used: RefCell<HashMap<Arc<str>, Allowance>>,
}

impl ReadPace {
    pub(crate) fn new(events_per_second: u32) -> Self {
        let per_second = READ.per_second.max(u64::from(events_per_second) * EVENT_BYTES);
        Self { quota: Quota { per_second, ..READ }, used: RefCell::default() }
    }

    /// Charges a user. Gives the time for which it is not to be read, in milliseconds.
    pub(crate) fn charge(&self, principal: Arc<str>, now: u64, bytes: usize) -> Option<u64> {
        let mut used = self.used.borrow_mut();
        if used.len() >= REMEMBERED && !used.contains_key(&principal) {
            used.retain(|_, allowance| !allowance.is_clear(now));
        }
        let allowance = used.entry(principal).or_default();
        allowance.charge(self.quota, now, bytes as u64);
        allowance.wait_ms(self.quota, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charge_pauses_only_users_over_their_share() {
        let pace = ReadPace::new(50);
        let mut n_read = 0;
        let wait = loop {
            n_read += CHARGED_AT;
            if let Some(wait) = pace.charge("mal".into(), 0, CHARGED_AT) {
                break wait;
            }
        };
        assert_eq!(n_read, READ.burst as usize);
        assert!((1..=8).contains(&wait), "a moment of {wait} ms");
        assert_eq!(pace.charge("ana".into(), 0, CHARGED_AT), None);
        assert_eq!(pace.charge("mal".into(), 1000, CHARGED_AT), None);
    }

    #[test]
    fn users_that_owe_nothing_are_forgotten() {
        let pace = ReadPace::new(50);
        pace.charge("mal".into(), 0, READ.burst as usize);
        for n in 0..3 * REMEMBERED {
            pace.charge(format!("u{n}").into(), n as u64, 1);
        }
        assert!(pace.used.borrow().len() <= REMEMBERED && pace.used.borrow().contains_key("mal"));
    }
}
