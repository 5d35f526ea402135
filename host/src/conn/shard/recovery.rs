//! Recovery: a connection outlives its transport for the recovery window, within which its client can resume it over
//! another.
//!
//! Each recoverable connection has a replay buffer of references to the events that it was sent, shared between all
//! recipients. The answer to a heartbeat confirms all entries from before the heartbeat, which are then dropped. A
//! client that resumes reports how far it received, and gets the rest.

use std::rc::Rc;

use super::parts::Shard;
use crate::auth;
use crate::conn::state::{Connection, Entry, Progress, ReplayBuffer, SessionKey, Timer, Transport};
use crate::model::{CloseCode, ConnId, ErrorCode, Failure};
use crate::protocol::{Outgoing, Protocol};

/// The most detached connections of one shard. Beyond that the first to expire is dropped.
const MAX_DETACHED: usize = 16_384;

/// Room in the outbox for the frame that tells a client that it has resumed, in bytes.
const HEAD_ROOM: usize = 512;

/// The outcome of a client's attempt to resume.
#[derive(Debug)]
pub(super) enum ResumeOutcome {
    /// The client resumes this connection, from this index in the replay buffer.
    Here(Rc<Connection>, usize),
    /// The connection lives on this other shard.
    Elsewhere(usize),
    /// The session does not exist, or lacks something that the client missed.
    Gone,
}

impl Shard {
    /// Begins to record the entries of a connection for replay. Returns the key with which its client resumes; `None`
    /// where recovery is off.
    pub(super) fn make_recoverable(&self, connection: &Connection) -> Option<SessionKey> {
        if self.config().recovery_window.is_zero() {
            return None;
        }
        self.start_replay(connection)
    }

    /// Begins to hold the frames for a connection that is on no transport yet. Returns whether they are held.
    pub(super) fn hold_frames(&self, connection: &Connection) -> bool {
        connection.is_recoverable() || self.start_replay(connection).is_some()
    }

    fn start_replay(&self, connection: &Connection) -> Option<SessionKey> {
        let mut secret = [0; 16];
        if let Err(error) = getrandom::fill(&mut secret) {
            tracing::error!(%error, "there is no randomness, so that a client cannot be given a session");
            return None;
        }
        let buffer = ReplayBuffer::new(u128::from_ne_bytes(secret));
        let key = buffer.key(connection.id);
        self.detached().start_replay(connection, buffer);
        Some(key)
    }

    /// Records entries for replay, whether the connection is attached or detached.
    pub(super) fn record(&self, connection: &Rc<Connection>, entries: impl IntoIterator<Item = Entry>) {
        let mut max_bytes = self.config().outbox_bytes.saturating_sub(HEAD_ROOM);
        let is_detached = connection.transport.get().is_none();
        let is_held = is_detached
            && (self.pending_resumes().contains(connection.id) || self.admissions().contains(connection.id));
        if is_held {
            // Held frames must be complete, so none is dropped here; over the outbox's bound they are no longer held.
            max_bytes = usize::MAX;
        }
        let is_incomplete = self.detached().with_replay(connection, |buffer| {
            entries.into_iter().for_each(|entry| buffer.append(entry, max_bytes));
            !buffer.is_complete() || is_held && buffer.memory().1 > self.config().outbox_bytes
        });
        if is_incomplete == Some(true) && is_detached {
            self.detached().note_incomplete(connection);
        }
    }

    /// Marks a ping that is sent on a transport, in the replay buffers of its connections.
    pub(super) fn replay_ping_sent(&self, transport: &Transport) {
        self.connections().each(&transport.connections.borrow(), |connection| {
            if connection.transport.get().is_some() {
                self.detached().with_replay(connection, ReplayBuffer::mark_ping);
            }
        });
    }

    /// Marks the answer to a ping on a transport, in the replay buffers of its connections.
    pub(super) fn replay_pong_received(&self, transport: &Transport) {
        self.connections().each(&transport.connections.borrow(), |connection| {
            self.detached().with_replay(connection, ReplayBuffer::mark_pong);
        });
    }

