//! What is kept for a client that lost its transport and may come back: its place in everything, and what it has not had.
//!
//! Each recoverable connection keeps a log of what it was sent: references to events that it shares with all who got
//! them. The answer to a heartbeat says that the client has everything from before it, which is then let go. When the
//! client comes back, it says how far it got, and is sent the rest.

use std::rc::Rc;

use super::parts::Shard;
use super::timers::Timer;
use crate::auth::Session;
use crate::conn::state::connection::Connection;
use crate::conn::state::replay::{Entry, Progress, ReplayBuffer, SessionKey};
use crate::conn::state::transport::Transport;
use crate::model::{CloseCode, ConnId};
use crate::protocol::{Outgoing, Protocol};

/// Clients that are away, of one shard, at most. Of more the first to expire is given up.
const MAX_DETACHED: usize = 16_384;

/// What the frame that says that a client goes on may take of the room that is left for the rest, in bytes.
const HEAD_ROOM: usize = 512;

/// What became of a client's wish to go on with a connection.
#[derive(Debug)]
pub(in crate::conn) enum ResumeOutcome {
    /// It may, from this place in the connection's log.
    Here(Rc<Connection>, usize),
    /// Another shard knows.
    Elsewhere(usize),
    /// There is nothing to go on with.
    Gone,
}

impl Shard {
    /// Keeps what is sent to a connection from now on, so that its client may come back. Gives what the client proves
    /// itself by; none where nothing is kept.
    pub(in crate::conn) fn make_recoverable(&self, connection: &Connection) -> Option<SessionKey> {
        if self.shared.config.recovery_window.is_zero() {
            return None;
        }
        let mut secret = [0; 16];
        if let Err(error) = getrandom::fill(&mut secret) {
            tracing::error!(%error, "there is no randomness, so that a client cannot be given a session");
            return None;
        }
        let recovery = ReplayBuffer::new(u128::from_ne_bytes(secret));
        let key = recovery.key(connection.id);
        *connection.replay.borrow_mut() = Some(Box::new(recovery));
        Some(key)
    }

    /// Notes what a connection is sent, or would be if its client were here.
    pub(in crate::conn) fn record(&self, connection: &Rc<Connection>, entries: impl IntoIterator<Item = Entry>) {
        let mut max_bytes = self.shared.config.outbox_bytes.saturating_sub(HEAD_ROOM);
        let is_detached = connection.transport.borrow().is_none();
        let is_held = is_detached && self.pending_resumes.contains(connection.id);
        if is_held {
            // It lacks nothing, but waits for no more than others may: then it waits no longer.
            max_bytes = usize::MAX;
        }
        let is_lacking = self.with_replay(connection, |recovery| {
            entries.into_iter().for_each(|entry| recovery.append(entry, max_bytes));
            !recovery.is_whole() || is_held && recovery.memory().1 > self.shared.config.outbox_bytes
        });
        if is_lacking == Some(true) && is_detached {
            // What it lacks is lost, so that coming back would be no recovery.
            self.incomplete.borrow_mut().push(connection.clone());
        }
    }

    /// Does something to a connection's log, if it has one, and keeps count of what all logs take.
    pub(in crate::conn) fn with_replay<T>(
        &self,
        connection: &Connection,
        change: impl FnOnce(&mut ReplayBuffer) -> T,
    ) -> Option<T> {
        let mut recovery = connection.replay.borrow_mut();
        let recovery = recovery.as_deref_mut()?;
        let before = recovery.memory();
        let changed = change(recovery);
        self.count_kept(before, recovery.memory());
        Some(changed)
    }

    fn count_kept(&self, before: (usize, usize), after: (usize, usize)) {
        let (own, all) = self.kept_bytes.get();
        self.kept_bytes.set((own + after.0 - before.0, all + after.1 - before.1));
    }

    /// A ping goes out on a transport.
    pub(in crate::conn) fn replay_ping_sent(&self, transport: &Transport) {
        for connection in
            transport.connections.borrow().iter().filter(|connection| connection.transport.borrow().is_some())
        {
            self.with_replay(connection, ReplayBuffer::ping);
        }
    }

    /// The client on a transport answered a ping.
    pub(in crate::conn) fn replay_pong_received(&self, transport: &Transport) {
        for connection in &*transport.connections.borrow() {
            self.with_replay(connection, ReplayBuffer::pong);
        }
    }

