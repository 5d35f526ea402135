//! What is kept for a client that lost its link and may come back: its place in everything, and what it has not had.
//!
//! Each recoverable connection keeps a log of what it was sent: references to events that it shares with all who got
//! them. The answer to a heartbeat says that the client has everything from before it, which is then let go. When the
//! client comes back, it says how far it got, and is sent the rest.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use subtle::ConstantTimeEq as _;

use super::connection::Connection;
use super::link::Link;
use super::shard::{Due, Shard};
use crate::auth::Session;
use crate::model::{CloseCode, ConnId};
use crate::protocol::{Outgoing, Protocol};

/// Clients that are away, of one shard, at most. Of more the first to expire is given up.
const MAX_AWAY: usize = 16_384;

/// What a reference to an event in a log takes, in bytes.
const ENTRY_BYTES: usize = size_of::<Entry>();

/// By what a client that comes back proves that a connection was its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionKey {
    pub(super) connection: ConnId,
    secret: u128,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:032x}", self.connection, self.secret)
    }
}

impl FromStr for SessionKey {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (connection, secret) = text.split_at_checked(16).filter(|(_, secret)| secret.len() == 32).ok_or(())?;
        Ok(Self {
            connection: connection.parse().map_err(drop)?,
            secret: u128::from_str_radix(secret, 16).map_err(drop)?,
        })
    }
}

/// How far a client says that it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// So many frames of its session.
    Frames(u64),
    /// The event of this number was the last; none for no event at all.
    Event(Option<u64>),
}

/// What was sent, or would have been.
#[derive(Debug)]
pub(super) enum Entry {
    Event(Arc<Outgoing>),
    /// For this connection alone.
    Frames(Box<Bytes>),
}

impl Entry {
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Event(outgoing) => outgoing.bytes(),
                Self::Frames(frames) => frames.len(),
            }
    }

    pub(super) fn frames(&self, protocol: &Protocol) -> Bytes {
        match self {
            Self::Event(outgoing) => outgoing.frames(protocol),
            Self::Frames(frames) => (**frames).clone(),
        }
    }
}

/// What is kept for one connection.
#[derive(Debug)]
pub(super) struct Recovery {
    secret: u128,
    log: VecDeque<Entry>,
    bytes: usize,
    /// Entries that were let go from the front of the log.
    n_gone: u64,
    /// The last event among them: the client may well have got just so far.
    last_gone: Option<u64>,
    /// Entries that there had been when the last ping went out.
    pinged: u64,
    /// Entries that there had been when its client was last lost: of those before, it may have more than is known.
    parted: u64,
    /// Until when its client, where it is away, is waited for, in milliseconds of uptime.
    away_until: u64,
}

impl Recovery {
    pub(super) fn key(&self, connection: ConnId) -> SessionKey {
        SessionKey { connection, secret: self.secret }
    }

    fn new(secret: u128) -> Self {
        Self { secret, log: VecDeque::new(), bytes: 0, n_gone: 0, last_gone: None, pinged: 0, parted: 0, away_until: 0 }
    }

    /// Notes what was sent, or would have been. The oldest is let go for it.
    fn note(&mut self, entry: Entry, max_bytes: usize) {
        self.bytes += entry.bytes();
        self.log.push_back(entry);
        while self.bytes > max_bytes && self.pop() {}
    }

    /// Entries that there have been.
    fn n_entries(&self) -> u64 {
        self.n_gone + self.log.len() as u64
    }

    /// Whether a client that is away can have all that it missed.
    fn is_whole(&self) -> bool {
        self.n_gone <= self.parted
    }

    fn pop(&mut self) -> bool {
        let Some(entry) = self.log.pop_front() else { return false };
        self.bytes -= entry.bytes();
        self.n_gone += 1;
        if let Entry::Event(outgoing) = entry {
            self.last_gone = Some(outgoing.number());
        }
        true
    }

    fn ping(&mut self) {
        self.pinged = self.n_entries();
    }

    /// The client has everything from before the last ping.
    fn pong(&mut self) {
        while self.n_gone < self.pinged && self.pop() {}
        self.log.shrink_to(self.log.len() * 2);
    }

    /// Lets the older half of the log go.
    fn halve(&mut self) {
        for _ in 0..self.log.len().div_ceil(2) {
            self.pop();
        }
        self.log.shrink_to_fit();
    }

