//! What is kept for one connection: what it was sent, and might have to be sent again.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use subtle::ConstantTimeEq as _;

use crate::model::ConnId;
use crate::protocol::{Outgoing, Protocol};

/// What an entry takes in a log, in bytes.
const ENTRY_BYTES: usize = size_of::<Entry>();

/// By what a client that comes back proves that a connection was its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::conn) struct SessionKey {
    pub(in crate::conn) connection: ConnId,
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
pub(in crate::conn) enum Progress {
    /// So many frames of its session.
    Frames(u64),
    /// The event of this number was the last; none for no event at all.
    Event(Option<u64>),
}

/// What was sent, or would have been.
#[derive(Debug)]
pub(in crate::conn) enum Entry {
    /// An event, and how long its frames are.
    Event(Arc<Outgoing>, u32),
    /// For this connection alone.
    Frames(Box<Bytes>),
}

impl Entry {
    /// An event whose frames are so long on this connection's protocol.
    pub(in crate::conn) fn event(outgoing: Arc<Outgoing>, length: usize) -> Self {
        Self::Event(outgoing, u32::try_from(length).unwrap_or(u32::MAX))
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Event(_, length) => *length as usize,
                Self::Frames(frames) => frames.len(),
            }
    }

    /// What it takes that no other connection shares, beside its place in the log.
    fn own_bytes(&self) -> usize {
        match self {
            Self::Event(..) => 0,
            Self::Frames(frames) => size_of::<Bytes>() + frames.len(),
        }
    }

    pub(in crate::conn) fn frames(&self, protocol: &Protocol) -> Bytes {
        match self {
            Self::Event(outgoing, _) => outgoing.frames(protocol),
            Self::Frames(frames) => (**frames).clone(),
        }
    }
}

/// What is kept for one connection.
#[derive(Debug)]
pub(in crate::conn) struct ReplayBuffer {
    secret: u128,
    log: VecDeque<Entry>,
    /// What it would take to send all of it.
    bytes: usize,
    /// What of it no other connection shares.
    own: usize,
    /// Entries that were let go from the front of the log.
    n_gone: u64,
    /// The last event among them: the client may well have got just so far.
    last_gone: Option<u64>,
    /// Entries that there had been when the ping went out that is not answered yet.
    pinged: Option<u64>,
    /// Entries that there had been when its client was last lost: of those before, it may have more than is known.
    parted: u64,
    /// Until when its client, where it is away, is waited for, in milliseconds of uptime.
    pub(in crate::conn) away_until: u64,
}

impl ReplayBuffer {
    pub(in crate::conn) fn key(&self, connection: ConnId) -> SessionKey {
        SessionKey { connection, secret: self.secret }
    }

    pub(in crate::conn) fn new(secret: u128) -> Self {
        Self {
            secret,
            log: VecDeque::new(),
            bytes: 0,
            own: 0,
            n_gone: 0,
            last_gone: None,
            pinged: None,
            parted: 0,
            away_until: 0,
        }
    }

    /// Whether this is the key to it.
    pub(in crate::conn) fn opens_with(&self, key: &SessionKey) -> bool {
        self.secret.to_ne_bytes().ct_eq(&key.secret.to_ne_bytes()).into()
    }

    /// Notes what was sent, or would have been. The oldest is let go for it.
    pub(in crate::conn) fn append(&mut self, entry: Entry, max_bytes: usize) {
        self.bytes += entry.bytes();
        self.own += entry.own_bytes();
        self.log.push_back(entry);
        while self.bytes > max_bytes && self.pop() {}
    }

    /// Entries that there have been.
    fn n_entries(&self) -> u64 {
        self.n_gone + self.log.len() as u64
    }

    /// Whether a client that is away can have all that it missed.
    pub(in crate::conn) fn is_whole(&self) -> bool {
        self.n_gone <= self.parted
    }

    /// The client is lost, and waited for until then.
    pub(in crate::conn) fn detach(&mut self, until: u64) {
        self.away_until = until;
        self.parted = self.n_entries();
        // What it answered would have been on the transport that is lost.
        self.pinged = None;
    }

    fn pop(&mut self) -> bool {
        let Some(entry) = self.log.pop_front() else { return false };
        self.bytes -= entry.bytes();
        self.own -= entry.own_bytes();
        self.n_gone += 1;
        if let Entry::Event(outgoing, _) = entry {
            self.last_gone = Some(outgoing.number());
        }
        true
    }

    /// A ping goes out. Where one is unanswered, its answer is the next to come.
    pub(in crate::conn) fn ping(&mut self) {
        let n_entries = self.n_entries();
        self.pinged.get_or_insert(n_entries);
    }

    /// A ping is answered: the client has everything from before it.
    pub(in crate::conn) fn pong(&mut self) {
        if let Some(pinged) = self.pinged.take() {
            while self.n_gone < pinged && self.pop() {}
            self.log.shrink_to(self.log.len() * 2);
        }
    }

    /// Lets the older half of the log go.
    pub(in crate::conn) fn halve(&mut self) {
        for _ in 0..self.log.len().div_ceil(2) {
            self.pop();
        }
        self.log.shrink_to_fit();
    }

    /// Where in the log the rest begins that a client has not had. None where that is not known, or not kept.
    pub(in crate::conn) fn resume_point(&self, progress: Progress) -> Option<usize> {
        match progress {
            Progress::Frames(n) => {
                let at = n.checked_sub(self.n_gone)?;
                (at <= self.log.len() as u64).then_some(at as usize)
            }
            Progress::Event(None) => (self.n_gone == 0).then_some(0),
            Progress::Event(last) if last == self.last_gone => Some(0),
            Progress::Event(Some(number)) => {
                let is_it = |entry: &Entry| matches!(entry, Entry::Event(outgoing, _) if outgoing.number() == number);
                self.log.iter().rposition(is_it).map(|at| at + 1)
            }
        }
    }

