//! What is due on a shard, and when: heartbeats, the ends of tokens, and whatever has its time.

use std::cmp::Reverse;
use std::rc::Rc;

use super::incomplete::incomplete_deadline;
use super::parts::Shard;
use crate::conn::state::transport::{Phase, Session, Transport, TransportId};
use crate::model::{CloseCode, ErrorCode};
use crate::protocol::{engineio, websocket};

/// Deadlines after which what they queued is written, and others have their turn.
const DEADLINES_IN_A_ROW: usize = 256;

/// Of an interval between pings, the part that they may be early.
const PINGS_APART: u64 = 50;

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::conn) enum Timer {
    Transport(TransportId),
    /// The answer to a probe must have come.
    Probe(TransportId),
    /// A client has been away for as long as it may.
    Detached,
    /// Some connections have their turn to be closed before the host ends.
    Drain,
    /// Time to see whether the system's clock was put back or ahead.
    WallClock,
}

impl Shard {
    /// Has the shard look at a transport again at `deadline`, in milliseconds of uptime.
    pub(in crate::conn) fn arm(&self, transport: &Transport, deadline: u64) {
        if deadline < transport.times.armed.get() {
            transport.times.armed.set(deadline);
            self.schedule(deadline, Timer::Transport(transport.id));
        }
    }

    pub(in crate::conn) fn schedule(&self, deadline: u64, due: Timer) {
        let mut deadlines = self.timers.borrow_mut();
        let is_first = deadlines.peek().is_none_or(|Reverse((first, _))| deadline < *first);
        deadlines.push(Reverse((deadline, due)));
        if is_first {
            self.earlier_timer.notify_one();
        }
    }

    pub(in crate::conn) async fn next_timer(&self) {
        loop {
            let next = self.timers.borrow().peek().map(|Reverse((deadline, _))| *deadline);
            match next {
                Some(deadline) => tokio::select! {
                    () = self.shared.clock.sleep_until(deadline) => return,
                    () = self.earlier_timer.notified() => {}
                },
                None => self.earlier_timer.notified().await,
            }
        }
    }

    /// Does what is due. Says whether there is more, so that others have their turn before.
    pub(in crate::conn) fn run_due_timers(self: &Rc<Self>) -> bool {
        let now = self.shared.clock.uptime_ms();
        let is_due = |next: Option<&Reverse<(u64, Timer)>>| next.is_some_and(|Reverse((deadline, _))| *deadline <= now);
        for _ in 0..DEADLINES_IN_A_ROW {
            let due = {
                let mut deadlines = self.timers.borrow_mut();
                if is_due(deadlines.peek()) { deadlines.pop() } else { None }
            };
            let Some(Reverse((deadline, due))) = due else { break };
            self.run_timer(due, deadline, now);
        }
        self.flush_dirty();
        is_due(self.timers.borrow().peek())
    }

    /// Looks after what is due now.
    fn run_timer(self: &Rc<Self>, due: Timer, deadline: u64, now: u64) {
        match due {
            Timer::Detached => self.expire_detached(deadline, now),
            Timer::Drain => self.drain_some(now),
            Timer::Probe(transport) => self.finish_probe(transport, deadline),
            Timer::WallClock => self.check_wall_clock(now),
            Timer::Transport(id) => {
                // Only the earliest deadline that was noted counts; whoever looks at the transport notes the next.
                if let Some(transport) = self.find_transport(id)
                    && transport.times.armed.get() == deadline
                {
                    transport.times.armed.set(u64::MAX);
                    self.check_transport(&transport, now);
                }
            }
        }
    }

    /// Does what is due on a transport, and notes when to look again.
    pub(in crate::conn) fn check_transport(self: &Rc<Self>, transport: &Rc<Transport>, now: u64) {
        self.resume_reading(transport, now);
        let times = &transport.times;
        let session = transport.session.borrow().clone();
        match (transport.phase.get(), &session) {
            (Phase::Ended, _) => {}
            (Phase::Closing, _) if now >= times.limit.get() => self.shutdown_transport(transport, false),
            (Phase::Authenticating, _) if now >= times.limit.get() => match session {
                Session::Eio(_) => self.close(transport, CloseCode::Unauthorized, "no namespace was entered in time"),
                Session::Probe { .. } => self.close(transport, CloseCode::Normal, "the upgrade did not come in time"),
                Session::Plain | Session::Echo => {
                    self.close(transport, CloseCode::Unauthorized, "no token came in time")
                }
            },
            (Phase::Closing, _) | (Phase::Authenticating, Session::Plain | Session::Probe { .. } | Session::Echo) => {
                self.arm(transport, times.limit.get());
            }
            (Phase::Open | Phase::Authenticating, _) => self.heartbeat(transport, now),
        }
    }

    fn heartbeat(self: &Rc<Self>, transport: &Rc<Transport>, now: u64) {
        let times = &transport.times;
        let config = &self.shared.config;
        if now >= times.limit.get() {
            // The first frame did not come in time.
            times.limit.set(u64::MAX);
            if transport.only_connection().is_some_and(|connection| !self.confirm(transport, &connection)) {
                return;
            }
        }
        let unfinished = incomplete_deadline(transport);
        if now >= unfinished {
            return self.close(transport, CloseCode::GoingAway, "a message did not come to its end in time");
        }
        let gone = times.heard.get() + config.heartbeat_timeout.as_millis() as u64;
        let interval = config.heartbeat_interval.as_millis() as u64;
        let clock = &self.shared.clock;
        let first_to_expire = || {
            let expires = transport.connections.borrow().iter().map(|connection| connection.expires.get()).min();
            clock.deadline_of(expires.unwrap_or(u64::MAX))
        };
        if now >= first_to_expire() {
            self.end_expired(transport);
            if !transport.is_up() {
                return;
            }
        }
        if now >= gone {
            return self.close(transport, CloseCode::GoingAway, "the client did not answer heartbeats");
        }
        if now >= next_ping(times.pinged.get(), interval) {
            self.ping(transport, now);
        }
        let next = next_ping(times.pinged.get(), interval);
        self.arm(transport, gone.min(next).min(first_to_expire()).min(times.limit.get()).min(unfinished));
    }

    /// Sends a ping.
    pub(in crate::conn) fn ping(&self, transport: &Rc<Transport>, now: u64) {
        transport.times.pinged.set(now);
        self.replay_ping_sent(transport);
        let ping = match &*transport.session.borrow() {
            Session::Eio(_) => engineio::ping_frame(),
            Session::Plain | Session::Probe { .. } | Session::Echo => websocket::ping_frame(),
        };
        self.enqueue(transport, ping);
    }

    /// Puts those out of a transport whose tokens have expired. The transport ends with the last.
    pub(in crate::conn) fn end_expired(self: &Rc<Self>, transport: &Rc<Transport>) {
        let reason = "the token has expired: connect with a new one";
        let now = self.shared.clock.wall_ms();
        let (expired, others): (Vec<_>, Vec<_>) =
            transport.connections.borrow().iter().cloned().partition(|connection| connection.expires.get() <= now);
        if others.is_empty() {
            return self.close(transport, CloseCode::TokenExpired, reason);
        }
        for connection in expired {
            self.disconnect_namespace(transport, &connection, Some((ErrorCode::Unauthorized, reason)), true);
        }
    }
}

/// When a transport is to be pinged that last was at `pinged`, in milliseconds. Transports that are due at about the same time are
/// pinged together, some a little early: to wake up for each of a thousand costs more than the pings.
fn next_ping(pinged: u64, interval: u64) -> u64 {
    let grid = (interval / PINGS_APART).max(1);
    (pinged + interval) / grid * grid
}