    /// Where in the log the rest begins that a client has not had. None where that is not known, or not kept.
    fn rest_of(&self, progress: Progress) -> Option<usize> {
        match progress {
            Progress::Frames(n) => {
                let at = n.checked_sub(self.n_gone)?;
                (at <= self.log.len() as u64).then_some(at as usize)
            }
            Progress::Event(None) => (self.n_gone == 0).then_some(0),
            Progress::Event(last) if last == self.last_gone => Some(0),
            Progress::Event(Some(number)) => {
                let is_it = |entry: &Entry| matches!(entry, Entry::Event(outgoing) if outgoing.number() == number);
                self.log.iter().rposition(is_it).map(|at| at + 1)
            }
        }
    }

    /// What it takes in memory but for the events that it shares.
    fn own_bytes(&self) -> usize {
        self.log.capacity() * ENTRY_BYTES
    }
}

/// What became of a client's wish to go on with a connection.
#[derive(Debug)]
pub(super) enum Reclaimed {
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
    pub(super) fn make_recoverable(&self, connection: &Connection) -> Option<SessionKey> {
        if self.shared.config.recovery_window.is_zero() {
            return None;
        }
        let mut secret = [0; 16];
        if let Err(error) = getrandom::fill(&mut secret) {
            tracing::error!(%error, "there is no randomness, so that a client cannot be given a session");
            return None;
        }
        let recovery = Recovery::new(u128::from_ne_bytes(secret));
        let key = recovery.key(connection.id);
        *connection.recovery.borrow_mut() = Some(Box::new(recovery));
        Some(key)
    }

    /// Notes what a connection is sent, or would be if its client were here.
    pub(super) fn note(self: &Rc<Self>, connection: &Rc<Connection>, entry: Entry) {
        let mut recovery = connection.recovery.borrow_mut();
        let Some(recovery) = recovery.as_deref_mut() else { return };
        self.note_in(recovery, connection, entry, connection.link.borrow().is_none());
    }

    /// As [`Shard::note`], for who has the log at hand already and knows whether the client is away.
    pub(super) fn note_in(&self, recovery: &mut Recovery, connection: &Rc<Connection>, entry: Entry, is_away: bool) {
        let before = recovery.own_bytes();
        recovery.note(entry, self.shared.config.outbox_bytes);
        if recovery.own_bytes() != before {
            self.kept_bytes.set(self.kept_bytes.get() + recovery.own_bytes() - before);
        }
        if is_away && !recovery.is_whole() {
            // What it lacks is lost, so that coming back would be no recovery.
            self.given_up.borrow_mut().push(connection.clone());
        }
    }

    /// A ping goes out on a link.
    pub(super) fn note_ping(&self, link: &Link) {
        for connection in &*link.connections.borrow() {
            if let Some(recovery) = connection.recovery.borrow_mut().as_deref_mut() {
                recovery.ping();
            }
        }
    }

    /// The client on a link answered a ping.
    pub(super) fn note_pong(&self, link: &Link) {
        for connection in &*link.connections.borrow() {
            if let Some(recovery) = connection.recovery.borrow_mut().as_deref_mut() {
                let before = recovery.own_bytes();
                recovery.pong();
                self.kept_bytes.set(self.kept_bytes.get() + recovery.own_bytes() - before);
            }
        }
    }

    /// Forgets what was kept for a connection that is gone.
    pub(super) fn forget(&self, connection: &Connection) {
        if let Some(recovery) = connection.recovery.take() {
            self.kept_bytes.set(self.kept_bytes.get() - recovery.own_bytes());
        }
    }

    /// The link of a connection is lost. Keeps the connection for a while if its client may come back; else it departs.
    pub(super) fn part(self: &Rc<Self>, connection: &Rc<Connection>, may_return: bool) {
        connection.link.replace(None);
        if !may_return || connection.recovery.borrow().is_none() || self.is_stopping() {
            return self.depart(connection);
        }
        self.shared.hub.set_away(connection.id, true);
        self.shared.metrics.away.inc();
        let until = self.shared.clock.uptime_ms() + self.shared.config.recovery_window.as_millis() as u64;
        if let Some(recovery) = connection.recovery.borrow_mut().as_deref_mut() {
            recovery.away_until = until;
            recovery.parted = recovery.n_entries();
        }
        let mut away = self.away.borrow_mut();
        if away.is_empty() {
            self.note_deadline(until, Due::Away);
        }
        away.push_back((until, connection.id));
        if away.len() > MAX_AWAY {
            away.retain(|(until, id)| self.find_away(*id, Some(*until)).is_some());
        }
        let first = if away.len() > MAX_AWAY { away.pop_front() } else { None };
        drop(away);
        if let Some((until, id)) = first {
            self.give_up(id, Some(until));
        }
    }