    /// Forgets what was kept for a connection that is gone.
    pub(in crate::conn) fn drop_replay(&self, connection: &Connection) {
        if let Some(recovery) = connection.replay.take() {
            self.count_kept(recovery.memory(), (0, 0));
        }
    }

    /// The transport of a connection is lost. Keeps the connection for a while if its client may come back; else it departs.
    pub(in crate::conn) fn on_transport_lost(self: &Rc<Self>, connection: &Rc<Connection>, may_return: bool) {
        connection.transport.replace(None);
        let is_held = self.pending_resumes.contains(connection.id);
        let may_be_kept = may_return && !is_held && connection.replay.borrow().is_some();
        if !may_be_kept || self.is_draining() || self.is_stopping() {
            return self.depart(connection);
        }
        let until = self.shared.clock.uptime_ms() + self.shared.config.recovery_window.as_millis() as u64;
        self.with_replay(connection, |recovery| recovery.detach(until));
        self.count_detached(1);
        self.publish_presence(connection.id, true);
        self.detached.borrow_mut().push_back((until, connection.id));
        self.arm_detached();
        while self.n_detached.get() > MAX_DETACHED {
            let first = self.detached.borrow_mut().pop_front();
            let Some((until, id)) = first else { break };
            self.drop_detached(id, Some(until));
        }
        if self.detached.borrow().len() > 2 * MAX_DETACHED {
            self.detached.borrow_mut().retain(|(until, id)| self.find_detached(*id, Some(*until)).is_some());
        }
    }

    /// Counts a client that is away, or is so no more.
    fn count_detached(&self, by: i64) {
        self.n_detached.set(self.n_detached.get().saturating_add_signed(by as isize));
        self.shared.metrics.away.add(by);
    }

    /// Has the features told that want to know whether a connection's client is away.
    fn publish_presence(&self, id: ConnId, is_away: bool) {
        if let Some(presence) = self.shared.hub.set_away(id, is_away) {
            self.shared.plugins.presence_changed(id, &presence);
        }
    }

    /// Notes when the first of those who are away will have been so for too long.
    fn arm_detached(&self) {
        let first = self.detached.borrow().front().map(|(until, _)| *until);
        if let Some(first) = first.filter(|first| *first < self.detached_armed.get()) {
            self.detached_armed.set(first);
            self.schedule(first, Timer::Detached);
        }
    }

    /// The connection of this id, if its client is away, and that until this time where one is given.
    fn find_detached(&self, id: ConnId, until: Option<u64>) -> Option<Rc<Connection>> {
        let is_it = |connection: &Rc<Connection>| {
            let of_time = |recovery: &ReplayBuffer| until.is_none_or(|until| recovery.away_until == until);
            connection.transport.borrow().is_none() && connection.replay.borrow().as_deref().is_some_and(of_time)
        };
        self.find(id).filter(is_it).filter(|_| !self.pending_resumes.contains(id))
    }

    /// Ends the connections whose clients stayed away for too long.
    pub(in crate::conn) fn expire_detached(self: &Rc<Self>, deadline: u64, now: u64) {
        // As with transports, only the earliest deadline that was noted counts.
        if self.detached_armed.get() != deadline {
            return;
        }
        self.detached_armed.set(u64::MAX);
        loop {
            let first = self.detached.borrow_mut().pop_front_if(|(until, _)| *until <= now);
            let Some((until, id)) = first else { break };
            self.drop_detached(id, Some(until));
        }
        self.arm_detached();
    }

    /// Ends a connection whose client is away, and that until this time where one is given.
    pub(in crate::conn) fn drop_detached(self: &Rc<Self>, id: ConnId, until: Option<u64>) {
        if let Some(connection) = self.find_detached(id, until) {
            self.count_detached(-1);
            self.depart(&connection);
        }
    }

    /// Whether all that is kept takes more memory than it may, and that is this shard's doing.
    fn is_over_budget(&self) -> bool {
        let limit = self.shared.config.recovery_bytes;
        let share = limit / self.shared.hub.shards().len();
        let (own, all) = self.kept_bytes.get();
        own > share || all > share && Outgoing::alive_bytes() > limit
    }

