//! The rate at which users are read. The transports of a user over its share are paused: the input waits in the kernel
//! and then, by TCP's flow control, at the client, while others are read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Allowance, Quota};

/// Bytes per second and burst that are read from one user's connections on one shard. The rate takes a few percent of a
/// shard's time; the burst allows an upload of several messages of the largest size.
const READ: Quota = Quota { per_second: 8 * 1024 * 1024, burst: 32 * 1024 * 1024 };

/// Bytes that are read from a transport before its user is charged: charging each read would cost too much.
pub(crate) const CHARGED_AT: usize = 64 * 1024;

/// Users in the table before those without debt are removed.
const REMEMBERED: usize = 1024;

/// Bytes per second for each event per second that a connection may send, so that a high limit on events can be used.
const EVENT_BYTES: u64 = 256;

/// The read allowance of each user on a shard.
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

    /// Charges a user. Returns the pause of reading, in milliseconds, if the user is over its share.
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
    fn users_without_debt_are_forgotten() {
        let pace = ReadPace::new(50);
        pace.charge("mal".into(), 0, READ.burst as usize);
        for n in 0..3 * REMEMBERED {
            pace.charge(format!("u{n}").into(), n as u64, 1);
        }
        assert!(pace.used.borrow().len() <= REMEMBERED && pace.used.borrow().contains_key("mal"));
    }
}