    /// The connection of this id, if its client is away, and that until this time where one is given.
    fn find_away(&self, id: ConnId, until: Option<u64>) -> Option<Rc<Connection>> {
        let is_it = |connection: &Rc<Connection>| {
            let of_time = |recovery: &Recovery| until.is_none_or(|until| recovery.away_until == until);
            connection.link.borrow().is_none() && connection.recovery.borrow().as_deref().is_some_and(of_time)
        };
        self.find(id).filter(is_it)
    }

    /// Ends the connections whose clients stayed away for too long.
    pub(super) fn expire_away(self: &Rc<Self>, now: u64) {
        loop {
            let first = {
                let mut away = self.away.borrow_mut();
                match away.front() {
                    Some((until, _)) if *until <= now => away.pop_front(),
                    Some((until, _)) => return self.note_deadline(*until, Due::Away),
                    None => return,
                }
            };
            if let Some((until, id)) = first {
                self.give_up(id, Some(until));
            }
        }
    }

    /// Ends a connection whose client is away, and that until this time where one is given.
    pub(super) fn give_up(self: &Rc<Self>, id: ConnId, until: Option<u64>) {
        if let Some(connection) = self.find_away(id, until) {
            self.shared.metrics.away.dec();
            self.depart(&connection);
        }
    }

    /// Whether all that is kept takes more memory than it may.
    fn is_over_budget(&self) -> bool {
        let config = &self.shared.config;
        let shards = self.shared.hub.shards().len();
        self.kept_bytes.get() > config.recovery_bytes / shards || Outgoing::alive_bytes() > config.recovery_bytes
    }

    /// Keeps less, where what is kept takes more memory than it may: clients that are away go first, those that have been
    /// away the longest before others; then every log is halved.
    pub(super) fn keep_within_budget(self: &Rc<Self>) {
        for connection in self.given_up.take() {
            tracing::info!(connection = %connection.id, "a client that is away missed more than is kept for it");
            self.give_up(connection.id, None);
        }
        if !self.is_over_budget() {
            return;
        }
        while self.is_over_budget() {
            let first = self.away.borrow_mut().pop_front();
            let Some((until, id)) = first else { break };
            tracing::warn!(connection = %id, "a client that is away is given up, for recovery.memory_bytes is used up");
            self.give_up(id, Some(until));
        }
        if self.is_over_budget() {
            for (_, connection) in &*self.connections.borrow() {
                if let Some(recovery) = connection.recovery.borrow_mut().as_deref_mut() {
                    let before = recovery.own_bytes();
                    recovery.halve();
                    self.kept_bytes.set(self.kept_bytes.get() + recovery.own_bytes() - before);
                }
            }
        }
    }

    /// Whether somebody may go on with a connection. One that it may not go on with, though it was its own, ends: its
    /// client is here again, and begins anew.
    pub(super) fn reclaim(
        self: &Rc<Self>,
        key: SessionKey,
        progress: Progress,
        session: &Session,
        namespace: &str,
    ) -> Reclaimed {
        let shard = key.connection.shard();
        if shard >= self.shared.hub.shards().len() {
            return Reclaimed::Gone;
        }
        if shard != self.index {
            return Reclaimed::Elsewhere(shard);
        }
        let Some(connection) = self.find(key.connection) else {
            tracing::debug!(connection = %key.connection, "a client came back too late");
            return Reclaimed::Gone;
        };
        let at = {
            let recovery = connection.recovery.borrow();
            let Some(recovery) = recovery.as_deref() else { return Reclaimed::Gone };
            let is_own: bool = recovery.secret.to_ne_bytes().ct_eq(&key.secret.to_ne_bytes()).into();
            if !is_own || connection.namespace() != namespace || !self.is_same_user(&connection, session) {
                tracing::debug!(connection = %connection.id, "a client wanted to go on with what is not its own");
                return Reclaimed::Gone;
            }
            recovery.rest_of(progress)
        };
        // The client may be back before its old link is known to be lost.
        let old = connection.link.borrow().clone();
        if let Some(old) = old {
            old.connections.borrow_mut().retain(|other| !Rc::ptr_eq(other, &connection));
            self.part(&connection, true);
            if old.connections.borrow().is_empty() {
                self.close(&old, CloseCode::Normal, "the client goes on over another connection");
            }
        }
        match at {
            Some(at) => Reclaimed::Here(connection, at),
            None => {
                tracing::debug!(connection = %connection.id, ?progress, "a client came back to what is not kept any more");
                self.give_up(connection.id, None);
                Reclaimed::Gone
            }
        }
    }

    fn is_same_user(&self, connection: &Connection, session: &Session) -> bool {
        let user = &connection.identity.borrow().user;
        // Whoever is nobody is a new nobody each time.
        *user == session.identity.user || session.is_anonymous && self.is_nobody(connection.id, user)
    }