    /// Keeps less, where what is kept takes more memory than it may: clients that are away go first, those that have been
    /// away the longest before others; then every log is halved.
    pub(in crate::conn) fn enforce_replay_budget(self: &Rc<Self>) {
        for connection in self.incomplete.take() {
            if self.pending_resumes.contains(connection.id) {
                self.confirm_by_id(&connection);
                continue;
            }
            tracing::info!(connection = %connection.id, "a client that is away missed more than is kept for it");
            self.drop_detached(connection.id, None);
        }
        if !self.is_over_budget() {
            return;
        }
        while self.is_over_budget() {
            let first = self.detached.borrow_mut().pop_front();
            let Some((until, id)) = first else { break };
            tracing::warn!(connection = %id, "a client that is away is given up, for recovery.memory_bytes is used up");
            self.drop_detached(id, Some(until));
        }
        if self.is_over_budget() {
            let is_held = |connection: &Connection| self.pending_resumes.contains(connection.id);
            for (_, connection) in self.connections.borrow().iter().filter(|(_, connection)| !is_held(connection)) {
                self.with_replay(connection, ReplayBuffer::halve);
            }
        }
    }

    /// Whether somebody may go on with a connection. One that it may not go on with, though it was its own, ends: its
    /// client is here again, and begins anew.
    pub(in crate::conn) fn try_resume(
        self: &Rc<Self>,
        key: SessionKey,
        progress: Progress,
        session: &Session,
        namespace: &str,
    ) -> ResumeOutcome {
        let shard = key.connection.shard();
        if shard >= self.shared.hub.shards().len() {
            return ResumeOutcome::Gone;
        }
        if shard != self.index {
            return ResumeOutcome::Elsewhere(shard);
        }
        let Some(connection) = self.find(key.connection) else {
            tracing::debug!(connection = %key.connection, "a client came back too late");
            return ResumeOutcome::Gone;
        };
        let at = {
            let recovery = connection.replay.borrow();
            let Some(recovery) = recovery.as_deref() else { return ResumeOutcome::Gone };
            // Each protocol counts in its own way.
            let is_its_way = matches!(connection.protocol, Protocol::Plain) == matches!(progress, Progress::Frames(_));
            let is_its_place = is_its_way && connection.namespace() == namespace;
            if !recovery.opens_with(&key) || !is_its_place || !self.is_same_user(&connection, session) {
                tracing::debug!(connection = %connection.id, "a client wanted to go on with what is not its own");
                return ResumeOutcome::Gone;
            }
            recovery.resume_point(progress)
        };
        // The client may be back before its old transport is known to be lost.
        let old = connection.transport.borrow().clone();
        if let Some(old) = old {
            self.leave_namespace(&old, &connection, true);
            if old.connections.borrow().is_empty() {
                self.close(&old, CloseCode::Normal, "the client goes on over another connection");
            }
        }
        if self.find(connection.id).is_none() {
            // It departed with its old transport, for the host ends.
            return ResumeOutcome::Gone;
        }
        match at {
            Some(at) => ResumeOutcome::Here(connection, at),
            None => {
                tracing::debug!(connection = %connection.id, ?progress, "a client came back to what is not kept any more");
                self.drop_detached(connection.id, None);
                ResumeOutcome::Gone
            }
        }
    }

    fn is_same_user(&self, connection: &Connection, session: &Session) -> bool {
        let user = &connection.identity.borrow().user;
        // Whoever is nobody is a new nobody each time.
        *user == session.identity.user || session.is_anonymous && self.is_anonymous_name(connection.id, user)
    }

    /// Lets a connection go on over a transport, whose person was checked. What its client has not had follows in
    /// [`Shard::send_replay`].
    pub(in crate::conn) fn attach(&self, transport: &Rc<Transport>, connection: &Rc<Connection>, session: Session) {
        self.count_detached(-1);
        self.shared.metrics.recovered.inc();
        if !session.is_anonymous {
            self.adopt_identity(connection, session);
        }
        // Before anything that the client sends now, and as who the new token says.
        self.publish_presence(connection.id, false);
        *connection.transport.borrow_mut() = Some(transport.clone());
        transport.connections.borrow_mut().push(connection.clone());
    }

    /// Sends what a client has not had, which begins at this place in its connection's log.
    pub(in crate::conn) fn send_replay(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Connection, at: usize) {
        let rest = self.with_replay(connection, |recovery| recovery.rest(at, &connection.protocol));
        for frames in rest.into_iter().flatten().filter(|frames| !frames.is_empty()) {
            self.enqueue(transport, frames);
        }
    }
}
