//! Tokens expire by the system's clock, and deadlines are reckoned in uptime: where that clock is put back or ahead, or the
//! machine has slept, the deadlines of tokens have to follow.

use std::rc::Rc;

use super::parts::Shard;
use super::timers::Timer;
use crate::conn::state::transport::Transport;

/// How often the system's clock is looked at, in milliseconds of uptime: a token that expired while the machine slept is
/// good for no longer than this after it woke up.
const LOOK_MS: u64 = 2000;

/// A clock that is kept right by small steps (NTP) moves by less than this between two looks, in milliseconds.
const JUMP_MS: i64 = 500;

impl Shard {
    /// Begins to look at the system's clock, for there is a token that expires.
    pub(in crate::conn) fn watch_wall_clock(&self) {
        if self.wall_offset.get().is_none() {
            self.wall_offset.set(Some(self.offset_of_wall()));
            self.schedule(self.shared.clock.uptime_ms() + LOOK_MS, Timer::WallClock);
        }
    }

    /// Looks after the transports with tokens that expire where the system's clock was put back or ahead, or went on while the
    /// machine slept.
    pub(in crate::conn) fn check_wall_clock(self: &Rc<Self>, now: u64) {
        let offset = self.offset_of_wall();
        let Some(before) = self.wall_offset.replace(Some(offset)) else { return };
        if (offset - before).abs() > JUMP_MS {
            tracing::debug!(by_ms = offset - before, "the system's clock has jumped: tokens expire by it");
            let expires =
                |transport: &Rc<Transport>| transport.connections.borrow().iter().any(|c| c.expires.get() != u64::MAX);
            let transports: Vec<_> =
                self.transports.borrow().iter().map(|(_, transport)| transport.clone()).filter(expires).collect();
            transports.iter().for_each(|transport| self.check_transport(transport, now));
        }
        if self.connections.borrow().is_empty() {
            self.wall_offset.set(None);
        } else {
            self.schedule(now + LOOK_MS, Timer::WallClock);
        }
    }

    /// By how much the system's clock is ahead of uptime, in milliseconds.
    fn offset_of_wall(&self) -> i64 {
        let clock = &self.shared.clock;
        clock.wall_ms().cast_signed() - clock.uptime_ms().cast_signed()
    }
}