    /// Lets a connection go on over a link, whose person was checked. What its client has not had follows in
    /// [`Shard::send_rest`].
    pub(super) fn attach(&self, link: &Rc<Link>, connection: &Rc<Connection>, session: Session) {
        self.shared.metrics.away.dec();
        self.shared.metrics.recovered.inc();
        self.shared.hub.set_away(connection.id, false);
        if !session.is_anonymous {
            self.take_over(connection, session);
        }
        *connection.link.borrow_mut() = Some(link.clone());
        link.connections.borrow_mut().push(connection.clone());
    }

    /// Sends what a client has not had, which begins at this place in its connection's log.
    pub(super) fn send_rest(self: &Rc<Self>, link: &Rc<Link>, connection: &Connection, at: usize) {
        let rest: Vec<Bytes> = match connection.recovery.borrow().as_deref() {
            Some(recovery) => recovery.log.range(at..).map(|entry| entry.frames(&connection.protocol)).collect(),
            None => return,
        };
        for frames in rest {
            self.enqueue(link, frames);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Payload;

    fn event(name: &str) -> Arc<Outgoing> {
        Arc::new(Outgoing::new(name, Payload::empty()))
    }

    fn filled(events: &[Arc<Outgoing>]) -> Recovery {
        let mut recovery = Recovery::new(1);
        for event in events {
            recovery.note(Entry::Event(event.clone()), usize::MAX);
        }
        recovery
    }

    #[test]
    fn the_rest_begins_behind_what_the_client_had_last() {
        let events = [event("a"), event("b"), event("c")];
        let mut recovery = filled(&events);
        let after = |recovery: &Recovery, n: usize| recovery.rest_of(Progress::Event(Some(events[n].number())));
        assert_eq!(recovery.rest_of(Progress::Event(None)), Some(0));
        assert_eq!(recovery.rest_of(Progress::Frames(0)), Some(0));
        assert_eq!((after(&recovery, 0), recovery.rest_of(Progress::Frames(1))), (Some(1), Some(1)));
        assert_eq!((after(&recovery, 2), recovery.rest_of(Progress::Frames(3))), (Some(3), Some(3)));
        assert_eq!(recovery.rest_of(Progress::Frames(4)), None, "more than there was");
        assert_eq!(recovery.rest_of(Progress::Event(Some(u64::MAX))), None, "an event that it never had");
        recovery.ping();
        recovery.note(Entry::Event(event("d")), usize::MAX);
        recovery.pong();
        assert_eq!(recovery.log.len(), 1, "what the client is known to have is let go");
        assert_eq!((after(&recovery, 2), recovery.rest_of(Progress::Frames(3))), (Some(0), Some(0)));
        assert_eq!((after(&recovery, 1), recovery.rest_of(Progress::Frames(2))), (None, None));
        assert_eq!(recovery.rest_of(Progress::Event(None)), None);
    }

    #[test]
    fn an_event_that_was_made_later_may_have_been_sent_earlier() {
        let (first, second) = (event("a"), event("b"));
        let recovery = filled(&[second.clone(), first.clone()]);
        assert_eq!(recovery.rest_of(Progress::Event(Some(second.number()))), Some(1));
        assert_eq!(recovery.rest_of(Progress::Event(Some(first.number()))), Some(2));
    }

    #[test]
    fn the_log_is_bounded_and_says_when_it_is_no_longer_whole() {
        let mut recovery = Recovery::new(1);
        let max_bytes = 2 * Entry::Event(event("a")).bytes();
        recovery.note(Entry::Event(event("a")), max_bytes);
        recovery.parted = recovery.n_entries();
        recovery.note(Entry::Event(event("b")), max_bytes);
        recovery.note(Entry::Event(event("c")), max_bytes);
        assert_eq!((recovery.log.len(), recovery.n_gone), (2, 1));
        assert!(recovery.is_whole(), "the client may have had the one that was let go");
        recovery.note(Entry::Frames(Box::new(Bytes::from(vec![0; max_bytes]))), max_bytes);
        assert!(!recovery.is_whole());
        assert_eq!((recovery.log.len(), recovery.bytes), (0, 0), "one that is over the bound alone is not kept either");
        recovery.note(Entry::Event(event("d")), usize::MAX);
        recovery.halve();
        assert_eq!(recovery.log.len(), 0);
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = SessionKey { connection: ConnId::new(1, 2, 3), secret: 7 << 64 };
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in ["", "x", &"0".repeat(47), &"0".repeat(49), &"g".repeat(48), &format!("{}é", "0".repeat(46))] {
            assert_eq!(text.parse::<SessionKey>(), Err(()), "{text}");
        }
    }
}
