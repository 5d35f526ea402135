//! What is due on a shard, and when: heartbeats, the ends of tokens, and whatever has its time.

use std::cmp::Reverse;
use std::rc::Rc;

use super::link::{Link, LinkId, Phase, Role};
use super::shard::Shard;
use super::unfinished::unfinished_deadline;
use crate::model::{CloseCode, ErrorCode};
use crate::protocol::{engineio, websocket};

/// Deadlines after which what they queued is written, and others have their turn.
const DEADLINES_IN_A_ROW: usize = 256;

/// Of an interval between pings, the part that they may be early.
const PINGS_APART: u64 = 50;

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    Link(LinkId),
    /// The answer to a probe must have come.
    Probe(LinkId),
    /// A client has been away for as long as it may.
    Away,
    /// Some connections have their turn to be closed before the host ends.
    Drain,
    /// Time to see whether the system's clock was put back or ahead.
    Wall,
}

impl Shard {
    /// Has the shard look at a link again at `deadline`, in milliseconds of uptime.
    pub(super) fn arm(&self, link: &Link, deadline: u64) {
        if deadline < link.times.armed.get() {
            link.times.armed.set(deadline);
            self.note_deadline(deadline, Due::Link(link.id));
        }
    }

    pub(super) fn note_deadline(&self, deadline: u64, due: Due) {
        let mut deadlines = self.deadlines.borrow_mut();
        let is_first = deadlines.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        deadlines.push(Reverse((deadline, due)));
        if is_first {
            self.earlier_deadline.notify_one();
        }
    }

    pub(super) async fn next_deadline(&self) {
        loop {
            let next = self.deadlines.borrow().peek().map(|Reverse((deadline, _))| *deadline);
            match next {
                Some(deadline) => tokio::select! {
                    () = self.shared.clock.sleep_until(deadline) => return,
                    () = self.earlier_deadline.notified() => {}
                },
                None => self.earlier_deadline.notified().await,
            }
        }
    }

    /// Does what is due. Says whether there is more, so that others have their turn before.
    pub(super) fn meet_deadlines(self: &Rc<Self>) -> bool {
        let now = self.shared.clock.uptime_ms();
        let is_due = |next: Option<&Reverse<(u64, Due)>>| next.is_some_and(|Reverse((deadline, _))| *deadline <= now);
        for _ in 0..DEADLINES_IN_A_ROW {
            let due = {
                let mut deadlines = self.deadlines.borrow_mut();
                if is_due(deadlines.peek()) { deadlines.pop() } else { None }
            };
            let Some(Reverse((deadline, due))) = due else { break };
            self.meet(due, deadline, now);
        }
        self.flush_dirty();
        is_due(self.deadlines.borrow().peek())
    }

    /// Looks after what is due now.
    fn meet(self: &Rc<Self>, due: Due, deadline: u64, now: u64) {
        match due {
            Due::Away => self.expire_away(deadline, now),
            Due::Drain => self.drain_some(now),
            Due::Probe(link) => self.finish_probe(link, deadline),
            Due::Wall => self.look_at_wall(now),
            Due::Link(id) => {
                // Only the earliest deadline that was noted counts; whoever looks at the link notes the next.
                if let Some(link) = self.find_link(id)
                    && link.times.armed.get() == deadline
                {
                    link.times.armed.set(u64::MAX);
                    self.look_after(&link, now);
                }
            }
        }
    }

    /// Does what is due on a link, and notes when to look again.
    pub(super) fn look_after(self: &Rc<Self>, link: &Rc<Link>, now: u64) {
        self.end_pause(link, now);
        let times = &link.times;
        let role = link.role.borrow().clone();
        match (link.phase.get(), &role) {
            (Phase::Ended, _) => {}
            (Phase::Closing, _) if now >= times.limit.get() => self.end_link(link, false),
            (Phase::Authenticating, _) if now >= times.limit.get() => match role {
                Role::Engine(_) => self.close(link, CloseCode::Unauthorized, "no namespace was entered in time"),
                Role::Probe { .. } => self.close(link, CloseCode::Normal, "the upgrade did not come in time"),
                Role::Plain | Role::Echo => self.close(link, CloseCode::Unauthorized, "no token came in time"),
            },
            (Phase::Closing, _) | (Phase::Authenticating, Role::Plain | Role::Probe { .. } | Role::Echo) => {
                self.arm(link, times.limit.get());
            }
            (Phase::Open | Phase::Authenticating, _) => self.beat(link, now),
        }
    }

    fn beat(self: &Rc<Self>, link: &Rc<Link>, now: u64) {
        let times = &link.times;
        let config = &self.shared.config;
        if now >= times.limit.get() {
            // The first frame did not come in time.
            times.limit.set(u64::MAX);
            if link.only_connection().is_some_and(|connection| !self.settle(link, &connection)) {
                return;
            }
        }
        let unfinished = unfinished_deadline(link);
        if now >= unfinished {
            return self.close(link, CloseCode::GoingAway, "a message did not come to its end in time");
        }
        let gone = times.heard.get() + config.heartbeat_timeout.as_millis() as u64;
        let interval = config.heartbeat_interval.as_millis() as u64;
        let clock = &self.shared.clock;
        let first_to_expire = || {
            let expires = link.connections.borrow().iter().map(|connection| connection.expires.get()).min();
            clock.deadline_of(expires.unwrap_or(u64::MAX))
        };
        if now >= first_to_expire() {
            self.end_expired(link);
            if !link.is_up() {
                return;
            }
        }
        if now >= gone {
            return self.close(link, CloseCode::GoingAway, "the client did not answer heartbeats");
        }
        if now >= next_ping(times.pinged.get(), interval) {
            self.ping(link, now);
        }
        let next = next_ping(times.pinged.get(), interval);
        self.arm(link, gone.min(next).min(first_to_expire()).min(times.limit.get()).min(unfinished));
    }

    /// Sends a ping.
    pub(super) fn ping(&self, link: &Rc<Link>, now: u64) {
        link.times.pinged.set(now);
        self.note_ping(link);
        let ping = match &*link.role.borrow() {
            Role::Engine(_) => engineio::ping_frame(),
            Role::Plain | Role::Probe { .. } | Role::Echo => websocket::ping_frame(),
        };
        self.enqueue(link, ping);
    }

    /// Puts those out of a link whose tokens have expired. The transport ends with the last.
    pub(super) fn end_expired(self: &Rc<Self>, link: &Rc<Link>) {
        let reason = "the token has expired: connect with a new one";
        let now = self.shared.clock.wall_ms();
        let (expired, others): (Vec<_>, Vec<_>) =
            link.connections.borrow().iter().cloned().partition(|connection| connection.expires.get() <= now);
        if others.is_empty() {
            return self.close(link, CloseCode::TokenExpired, reason);
        }
        for connection in expired {
            self.put_out(link, &connection, Some((ErrorCode::Unauthorized, reason)), true);
        }
    }
}

/// When a link is to be pinged that last was at `pinged`, in milliseconds. Links that are due at about the same time are
/// pinged together, some a little early: to wake up for each of a thousand costs more than the pings.
fn next_ping(pinged: u64, interval: u64) -> u64 {
    let grid = (interval / PINGS_APART).max(1);
    (pinged + interval) / grid * grid
}
