//! Recovery: a connection outlives its transport for the recovery window, within which its client can resume it over
//! another.
//!
//! Each recoverable connection has a replay buffer of references to the events that it was sent, shared between all
//! recipients. The answer to a heartbeat confirms all entries from before the heartbeat, which are then dropped. A
//! client that resumes reports how far it received, and gets the rest.

use std::rc::Rc;

use super::parts::Shard;
use crate::auth;
use crate::conn::state::{Connection, Entry, ReplayBuffer, SessionKey, Timer, Transport};
use crate::hub::Progress;
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
    /// The connection may live on another node of the cluster.
    Abroad,
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

    pub(super) fn start_replay(&self, connection: &Connection) -> Option<SessionKey> {
        let mut secret = [0; 16];
        if let Err(error) = getrandom::fill(&mut secret) {
            tracing::error!(%error, "there is no randomness, so that a client cannot be given a session");
            return None;
        }
        let key = SessionKey::new(connection.id, u128::from_ne_bytes(secret));
        // Any node of a cluster can tell such a key from a forged one.
        let key = self.authentic(&key, &connection.protocol).unwrap_or(key);
        self.detached().start_replay(connection, ReplayBuffer::of_key(&key));
        Some(key)
    }

    /// The key of this connection and salt that the nodes of this cluster make. `None` without a cluster.
    pub(super) fn authentic(&self, key: &SessionKey, protocol: &Protocol) -> Option<SessionKey> {
        let place = match protocol {
            Protocol::Plain => "plain",
            Protocol::SocketIo { .. } => protocol.namespace(),
        };
        let secret = self.shared().plugins.session_secret(key.connection, place, key.salt())?;
        Some(SessionKey::new(key.connection, secret))
    }

    /// Records entries for replay, whether the connection is attached or detached.
    pub(super) fn record(&self, connection: &Rc<Connection>, entries: impl IntoIterator<Item = Entry>) {
        let mut max_bytes = self.config().outbox_bytes.saturating_sub(HEAD_ROOM);
        let is_detached = connection.transport.get().is_none();
        let is_held = is_detached && self.is_held(connection.id);
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

    /// Whether the frames for a connection are held, because it is not open on its transport yet.
    fn is_held(&self, id: ConnId) -> bool {
        self.pending_resumes().contains(id) || self.admissions().contains(id) || self.imports().is_arriving(id)
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
        if !is_kept || self.shutdown().is_draining() && !self.shared().plugins.has_other_nodes() || self.is_stopping() {
            return self.end_connection(connection);
        }
        self.publish_presence(connection.id, true);
        self.detach(connection);
    }

    /// Begins the recovery window of a connection that is on no transport.
    pub(super) fn detach(self: &Rc<Self>, connection: &Connection) {
        let detached = self.detached();
        let until = self.now() + self.config().recovery_window.as_millis() as u64;
        detached.with_replay(connection, |buffer| buffer.detach(until));
        self.metrics().away.inc();
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
    pub(super) fn count_out_detached(&self) {
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
        self.connection(id).filter(is_detached).filter(|_| !self.is_held(id))
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
        if let Some(arriving) = self.connection(id).filter(|_| until.is_none() && self.imports().is_arriving(id)) {
            return self.end_connection(&arriving);
        }
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
                if !self.is_held(connection.id) {
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
        if self.config().recovery_window.is_zero() {
            return ResumeOutcome::Gone;
        }
        if self.connection(key.connection).is_none() {
            return self.look_elsewhere(key.connection);
        }
        if self.exports().is_claimed(key.connection, self.now()) || self.imports().is_arriving(key.connection) {
            // Its client is at another node at the same time, or comes a second time.
            return ResumeOutcome::Gone;
        }
        let user = (&*session.identity.user, session.is_anonymous);
        let freed = self.free(&key, progress, user, namespace);
        freed.map_or(ResumeOutcome::Gone, |(connection, at)| ResumeOutcome::Here(connection, at))
    }

    /// Where a connection may be that is not on this shard.
    fn look_elsewhere(&self, id: ConnId) -> ResumeOutcome {
        let (hub, plugins) = (&self.shared().hub, &self.shared().plugins);
        if hub.identity(id).is_none() && plugins.may_be_abroad(id) {
            return ResumeOutcome::Abroad;
        }
        match hub.shard_of(id) {
            shard if shard >= hub.shards().len() => ResumeOutcome::Gone,
            shard if shard != self.index() => ResumeOutcome::Elsewhere(shard),
            _ => {
                tracing::debug!(connection = %id, "a client came back too late");
                ResumeOutcome::Gone
            }
        }
    }

    /// Frees a connection for its client, who has come back: it is detached then. `user`: the user as whom the client has
    /// signed in, and whether without a token. Returns it with the index of the first entry that the client lacks; `None`
    /// where it is not this client's, or lacks entries itself, and is ended.
    pub(super) fn free(
        self: &Rc<Self>,
        key: &SessionKey,
        progress: Progress,
        user: (&str, bool),
        namespace: &str,
    ) -> Option<(Rc<Connection>, usize)> {
        let connection = self.connection(key.connection)?;
        // The plain protocol counts frames, Socket.IO events.
        let is_its_count = matches!(connection.protocol, Protocol::Plain) == matches!(progress, Progress::Frames(_));
        let is_its_place = is_its_count && connection.namespace() == namespace;
        let is_its_own = is_its_place && self.is_same_user(&connection, user);
        let at = connection
            .with_replay(|buffer| (is_its_own && buffer.has_key(key)).then(|| buffer.resume_point(progress)))?;
        let Some(at) = at else {
            tracing::debug!(connection = %connection.id, "a client wanted to go on with what is not its own");
            return None;
        };
        // The client may return before the loss of its old transport was noticed.
        if let Some(old) = self.transport_of(&connection) {
            self.leave_namespace(&old, &connection, true);
            if old.connections.borrow().is_empty() {
                self.close(&old, CloseCode::Normal, "the client goes on over another connection");
            }
        }
        // It may have ended with its old transport, because the shard is stopping.
        self.connection(connection.id)?;
        if at.is_none() {
            tracing::debug!(connection = %connection.id, ?progress, "a client came back to what is not kept any more");
            self.drop_detached(connection.id, None);
        }
        at.map(|at| (connection, at))
    }

    fn is_same_user(&self, connection: &Connection, (user, is_anonymous): (&str, bool)) -> bool {
        let own = &connection.identity.borrow().user;
        // An anonymous client has a new name for each connection.
        **own == *user || is_anonymous && self.is_anonymous_name(connection.id, own)
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