    /// The frames of the rest that begins there.
    pub(in crate::conn) fn rest(&mut self, at: usize, protocol: &Protocol) -> Vec<Bytes> {
        let rest = self.log.range(at..).map(|entry| entry.frames(protocol)).collect();
        if matches!(protocol, Protocol::SocketIo { .. }) {
            // A client that comes back again tells how far it got by events alone: a question is not asked twice.
            for entry in self.log.range_mut(at..) {
                if let Entry::Frames(frames) = entry {
                    self.bytes -= frames.len();
                    self.own -= frames.len();
                    frames.clear();
                }
            }
        }
        rest
    }

    /// What it takes in memory: by itself, and together with the events that it shares with others.
    pub(in crate::conn) fn memory(&self) -> (usize, usize) {
        let own = self.log.capacity() * ENTRY_BYTES + self.own;
        (own, own + self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Payload;

    fn event(name: &str) -> Arc<Outgoing> {
        Arc::new(Outgoing::new(name, Payload::empty()))
    }

    fn filled(events: &[Arc<Outgoing>]) -> ReplayBuffer {
        let mut recovery = ReplayBuffer::new(1);
        for event in events {
            recovery.append(Entry::event(event.clone(), 9), usize::MAX);
        }
        recovery
    }

    #[test]
    fn the_rest_begins_behind_what_the_client_had_last() {
        let events = [event("a"), event("b"), event("c")];
        let mut recovery = filled(&events);
        let after =
            |recovery: &ReplayBuffer, n: usize| recovery.resume_point(Progress::Event(Some(events[n].number())));
        assert_eq!(recovery.resume_point(Progress::Event(None)), Some(0));
        assert_eq!(recovery.resume_point(Progress::Frames(0)), Some(0));
        assert_eq!((after(&recovery, 0), recovery.resume_point(Progress::Frames(1))), (Some(1), Some(1)));
        assert_eq!((after(&recovery, 2), recovery.resume_point(Progress::Frames(3))), (Some(3), Some(3)));
        assert_eq!(recovery.resume_point(Progress::Frames(4)), None, "more than there was");
        assert_eq!(recovery.resume_point(Progress::Event(Some(u64::MAX))), None, "an event that it never had");
        recovery.ping();
        recovery.append(Entry::event(event("d"), 9), usize::MAX);
        recovery.pong();
        assert_eq!(recovery.log.len(), 1, "what the client is known to have is let go");
        assert_eq!((after(&recovery, 2), recovery.resume_point(Progress::Frames(3))), (Some(0), Some(0)));
        assert_eq!((after(&recovery, 1), recovery.resume_point(Progress::Frames(2))), (None, None));
        assert_eq!(recovery.resume_point(Progress::Event(None)), None);
    }

    #[test]
    fn an_event_that_was_made_later_may_have_been_sent_earlier() {
        let (first, second) = (event("a"), event("b"));
        let recovery = filled(&[second.clone(), first.clone()]);
        assert_eq!(recovery.resume_point(Progress::Event(Some(second.number()))), Some(1));
        assert_eq!(recovery.resume_point(Progress::Event(Some(first.number()))), Some(2));
    }

    #[test]
    fn the_log_is_bounded_and_says_when_it_is_no_longer_whole() {
        let mut recovery = ReplayBuffer::new(1);
        let max_bytes = 2 * Entry::event(event("a"), 9).bytes();
        recovery.append(Entry::event(event("a"), 9), max_bytes);
        recovery.detach(0);
        recovery.append(Entry::event(event("b"), 9), max_bytes);
        recovery.append(Entry::event(event("c"), 9), max_bytes);
        assert_eq!((recovery.log.len(), recovery.n_gone), (2, 1));
        assert!(recovery.is_whole(), "the client may have had the one that was let go");
        recovery.append(Entry::Frames(Box::new(Bytes::from(vec![0; max_bytes]))), max_bytes);
        assert!(!recovery.is_whole());
        assert_eq!(
            (recovery.log.len(), recovery.bytes, recovery.own),
            (0, 0, 0),
            "one over the bound alone is not kept"
        );
        recovery.append(Entry::event(event("d"), 9), usize::MAX);
        recovery.halve();
        assert_eq!(recovery.log.len(), 0);
    }

    #[test]
    fn the_answer_to_a_ping_says_nothing_of_what_was_sent_after_it() {
        let mut recovery = filled(&[event("a")]);
        recovery.ping();
        recovery.append(Entry::event(event("b"), 9), usize::MAX);
        recovery.ping();
        recovery.pong();
        assert_eq!((recovery.n_gone, recovery.log.len()), (1, 1), "it is the first ping that is answered");
        recovery.pong();
        assert_eq!((recovery.n_gone, recovery.log.len()), (1, 1), "nobody asked");
    }

    #[test]
    fn a_socket_io_client_is_asked_once_however_often_it_comes_back() {
        let socket_io = Protocol::SocketIo { namespace: None, offsets: true };
        let mut recovery = filled(&[event("a")]);
        recovery.append(Entry::Frames(Box::new(Bytes::from_static(b"question"))), usize::MAX);
        assert_eq!(recovery.rest(1, &socket_io), [&b"question"[..]]);
        assert_eq!(recovery.rest(1, &socket_io), [&b""[..]]);
        assert!(recovery.own < b"question".len() + size_of::<Bytes>());
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
