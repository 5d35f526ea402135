//! Deadlines: heartbeats, time limits, and the expiry of tokens.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use super::parts::Shard;
use crate::conn::state::{Phase, Session, Timer, Transport};
use crate::model::{CloseCode, ErrorCode, Payload};
use crate::protocol::{engineio, websocket};

/// Timers per turn; after them queued frames are written, and other work of the shard has its turn.
const TIMERS_IN_A_ROW: usize = 256;

/// A ping may be early by the heartbeat interval divided by this.
const PINGS_APART: u64 = 50;

/// Time between two checks of the system's clock, in milliseconds of uptime: a token that expired while the machine
/// slept is accepted for at most this time after the machine wakes.
const WALL_CHECK_MS: u64 = 2000;

impl Shard {
    /// Has a transport checked at `deadline`, in milliseconds of uptime, unless it is checked before.
    pub(super) fn arm(&self, transport: &Transport, deadline: u64) {
        if deadline < transport.times.armed.get() {
            transport.times.armed.set(deadline);
            self.timers().schedule(deadline, Timer::Transport(transport.id));
        }
    }

    /// Limits the time until a transport is signed in or closed.
    pub(super) fn set_limit(&self, transport: &Transport, timeout: Duration) {
        let limit = self.now() + timeout.as_millis() as u64;
        transport.times.limit.set(limit);
        self.arm(transport, limit);
    }

    /// Runs the timers that are due. Returns whether more are due, which wait for the next turn.
    pub(super) fn run_due_timers(self: &Rc<Self>) -> bool {
        let now = self.now();
        for _ in 0..TIMERS_IN_A_ROW {
            let Some((deadline, timer)) = self.timers().pop_due(now) else { break };
            self.run_timer(timer, deadline, now);
        }
        self.flush_dirty();
        self.timers().is_due(now)
    }

    fn run_timer(self: &Rc<Self>, timer: Timer, deadline: u64, now: u64) {
        match timer {
            Timer::Detached => self.expire_detached(deadline, now),
            Timer::Drain => self.drain_some(now),
            Timer::Probe(transport) => self.finish_probe(transport, deadline),
            Timer::Admission(connection) => self.on_admission_timeout(connection),
            Timer::WallClock => self.check_wall_clock(now),
            Timer::Transport(id) => {
                // Only the earliest timer of a transport counts. The check sets the next.
                if let Some(transport) = self.transport(id)
                    && transport.times.armed.get() == deadline
                {
                    transport.times.armed.set(u64::MAX);
                    self.check_transport(&transport, now);
                }
            }
        }
    }

    /// Checks the time limits and the heartbeat of a transport, and sets the timer for its next check.
    pub(super) fn check_transport(self: &Rc<Self>, transport: &Rc<Transport>, now: u64) {
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
                    self.close(transport, CloseCode::Unauthorized, "no token came in time");
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
        if now >= times.limit.get() {
            // The first frame of a client that may resume did not come in time.
            times.limit.set(u64::MAX);
            if self.first_connection(transport).is_some_and(|connection| !self.confirm(transport, &connection)) {
                return;
            }
        }
        let incomplete = transport.incomplete_deadline();
        if now >= incomplete {
            return self.close(transport, CloseCode::GoingAway, "a message did not come to its end in time");
        }
        let gone = times.heard.get() + self.config().heartbeat_timeout.as_millis() as u64;
        let interval = self.config().heartbeat_interval.as_millis() as u64;
        let first_expiry = || {
            let expires = self.connections().first_expiry(&transport.connections.borrow());
            self.shared().clock.deadline_of(expires)
        };
        if now >= first_expiry() {
            self.warn_of_expiry(transport);
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
        self.arm(transport, gone.min(next).min(first_expiry()).min(times.limit.get()).min(incomplete));
    }

    pub(super) fn ping(&self, transport: &Rc<Transport>, now: u64) {
        transport.times.pinged.set(now);
        self.replay_ping_sent(transport);
        let ping = match &*transport.session.borrow() {
            Session::Eio(_) => engineio::ping_frame(),
            Session::Plain | Session::Probe { .. } | Session::Echo => websocket::ping_frame(),
        };
        self.enqueue(transport, ping);
    }

    /// Tells the clients of a transport whose tokens expire soon.
    fn warn_of_expiry(self: &Rc<Self>, transport: &Rc<Transport>) {
        let now = self.shared().clock.wall_ms();
        for connection in self.connections_of(transport) {
            if connection.warns.get() > now {
                continue;
            }
            connection.warns.set(u64::MAX);
            let expires_at = connection.expires.get();
            if expires_at > now {
                let data = json!({ "expiresAt": expires_at, "inMs": expires_at - now });
                self.notify(&connection, "auth:expiring", &Payload::of_json(&data));
            }
        }
    }

    /// Disconnects the connections of a transport whose tokens have expired. The transport is closed with the last.
    fn end_expired(self: &Rc<Self>, transport: &Rc<Transport>) {
        let reason = "the token has expired: connect with a new one";
        let now = self.shared().clock.wall_ms();
        let (expired, others): (Vec<_>, Vec<_>) =
            self.connections_of(transport).into_iter().partition(|connection| connection.expires.get() <= now);
        if expired.is_empty() {
            return;
        }
        if others.is_empty() {
            return self.close(transport, CloseCode::TokenExpired, reason);
        }
        for connection in expired {
            self.disconnect_namespace(transport, &connection, Some((ErrorCode::Unauthorized, reason)), true);
        }
    }

    /// Begins to watch the system's clock, because a token has an expiry.
    pub(super) fn watch_wall_clock(&self) {
        if self.wall_clock().start(&self.shared().clock) {
            self.timers().schedule(self.now() + WALL_CHECK_MS, Timer::WallClock);
        }
    }

    /// Checks the transports with expiring tokens if the system's clock has jumped, or went on while the machine slept.
    fn check_wall_clock(self: &Rc<Self>, now: u64) {
        let Some(by_ms) = self.wall_clock().take_jump(&self.shared().clock) else { return };
        if by_ms != 0 {
            tracing::debug!(by_ms, "the system's clock has jumped: tokens expire by it");
            let expires =
                |transport: &Transport| self.connections().first_expiry(&transport.connections.borrow()) != u64::MAX;
            self.transports().filtered(expires).iter().for_each(|transport| self.check_transport(transport, now));
        }
        if self.connections().is_empty() {
            self.wall_clock().stop();
        } else {
            self.timers().schedule(now + WALL_CHECK_MS, Timer::WallClock);
        }
    }
}

/// When a transport that was last pinged at `pinged` is to be pinged again, in milliseconds. Transports that are due at
/// about the same time are pinged together, some a little early: waking up for each costs more than the pings.
fn next_ping(pinged: u64, interval: u64) -> u64 {
    let grid = (interval / PINGS_APART).max(1);
    (pinged + interval) / grid * grid
}