    /// Detaches a connection whose transport is lost, if its client may resume; else the connection ends.
    pub(super) fn on_transport_lost(self: &Rc<Self>, connection: &Rc<Connection>, may_resume: bool) {
        connection.transport.set(None);
        let is_held = self.pending_resumes().contains(connection.id);
        let is_kept = may_resume && !is_held && connection.is_recoverable();
        if !is_kept || self.shutdown().is_draining() || self.is_stopping() {
            return self.end_connection(connection);
        }
        let detached = self.detached();
        let until = self.now() + self.config().recovery_window.as_millis() as u64;
        detached.with_replay(connection, |buffer| buffer.detach(until));
        self.metrics().away.inc();
        self.publish_presence(connection.id, true);
        detached.push(until, connection.id);
        self.arm_detached();
        while detached.count() > MAX_DETACHED {
            let Some((until, id)) = detached.pop() else { break };
            self.drop_detached(id, Some(until));
        }
        if detached.queued() > 2 * MAX_DETACHED {
            detached.retain(|id, until| self.find_detached(id, Some(until)).is_some());
        }
    }

    /// Removes a detached connection that is resumed or ends from the counts.
    fn count_out_detached(&self) {
        self.detached().count_out();
        self.metrics().away.dec();
    }

    /// Publishes to features that subscribe to presence whether a connection is detached.
    fn publish_presence(&self, id: ConnId, is_away: bool) {
        if let Some(presence) = self.shared().hub.set_away(id, is_away) {
            self.shared().plugins.presence_changed(id, &presence);
        }
    }

    /// Sets the timer for the first detached connection that expires.
    fn arm_detached(&self) {
        if let Some(first) = self.detached().arm() {
            self.timers().schedule(first, Timer::Detached);
        }
    }

    /// The connection of an id, if it is detached; where `until` is given, only if it expires at that time.
    fn find_detached(&self, id: ConnId, until: Option<u64>) -> Option<Rc<Connection>> {
        let is_until = |buffer: &ReplayBuffer| until.is_none_or(|until| buffer.resumable_until == until);
        let is_detached = |connection: &Rc<Connection>| {
            connection.transport.get().is_none() && connection.with_replay(is_until) == Some(true)
        };
        self.connection(id)
            .filter(is_detached)
            .filter(|_| !self.pending_resumes().contains(id) && !self.admissions().contains(id))
    }

    /// Ends the detached connections that have expired.
    pub(super) fn expire_detached(self: &Rc<Self>, deadline: u64, now: u64) {
        if !self.detached().disarm(deadline) {
            return;
        }
        while let Some((until, id)) = self.detached().pop_expired(now) {
            self.drop_detached(id, Some(until));
        }
        self.arm_detached();
    }

    /// Ends a connection if it is detached; where `until` is given, only if it expires at that time.
    pub(super) fn drop_detached(self: &Rc<Self>, id: ConnId, until: Option<u64>) {
        if let Some(connection) = self.find_detached(id, until) {
            self.count_out_detached();
            self.end_connection(&connection);
        }
    }

    /// Whether the replay buffers of the host are over their budget, and those of this shard over its share.
    fn is_over_replay_budget(&self) -> bool {
        let limit = self.config().recovery_bytes;
        let share = limit / self.shared().hub.shards().len();
        let (own, all) = self.detached().kept_bytes();
        own > share || all > share && Outgoing::alive_bytes() > limit
    }

