//! How fast clients are read. One that sends more than its share is not read for a moment: what it sends waits in the kernel,
//! and then at the client, by TCP's own flow control, while others are read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::parts::Shard;
use crate::conn::state::transport::{Session, Transport};
use crate::model::{Allowance, Identity, Quota};

/// What one user's connections on one shard are read, in bytes. To read, check and copy so much takes some hundredths of a
/// shard's time; at once it is as much as an upload of some of the largest messages.
const READ: Quota = Quota { per_second: 8 * 1024 * 1024, burst: 32 * 1024 * 1024 };

/// Bytes that a transport is read between two looks at what its user has used: less is not worth a look.
const CHARGED_AT: usize = 64 * 1024;

/// Users that are remembered before those are looked for that can be forgotten.
const REMEMBERED: usize = 1024;

/// Bytes of each event that a connection may send in a second: whoever may send very many is to be read as fast.
const EVENT_BYTES: u64 = 256;

/// What the users of a shard's connections have been read.
#[derive(Debug)]
pub(in crate::conn) struct Pace {
    quota: Quota,
    used: RefCell<HashMap<Arc<str>, Allowance>>,
}

impl Pace {
    pub(in crate::conn) fn new(events_per_second: u32) -> Self {
        let per_second = READ.per_second.max(u64::from(events_per_second) * EVENT_BYTES);
        Self { quota: Quota { per_second, ..READ }, used: RefCell::default() }
    }

    /// Charges a user. Says for how long it is not to be read, in milliseconds.
    fn charge(&self, principal: Arc<str>, now: u64, bytes: usize) -> Option<u64> {
        let mut used = self.used.borrow_mut();
        if used.len() >= REMEMBERED && !used.contains_key(&principal) {
            used.retain(|_, allowance| !allowance.is_clear(now));
        }
        let allowance = used.entry(principal).or_default();
        allowance.charge(self.quota, now, bytes as u64);
        allowance.wait_ms(self.quota, now)
    }
}

impl Shard {
    /// Whether a transport may be read now. One that may not is read when its time has come.
    pub(in crate::conn) fn may_read(&self, transport: &Transport) -> bool {
        transport.times.unread_until.get() == 0
    }

    /// Charges the user of a polling session for a body. Says for how long the session is to wait for its answer, before
    /// which it brings no other, in milliseconds.
    pub(in crate::conn) fn charge_body(&self, transport: &Transport, bytes: usize) -> Option<u64> {
        let wait = self.pace.charge(principal_of(transport), self.shared.clock.uptime_ms(), bytes)?;
        self.shared.metrics.reads_paused.inc();
        Some(wait)
    }

    /// Notes that a transport was read so much, and lets it rest where its user is over its share.
    pub(in crate::conn) fn charge_read(&self, transport: &Transport, bytes: usize) {
        let read = transport.read_bytes.get() + bytes;
        if read < CHARGED_AT {
            return transport.read_bytes.set(read);
        }
        transport.read_bytes.set(0);
        // A suite that tests the protocol does nothing else.
        if matches!(*transport.session.borrow(), Session::Echo) {
            return;
        }
        let now = self.shared.clock.uptime_ms();
        if let Some(wait) = self.pace.charge(principal_of(transport), now, read) {
            self.shared.metrics.reads_paused.inc();
            transport.times.unread_until.set(now + wait);
            self.arm(transport, now + wait);
        }
    }

    /// Goes on with a transport that was not to be read, if its time has come.
    pub(in crate::conn) fn resume_reading(&self, transport: &Rc<Transport>, now: u64) {
        let until = transport.times.unread_until.get();
        if until == 0 {
            return;
        }
        if now < until {
            return self.arm(transport, until);
        }
        transport.times.unread_until.set(0);
        if !transport.unread.replace(true) {
            self.unread.borrow_mut().push(transport.clone());
        }
    }
}

/// Who is charged for what a transport is read.
fn principal_of(transport: &Transport) -> Arc<str> {
    match transport.only_connection() {
        Some(connection) => connection.identity.borrow().principal.clone(),
        None => Identity::anonymous(String::new(), transport.peer.ip()).principal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_over_its_share_waits_alone() {
        let pace = Pace::new(50);
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
        let pace = Pace::new(50);
        pace.charge("mal".into(), 0, READ.burst as usize);
        for n in 0..3 * REMEMBERED {
            pace.charge(format!("u{n}").into(), n as u64, 1);
        }
        assert!(pace.used.borrow().len() <= REMEMBERED && pace.used.borrow().contains_key("mal"));
    }
}