    /// Enforces the budget of the replay buffers: detached connections end, in the order of their expiry; then every
    /// buffer is halved.
    pub(super) fn enforce_replay_budget(self: &Rc<Self>) {
        for connection in self.detached().take_incomplete() {
            if self.pending_resumes().contains(connection.id) {
                self.confirm_by_id(&connection);
                continue;
            }
            if self.admissions().contains(connection.id) {
                let message = "more was sent to the connection than is held before it opens: try again";
                let failure = Failure::new(ErrorCode::FeatureUnavailable, message);
                self.refuse_admission(&connection, &failure, CloseCode::TryAgainLater);
                continue;
            }
            tracing::info!(connection = %connection.id, "a client that is away missed more than is kept for it");
            self.drop_detached(connection.id, None);
        }
        while self.is_over_replay_budget() {
            let Some((until, id)) = self.detached().pop() else { break };
            tracing::warn!(connection = %id, "a client that is away is given up, for recovery.memory_bytes is used up");
            self.drop_detached(id, Some(until));
        }
        if self.is_over_replay_budget() {
            self.connections().for_each(|connection| {
                // Frames that are held for a client that is about to open must be complete.
                let is_held =
                    self.pending_resumes().contains(connection.id) || self.admissions().contains(connection.id);
                if !is_held {
                    self.detached().with_replay(connection, ReplayBuffer::drop_older_half);
                }
            });
        }
    }

    /// Checks whether a client may resume a connection. A connection of this client that lacks entries is ended, and
    /// the client begins a new one.
    pub(super) fn try_resume(
        self: &Rc<Self>,
        key: SessionKey,
        progress: Progress,
        session: &auth::Session,
        namespace: &str,
    ) -> ResumeOutcome {
        let shard = key.connection.shard();
        if shard >= self.shared().hub.shards().len() {
            return ResumeOutcome::Gone;
        }
        if shard != self.index() {
            return ResumeOutcome::Elsewhere(shard);
        }
        let Some(connection) = self.connection(key.connection) else {
            tracing::debug!(connection = %key.connection, "a client came back too late");
            return ResumeOutcome::Gone;
        };
        let at = connection.with_replay(|buffer| {
            // The plain protocol counts frames, Socket.IO events.
            let is_its_count =
                matches!(connection.protocol, Protocol::Plain) == matches!(progress, Progress::Frames(_));
            let is_its_place = is_its_count && connection.namespace() == namespace;
            let is_its_own = buffer.has_key(&key) && is_its_place && self.is_same_user(&connection, session);
            is_its_own.then(|| buffer.resume_point(progress))
        });
        let at = match at {
            Some(Some(at)) => at,
            Some(None) => {
                tracing::debug!(connection = %connection.id, "a client wanted to go on with what is not its own");
                return ResumeOutcome::Gone;
            }
            None => return ResumeOutcome::Gone,
        };
        // The client may return before the loss of its old transport was noticed.
        if let Some(old) = self.transport_of(&connection) {
            self.leave_namespace(&old, &connection, true);
            if old.connections.borrow().is_empty() {
                self.close(&old, CloseCode::Normal, "the client goes on over another connection");
            }
        }
        if self.connection(connection.id).is_none() {
            // The connection ended with its old transport, because the shard is stopping.
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

    fn is_same_user(&self, connection: &Connection, session: &auth::Session) -> bool {
        let user = &connection.identity.borrow().user;
        // An anonymous client has a new name for each connection.
        *user == session.identity.user || session.is_anonymous && self.is_anonymous_name(connection.id, user)
    }

    /// Attaches a detached connection to a transport, after [`Shard::try_resume`]. [`Shard::send_replay`] follows.
    pub(super) fn attach(&self, transport: &Rc<Transport>, connection: &Rc<Connection>, session: auth::Session) {
        self.count_out_detached();
        self.metrics().recovered.inc();
        if !session.is_anonymous {
            self.adopt_session(connection, session);
        }
        // Before any event that the client sends from now on, and with the identity of the new token.
        self.publish_presence(connection.id, false);
        connection.transport.set(Some(transport.id));
        transport.connections.borrow_mut().push(connection.id);
    }

    /// Sends the frames that a client has missed, from index `at` in the replay buffer.
    pub(super) fn send_replay(self: &Rc<Self>, transport: &Rc<Transport>, connection: &Connection, at: usize) {
        let frames = self.detached().with_replay(connection, |buffer| buffer.frames_from(at, &connection.protocol));
        for frames in frames.into_iter().flatten().filter(|frames| !frames.is_empty()) {
            self.enqueue(transport, frames);
        }
    }
}
